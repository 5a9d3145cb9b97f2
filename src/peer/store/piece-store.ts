/**
 * The contract of a peer's disk: which pieces of which tasks it holds, verified. disk-store.ts implements it.
 */
import type { EvictionReason } from "./eviction.ts";
import type { PieceSet } from "../../protocol/piece-set.ts";
import type { Digest, DigestAlgorithm, TaskId } from "../../protocol/ids.ts";

/** What makes a piece trustworthy: its BLAKE3-256 digest and the supernode's signature over its statement. */
export interface PieceProof {
  readonly digest: Uint8Array;
  readonly signature: Uint8Array;
}

/** What a task's files say about it; no credential among it. */
export interface TaskRecord {
  readonly taskId: TaskId;
  /** For people and REST: without user info and query values. */
  readonly displayUrl: string;
  readonly lengthBytes: number | undefined;
  readonly lengthSignature: Uint8Array | undefined;
  readonly pieceLengthBytes: number;
  readonly contentType: string | undefined;
  readonly digest: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
  /** SPKI DER of the supernode whose signatures the pieces carry. */
  readonly publicKey: Uint8Array;
}

export interface PieceStoreConfig {
  readonly directory: string;
  /** Most bytes of piece data; undefined = no quota. */
  readonly quotaBytes: number | undefined;
  /** Free space to leave on the file system. */
  readonly reservedFreeBytes: number;
  /** Threads that hash and write. */
  readonly workerCount: number;
}

export interface PieceStore {
  /** Tasks on disk (headers read, pieces not yet verified), for re-announcing and look-ups by digest. */
  list(): readonly TaskRecord[];
  /**
   * Opens a task's files, creating them when new; the same object for the same id while open. Pins the task.
   * What is on disk wins: compare `StoredTask.record` (public key, piece length) where it matters; only a length that
   * the disk did not know yet is taken from `record`. At the first open after a start, resolves when every piece
   * found on disk has been verified against its digest; damaged ones are dropped.
   * @throws AppError DISK_FULL, DISK_FAILED, SHUTTING_DOWN
   */
  open(record: TaskRecord): Promise<StoredTask>;
  /** Opens a task that is on disk; undefined when it is not. */
  find(taskId: TaskId): Promise<StoredTask | undefined>;
  /** Removes a task that nobody holds open; one that is not there counts as removed. @returns false when in use */
  remove(taskId: TaskId): Promise<boolean>;
  usage(): StoreUsage;
  /** Waits for the pieces being written, flushes, ends the threads. What is still asked of tasks fails with SHUTTING_DOWN. */
  close(): Promise<void>;
}

/** Gauges and, from `evictedBytes` on, counters since the start. */
export interface StoreUsage {
  /** Bytes of pieces held and being written; before a task's first open an upper bound. */
  readonly usedBytes: number;
  readonly taskCount: number;
  readonly openTaskCount: number;
  readonly evictedBytes: number;
  /** Tasks evicted, by what made it necessary. */
  readonly evictedTasks: Readonly<Record<EvictionReason, number>>;
  /** Pieces dropped because the disk did not give back what was written. */
  readonly damagedPieces: number;
  /** Time spent verifying pieces found on disk, in milliseconds, summed over tasks. */
  readonly verifyMsTotal: number;
}

/** One task's pieces. Every `open`/`find` needs one `release`. */
export interface StoredTask {
  readonly record: TaskRecord;
  /** Verified pieces; live, read-only to others. */
  readonly have: PieceSet;
  readonly complete: boolean;
  /** Descriptor of the data file for positional reads and sendfile; valid until the last release. Piece i starts at i × pieceLengthBytes. */
  readonly dataFd: number;
  proofOf(piece: number): PieceProof | undefined;
  /**
   * Verifies `bytes` against the proof's digest off the main thread, writes them, then journals the piece.
   * `bytes` must lie in a SharedArrayBuffer and belongs to the store until the promise settles.
   * A piece already held is left as it is ("stored"); while one is being written, a second call for it waits.
   * @returns "mismatch" when the bytes are not the piece (digest, length or index); nothing is stored then
   * @throws AppError DISK_FULL, DISK_FAILED, CACHE_QUOTA_EXCEEDED, SHUTTING_DOWN
   */
  storeVerified(piece: number, bytes: Uint8Array, proof: PieceProof): Promise<"stored" | "mismatch">;
  /**
   * For the reader of the origin: digests and writes `bytes`, asks `sign` for the signature, then journals.
   * Buffer rules and errors as {@link storeVerified}; a length that is not the piece's asserts.
   * @returns the proof of the piece as stored; of the one stored before when it was already held
   */
  storeOwn(piece: number, bytes: Uint8Array, sign: (digest: Uint8Array) => Uint8Array): Promise<PieceProof>;
  /**
   * Reads `into.length` bytes at `offset` of the file; the range must lie in held pieces.
   * @throws AppError PIECE_UNKNOWN when a piece of the range is not held; CACHE_CORRUPT when its bytes are gone (it is
   *   dropped from `have` then); DISK_FAILED
   */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** Says how long the file is. Pieces that do not fit are dropped. @throws AppError DISK_FULL, DISK_FAILED */
  setLength(lengthBytes: number, signature: Uint8Array): Promise<void>;
  /**
   * SHA-256 (or another digest) of the first `lengthBytes` bytes, off the main thread, from what is on disk.
   * @throws AppError PIECE_UNKNOWN when they are not all held; CACHE_CORRUPT, DISK_FAILED
   */
  digestOf(algorithm: DigestAlgorithm, lengthBytes: number): Promise<Digest>;
  /** Forgets pieces found damaged, or all of them, those being written included (a source that changed). Durable. */
  discard(pieces: "all" | readonly number[]): Promise<void>;
  release(): void;
}
