/**
 * One content from dfdaemon in frames: read into one buffer, handed on part by part, nothing copied on the way; or from
 * the daemon's file, where we may open it.
 */
import { connect, type NetConnectOpts, type Socket } from "node:net";
import { AppError, toAppError } from "../base/errors.ts";
import type { LocalContentRequest } from "../dfdaemon/local/local-api.ts";
import type { ContentInfo, ContentPart, HeldRange } from "../peer/content.ts";
import { encodeLocalFrame, LOCAL_CONTENT_PROTOCOL, LocalFrameReader, type LocalJsonType } from "../protocol/local-frames.ts";
import { readFailure, readFileName, readInfo, readSources, type Sources, STRANGE } from "./daemon-messages.ts";
import { HeldFile } from "./held-file.ts";

/** What one read takes at most; a unix socket holds about as much. */
const BUFFER_BYTES = 256 * 1024;
const HTTP_HEAD_BYTES_MAX = 16 * 1024;
/** Who throws content away says so in the same moment. */
const REASON_MS = 2_000;
/** A daemon answers the upgrade before it looks at anything. */
const GREETING_MS = 10_000;

export class DaemonStream {
  readonly #socket: Socket;
  readonly #socketPath: string;
  readonly #reader: LocalFrameReader;
  /** The answer to the upgrade, until it is whole. */
  #head: Buffer | undefined = Buffer.alloc(0);
  /** Views of the one buffer, and what lies in the file: nothing is read while any is left. */
  readonly #parts: (ContentPart | HeldRange)[] = [];
  #askedMs = performance.now();
  #takenMs: number | undefined;
  #info: ContentInfo | undefined;
  #file: HeldFile | undefined;
  #sources: Sources = { seedBytes: 0, peerBytes: 0, originBytes: 0, cacheBytes: 0 };
  #explanation: unknown;
  #end: { readonly error: AppError | undefined } | undefined;
  #wake: (() => void) | undefined;

  private constructor(socketPath: string, request: LocalContentRequest) {
    this.#socketPath = socketPath;
    this.#reader = new LocalFrameReader({
      json: (type, json) => this.#json(type, JSON.parse(Buffer.from(json).toString())),
      bytes: (startByte, bytes) => void this.#parts.push({ startByte, bytes }),
      held: (startByte, endByte) => void this.#parts.push({ startByte, endByte }),
    });
    const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
    const onread = { buffer, callback: (count: number) => this.#read(buffer.subarray(0, count)) };
    this.#socket = connect({ path: socketPath, onread } as NetConnectOpts);
    this.#socket.once("connect", () => {
      this.#askedMs = performance.now();
      this.#socket.write(`GET /v1/content HTTP/1.1\r\nHost: dfdaemon\r\nConnection: Upgrade\r\nUpgrade: ${LOCAL_CONTENT_PROTOCOL}\r\n\r\n`);
      this.#socket.write(encodeLocalFrame("request", Buffer.from(JSON.stringify(request))));
    });
    this.#socket.on("error", (error) => this.#ended(this.#unreachable(error)));
    this.#socket.on("close", () => this.#ended(this.#unreachable(undefined)));
  }

  /**
   * Asks for a content, and waits until the daemon has said what it is.
   *
   * @throws AppError DAEMON_UNREACHABLE, ABORTED, and what the daemon answers
   */
  static async open(socketPath: string, request: LocalContentRequest, signal: AbortSignal): Promise<DaemonStream> {
    const stream = new DaemonStream(socketPath, request);
    const abort = (): void => stream.#ended(new AppError("ABORTED", "broken off"));
    signal.addEventListener("abort", abort, { once: true });
    stream.#socket.once("close", () => signal.removeEventListener("abort", abort));
    if (signal.aborted) abort();
    // Accepted by the kernel, and then no word: a daemon that is stopped, or hangs.
    const silence = setTimeout(() => {
      if (stream.#head !== undefined) stream.#ended(stream.#unreachable(new Error(`it does not answer for ${GREETING_MS / 1000} s`)));
    }, GREETING_MS);
    while (stream.#info === undefined && stream.#end === undefined) await stream.#changed();
    clearTimeout(silence);
    if (stream.#info !== undefined) return stream;
    stream.close();
    throw stream.#end?.error ?? new AppError("PROTOCOL_VIOLATION", STRANGE);
  }

  get info(): ContentInfo {
    if (this.#info === undefined) throw new Error("the stream is not open");
    return this.#info;
  }

  /** From the request until the last part was taken, ms; undefined: not yet. */
  get tookMs(): number | undefined {
    return this.#takenMs === undefined ? undefined : this.#takenMs - this.#askedMs;
  }

  /** As the daemon last said. */
  get sources(): Sources {
    return this.#sources;
  }

  /** Once it has ended, where the daemon gives one; in whatever form. */
  get explanation(): unknown {
    return this.#explanation;
  }

  /**
   * The parts as they come; each is good until the next is asked for. Once.
   *
   * @throws AppError while iterating: DAEMON_UNREACHABLE when the connection broke, ABORTED, what the daemon says
   */
  async *parts(): AsyncGenerator<ContentPart> {
    try {
      for (;;) {
        for (let part = this.#parts.shift(); part !== undefined; part = this.#parts.shift()) {
          if ("bytes" in part) yield part;
          else yield* this.#held(part);
        }
        if (this.#end?.error !== undefined) throw this.#end.error;
        if (this.#end !== undefined) {
          this.#takenMs = performance.now();
          return;
        }
        this.#socket.resume();
        await this.#changed();
      }
    } finally {
      this.close();
    }
  }

  async *#held({ startByte, endByte }: HeldRange): AsyncGenerator<ContentPart> {
    if (this.#file === undefined) throw new AppError("PROTOCOL_VIOLATION", STRANGE);
    try {
      yield* this.#file.read(startByte, endByte);
    } catch (thrown) {
      throw (await this.#failure()) ?? thrown;
    }
  }

  /** Where bytes that were there are not, they may have been thrown away: the daemon says why. @returns undefined when it does not */
  async #failure(): Promise<AppError | undefined> {
    const timer = setTimeout(() => this.#ended(undefined), REASON_MS);
    while (this.#end === undefined) {
      this.#parts.length = 0;
      this.#socket.resume();
      await this.#changed();
    }
    clearTimeout(timer);
    return this.#end.error;
  }

  close(): void {
    this.#ended(new AppError("ABORTED", "broken off"));
    this.#socket.destroy();
    this.#file?.close();
    this.#file = undefined;
  }

  /** @returns false to stop reading until the parts have been taken */
  #read(chunk: Uint8Array): boolean {
    try {
      if (this.#head === undefined) this.#reader.push(chunk);
      else this.#readHead(chunk);
    } catch (thrown) {
      const cause = thrown instanceof AppError ? thrown : new AppError("PROTOCOL_VIOLATION", STRANGE, { cause: thrown });
      this.#ended(cause);
      this.#socket.destroy();
    }
    this.#wakeUp();
    return this.#parts.length === 0;
  }

  #readHead(chunk: Uint8Array): void {
    const head = Buffer.concat([this.#head ?? Buffer.alloc(0), chunk]);
    const end = head.indexOf("\r\n\r\n");
    this.#head = head;
    if (end < 0 && head.length <= HTTP_HEAD_BYTES_MAX) return;
    if (end < 0 || !head.toString("latin1", 0, 16).startsWith("HTTP/1.1 101 ")) throw new AppError("PROTOCOL_VIOLATION", STRANGE);
    this.#head = undefined;
    // A copy already: it may be kept until it is taken.
    if (head.length > end + 4) this.#reader.push(head.subarray(end + 4));
  }

  #json(type: LocalJsonType, value: unknown): void {
    if (type === "info") {
      const fileName = readFileName(value);
      if (fileName !== undefined) {
        this.#file = HeldFile.open(fileName, this.#socketPath);
        // Where we cannot, the daemon sends the bytes.
        this.#socket.write(encodeLocalFrame("place", Buffer.from(JSON.stringify({ isOpen: this.#file !== undefined }))));
      }
      this.#info = readInfo(value);
    } else {
      this.#sources = readSources(value) ?? this.#sources;
      if (type !== "end") return;
      this.#ended(readFailure(value));
      this.#explanation = (value as { readonly explanation?: unknown }).explanation;
    }
  }

  /** The first word stands. */
  #ended(error: AppError | undefined): void {
    this.#end ??= { error };
    this.#wakeUp();
  }

  #unreachable(error: (Error & { readonly code?: string }) | undefined): AppError {
    if (this.#info !== undefined) {
      return new AppError("DAEMON_UNREACHABLE", `dfdaemon at ${this.#socketPath} went away in mid-download`, { cause: error });
    }
    const why = UNREACHABLE_REASONS[error?.code ?? ""] ?? error?.message ?? "it hung up";
    return new AppError("DAEMON_UNREACHABLE", `no dfdaemon at ${this.#socketPath}: ${why}`, { cause: toAppError(error) });
  }

  #changed(): Promise<void> {
    return new Promise((resolve) => (this.#wake = resolve));
  }

  #wakeUp(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

const UNREACHABLE_REASONS: Readonly<Record<string, string>> = {
  ENOENT: "there is no such socket",
  ECONNREFUSED: "nobody listens",
  EACCES: "no permission: ask for membership in the socket's group",
};
