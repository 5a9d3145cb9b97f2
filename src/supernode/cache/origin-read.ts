/**
 * Reads what is missing of one task from its origin: the one read per site.
 *
 * Each piece goes to the swarm the moment it is whole; only the last one waits: until the whole file's digest is right,
 * or, where none is known, until the origin has said once more that the file is still the same. Cuts are continued where they broke; a source that is no longer the same ends the read.
 */
import { setTimeout as sleepFor } from "node:timers/promises";
import { AppError, toAppError } from "../../base/errors.ts";
import type { Origin, OriginBody, OriginInfo } from "../../origin/origin.ts";
import type { StoredTask } from "../../peer/store/piece-store.ts";
import type { Source } from "../../protocol/control-messages.ts";
import { pieceCountOf } from "../../protocol/geometry.ts";
import { type Digest, parseDigest, type TaskId } from "../../protocol/ids.ts";
import type { BufferPool, BufferShare } from "./buffer-pool.ts";
import type { ExtraStreams, Place } from "./extra-streams.ts";
import type { OriginMeter } from "./origin-meter.ts";
import { type CutPiece, cutPieces } from "./piece-cutter.ts";
import { isBeyondEnd, isNoRanges, readPersistently } from "./persistent-read.ts";
import { PieceSink } from "./piece-sink.ts";
import { PrefixDigest } from "./prefix-digest.ts";
import { lastMissing, planSpans, type Span, streamCountFor } from "./read-plan.ts";
import type { SigningDesk } from "./signing-desk.ts";

export interface OriginReadDeps {
  readonly origin: Pick<Origin, "open">;
  readonly pool: BufferPool;
  readonly meter: OriginMeter;
  readonly extraStreams: ExtraStreams;
  readonly random: () => number;
  readonly sleep?: (delayMs: number, signal: AbortSignal) => Promise<void>;
}

export interface OriginReadJob {
  readonly stored: StoredTask;
  /** Stores a piece and offers it. Buffer rules as StoredTask.storeOwn. */
  readonly addOwn: (piece: number, bytes: Uint8Array, sign: (digest: Uint8Array) => Promise<Uint8Array>) => Promise<void>;
  /** Whom to ask, with the latest credentials that worked. */
  readonly source: () => Source;
  /** The version that is wanted. */
  readonly expected: OriginInfo;
  /** This read's own. */
  readonly signingDesk: Pick<SigningDesk, "sign" | "signWaiting" | "hurry">;
  /**
   * Asked when all else has come, before the last piece is given out: rejects when the source changed meanwhile. For what
   * has no digest: a file overwritten in place comes half old, half new, in one answer.
   */
  readonly confirm: (() => Promise<void>) | undefined;
  /** The length became known; resolves when it is on disk and told to all. Called before the last piece is stored. */
  readonly onLength: (lengthBytes: number) => Promise<void>;
  readonly signal: AbortSignal;
}

/** One read, used once: `run`. */
export class OriginRead {
  readonly #deps: OriginReadDeps;
  readonly #job: OriginReadJob;
  readonly #taskId: TaskId;
  readonly #pieceLengthBytes: number;
  readonly #buffers: BufferShare;
  /** Ends all streams of this read when one of them, or the disk, fails. */
  #ending = new AbortController();
  #signal: AbortSignal;
  readonly #sink: PieceSink;
  #lengthBytes: number | undefined;
  #ranges: boolean;
  #digest: PrefixDigest | undefined;
  #expectedDigest: Digest | undefined;
  /** Waits for the whole file's digest. */
  #withheldPiece: number | undefined;
  #withheld: CutPiece | undefined;
  #receivedBytes = 0;
  #wholePieces = 0;

  constructor(deps: OriginReadDeps, job: OriginReadJob) {
    this.#deps = deps;
    this.#job = job;
    this.#buffers = deps.pool.share();
    const { record } = job.stored;
    this.#taskId = record.taskId;
    this.#pieceLengthBytes = record.pieceLengthBytes;
    this.#lengthBytes = record.lengthBytes;
    this.#ranges = job.expected.ranges;
    this.#signal = AbortSignal.any([job.signal, this.#ending.signal]);
    this.#sink = new PieceSink({
      store: ({ piece, bytes }) =>
        job.addOwn(piece, bytes, (digest) => {
          const signature = job.signingDesk.sign(piece, bytes.length, digest);
          // Its buffer is wanted: what others would it wait for?
          if (this.#buffers.isWaiting) job.signingDesk.signWaiting();
          return signature;
        }),
      // Pieces that came out of order are hashed from the disk meanwhile, not all at the end.
      onStored: () => this.#digest?.catchUp(),
      onFailed: () => this.#ending.abort(),
    });
    this.#expectedDigest = record.digest === undefined ? undefined : parseDigest(record.digest);
  }

  /**
   * Resolves when the task is complete.
   * @throws AppError as Origin.open after retries; ORIGIN_CHANGED and DIGEST_MISMATCH (what is held is worth nothing);
   *   DISK_FULL, DISK_FAILED, CACHE_QUOTA_EXCEEDED; ABORTED
   */
  async run(): Promise<void> {
    const { stored } = this.#job;
    if (stored.complete) return;
    if (this.#expectedDigest !== undefined) this.#digest = new PrefixDigest(this.#expectedDigest, stored);
    if (this.#isCheckedAtEnd && this.#lengthBytes !== undefined) {
      this.#withheldPiece = lastMissing(stored.have, this.#pieceCount(this.#lengthBytes));
    }
    const digest = this.#digest;
    try {
      const isRead = this.#lengthBytes !== undefined && this.#ranges && (await this.#readSpans(this.#lengthBytes));
      if (!isRead) await this.#persist(() => this.#readStream());
      this.#job.signingDesk.hurry();
      await this.#sink.settle();
      await this.#releaseWithheld();
      await this.#sink.settle();
    } catch (error) {
      throw this.#sink.error ?? error;
    } finally {
      this.#ending.abort();
      this.#job.signingDesk.hurry();
      this.#withheld?.buffer.release();
      await this.#sink.idle();
      await digest?.stop();
    }
  }

  /**
   * Several streams share the spans, lowest first; the others start once the first has shown that it delivers, and it is
   * this read's turn to have them.
   * @returns false when the origin does not keep to its promise of ranges
   */
  async #readSpans(lengthBytes: number): Promise<boolean> {
    const source = this.#job.source();
    const isAskedEarly = isBorrowed(source);
    const spans = [...planSpans(this.#job.stored.have, lengthBytes, this.#pieceLengthBytes, isAskedEarly)];
    let streamCount = streamCountFor(lengthBytes);
    const streams = new Set<Promise<void>>();
    let failure: AppError | undefined;
    let delivers = false;
    let place: Place | undefined;
    const mayHaveMore = (): boolean => isAskedEarly || place?.isFirst === true;
    const start = (goesOn: () => boolean): void => {
      const stream = this.#readInTurn(spans, goesOn, () => {
        delivers = true;
        startOthers();
      })
        .catch((thrown: unknown) => {
          const error = toAppError(thrown);
          // An origin may have fewer places for us than we have streams: what others bring is not given up for that.
          const isSpare = streams.size > 1 && error.retriable && error.code !== "ORIGIN_CHANGED" && !this.#signal.aborted;
          if (isSpare) return void streamCount--;
          failure ??= error;
          spans.length = 0;
          this.#ending.abort();
        })
        .finally(() => streams.delete(stream));
      streams.add(stream);
    };
    const startOthers = (): void => {
      while (delivers && mayHaveMore() && streams.size < streamCount && spans.length > 0) start(mayHaveMore);
    };
    start(() => true);
    if (streamCount > 1 && !isAskedEarly) {
      const leftBytes = (): number => lengthBytes - this.#wholePieces * this.#pieceLengthBytes;
      place = this.#deps.extraStreams.enter(new URL(source.url).origin, { leftBytes, onFirst: startOthers });
    }
    try {
      for (;;) {
        // oxlint-disable-next-line no-await-in-loop -- streams start others; none of them rejects, and the slowest counts
        while (streams.size > 0) await Promise.all(streams);
        if (failure !== undefined || spans.length === 0) break;
        // What a stream has given back, when there was nobody left to take it.
        start(() => true);
      }
    } finally {
      place?.leave();
    }
    if (failure === undefined) return true;
    if (!isNoRanges(failure) || this.#sink.error !== undefined || this.#job.signal.aborted) throw failure;
    await this.#sink.settle();
    this.#ranges = false;
    this.#ending = new AbortController();
    this.#signal = AbortSignal.any([this.#job.signal, this.#ending.signal]);
    return false;
  }

  /** One stream: span after span, while it `goesOn`. */
  async #readInTurn(spans: Span[], goesOn: () => boolean, onPiece: () => void): Promise<void> {
    for (let span = spans.shift(); span !== undefined; span = goesOn() ? spans.shift() : undefined) {
      const { endPiece } = span;
      let next = span.firstPiece;
      // oxlint-disable-next-line no-await-in-loop -- one request after the other on this stream
      await this.#persist(async () => {
        const startByte = next * this.#pieceLengthBytes;
        const endByte = Math.min(endPiece * this.#pieceLengthBytes, this.#lengthBytes as number);
        const body = await this.#open(startByte, endByte);
        for await (const cut of this.#cut(body, next, endPiece)) {
          next = cut.piece + 1;
          await this.#take(cut);
          onPiece();
        }
      }).catch((error: unknown) => {
        if (next < endPiece) spans.unshift({ firstPiece: next, endPiece });
        throw error;
      });
    }
  }

  /** The file from its start (or, with ranges, from the first missing piece) to its end, in one stream. */
  async #readStream(): Promise<void> {
    // What came before a cut counts as here, or it would be read again.
    this.#job.signingDesk.signWaiting();
    await this.#sink.settle();
    const { have } = this.#job.stored;
    const firstPiece = this.#ranges ? have.firstMissing() : 0;
    const body = await this.#open(firstPiece * this.#pieceLengthBytes, undefined).catch((error: unknown) => {
      if (firstPiece === 0 || !(isNoRanges(error) || isBeyondEnd(error))) throw error;
      this.#ranges = false;
      return undefined;
    });
    if (body === undefined) return await this.#readStream();
    // Of an unknown length any piece may be the last: with a digest to be checked, each waits for its successor.
    let held: CutPiece | undefined;
    try {
      let endBytes = firstPiece * this.#pieceLengthBytes;
      for await (const cut of this.#cut(body, firstPiece, undefined)) {
        endBytes = cut.piece * this.#pieceLengthBytes + cut.bytes.length;
        const before = held;
        held = cut;
        // It waits for its successor, which needs a buffer to arrive: reads that all wait so would wait for ever.
        cut.buffer.detach();
        if (before !== undefined) await this.#takeBack(before);
        const mayBeLast = this.#lengthBytes === undefined && (this.#isCheckedAtEnd || cut.bytes.length < this.#pieceLengthBytes);
        if (mayBeLast) continue;
        held = undefined;
        await this.#takeBack(cut);
      }
      if (this.#lengthBytes === undefined) {
        await this.#endOfUnknown(endBytes, held);
        const last = held;
        held = undefined;
        if (last !== undefined) await this.#takeBack(last);
      }
    } finally {
      held?.buffer.release();
    }
  }

  /** The stream has ended, and with it the file. */
  async #endOfUnknown(lengthBytes: number, last: CutPiece | undefined): Promise<void> {
    this.#job.signingDesk.hurry();
    await this.#sink.settle();
    if (this.#digest === undefined) await this.#job.confirm?.();
    else await this.#check(this.#digest, last ?? { piece: -1, bytes: new Uint8Array(0) }, this.#pieceCount(lengthBytes));
    this.#digest = undefined;
    this.#lengthBytes = lengthBytes;
    await this.#job.onLength(lengthBytes);
  }

  /** What was held goes its way, and counts again until it is stored. */
  async #takeBack(cut: CutPiece): Promise<void> {
    cut.buffer.attach();
    await this.#take(cut);
  }

  #cut(body: OriginBody, firstPiece: number, endPiece: number | undefined): AsyncGenerator<CutPiece, void, undefined> {
    return cutPieces({
      body: body.body,
      firstPiece,
      endPiece,
      pieceLengthBytes: this.#pieceLengthBytes,
      fileLengthBytes: this.#lengthBytes,
      buffers: this.#buffers,
      signal: this.#signal,
      onBytes: (count) => {
        this.#receivedBytes += count;
        return this.#deps.meter.received(this.#taskId, this.#job.source().priority ?? "interactive", count, this.#signal);
      },
    });
  }

  async #open(startByte: number, endByte: number | undefined): Promise<OriginBody> {
    const { url, headers } = this.#job.source();
    try {
      const body = await this.#deps.origin.open({ url, headers }, { startByte, endByte }, this.#job.expected, this.#signal);
      this.#deps.meter.asked("OK");
      return body;
    } catch (error) {
      this.#deps.meter.asked(toAppError(error).code);
      throw error;
    }
  }

  /** A whole piece: compared when it is here already, withheld when it has to wait, else stored and offered. */
  async #take(cut: CutPiece): Promise<void> {
    if (this.#sink.error !== undefined) {
      cut.buffer.release();
      throw this.#sink.error;
    }
    const { stored } = this.#job;
    if (stored.have.has(cut.piece) && (await this.#isAsBefore(cut))) {
      cut.buffer.release();
    } else if (cut.piece === this.#withheldPiece) {
      if (this.#withheld === undefined) this.#wholePieces++;
      else this.#withheld.buffer.release();
      this.#withheld = cut;
      // It may wait long for the others, which need buffers to arrive.
      cut.buffer.detach();
    } else {
      this.#wholePieces++;
      this.#digest?.feed(cut.piece, cut.bytes);
      this.#sink.put(cut);
    }
  }

  /**
   * Read again without ranges: the same file must bring the same bytes.
   * @returns false when the piece turns out to be gone from the disk
   */
  async #isAsBefore({ piece, bytes, buffer }: CutPiece): Promise<boolean> {
    const here = new Uint8Array(bytes.length);
    try {
      await this.#job.stored.read(piece * this.#pieceLengthBytes, here);
      if (Buffer.compare(here, bytes) === 0) return true;
      throw new AppError("ORIGIN_CHANGED", `the origin now sends other bytes in piece ${piece} than before; start again`);
    } catch (error) {
      if (toAppError(error).code === "CACHE_CORRUPT") return false;
      buffer.release();
      throw error;
    }
  }

  async #releaseWithheld(): Promise<void> {
    const withheld = this.#withheld;
    if (withheld === undefined) return;
    if (this.#digest === undefined) await this.#job.confirm?.();
    else await this.#check(this.#digest, withheld, this.#pieceCount(this.#lengthBytes as number));
    this.#withheld = undefined;
    this.#digest = undefined;
    this.#sink.put(withheld);
  }

  async #check(digest: PrefixDigest, last: Pick<CutPiece, "piece" | "bytes">, pieceCount: number): Promise<void> {
    if (await digest.finish(last.piece, last.bytes, pieceCount)) return;
    const message = `the origin's file is not ${this.#expectedDigest}; check the digest, the address, and the origin`;
    throw new AppError("DIGEST_MISMATCH", message);
  }

  #persist(once: () => Promise<void>): Promise<void> {
    return readPersistently(once, {
      signal: this.#signal,
      wholePieces: () => this.#wholePieces,
      isOverBudget: () => this.#receivedBytes > this.#budgetBytes(),
      fatal: () => this.#sink.error,
      sleep: this.#deps.sleep ?? ((delayMs, signal) => sleepFor(delayMs, undefined, { signal })),
      random: this.#deps.random,
    });
  }

  get #isCheckedAtEnd(): boolean {
    return this.#expectedDigest !== undefined || this.#job.confirm !== undefined;
  }

  /** What a read may cost at most, however often the origin breaks off. */
  #budgetBytes(): number {
    return 3 * (this.#lengthBytes ?? this.#receivedBytes) + BUDGET_EXTRA_BYTES;
  }

  #pieceCount(lengthBytes: number): number {
    return pieceCountOf(lengthBytes, this.#pieceLengthBytes);
  }
}

/**
 * Read with a token that somebody else fetched: when it is over nobody here can fetch another, and a registry lets a
 * request go on that it has let begin.
 */
function isBorrowed({ headers }: Source): boolean {
  return /^bearer /i.test(headers["authorization"] ?? "");
}

const BUDGET_EXTRA_BYTES = 64 * 1024 * 1024;
