import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

import type { Lab } from "./processes.ts";
import { RequestLog, type ServedRequest } from "./requests.ts";

const CHUNK_BYTES = 64 * 1024;
const LAST_MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT";

/** What the origin does with one request instead of answering it well. */
export interface Misdeed {
  /** Answer with this status and no content. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Break the connection after so many bytes of the body. */
  readonly cutAfter?: number;
  /** Answer as if the file were only so long, under the same name. */
  readonly totalBytes?: number;
}

/** Decides about the `n`-th GET (from 1) of a path that would be answered with bytes from `start`, before `end`. */
export type Behaviour = (request: {
  readonly n: number;
  readonly start: number;
  readonly end: number;
  readonly headers: IncomingMessage["headers"];
}) => Misdeed | undefined;

interface OriginFile {
  readonly content: Buffer;
  readonly etag: string;
  /** False: a plain old program that knows neither Range nor the length of what it sends. */
  readonly ranges: boolean;
  readonly behaviour: Behaviour;
}

/** A web server whose every byte is counted, which can be slow, and which can misbehave. */
export class Origin {
  readonly log: RequestLog = new RequestLog();
  readonly url: string;
  /** All connections together; bytes per second. */
  bytesPerSecond: number = Number.POSITIVE_INFINITY;
  readonly #files = new Map<string, OriginFile>();
  readonly #gets = new Map<string, number>();
  #nextSendMs = 0;

  private constructor(server: Server) {
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  static async start(lab: Lab): Promise<Origin> {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    lab.onClose(() => {
      server.close();
      server.closeAllConnections();
    });
    const origin = new Origin(server);
    server.on("request", (request, response) => void origin.#answer(request, response));
    return origin;
  }

  /** Puts a file under `path`, in place of what was there. Gives its URL. */
  put(
    path: string,
    content: Buffer,
    options: { readonly ranges?: boolean; readonly behaviour?: Behaviour } = {},
  ): string {
    const etag = `"${createHash("sha256").update(content).digest("hex").slice(0, 16)}"`;
    this.#files.set(path, {
      content,
      etag,
      ranges: options.ranges ?? true,
      behaviour: options.behaviour ?? (() => undefined),
    });
    return `${this.url}${path}`;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", this.url);
    const entry = this.log.open({
      method: request.method ?? "GET",
      path: url.pathname,
      query: url.search,
      rangeHeader: request.headers.range,
      from: request.socket.remoteAddress ?? "",
      userAgent: request.headers["user-agent"] ?? "",
      authorization: request.headers.authorization,
    });
    response.on("error", () => undefined);
    const file = this.#files.get(url.pathname);
    if (file === undefined) return head(entry, response, 404, {});

    const { headers } = request;
    let total = file.content.length;
    const facts = { ETag: file.etag, "Last-Modified": LAST_MODIFIED };
    if (headers["if-match"] !== undefined && headers["if-match"] !== file.etag) {
      return head(entry, response, 412, facts);
    }

    const wantsRange = file.ranges && (headers["if-range"] ?? file.etag) === file.etag;
    let range = wantsRange ? rangeOf(headers.range, total) : null;
    let { start, end } = range ?? { start: 0, end: total };
    let misdeed: Misdeed | undefined;
    if (entry.method === "GET") {
      const n = (this.#gets.get(url.pathname) ?? 0) + 1;
      this.#gets.set(url.pathname, n);
      misdeed = file.behaviour({ n, start, end, headers });
    }
    if (misdeed?.totalBytes !== undefined) {
      total = misdeed.totalBytes;
      range = wantsRange ? rangeOf(headers.range, total) : null;
      ({ start, end } = range ?? { start: 0, end: total });
    }
    if (misdeed?.status !== undefined) return head(entry, response, misdeed.status, misdeed.headers ?? {});
    if (headers["if-none-match"] === file.etag) return head(entry, response, 304, facts);
    if (start >= end && range !== null) {
      return head(entry, response, 416, { ...facts, "Content-Range": `bytes */${total}` });
    }

    entry.status = range === null ? 200 : 206;
    entry.start = start;
    response.writeHead(entry.status, {
      ...facts,
      ...(file.ranges ? { "Accept-Ranges": "bytes", "Content-Length": end - start } : {}),
      ...(range === null ? {} : { "Content-Range": `bytes ${start}-${end - 1}/${total}` }),
    });
    // A head is sent even where the first byte of the body never is.
    response.flushHeaders();
    if (entry.method === "HEAD") {
      response.end();
      return;
    }
    await this.#send(entry, response, file.content.subarray(start, end), misdeed?.cutAfter);
  }

  async #send(entry: ServedRequest, response: ServerResponse, body: Buffer, cutAfter = body.length): Promise<void> {
    const closed = once(response, "close");
    const limit = Math.min(cutAfter, body.length);
    while (entry.bytes < limit && !response.destroyed) {
      const chunk = body.subarray(entry.bytes, Math.min(limit, entry.bytes + CHUNK_BYTES));
      await this.#pace(chunk.length);
      if (response.destroyed) return;
      entry.bytes += chunk.length;
      if (!response.write(chunk)) await Promise.race([once(response, "drain"), closed]);
    }
    if (cutAfter < body.length) {
      // What was written so far still arrives; then the connection is reset.
      await delay(50);
      response.destroy();
    } else {
      response.end();
    }
  }

  async #pace(bytes: number): Promise<void> {
    const nowMs = performance.now();
    const sendMs = Math.max(nowMs, this.#nextSendMs);
    this.#nextSendMs = sendMs + (bytes / this.bytesPerSecond) * 1000;
    if (sendMs > nowMs) await delay(sendMs - nowMs);
  }
}

function head(
  entry: ServedRequest,
  response: ServerResponse,
  status: number,
  headers: Readonly<Record<string, string>>,
): void {
  entry.status = status;
  response.writeHead(status, status === 304 ? headers : { "Content-Length": "0", ...headers });
  response.end();
}

/** A single range as [start, end), or null for none or several. */
function rangeOf(header: string | undefined, total: number): { start: number; end: number } | null {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
  if (match === null) return null;
  const [, first = "", last = ""] = match;
  if (first === "") return last === "" ? null : { start: Math.max(0, total - Number(last)), end: total };
  return { start: Number(first), end: last === "" ? total : Math.min(total, Number(last) + 1) };
}
