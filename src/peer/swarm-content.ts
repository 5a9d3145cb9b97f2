/** Content through the swarm: pieces in order as they come, the origin when they do not. */
import { AppError } from "../base/errors.ts";
import type { ByteSources, Source, TaskInfo } from "../protocol/control-messages.ts";
import type { Explanation } from "../protocol/explanation.ts";
import { PieceSet } from "../protocol/piece-set.ts";
import { ChunkPool } from "./chunk-pool.ts";
import { type Content, type ContentInfo, type ContentPart, type HeldRange, numbered, type ReadRange } from "./content.ts";
import { type DirectOpenerDeps, readOrigin } from "./direct-content.ts";
import type { PeerTask } from "./peer.ts";
import { ReaderAccount } from "./reader-account.ts";
import type { StoredTask } from "./store/piece-store.ts";

/** Bytes handed on at a time where they are the consumer's to keep. */
const CHUNK_BYTES = 256 * 1024;
/** Without a byte for this long the origin is read instead; shorter while nobody is there to mend the swarm. */
const STALL_MS = 30_000;
const STALL_ALONE_MS = 10_000;
/** What lies in the file is told when there is so much more of it, or so late: who reads it there has no hurry, and is woken less. */
const GATHERED_BYTES = 8 * 1024 * 1024;
const GATHER_MS = 250;
/** A failed task is given up at once, but for the moment a supernode needs to come back with a better answer. */
const LOOK_MS = 500;

const chunkPool = new ChunkPool();

export interface SwarmContentDeps {
  readonly task: PeerTask;
  readonly info: TaskInfo;
  readonly source: Source;
  /** When it was asked for, by performance.now(). */
  readonly startedMs: number;
  /** Reads the origin directly; undefined = not allowed. */
  readonly direct: DirectOpenerDeps | undefined;
  /** As ContentRequest's, where the origin is read. */
  readonly limitBytesPerSecond?: number | undefined;
  /** Whether there is a supernode that mends this task's swarm. */
  readonly supernodeConnected: () => boolean;
  readonly closed: () => void;
}

export class SwarmContent implements Content {
  readonly #deps: SwarmContentDeps;
  readonly #startedWith: ByteSources;
  readonly #account: ReaderAccount;
  #directBytes = 0;
  #closed = false;

  constructor(deps: SwarmContentDeps) {
    this.#deps = deps;
    const { seedBytes, peerBytes, originBytes } = deps.task.sources();
    this.#startedWith = { seedBytes, peerBytes, originBytes };
    this.#account = new ReaderAccount(deps.startedMs, deps.task.session.account);
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

  async *read(range: ReadRange, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const { task } = this.#deps;
    const { session, stored } = task;
    const readerId = session.newReaderId();
    let at = range.startByte;
    const watch = new StallWatch(this.#deps);
    let toldPiece: number | undefined;
    const lent = range.lent === true ? chunkPool.take() : undefined;
    const placeUpTo = (endByte: number): Uint8Array => (lent ?? Buffer.allocUnsafe(Math.min(CHUNK_BYTES, endByte - at))).subarray(0, endByte - at);
    // Bytes of the piece that was waited for, taken as it came: read back from the disk they are here only after all else that has come meanwhile.
    let come: Uint8Array | undefined;
    try {
      for (;;) {
        const endByte = session.lengthBytes === undefined ? range.endByte : Math.min(range.endByte ?? session.lengthBytes, session.lengthBytes);
        if (endByte !== undefined && at >= endByte) return;
        const piece = Math.floor(at / session.pieceLengthBytes);
        if (stored.have.has(piece)) {
          const pieceEnd = Math.min((piece + 1) * session.pieceLengthBytes, endByte ?? Number.POSITIVE_INFINITY);
          const chunk = come ?? placeUpTo(pieceEnd);
          this.#account.does("disk");
          // If not: thrown away since, and the task's failure says why or the piece comes again; or the last piece, shorter than asked for, came before
          // the word of the file's length. Either is waited for.
          if (come !== undefined || (await readHeld(stored, at, chunk))) {
            come = undefined;
            at += chunk.length;
            watch.moved();
            this.#account.gives();
            yield chunk;
            continue;
          }
        }
        if (piece !== toldPiece) {
          toldPiece = piece;
          task.readerAt(readerId, piece);
        }
        if (signal.aborted) throw new AppError("ABORTED", "the reader has gone");
        if (watch.isStalled()) {
          yield* this.#fromOrigin(at, endByte, signal);
          return;
        }
        come = undefined;
        const stopTaking = session.onStored(piece, (bytes) => {
          const rest = bytes.subarray(at - piece * session.pieceLengthBytes);
          const place = placeUpTo(Math.min(at + rest.length, endByte ?? Number.POSITIVE_INFINITY));
          place.set(rest.subarray(0, place.length));
          if (place.length > 0) come = place;
        });
        try {
          await session.changed(LOOK_MS, signal);
        } finally {
          stopTaking();
        }
      }
    } finally {
      task.readerAt(readerId, undefined);
      if (lent !== undefined) chunkPool.give(lent);
    }
  }

  get filePath(): string | undefined {
    return this.#deps.task.stored.dataPath;
  }

  readUnordered(range: ReadRange, signal: AbortSignal): AsyncGenerator<ContentPart> {
    const { session, stored } = this.#deps.task;
    const take = async (startByte: number, endByte: number): Promise<ContentPart | undefined> => {
      const bytes = Buffer.allocUnsafe(endByte - startByte);
      return (await readHeld(stored, startByte, bytes)) ? { startByte, bytes } : undefined;
    };
    return this.#asTheyCome(range, signal, take, async (seenCount) => {
      if (stored.have.count === seenCount) await session.changed(LOOK_MS, signal);
    });
  }

  readInPlace(range: ReadRange, signal: AbortSignal): AsyncGenerator<ContentPart | HeldRange> {
    const { session, stored } = this.#deps.task;
    const take = async (startByte: number, endByte: number, piece: number): Promise<HeldRange | undefined> => {
      if (!stored.isVerified(piece)) await stored.verify([piece]);
      return stored.have.has(piece) ? { startByte, endByte } : undefined;
    };
    return this.#asTheyCome(range, signal, take, async (seenCount) => {
      const enoughCount = seenCount + Math.ceil(GATHERED_BYTES / session.pieceLengthBytes);
      const isEnough = (): boolean => stored.have.count >= enoughCount || stored.complete || session.failure !== undefined;
      if (!isEnough()) await session.changed(GATHER_MS, signal, isEnough);
    });
  }

  /**
   * @param take what is handed on of a piece that is here; undefined when it is no longer
   * @param more resolves when it is time to look for more pieces; `seenCount` is how many were here when the last look began:
   *   what has come since, behind the place that was being looked at, has been missed, and nobody will be woken for it again
   */
  async *#asTheyCome<Part>(
    range: ReadRange,
    signal: AbortSignal,
    take: (startByte: number, endByte: number, piece: number) => Promise<Part | undefined>,
    more: (seenCount: number) => Promise<void>,
  ): AsyncGenerator<Part | ContentPart> {
    const { session, stored } = this.#deps.task;
    const { lengthBytes, pieceLengthBytes } = session;
    if (lengthBytes === undefined) {
      // What is the last piece, and how long, is not known yet.
      yield* numbered(this.read(range, signal), range.startByte);
      return;
    }
    const endByte = Math.min(range.endByte ?? lengthBytes, lengthBytes);
    const endPiece = Math.ceil(endByte / pieceLengthBytes);
    const given = new PieceSet();
    const watch = new StallWatch(this.#deps);
    let firstMissing = Math.floor(range.startByte / pieceLengthBytes);
    while (firstMissing < endPiece) {
      const seenCount = stored.have.count;
      for (let piece = firstMissing; piece < endPiece; piece++) {
        if (given.has(piece) || !stored.have.has(piece)) continue;
        const startByte = Math.max(range.startByte, piece * pieceLengthBytes);
        this.#account.does("disk");
        const part = await take(startByte, Math.min(endByte, (piece + 1) * pieceLengthBytes), piece);
        if (part === undefined) continue;
        given.add(piece);
        watch.moved();
        this.#account.gives();
        yield part;
      }
      while (firstMissing < endPiece && given.has(firstMissing)) firstMissing++;
      if (firstMissing >= endPiece) return;
      if (signal.aborted) throw new AppError("ABORTED", "the reader has gone");
      if (watch.isStalled()) {
        const at = Math.max(range.startByte, firstMissing * pieceLengthBytes);
        yield* numbered(this.#fromOrigin(at, endByte, signal), at);
        return;
      }
      await more(seenCount);
    }
  }

  sources(): ByteSources & { readonly cacheBytes: number } {
    const now = this.#deps.task.sources();
    return {
      seedBytes: now.seedBytes - this.#startedWith.seedBytes,
      peerBytes: now.peerBytes - this.#startedWith.peerBytes,
      originBytes: now.originBytes - this.#startedWith.originBytes + this.#directBytes,
      // What this host read from the origin for others lies here like all else that came before.
      cacheBytes: now.cacheBytes + this.#startedWith.seedBytes + this.#startedWith.peerBytes + this.#startedWith.originBytes,
    };
  }

  explanation(): Explanation {
    return this.#account.explanation(this.sources());
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#account.end(this.sources());
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
    this.#account.turnsToOrigin();
    const reading = { ...direct, account: this.#account, request, expected, digest, prefix, priority: source.priority, limitBytesPerSecond };
    for await (const chunk of readOrigin(reading, { startByte: at, endByte }, signal)) {
      this.#directBytes += chunk.length;
      yield chunk;
    }
  }
}

/** Sees when the swarm has failed a reader: nothing new for too long, or the task itself has failed. */
class StallWatch {
  readonly #deps: SwarmContentDeps;
  #heldCount: number;
  #movedMs = performance.now();

  constructor(deps: SwarmContentDeps) {
    this.#deps = deps;
    this.#heldCount = deps.task.stored.have.count;
  }

  /** The reader got something. */
  moved(): void {
    this.#movedMs = performance.now();
  }

  isStalled(): boolean {
    const { task, supernodeConnected } = this.#deps;
    if (task.session.failure !== undefined) return true;
    if (task.stored.have.count !== this.#heldCount || task.isHeldBack()) {
      this.#heldCount = task.stored.have.count;
      this.moved();
    }
    return performance.now() - this.#movedMs >= (supernodeConnected() ? STALL_MS : STALL_ALONE_MS);
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
    if (thrown instanceof AppError && (thrown.code === "PIECE_UNKNOWN" || thrown.code === "CACHE_CORRUPT")) return false;
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
  readonly #account: ReaderAccount;

  /** @param startedMs when it was asked for, by performance.now() */
  constructor(info: TaskInfo, bytes: Uint8Array, startedMs: number) {
    this.#bytes = bytes;
    this.#account = new ReaderAccount(startedMs, undefined);
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
    this.#account.gives();
    if (bytes.length > 0) yield bytes;
  }

  sources(): ByteSources & { readonly cacheBytes: number } {
    return { seedBytes: this.#bytes.length, peerBytes: 0, originBytes: 0, cacheBytes: 0 };
  }

  explanation(): Explanation {
    return this.#account.explanation(this.sources());
  }

  close(): void {
    this.#account.end(this.sources());
  }
}
