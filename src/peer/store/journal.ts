/**
 * A task's journal: what its data file holds, in one append-only file. A piece is journaled only after its bytes are
 * written, so what the journal says was once true, whenever the process was killed; whether it still is, its digest says.
 */
import { basename, dirname } from "node:path";
import { AppError } from "../../base/errors.ts";
import { pieceCountOf, pieceLengthAt } from "../../protocol/geometry.ts";
import type { DiskFile, FileFacts, StoreDisk } from "./disk.ts";
import type { TaskRecord } from "./piece-store.ts";
import { diskError, errnoOf } from "./errors.ts";
import { frameLengthAt } from "./frame.ts";
import {
  checkPreamble,
  decodeFrame,
  encodeEntry,
  encodeHead,
  PIECE_FRAME_LENGTH_BYTES,
  PREAMBLE_LENGTH_BYTES,
  type JournalEntry,
} from "./journal-format.ts";

/** A piece as journaled. */
export interface JournaledPiece {
  readonly lengthBytes: number;
  readonly digest: Uint8Array;
  readonly signature: Uint8Array;
}

/** What all entries together say. */
export interface JournalState {
  readonly record: TaskRecord;
  readonly pieces: Map<number, JournaledPiece>;
}

export class Journal {
  readonly path: string;
  readonly #file: DiskFile;
  #endByte: number;
  #queued: Buffer[] = [];
  /** The write that will take what is queued; none while nothing is. */
  #nextWrite: Promise<void> | undefined;
  #lastWrite: Promise<void> = Promise.resolve();

  private constructor(path: string, file: DiskFile, endByte: number) {
    this.path = path;
    this.#file = file;
    this.#endByte = endByte;
  }

  /**
   * Creates the journal of a new task; it appears at `path` whole or not at all, over whatever was there.
   *
   * @throws AppError DISK_FULL, DISK_FAILED
   */
  static async create(disk: StoreDisk, path: string, record: TaskRecord): Promise<Journal> {
    const head = encodeHead(record);
    let file: DiskFile | undefined;
    try {
      file = await disk.open(`${path}.new`, "replace");
      file.writeSync(head, 0);
      await disk.rename(`${path}.new`, path);
    } catch (error) {
      await file?.close();
      throw diskError(error, "create", path);
    }
    return new Journal(path, file, head.length);
  }

  /**
   * Opens the journal of the task that its directory is named for, and reads it all; a torn or damaged tail is cut off the file.
   *
   * @returns undefined when there is none
   * @throws AppError CACHE_CORRUPT when the head does not parse or is of an unknown format (the file is left as it
   *   is), DISK_FAILED
   */
  static async open(disk: StoreDisk, path: string): Promise<{ journal: Journal; state: JournalState; cutBytes: number } | undefined> {
    let file: DiskFile | undefined;
    try {
      file = await disk.open(path, "edit");
      const bytes = await readFirst(file, (await file.facts()).lengthBytes);
      const { state, endByte } = replay(bytes, path);
      if (endByte < bytes.length) await file.truncate(endByte);
      return { journal: new Journal(path, file, endByte), state, cutBytes: bytes.length - endByte };
    } catch (error) {
      await file?.close();
      if (errnoOf(error) === "ENOENT") return undefined;
      throw diskError(error, "open", path);
    }
  }

  /**
   * Appends an entry; entries appended while a write runs share the next one. Resolves when the system has the
   * bytes: they outlive the process, and the machine once {@link sync} resolved.
   *
   * @throws AppError DISK_FULL, DISK_FAILED; the entry counts as not written then
   */
  append(entry: JournalEntry): Promise<void> {
    this.#queued.push(encodeEntry(entry));
    if (this.#nextWrite === undefined) {
      this.#nextWrite = this.#lastWrite.then(() => this.#writeQueued());
      this.#lastWrite = this.#nextWrite.catch(() => undefined);
    }
    return this.#nextWrite;
  }

  /** @throws AppError DISK_FULL, DISK_FAILED */
  async sync(): Promise<void> {
    try {
      await this.#file.sync();
    } catch (error) {
      throw diskError(error, "flush", this.path);
    }
  }

  /** By which the next start knows whether the journal is as it was. @throws AppError DISK_FAILED */
  async facts(): Promise<FileFacts> {
    await this.#lastWrite;
    return await this.#file.facts().catch((error: unknown) => {
      throw diskError(error, "look at", this.path);
    });
  }

  /** Closes the file after the appends under way. */
  async close(): Promise<void> {
    await this.#lastWrite;
    await this.#file.close();
  }

  /**
   * On this thread: an entry is a hundred bytes into the page cache (some µs), a trip to the thread pool costs ten times
   * as much. What blocks is the flush, and that is {@link sync}'s, off the thread.
   */
  #writeQueued(): void {
    const bytes = Buffer.concat(this.#queued);
    this.#queued = [];
    this.#nextWrite = undefined;
    try {
      this.#file.writeSync(bytes, this.#endByte);
    } catch (error) {
      throw diskError(error, "append to", this.path);
    }
    this.#endByte += bytes.length;
  }
}

/** What a start needs to know of a task, read from its journal, of a long one from the first few KiB. */
export interface JournalHead {
  readonly record: TaskRecord;
  /** Bytes of pieces, of a long journal judged by its length: exact for a whole file, else above the truth, as pieces that were signed together take more room in it. */
  readonly heldBytesEstimate: number;
  readonly facts: FileFacts;
}

/**
 * Reads the head of a journal without changing the file.
 *
 * @returns undefined when there is none
 * @throws AppError CACHE_CORRUPT, DISK_FAILED as {@link Journal.open}
 */
export async function readJournalHead(disk: StoreDisk, path: string): Promise<JournalHead | undefined> {
  let file: DiskFile | undefined;
  try {
    file = await disk.open(path, "read");
    const facts = await file.facts();
    const { lengthBytes: size } = facts;
    const first = await readFirst(file, Math.min(size, HEAD_READ_LENGTH_BYTES));
    checkPreamble(first, path);
    const headLength = PREAMBLE_LENGTH_BYTES + (frameLengthAt(first, PREAMBLE_LENGTH_BYTES) ?? 0);
    const bytes = headLength <= first.length ? first : await readFirst(file, headLength);
    let { record } = replay(bytes, path).state;
    let pieceCount = Math.floor((size - headLength) / PIECE_FRAME_LENGTH_BYTES);
    // Short enough to be counted, or the length came later than the header: somewhere in the rest.
    if (size <= COUNTED_LENGTH_BYTES_MAX || (record.lengthBytes === undefined && size > bytes.length)) {
      const { state } = replay(await readFirst(file, size), path);
      ({ record } = state);
      pieceCount = state.pieces.size;
    }
    const heldBytesEstimate = Math.min(pieceCount * record.pieceLengthBytes, record.lengthBytes ?? Infinity);
    return { record, heldBytesEstimate, facts };
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw diskError(error, "read", path);
  } finally {
    await file?.close();
  }
}

/** So long a journal is read whole, for the sake of an exact count: that of about a thousand pieces. */
const COUNTED_LENGTH_BYTES_MAX = 256 * 1024;
/** A header is a few hundred bytes; what is left tells a length that came soon after. */
const HEAD_READ_LENGTH_BYTES = 4096;

/** @throws AppError CACHE_CORRUPT when preamble or header do not parse */
function replay(bytes: Buffer, path: string): { state: JournalState; endByte: number } {
  checkPreamble(bytes, path);
  const head = decodeFrame(bytes, PREAMBLE_LENGTH_BYTES);
  if (head?.kind !== "header") {
    throw new AppError("CACHE_CORRUPT", `the header of ${path} is damaged; the task's pieces are fetched again`, { details: { path } });
  }
  if (basename(dirname(path)) !== head.record.taskId) {
    throw new AppError("CACHE_CORRUPT", `${path} belongs to another task, ${head.record.taskId}; its pieces are fetched again`, { details: { path } });
  }
  let record = head.record;
  const pieces = new Map<number, JournaledPiece>();
  let at = PREAMBLE_LENGTH_BYTES + (frameLengthAt(bytes, PREAMBLE_LENGTH_BYTES) as number);
  for (;;) {
    const entry = decodeFrame(bytes, at);
    if (entry === undefined || entry.kind === "header") return { state: { record, pieces }, endByte: at };
    at += frameLengthAt(bytes, at) as number;
    if (entry.kind === "piece") pieces.set(entry.piece, { lengthBytes: entry.lengthBytes, digest: entry.digest, signature: entry.signature });
    else if (entry.kind === "length") {
      record = { ...record, lengthBytes: entry.lengthBytes, lengthSignature: entry.signature };
      // As when it was set: pieces that cannot be of a file so long went with it, and have no entry of their own.
      for (const [piece, { lengthBytes }] of pieces) if (!fitsIn(entry.lengthBytes, record.pieceLengthBytes, piece, lengthBytes)) pieces.delete(piece);
    }
    else if (entry.piece === "all") pieces.clear();
    else pieces.delete(entry.piece);
  }
}

function fitsIn(lengthBytes: number, pieceLengthBytes: number, piece: number, pieceBytes: number): boolean {
  return piece < pieceCountOf(lengthBytes, pieceLengthBytes) && pieceBytes === pieceLengthAt(piece, lengthBytes, pieceLengthBytes);
}

async function readFirst(file: DiskFile, lengthBytes: number): Promise<Buffer> {
  const bytes = Buffer.alloc(lengthBytes);
  return bytes.subarray(0, await file.read(bytes, 0));
}
