/** One content over the local socket in frames (src/protocol/local-frames.ts): parts as they come, and how it ended. */
import { stat } from "node:fs/promises";
import type { Socket } from "node:net";
import { z } from "zod";
import { AppError, toAppError } from "../../base/errors.ts";
import { type Content, type ContentPart, type HeldRange, numbered } from "../../peer/content.ts";
import {
  encodeLocalBytesHeader,
  encodeLocalFrame,
  encodeLocalHeld,
  LOCAL_CONTENT_PROTOCOL,
  LocalFrameReader,
  type LocalJsonType,
} from "../../protocol/local-frames.ts";

export interface ContentStreamAnswer {
  readonly content: Content;
  readonly startByte: number;
  readonly endByte: number | undefined;
  /** Parts may come in any order; `in-place`: and what lies in the content's file need not come at all, if the caller can open it. */
  readonly order: "ordered" | "unordered" | "in-place";
}

export interface ContentStreamDeps {
  /** @param request the JSON of the request frame @throws AppError: the caller's answer */
  readonly open: (request: string, signal: AbortSignal) => Promise<ContentStreamAnswer>;
  readonly log: { warn(fields: object, message: string): void };
}

/** Between two status frames; they ride on content. */
const STATUS_MS = 500;
/** What the caller has to say must be here by then. */
const REQUEST_MS = 10_000;
/** Frames that nobody has asked for yet. */
const UNHEARD_COUNT_MAX = 2;

/** Takes the upgraded connection over; it is closed when the answer has ended or the caller has gone. Never rejects. */
export async function serveContentStream(socket: Socket, head: Uint8Array, deps: ContentStreamDeps): Promise<void> {
  const gone = new AbortController();
  socket.on("error", () => gone.abort());
  socket.on("close", () => gone.abort());
  // Who is gone ends his side only; that ours is of no more use, a socket with nothing to write would never learn.
  socket.on("end", () => socket.destroy());
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${LOCAL_CONTENT_PROTOCOL}\r\n\r\n`);
  let content: Content | undefined;
  try {
    const caller = new Caller(socket, head);
    const answer = await deps.open(await caller.says("request"), gone.signal);
    content = answer.content;
    const file = answer.order === "in-place" ? await identityOf(content.filePath) : undefined;
    say(socket, "info", infoOf(content, file));
    const isOpen = file !== undefined && isOpenSchema.parse(JSON.parse(await caller.says("place"))).isOpen;
    await copy(socket, { ...answer, order: answer.order === "in-place" && !isOpen ? "unordered" : answer.order }, gone.signal);
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

const isOpenSchema = z.object({ isOpen: z.boolean() });

function infoOf({ info }: Content, file: object | undefined): object {
  const { taskId, lengthBytes, contentType, digest, headers } = info;
  return { taskId, lengthBytes, contentType, digest, headers, file };
}

/** By device and inode the caller knows the file: under the same path its container may have another. Undefined: there is none. */
async function identityOf(path: string | undefined): Promise<object | undefined> {
  const facts = path === undefined ? undefined : await stat(path, { bigint: true }).catch(() => undefined);
  return facts && { path, device: String(facts.dev), inode: String(facts.ino) };
}

function partsOf({ content, startByte, endByte, order }: ContentStreamAnswer, gone: AbortSignal): AsyncIterable<ContentPart | HeldRange> {
  const range = { startByte, endByte };
  return (
    (order === "in-place" ? content.readInPlace?.(range, gone) : undefined) ??
    (order === "ordered" ? undefined : content.readUnordered?.(range, gone)) ??
    numbered(content.read(range, gone), startByte)
  );
}

async function copy(socket: Socket, answer: ContentStreamAnswer, gone: AbortSignal): Promise<void> {
  const { content } = answer;
  let toldMs = performance.now();
  for await (const part of partsOf(answer, gone)) {
    if (gone.aborted) return;
    socket.cork();
    if (performance.now() - toldMs >= STATUS_MS) {
      toldMs = performance.now();
      say(socket, "status", { sources: content.sources() });
    }
    const isTaken = send(socket, part);
    socket.uncork();
    if (!isTaken) await drained(socket);
  }
}

/** @returns false when the caller is slower than we are */
function send(socket: Socket, part: ContentPart | HeldRange): boolean {
  if (!("bytes" in part)) return socket.write(encodeLocalHeld(part.startByte, part.endByte));
  socket.write(encodeLocalBytesHeader(part.startByte, part.bytes.length));
  return socket.write(part.bytes);
}

function say(socket: Socket, type: LocalJsonType, value: object): void {
  socket.write(encodeLocalFrame(type, Buffer.from(JSON.stringify(value))));
}

/** What the caller says: a request, and where a file was named, whether it is open there. */
class Caller {
  readonly #socket: Socket;
  readonly #heard: { readonly type: LocalJsonType; readonly json: string }[] = [];
  #failure: AppError | undefined;
  #wake: (() => void) | undefined;

  constructor(socket: Socket, head: Uint8Array) {
    this.#socket = socket;
    const reader = new LocalFrameReader({
      json: (type, json) => void this.#heard.push({ type, json: Buffer.from(json).toString() }),
      bytes: sendsContent,
      held: sendsContent,
    });
    const take = (chunk: Uint8Array): void => {
      try {
        reader.push(chunk);
        if (this.#heard.length > UNHEARD_COUNT_MAX) throw new AppError("PROTOCOL_VIOLATION", "a caller of a local stream talks without being asked");
      } catch (thrown) {
        this.#failure ??= toAppError(thrown);
        socket.destroy();
      }
      this.#wake?.();
    };
    socket.on("data", take);
    socket.once("close", () => {
      this.#failure ??= new AppError("ABORTED", "the client hung up");
      this.#wake?.();
    });
    if (head.length > 0) take(head);
  }

  /** @returns the next frame's JSON @throws AppError PROTOCOL_VIOLATION, MESSAGE_TOO_LARGE, TIMEOUT, ABORTED */
  async says(expected: "request" | "place"): Promise<string> {
    const timer = setTimeout(() => {
      this.#failure ??= new AppError("TIMEOUT", `the caller's ${expected} did not come`);
      this.#wake?.();
    }, REQUEST_MS);
    try {
      while (this.#heard.length === 0 && this.#failure === undefined) await new Promise<void>((resolve) => (this.#wake = resolve));
    } finally {
      clearTimeout(timer);
    }
    const next = this.#heard.shift();
    if (next?.type === expected) return next.json;
    if (next === undefined && this.#failure !== undefined) throw this.#failure;
    this.#socket.destroy();
    throw new AppError("PROTOCOL_VIOLATION", `a local stream wants the caller's ${expected}, not ${next?.type ?? "nothing"}`);
  }
}

function sendsContent(): never {
  throw new AppError("PROTOCOL_VIOLATION", "a caller sends no content");
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
