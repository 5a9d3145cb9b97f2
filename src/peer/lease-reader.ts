/**
 * Reads spans of a file from its origin in the seed's stead: each piece is brought to the supernode, and once it has signed
 * it, stored and offered like any other.
 */
import { AppError, toAppError } from "../base/errors.ts";
import type { Origin } from "../origin/origin.ts";
import { withRetries } from "../origin/retry.ts";
import type { Source } from "../protocol/control-messages.ts";
import { pieceLengthAt } from "../protocol/geometry.ts";
import type { TaskId } from "../protocol/ids.ts";
import type { PeerLog, PeerTask } from "./peer.ts";
import type { RateGate } from "./rate-gate.ts";
import type { PieceProof } from "./store/piece-store.ts";

export interface LeaseReaderDeps {
  readonly origin: Pick<Origin, "open">;
  /** This host's limit for reading origins; stays the caller's. */
  readonly limit: RateGate;
  /** Brings a piece to the supernode, and its proof back. */
  readonly bring: (lease: Lease, piece: number, bytes: Uint8Array, ticket: string, signal: AbortSignal) => Promise<PieceProof>;
  /** Tells the supernode that the span is not read to its end. */
  readonly failed: (lease: Lease) => void;
  readonly log: Pick<PeerLog, "info" | "warn">;
  readonly random: () => number;
  readonly sleep: (delayMs: number, signal: AbortSignal) => Promise<void>;
}

export interface Lease {
  readonly taskId: TaskId;
  readonly leaseId: number;
  readonly firstPiece: number;
  /** Exclusive. */
  readonly endPiece: number;
}

export class LeaseReader {
  readonly #deps: LeaseReaderDeps;
  readonly #reading = new Map<number, AbortController>();

  constructor(deps: LeaseReaderDeps) {
    this.#deps = deps;
  }

  /** Begins to read, in the background. `task` stays open while it is read. */
  read(lease: Lease, task: PeerTask, source: Source): void {
    const ending = new AbortController();
    this.#reading.set(lease.leaseId, ending);
    this.#deps.log.info({ ...lease }, "reading a part of the file from the origin, for all");
    this.#run(lease, task, source, ending.signal)
      .catch((thrown: unknown) => {
        if (ending.signal.aborted) return;
        const { code, message } = toAppError(thrown);
        this.#deps.log.warn({ ...lease, code }, `a part that was lent cannot be read: ${message}`);
        this.#deps.failed(lease);
      })
      .finally(() => {
        if (this.#reading.get(lease.leaseId) === ending) this.#reading.delete(lease.leaseId);
      });
  }

  revoke(leaseId: number): void {
    this.#reading.get(leaseId)?.abort();
    this.#reading.delete(leaseId);
  }

  close(): void {
    for (const leaseId of [...this.#reading.keys()]) this.revoke(leaseId);
  }

  async #run(lease: Lease, task: PeerTask, source: Source, signal: AbortSignal): Promise<void> {
    let piece = lease.firstPiece;
    const { random, sleep } = this.#deps;
    const { account } = task.session;
    account.readingOrigin(1);
    await withRetries(
      async () => {
        // oxlint-disable-next-line no-await-in-loop -- in order
        for await (const bytes of this.#pieces(lease, piece, task, source, signal)) {
          const proof = await this.#deps.bring(lease, piece, bytes, task.session.ticket, signal);
          await task.addProven(piece, bytes, proof);
          piece++;
        }
      },
      { attempts: ATTEMPTS, signal, random, sleep, maxDelayMs: RETRY_MS_MAX },
    ).finally(() => account.readingOrigin(-1));
  }

  /**
   * The pieces from `firstPiece` on, in memory that the store can take. What is here is taken from the disk; what neighbours
   * hold is waited for: others read it under an earlier lease, of a supernode that has been restarted since, say. Only the
   * rest is read from the origin.
   */
  async *#pieces({ endPiece }: Lease, firstPiece: number, task: PeerTask, source: Source, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const { stored, session } = task;
    let piece = firstPiece;
    let isWaiting = true;
    const isMissing = (other: number): boolean => !stored.have.has(other) && !(isWaiting && task.isHeldNearby(other));
    while (piece < endPiece) {
      if (isMissing(piece)) {
        let end = piece + 1;
        while (end < endPiece && isMissing(end)) end++;
        for await (const bytes of this.#fromOrigin(piece, end, task, source, signal)) {
          yield bytes;
          piece++;
        }
        continue;
      }
      // oxlint-disable-next-line no-await-in-loop -- in order
      isWaiting &&= await this.#comes(piece, task, signal);
      if (!stored.have.has(piece)) continue;
      const bytes = memoryOf(piece, task);
      // oxlint-disable-next-line no-await-in-loop -- in order
      await stored.read(piece * session.pieceLengthBytes, bytes);
      yield bytes;
      piece++;
    }
  }

  /** @returns whether a piece that a neighbour holds is here in time */
  async #comes(piece: number, task: PeerTask, signal: AbortSignal): Promise<boolean> {
    const { stored, session } = task;
    if (stored.have.has(piece)) return true;
    const readerId = session.newReaderId();
    task.readerAt(readerId, piece);
    const giveUp = AbortSignal.any([signal, AbortSignal.timeout(SWARM_MS)]);
    try {
      while (!stored.have.has(piece) && task.isHeldNearby(piece) && !giveUp.aborted) {
        // oxlint-disable-next-line no-await-in-loop -- waits for others
        await session.changed(SWARM_MS, giveUp);
      }
    } finally {
      task.readerAt(readerId, undefined);
    }
    signal.throwIfAborted();
    return stored.have.has(piece) || !giveUp.aborted;
  }

  async *#fromOrigin(firstPiece: number, endPiece: number, task: PeerTask, source: Source, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const { session } = task;
    const { pieceLengthBytes } = session;
    const lengthBytes = session.lengthBytes as number;
    const flow = this.#deps.limit.flow(source.priority ?? "interactive");
    const range = { startByte: firstPiece * pieceLengthBytes, endByte: Math.min(endPiece * pieceLengthBytes, lengthBytes) };
    const expected = { lengthBytes, ranges: true, etag: undefined, lastModified: undefined, contentType: undefined, headers: {} };
    const { body } = await this.#deps.origin.open({ url: source.url, headers: source.headers }, range, expected, signal);
    try {
      const chunks = (body as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]();
      let rest: Uint8Array = new Uint8Array(0);
      for (let piece = firstPiece; piece < endPiece; piece++) {
        const bytes = memoryOf(piece, task);
        for (let filled = 0; filled < bytes.length; ) {
          if (rest.length === 0) {
            // oxlint-disable-next-line no-await-in-loop -- a stream
            const next = await chunks.next();
            if (next.done === true) throw new AppError("ORIGIN_CUT", `the origin's answer ended in piece ${piece}; try again`);
            rest = next.value;
            session.account.held(1);
            // oxlint-disable-next-line no-await-in-loop -- a stream
            await this.#deps.limit.passed(flow, rest.length, signal).finally(() => session.account.held(-1));
          }
          const part = rest.subarray(0, bytes.length - filled);
          bytes.set(part, filled);
          filled += part.length;
          rest = rest.subarray(part.length);
        }
        yield bytes;
      }
    } finally {
      body.destroy();
    }
  }
}

/** Memory that the store's threads share. */
function memoryOf(piece: number, { session: { lengthBytes, pieceLengthBytes } }: PeerTask): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(pieceLengthAt(piece, lengthBytes as number, pieceLengthBytes)));
}

const ATTEMPTS = 3;
const RETRY_MS_MAX = 2_000;
/** A neighbour's piece that has not come within this is read from the origin; far below the scheduler's patience with a holder. */
const SWARM_MS = 5_000;
