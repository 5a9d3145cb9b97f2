/** One content over the local socket in frames (src/protocol/local-frames.ts): parts as they come, and how it ended. */
import type { Socket } from "node:net";
import { AppError, toAppError } from "../../base/errors.ts";
import { type Content, type ContentPart, numbered } from "../../peer/content.ts";
import {
  encodeLocalBytesHeader,
  encodeLocalFrame,
  LOCAL_CONTENT_PROTOCOL,
  LocalFrameReader,
  type LocalFrameType,
} from "../../protocol/local-frames.ts";

export interface ContentStreamAnswer {
  readonly content: Content;
  readonly startByte: number;
  readonly endByte: number | undefined;
  /** Parts may come in any order. */
  readonly unordered: boolean;
}

export interface ContentStreamDeps {
  /** @param request the JSON of the request frame @throws AppError: the caller's answer */
  readonly open: (request: string, signal: AbortSignal) => Promise<ContentStreamAnswer>;
  readonly log: { warn(fields: object, message: string): void };
}

/** Between two status frames; they ride on content. */
const STATUS_MS = 500;
/** The request must be here by then. */
const REQUEST_MS = 10_000;

/** Takes the upgraded connection over; it is closed when the answer has ended or the caller has gone. Never rejects. */
export async function serveContentStream(socket: Socket, head: Uint8Array, deps: ContentStreamDeps): Promise<void> {
  const gone = new AbortController();
  socket.on("error", () => gone.abort());
  socket.on("close", () => gone.abort());
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${LOCAL_CONTENT_PROTOCOL}\r\n\r\n`);
  let content: Content | undefined;
  try {
    const answer = await deps.open(await readRequest(socket, head), gone.signal);
    content = answer.content;
    say(socket, "info", infoOf(content));
    await copy(socket, answer, gone.signal);
    say(socket, "end", { sources: content.sources(), explanation: content.explanation() });
  } catch (thrown) {
    if (gone.signal.aborted) return;
    const { code, message, details } = toAppError(thrown);
    // Before any content a failure is the caller's answer, and the opener has said what there is to say.
    if (content !== undefined) deps.log.warn({ code, error: message }, "a stream broke");
    say(socket, "end", { sources: content?.sources(), explanation: content?.explanation(), error: { code, message, details } });
  } finally {
    content?.close();
    socket.end();
  }
}

function infoOf({ info }: Content): object {
  const { taskId, lengthBytes, contentType, digest, headers } = info;
  return { taskId, lengthBytes, contentType, digest, headers };
}

async function copy(socket: Socket, answer: ContentStreamAnswer, gone: AbortSignal): Promise<void> {
  const { content, startByte, endByte, unordered } = answer;
  const range = { startByte, endByte };
  const parts: AsyncIterable<ContentPart> = (unordered ? content.readUnordered?.(range, gone) : undefined) ?? numbered(content.read(range, gone), startByte);
  let toldMs = performance.now();
  for await (const part of parts) {
    if (gone.aborted) return;
    socket.cork();
    if (performance.now() - toldMs >= STATUS_MS) {
      toldMs = performance.now();
      say(socket, "status", { sources: content.sources() });
    }
    socket.write(encodeLocalBytesHeader(part.startByte, part.bytes.length));
    const isTaken = socket.write(part.bytes);
    socket.uncork();
    if (!isTaken) await drained(socket);
  }
}

function say(socket: Socket, type: Exclude<LocalFrameType, "bytes">, value: object): void {
  socket.write(encodeLocalFrame(type, Buffer.from(JSON.stringify(value))));
}

/** @throws AppError PROTOCOL_VIOLATION, MESSAGE_TOO_LARGE, TIMEOUT, ABORTED */
function readRequest(socket: Socket, head: Uint8Array): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new LocalFrameReader({
      json: (type, json) => {
        if (type !== "request") throw new AppError("PROTOCOL_VIOLATION", `a local stream begins with a request, not with ${type}`);
        resolve(Buffer.from(json).toString());
      },
      bytes: () => {
        throw new AppError("PROTOCOL_VIOLATION", "a caller sends no content");
      },
    });
    const timer = setTimeout(() => reject(new AppError("TIMEOUT", "the request did not come")), REQUEST_MS);
    const take = (chunk: Uint8Array): void => {
      try {
        reader.push(chunk);
      } catch (thrown) {
        reject(toAppError(thrown));
        socket.destroy();
      }
    };
    socket.on("data", take);
    socket.once("close", () => {
      clearTimeout(timer);
      reject(new AppError("ABORTED", "the client hung up"));
    });
    if (head.length > 0) take(head);
  });
}

function drained(socket: Socket): Promise<void> {
  if (socket.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      socket.off("drain", done).off("close", done);
      resolve();
    };
    socket.on("drain", done).on("close", done);
  });
}
