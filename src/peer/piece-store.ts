/**
 * The contract of a peer's disk: which pieces of which tasks it holds, verified. disk-store.ts implements it.
 */
import type { PieceSet } from "../protocol/piece-set.ts";
import type { TaskId } from "../protocol/ids.ts";

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
   * Pieces found on disk are verified against their digests before they count (lazily after a start).
   * @throws AppError DISK_FULL, DISK_FAILED, CACHE_QUOTA_EXCEEDED
   */
  open(record: TaskRecord): Promise<StoredTask>;
  /** Opens a task that is on disk; undefined when it is not. */
  find(taskId: TaskId): Promise<StoredTask | undefined>;
  /** Removes a task that nobody holds open. @returns false when in use */
  remove(taskId: TaskId): Promise<boolean>;
  usage(): { readonly usedBytes: number; readonly taskCount: number; readonly evictedBytes: number };
  close(): Promise<void>;
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
   * @returns "mismatch" when the bytes are not the piece; nothing is stored then
   * @throws AppError DISK_FULL, DISK_FAILED, CACHE_QUOTA_EXCEEDED
   */
  storeVerified(piece: number, bytes: Uint8Array, proof: PieceProof): Promise<"stored" | "mismatch">;
  /**
   * For the reader of the origin: digests and writes `bytes`, asks `sign` for the signature, then journals.
   * Buffer rules and errors as {@link storeVerified}.
   */
  storeOwn(piece: number, bytes: Uint8Array, sign: (digest: Uint8Array) => Uint8Array): Promise<PieceProof>;
  /** Reads `into.length` bytes at `offset` of the file; the range must lie in held pieces. */
  read(offset: number, into: Uint8Array): Promise<void>;
  setLength(lengthBytes: number, signature: Uint8Array): Promise<void>;
  /** SHA-256 (or another digest) of the first `lengthBytes` bytes, off the main thread, from what is on disk. */
  digestOf(algorithm: "sha256" | "sha512" | "sha1" | "md5", lengthBytes: number): Promise<string>;
  /** Forgets pieces found damaged, or all of them (a source that changed). */
  discard(pieces: "all" | readonly number[]): Promise<void>;
  release(): void;
}
