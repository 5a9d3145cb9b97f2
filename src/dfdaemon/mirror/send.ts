import type { ServerResponse } from "node:http";
import type { RequestRecord } from "./access-log.ts";
import { isFieldValue, type ErrorAnswer } from "./errors.ts";

/**
 * Writes a body to a client no faster than he takes it: at most {@link WRITE_BYTES_MAX} wait in this process, so that a
 * client who hangs up early (containerd's parallel fetch does so for every chunk) costs little.
 */
export class BodyWriter {
  readonly #response: ServerResponse;
  #sentBytes = 0;

  constructor(response: ServerResponse) {
    this.#response = response;
  }

  /** Bytes handed to the socket. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  /**
   * Resolves once the kernel has the bytes. They must not change until then.
   *
   * @returns false when the client is gone
   */
  async write(bytes: Uint8Array): Promise<boolean> {
    for (let at = 0; at < bytes.length; at += WRITE_BYTES_MAX) {
      if (isGone(this.#response)) return false;
      const slice = bytes.subarray(at, at + WRITE_BYTES_MAX);
      this.#sentBytes += slice.length;
      await written(this.#response, slice);
    }
    return !isGone(this.#response);
  }

  /** Ends the body; resolves when it has left, or the client is gone. @returns false when he is gone */
  async end(): Promise<boolean> {
    const response = this.#response;
    if (isGone(response)) return false;
    const { promise, resolve } = Promise.withResolvers<void>();
    response.once("finish", resolve);
    response.once("close", resolve);
    response.end();
    await promise;
    return response.writableFinished;
  }
}

/** Answers with an error; nothing may have been sent before. A HEAD gets the headers only. */
export async function sendError(response: ServerResponse, answer: ErrorAnswer, record: RequestRecord): Promise<void> {
  // What a content of another kind was going to say of itself.
  for (const name of CONTENT_HEADERS) response.removeHeader(name);
  await sendBytes(response, answer.status, answer.headers, Buffer.from(answer.body), record);
}

/** Answers with a body that is at hand. */
export async function sendBytes(
  response: ServerResponse,
  status: number,
  headers: Readonly<Record<string, string>>,
  body: Uint8Array,
  record: RequestRecord,
): Promise<void> {
  const isHead = response.req.method === "HEAD";
  response.statusCode = record.status = status;
  for (const [name, value] of Object.entries(headers)) if (isFieldValue(value)) response.setHeader(name, value);
  if (status !== 304) response.setHeader("content-length", body.length);
  const writer = new BodyWriter(response);
  record.firstByte();
  response.setHeader("server-timing", record.serverTiming);
  if (!isHead && status !== 304 && body.length > 0) await writer.write(body);
  record.aborted = !(await writer.end());
  record.sentBytes = writer.sentBytes;
}

/** True when nothing that is written will arrive. */
function isGone(response: ServerResponse): boolean {
  return response.destroyed || response.closed || response.socket === null || response.socket.destroyed;
}

/** Resolves when the bytes have left this process, or never will. */
function written(response: ServerResponse, bytes: Uint8Array): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = (): void => {
    response.off("close", done);
    resolve();
  };
  response.on("close", done);
  response.write(bytes, done);
  return promise;
}

/** About what a client reads at a time; containerd hangs up behind each chunk of a layer it fetches in parallel. */
const WRITE_BYTES_MAX = 256 * 1024;

const CONTENT_HEADERS = ["content-range", "etag", "accept-ranges", "docker-content-digest", "x-dragonfly-sources"] as const;
