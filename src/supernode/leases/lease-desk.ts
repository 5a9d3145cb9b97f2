/**
 * Where pieces arrive that peers read from the origin in the seed's stead.
 *
 * A peer that was lent a span brings each piece here; this side digests and signs it, and only then the piece enters the
 * swarm. Nobody is believed: what is signed was seen here, and the last piece is signed when the whole file's digest is
 * right. So only content with a SHA-256 or SHA-512 is lent: of any other a lying peer could make up pieces.
 */
import { createHash, type Hash } from "node:crypto";
import type { Logger } from "pino";
import { AppError, toAppError } from "../../base/errors.ts";
import type { SigningKey } from "../../peer/membership/credentials.ts";
import { pieceDigest } from "../../peer/store/piece-hash.ts";
import type { PieceProof, StoredTask, TaskRecord } from "../../peer/store/piece-store.ts";
import { pieceCountOf, pieceLengthAt } from "../../protocol/geometry.ts";
import { type Digest, digestAlgorithm, parseDigest, type PeerId, type TaskId } from "../../protocol/ids.ts";
import type { PieceSpan, SchedulerInput } from "../../scheduler/index.ts";
import { isStrongDigest } from "../tasks/task-identity.ts";

export interface LeaseDeskDeps {
  readonly key: SigningKey;
  readonly push: (input: SchedulerInput) => void;
  /** Counts bytes that came from an origin; resolves when more may come. */
  readonly received: (taskId: TaskId, count: number, signal: AbortSignal) => Promise<void>;
  /** The task is given up: `discard` when what was given out is worth nothing. */
  readonly onFailed: (taskId: TaskId, error: AppError, discard: boolean) => void;
  readonly log: Pick<Logger, "info" | "warn">;
}

interface Lease {
  readonly holder: PeerId;
  nextPiece: number;
  readonly endPiece: number;
}

/** What is to be done beside signing. */
export interface ReliefOutcome {
  /** Stores a signed piece here too. Never rejects. */
  readonly keep?: (piece: number, bytes: Uint8Array, proof: PieceProof) => Promise<void>;
  /** All of it has come, and is right. */
  readonly onComplete?: () => void;
  /** Nobody is left who could read; default: the task fails with the reason why the seed does not. */
  readonly onNobody?: () => void;
}

/** A task that peers read. */
interface Relief {
  readonly taskId: TaskId;
  readonly stored: StoredTask;
  readonly lengthBytes: number;
  readonly pieceCount: number;
  readonly digest: Digest;
  /** Why the seed does not read it. */
  readonly cause: AppError;
  readonly outcome: ReliefOutcome;
  readonly hash: Hash;
  /** Pieces [0, hashed) are in the hash. */
  hashed: number;
  /** Signed last: the highest piece that the seed lacks. */
  readonly withheld: number;
  /** What peers were asked for: the rest is read from the seed's disk. */
  readonly spans: readonly PieceSpan[];
  /** Digests of all that arrived: of a piece that comes again, from whomever, other bytes are never signed. */
  readonly digests: Map<number, Uint8Array>;
  /** Arrived, and not hashed yet. */
  readonly waiting: Map<number, Uint8Array>;
  readonly leases: Map<number, Lease>;
  readonly ending: AbortController;
  /** Pieces that are being taken: their holders wait for an answer. */
  taking: number;
  chasing: Promise<void> | undefined;
  /** Those who wait for the hash to get on. */
  readonly waiters: Set<() => void>;
  isRight: boolean | undefined;
}

export class LeaseDesk {
  readonly #deps: LeaseDeskDeps;
  readonly #reliefs = new Map<TaskId, Relief>();
  /** What peers brought of them was wrong: not lent again by this process. The latest last. */
  readonly #spoilt = new Set<TaskId>();

  constructor(deps: LeaseDeskDeps) {
    this.#deps = deps;
  }

  isActive(taskId: TaskId): boolean {
    return this.#reliefs.has(taskId);
  }

  /**
   * Asks for peers to read what the seed lacks. Not within an effect of the scheduler.
   * @param stored open until the task is forgotten
   * @returns false when this task cannot be lent: its digest or its length is not known
   */
  begin(stored: StoredTask, cause: AppError, outcome: ReliefOutcome = {}): boolean {
    const { taskId, lengthBytes, pieceLengthBytes } = stored.record;
    const digest = strongDigestOf(stored.record);
    if (lengthBytes === undefined || digest === undefined || stored.complete || this.#spoilt.has(taskId)) return false;
    if (this.#reliefs.has(taskId)) return true;
    const pieceCount = pieceCountOf(lengthBytes, pieceLengthBytes);
    const spans = missingSpans(stored, pieceCount, Math.max(1, Math.floor(SPAN_BYTES_MAX / pieceLengthBytes)));
    this.#reliefs.set(taskId, {
      taskId,
      stored,
      lengthBytes,
      pieceCount,
      digest,
      cause,
      outcome,
      hash: createHash(digestAlgorithm(digest)),
      hashed: 0,
      withheld: (spans.at(-1)?.endPiece ?? pieceCount) - 1,
      spans,
      digests: new Map(),
      waiting: new Map(),
      leases: new Map(),
      ending: new AbortController(),
      taking: 0,
      chasing: undefined,
      waiters: new Set(),
      isRight: undefined,
    });
    this.#deps.log.warn({ taskId, code: cause.code }, `peers are asked to read what the seed cannot: ${cause.message}`);
    this.#deps.push({ type: "readersWanted", taskId, spans });
    return true;
  }

  /** The scheduler lent a span. @returns false when nothing is read any more */
  granted(taskId: TaskId, leaseId: number, holder: PeerId, { firstPiece, endPiece }: PieceSpan): boolean {
    const relief = this.#reliefs.get(taskId);
    relief?.leases.set(leaseId, { holder, nextPiece: firstPiece, endPiece });
    return relief !== undefined;
  }

  revoked(taskId: TaskId, leaseId: number): void {
    this.#reliefs.get(taskId)?.leases.delete(leaseId);
  }

  /** The holder says that it cannot read its span. */
  failed(taskId: TaskId, leaseId: number, holder: PeerId): void {
    if (this.#reliefs.get(taskId)?.leases.get(leaseId)?.holder !== holder) return;
    this.#deps.push({ type: "spanFailed", taskId, leaseId });
  }

  /** Nobody is left who could read. */
  nobodyReads(taskId: TaskId): void {
    const relief = this.#reliefs.get(taskId);
    if (relief === undefined) return;
    this.end(taskId);
    queueMicrotask(relief.outcome.onNobody ?? ((): void => this.#deps.onFailed(taskId, relief.cause, false)));
  }

  /**
   * Pieces are gone from the seed's disk. What the file's digest still needs of them nobody would ever bring, so all begins
   * anew; what was brought hosts hold by now, and bring without the origin. Not within an effect of the scheduler.
   */
  lost(taskId: TaskId): void {
    const relief = this.#reliefs.get(taskId);
    if (relief === undefined || !lacksUnasked(relief)) return;
    this.end(taskId);
    this.begin(relief.stored, relief.cause, relief.outcome);
  }

  /** Nothing more of this task is taken. */
  end(taskId: TaskId): void {
    const relief = this.#reliefs.get(taskId);
    this.#reliefs.delete(taskId);
    relief?.ending.abort();
    for (const wake of relief?.waiters ?? []) wake();
  }

  close(): void {
    for (const taskId of [...this.#reliefs.keys()]) this.end(taskId);
  }

  /** How long the next piece of a lease is. @throws AppError TICKET_REFUSED when it is not this peer's to bring */
  expectedBytes(taskId: TaskId, leaseId: number, peerId: PeerId, piece: number): number {
    const { relief } = this.#lease(taskId, leaseId, peerId, piece);
    return pieceLengthAt(piece, relief.lengthBytes, relief.stored.record.pieceLengthBytes);
  }

  /**
   * Takes a piece, and signs it; the last one only once the whole file is known to be right.
   * @param bytes of the length that {@link expectedBytes} says; this desk's from here on
   * @throws AppError TICKET_REFUSED, DIGEST_MISMATCH, SHUTTING_DOWN when the task has ended meanwhile
   */
  async take(taskId: TaskId, leaseId: number, peerId: PeerId, piece: number, bytes: Uint8Array): Promise<PieceProof> {
    const { relief, lease } = this.#lease(taskId, leaseId, peerId, piece);
    relief.taking++;
    try {
      return await this.#take(relief, lease, leaseId, piece, bytes);
    } finally {
      relief.taking--;
      // Not before: a revocation would overtake an answer that is on its way.
      if (relief.isRight === true && relief.taking === 0) {
        this.#deps.push({ type: "readersWanted", taskId, spans: [] });
        relief.outcome.onComplete?.();
      }
    }
  }

  async #take(relief: Relief, lease: Lease, leaseId: number, piece: number, bytes: Uint8Array): Promise<PieceProof> {
    const { taskId } = relief;
    const { push, received, key } = this.#deps;
    lease.nextPiece = piece + 1;
    const digest = pieceDigest(bytes);
    const before = relief.digests.get(piece);
    if (before !== undefined && Buffer.compare(before, digest) !== 0) {
      push({ type: "spanFailed", taskId, leaseId });
      throw new AppError("DIGEST_MISMATCH", `piece ${piece} was brought before, and had other bytes`);
    }
    if (before === undefined) {
      relief.digests.set(piece, digest);
      relief.waiting.set(piece, bytes);
    }
    await received(taskId, bytes.length, relief.ending.signal);
    this.#chase(relief);
    if (piece !== relief.withheld) {
      await this.#until(relief, () => piece - relief.hashed < this.#window(relief), () => push({ type: "spanProgressed", taskId, leaseId, nextPiece: piece }));
    }
    push({ type: "spanProgressed", taskId, leaseId, nextPiece: piece + 1 });
    if (piece === relief.withheld) {
      await this.#until(relief, () => relief.isRight !== undefined, () => undefined);
      if (relief.isRight !== true) throw new AppError("DIGEST_MISMATCH", `what was read is not ${relief.digest}`);
    }
    const proof = { digest, signature: key.signPiece(taskId, piece, bytes.length, digest) };
    await relief.outcome.keep?.(piece, bytes, proof);
    return proof;
  }

  #lease(taskId: TaskId, leaseId: number, peerId: PeerId, piece: number): { readonly relief: Relief; readonly lease: Lease } {
    const relief = this.#reliefs.get(taskId);
    const lease = relief?.leases.get(leaseId);
    if (relief === undefined || lease?.holder !== peerId || piece !== lease.nextPiece || piece >= lease.endPiece) {
      throw new AppError("TICKET_REFUSED", `piece ${piece} is not lent to this peer (any more)`);
    }
    return { relief, lease };
  }

  /** Waits until `isTrue`; calls `alive` now and then, for it is not the holder who is slow. @throws AppError SHUTTING_DOWN */
  async #until(relief: Relief, isTrue: () => boolean, alive: () => void): Promise<void> {
    while (!isTrue()) {
      if (relief.ending.signal.aborted) throw new AppError("SHUTTING_DOWN", "nothing more of this task is read by peers");
      // oxlint-disable-next-line no-await-in-loop -- waits for others
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => (alive(), done()), ALIVE_MS);
        const done = (): void => {
          clearTimeout(timer);
          relief.waiters.delete(done);
          resolve();
        };
        relief.waiters.add(done);
      });
    }
  }

  /** Pieces that may be ahead of the hash: they stay in memory. */
  #window({ stored }: Relief): number {
    return Math.max(1, Math.floor(WAITING_BYTES_MAX / stored.record.pieceLengthBytes));
  }

  #chase(relief: Relief): void {
    relief.chasing ??= this.#hashOn(relief)
      .catch((error: unknown) => this.#broken(relief, toAppError(error)))
      .finally(() => {
        relief.chasing = undefined;
        for (const wake of [...relief.waiters]) wake();
      });
  }

  async #hashOn(relief: Relief): Promise<void> {
    const { stored, lengthBytes, pieceCount, waiting, hash } = relief;
    const { pieceLengthBytes } = stored.record;
    while (relief.hashed < pieceCount && !relief.ending.signal.aborted) {
      const piece = relief.hashed;
      let bytes = waiting.get(piece);
      if (bytes === undefined) {
        if (!stored.have.has(piece)) return;
        bytes = new Uint8Array(pieceLengthAt(piece, lengthBytes, pieceLengthBytes));
        // oxlint-disable-next-line no-await-in-loop -- a digest is taken in order
        await stored.read(piece * pieceLengthBytes, bytes);
      }
      hash.update(bytes);
      waiting.delete(piece);
      relief.hashed++;
      for (const wake of [...relief.waiters]) wake();
    }
    // Ended meanwhile, it may have been begun anew: that one's end is not ours to say.
    if (relief.hashed < pieceCount || relief.ending.signal.aborted) return;
    relief.isRight = relief.digest.endsWith(`:${hash.digest("hex")}`);
    this.#ended(relief);
  }

  #ended({ taskId, digest, isRight }: Relief): void {
    this.#reliefs.delete(taskId);
    const { log, push, onFailed } = this.#deps;
    if (isRight === true) return log.info({ taskId }, "read from the origin by peers");
    push({ type: "readersWanted", taskId, spans: [] });
    this.#spoilt.add(taskId);
    if (this.#spoilt.size > SPOILT_COUNT_MAX) this.#spoilt.delete(this.#spoilt.values().next().value as TaskId);
    const message = `what peers read of the origin's file is not ${digest}; check the digest, the address, the origin, and the hosts that read`;
    onFailed(taskId, new AppError("DIGEST_MISMATCH", message), true);
  }

  #broken(relief: Relief, error: AppError): void {
    if (this.#reliefs.get(relief.taskId) !== relief) return;
    this.end(relief.taskId);
    this.#deps.push({ type: "readersWanted", taskId: relief.taskId, spans: [] });
    this.#deps.onFailed(relief.taskId, error, false);
  }
}

/** Only what can be checked as a whole is lent. */
export function strongDigestOf({ digest: text }: TaskRecord): Digest | undefined {
  const digest = text === undefined ? undefined : parseDigest(text);
  return digest !== undefined && isStrongDigest(digest) ? digest : undefined;
}

function missingSpans({ have }: StoredTask, pieceCount: number, spanPieces: number): PieceSpan[] {
  const spans: PieceSpan[] = [];
  for (let piece = have.firstMissing(); piece < pieceCount; piece = have.firstMissing(piece)) {
    const firstPiece = piece;
    while (piece < pieceCount && !have.has(piece) && piece - firstPiece < spanPieces) piece++;
    spans.push({ firstPiece, endPiece: piece });
  }
  return spans;
}

/** A piece that is to be hashed yet is neither on the seed's disk nor to be brought. */
function lacksUnasked({ stored: { have }, spans, hashed, pieceCount }: Relief): boolean {
  let piece = have.firstMissing(hashed);
  for (const { firstPiece, endPiece } of spans) {
    if (piece < firstPiece) break;
    if (piece < endPiece) piece = have.firstMissing(endPiece);
  }
  return piece < pieceCount;
}

/** Lent to one peer at a time. */
const SPAN_BYTES_MAX = 16 * 1024 * 1024;
/** Ahead of the hash, per task. */
const WAITING_BYTES_MAX = 64 * 1024 * 1024;
const SPOILT_COUNT_MAX = 1_000;
/** Far below the scheduler's patience with a holder. */
const ALIVE_MS = 5_000;
