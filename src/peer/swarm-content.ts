/** Content through the swarm: pieces in order as they come, the origin when they do not. */
import { AppError } from "../base/errors.ts";
import type { ByteSources, Source, TaskInfo } from "../protocol/control-messages.ts";
import type { Content, ContentInfo } from "./content.ts";
import { type DirectOpenerDeps, readOrigin } from "./direct-content.ts";
import type { PeerTask } from "./peer.ts";
import type { StoredTask } from "./store/piece-store.ts";

/** Bytes handed on at a time. Source: node-dataplane study §11 (256 KiB). */
const CHUNK_BYTES = 256 * 1024;
/** Without a byte for this long the origin is read instead; shorter while nobody is there to mend the swarm. */
const STALL_MS = 30_000;
const STALL_ALONE_MS = 10_000;
/** A failed task is given up at once, but for the moment a supernode needs to come back with a better answer. */
const LOOK_MS = 500;

export interface SwarmContentDeps {
  readonly task: PeerTask;
  readonly info: TaskInfo;
  readonly source: Source;
  /** Reads the origin directly; undefined = not allowed. */
  readonly direct: DirectOpenerDeps | undefined;
  /** As ContentRequest's, where the origin is read. */
  readonly limitBytesPerSecond?: number | undefined;
  readonly supernodeConnected: () => boolean;
  readonly closed: () => void;
}

export class SwarmContent implements Content {
  readonly #deps: SwarmContentDeps;
  readonly #startedWith: ByteSources;
  #directBytes = 0;
  #closed = false;

  constructor(deps: SwarmContentDeps) {
    this.#deps = deps;
    const { seedBytes, peerBytes, originBytes } = deps.task.sources();
    this.#startedWith = { seedBytes, peerBytes, originBytes };
  }

  get info(): ContentInfo {
    const { info, task } = this.#deps;
    return {
      taskId: info.taskId,
      lengthBytes: task.session.lengthBytes,
      contentType: info.contentType ?? undefined,
      digest: info.digest ?? undefined,
      headers: info.headers,
    };
  }

  async *read(
    range: { readonly startByte: number; readonly endByte: number | undefined },
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    const { task } = this.#deps;
    const { session, stored } = task;
    const readerId = session.newReaderId();
    let at = range.startByte;
    let lookedCount = stored.have.count;
    let progressMs = performance.now();
    let toldPiece: number | undefined;
    try {
      for (;;) {
        const endByte = session.lengthBytes === undefined ? range.endByte : Math.min(range.endByte ?? session.lengthBytes, session.lengthBytes);
        if (endByte !== undefined && at >= endByte) return;
        const piece = Math.floor(at / session.pieceLengthBytes);
        if (stored.have.has(piece)) {
          const pieceEnd = Math.min((piece + 1) * session.pieceLengthBytes, endByte ?? Number.POSITIVE_INFINITY);
          const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, pieceEnd - at));
          // Thrown away since: the task's failure says why, or the piece comes again.
          if (!(await readHeld(stored, at, chunk))) continue;
          at += chunk.length;
          progressMs = performance.now();
          yield chunk;
          continue;
        }
        if (piece !== toldPiece) {
          toldPiece = piece;
          task.readerAt(readerId, piece);
        }
        if (signal.aborted) throw new AppError("ABORTED", "the reader has gone");
        if (stored.have.count !== lookedCount || task.isHeldBack()) {
          lookedCount = stored.have.count;
          progressMs = performance.now();
        }
        const waitedMs = performance.now() - progressMs;
        const limitMs = this.#deps.supernodeConnected() ? STALL_MS : STALL_ALONE_MS;
        if (session.failure !== undefined || waitedMs >= limitMs) {
          yield* this.#fromOrigin(at, endByte, signal);
          return;
        }
        await session.changed(LOOK_MS, signal);
      }
    } finally {
      task.readerAt(readerId, undefined);
    }
  }

  sources(): ByteSources & { readonly cacheBytes: number } {
    const now = this.#deps.task.sources();
    return {
      seedBytes: now.seedBytes - this.#startedWith.seedBytes,
      peerBytes: now.peerBytes - this.#startedWith.peerBytes,
      originBytes: now.originBytes - this.#startedWith.originBytes + this.#directBytes,
      cacheBytes: now.cacheBytes + this.#startedWith.seedBytes + this.#startedWith.peerBytes,
    };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#deps.closed();
  }

  /** The rest of the range from the origin, in the same reading: nobody sees more than a pause. */
  async *#fromOrigin(at: number, endByte: number | undefined, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const { direct, source, task, info, limitBytesPerSecond } = this.#deps;
    const failure = task.session.failure ?? silence(direct !== undefined);
    // What the origin itself said is the answer: every peer asking it again would break it further.
    const isFinal = failure.code.startsWith("ORIGIN_") || failure.code === "DIGEST_MISMATCH";
    if (direct === undefined || isFinal) throw failure;
    const expected = {
      lengthBytes: info.lengthBytes ?? undefined,
      ranges: true,
      etag: info.headers["etag"],
      lastModified: info.headers["last-modified"],
      contentType: undefined,
      headers: {},
    };
    const request = { url: source.url, headers: source.headers };
    const digest = info.digest ?? source.digest;
    const prefixHeld = at > 0 && task.stored.have.firstMissing() * task.session.pieceLengthBytes >= at;
    const prefix = prefixHeld ? (): AsyncIterable<Uint8Array> => storedBytes(task, at) : undefined;
    const reading = { ...direct, request, expected, digest, prefix, priority: source.priority, limitBytesPerSecond };
    for await (const chunk of readOrigin(reading, { startByte: at, endByte }, signal)) {
      this.#directBytes += chunk.length;
      yield chunk;
    }
  }
}

function silence(mayGoDirect: boolean): AppError {
  const what = "the swarm delivered nothing for too long";
  if (mayGoDirect) return new AppError("TIMEOUT", what);
  return new AppError("BACK_SOURCE_FORBIDDEN", `${what}, and reading the origin directly is not allowed; is the supernode up?`);
}

/** @returns false when the piece is no longer held */
async function readHeld(stored: StoredTask, at: number, into: Uint8Array): Promise<boolean> {
  try {
    await stored.read(at, into);
    return true;
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.code === "PIECE_UNKNOWN") return false;
    throw thrown;
  }
}

async function* storedBytes(task: PeerTask, endByte: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < endByte; ) {
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, endByte - at));
    await task.stored.read(at, chunk);
    at += chunk.length;
    yield chunk;
  }
}

/** Content that came whole with the join's answer. */
export class InlineContent implements Content {
  readonly info: ContentInfo;
  readonly #bytes: Uint8Array;

  constructor(info: TaskInfo, bytes: Uint8Array) {
    this.#bytes = bytes;
    this.info = {
      taskId: info.taskId,
      lengthBytes: bytes.length,
      contentType: info.contentType ?? undefined,
      digest: info.digest ?? undefined,
      headers: info.headers,
    };
  }

  // oxlint-disable-next-line require-await -- an async iterable, like every content
  async *read(range: { readonly startByte: number; readonly endByte: number | undefined }): AsyncGenerator<Uint8Array> {
    const bytes = this.#bytes.subarray(range.startByte, range.endByte);
    if (bytes.length > 0) yield bytes;
  }

  sources(): ByteSources & { readonly cacheBytes: number } {
    return { seedBytes: this.#bytes.length, peerBytes: 0, originBytes: 0, cacheBytes: 0 };
  }

  close(): void {
    // Nothing is held open.
  }
}
