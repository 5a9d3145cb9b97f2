/**
 * The contract of a peer's disk: which pieces of which tasks it holds, verified. disk-store.ts implements it.
 */
import type { EvictionReason } from "./eviction.ts";
import type { PieceSet } from "../../protocol/piece-set.ts";
import type { Digest, DigestAlgorithm, TaskId } from "../../protocol/ids.ts";

/** Signs a piece, given its BLAKE3-256 digest: in the supernode's name. */
export type PieceSigner = (digest: Uint8Array) => Uint8Array | Promise<Uint8Array>;

/** What makes a piece trustworthy: its BLAKE3-256 digest and the supernode's signature of it (docs/protocol.md, "Signatures"). */
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

/** What is known of a task without opening it. */
export type TaskSummary = Pick<TaskRecord, "taskId" | "displayUrl" | "lengthBytes" | "contentType" | "digest">;

export interface CachedTask extends TaskSummary {
  /** Bytes of its pieces; before the first open after an end that was not orderly an upper bound. */
  readonly heldBytes: number;
  readonly usedAtUnixMs: number;
  /** The operator wants it kept. */
  readonly isPinned: boolean;
  /** Somebody has it open: it is not evicted and cannot be removed. */
  readonly isInUse: boolean;
}

/** What a verification of a whole task found. */
export interface VerifiedTask {
  readonly checkedPieces: number;
  /** Dropped; fetched again when they are wanted next. */
  readonly damagedPieces: number;
}

export interface PieceStoreConfig {
  readonly directory: string;
  /** Most bytes of piece data; undefined = no quota. */
  readonly quotaBytes: number | undefined;
  /** Free space to leave on the file system. */
  readonly reservedFreeBytes: number;
  /** Threads that hash and write. */
  readonly workerCount: number;
  /** Bytes per second that an idle store reads back to find damage; 0 = never. */
  readonly scrubBytesPerSecond: number;
}

export interface PieceStore {
  /** Tasks on disk, those being written included; in no order. In the first seconds after a start those that are known yet. */
  list(): readonly CachedTask[];
  has(taskId: TaskId): Promise<boolean>;
  /**
   * Opens a task's files, creating them when new; the same object for the same id while open, and kept till then.
   * What is on disk wins: compare `StoredTask.record` (public key, piece length) where it matters; only a length that
   * the disk did not know yet is taken from `record`. Pieces found on disk are verified against their digests at their
   * first use; damaged ones are dropped then.
   * @throws AppError DISK_FULL, DISK_FAILED, SHUTTING_DOWN
   */
  open(record: TaskRecord): Promise<StoredTask>;
  /** Opens a task that is on disk; undefined when it is not. */
  find(taskId: TaskId): Promise<StoredTask | undefined>;
  /** Somebody wanted a task that is open already: that counts when room is made later. No effect when it is not there. */
  used(taskId: TaskId): void;
  /** Removes a task that nobody holds open, durably; one that is not there counts as removed. @returns false when in use */
  remove(taskId: TaskId): Promise<boolean>;
  /**
   * Keeps a task whatever room is needed, or no longer; durable. Its removal by {@link remove} ends it too.
   * @returns false when it is not there
   * @throws AppError DISK_FULL, DISK_FAILED
   */
  pin(taskId: TaskId, isPinned: boolean): Promise<boolean>;
  /**
   * Reads all pieces of a task back; drops what is damaged.
   * @returns undefined when it is not there
   * @throws AppError DISK_FAILED, SHUTTING_DOWN
   */
  verify(taskId: TaskId): Promise<VerifiedTask | undefined>;
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
  /** Requests for room that were turned down, by the limit that stood in the way. */
  readonly refusedRequests: Readonly<Record<EvictionReason, number>>;
  /** Pieces dropped because the disk did not give back what was written. */
  readonly damagedPieces: number;
  /** Time spent verifying pieces found on disk, in milliseconds, summed over tasks. */
  readonly verifyMsTotal: number;
  /** Bytes read back in the background. */
  readonly scrubbedBytes: number;
  /** Wall clock at which every task had been read back; undefined: not since the start. */
  readonly scrubbedAllAtUnixMs: number | undefined;
}

export type StoreOutcome = "stored" | "mismatch" | "forged";

/** One task's pieces. Every `open`/`find` needs one `release`. */
export interface StoredTask {
  readonly record: TaskRecord;
  /** Pieces stored, each verified when it was; live, read-only to others. */
  readonly have: PieceSet;
  readonly complete: boolean;
  /** Descriptor of the data file for positional reads and sendfile; valid until the last release. Piece i starts at i × pieceLengthBytes; {@link verify} it first. */
  readonly dataFd: number;
  /** Path of the data file, for other programs of this host; undefined where there is none. It goes when the task is evicted. */
  readonly dataPath: string | undefined;
  proofOf(piece: number): PieceProof | undefined;
  /**
   * Verifies `bytes` against the proof's digest, and its signature, off the main thread, writes them, then journals the piece.
   * `bytes` must lie in a SharedArrayBuffer and belongs to the store until the promise settles.
   * A piece already held is left as it is ("stored"); while one is being written, a second call for it waits.
   * @returns "mismatch" when the bytes are not the piece (digest, length or index), "forged" when `record.publicKey` has not
   *   signed the proof; nothing is stored then
   * @throws AppError DISK_FULL, DISK_FAILED, CACHE_QUOTA_EXCEEDED, SHUTTING_DOWN
   */
  storeVerified(piece: number, bytes: Uint8Array, proof: PieceProof): Promise<StoreOutcome>;
  /**
   * For the reader of the origin: digests and writes `bytes`, asks `sign` for the signature, then journals.
   * Buffer rules and errors as {@link storeVerified}; a length that is not the piece's asserts.
   * @returns the proof of the piece as stored; of the one stored before when it was already held
   */
  storeOwn(piece: number, bytes: Uint8Array, sign: PieceSigner): Promise<PieceProof>;
  /** Whether this process has seen the piece right: written by it, or read back since. False for one that is not held. */
  isVerified(piece: number): boolean;
  /**
   * Reads those of `pieces` back that are held and not verified yet, off the main thread; drops what is damaged.
   * Needed before anything reads through `dataFd` or `dataPath`; `read` and `digestOf` see to it themselves.
   * @param again those that were verified before, too
   * @returns the pieces dropped
   * @throws AppError DISK_FAILED, SHUTTING_DOWN
   */
  verify(pieces: readonly number[], again?: boolean): Promise<readonly number[]>;
  /**
   * Reads `into.length` bytes at `offset` of the file; the range must lie in held pieces.
   * @throws AppError PIECE_UNKNOWN when a piece of the range is not held; CACHE_CORRUPT when its bytes are gone or are
   *   others (it is dropped from `have` then); DISK_FAILED
   */
  read(offset: number, into: Uint8Array): Promise<void>;
  /**
   * Whether what is missing of the file would find room, evicting what may go.
   * @throws AppError CACHE_QUOTA_EXCEEDED, DISK_FULL when not; DISK_FAILED
   */
  assertRoom(): Promise<void>;
  /** Says how long the file is. Pieces that do not fit are dropped. @throws AppError DISK_FULL, DISK_FAILED */
  setLength(lengthBytes: number, signature: Uint8Array): Promise<void>;
  /**
   * SHA-256 (or another digest) of the first `lengthBytes` bytes, off the main thread, from what is on disk.
   * @throws AppError PIECE_UNKNOWN when they are not all held; CACHE_CORRUPT, DISK_FAILED
   */
  digestOf(algorithm: DigestAlgorithm, lengthBytes: number): Promise<Digest>;
  /** Forgets pieces found damaged, or all of them, those being written included (a source that changed). Durable. */
  discard(pieces: "all" | readonly number[]): Promise<void>;
  /**
   * Calls `listener` with pieces that were held and are no longer, whatever the reason, at once.
   * @returns ends that
   */
  onLost(listener: (pieces: readonly number[]) => void): () => void;
  release(): void;
}
