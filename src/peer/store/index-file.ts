/**
 * What a start wants to know of every task, in one file, so that it need not open each journal: `index`, lines of
 *
 *     <CRC-32 of the JSON, 8 hex digits> <JSON>
 *
 * The first names the format; of several about one task the last counts. It is a memory of the journals, never above
 * them: which tasks there are, the directories say; after an end that was not orderly each line is compared with its
 * journal's length and time; and whoever opens a task reads its journal. Lost, damaged or of another version, it is made
 * anew from the journals.
 */
import { dirname } from "node:path";
import { crc32 } from "node:zlib";
import type { TaskId } from "../../protocol/ids.ts";
import type { DiskFile, FileFacts, StoreDisk } from "./disk.ts";
import type { QueuePlace } from "./eviction.ts";
import type { TaskSummary } from "./piece-store.ts";
import { diskError } from "./errors.ts";

export interface IndexEntry {
  readonly summary: TaskSummary;
  readonly heldBytes: number;
  readonly usedAtUnixMs: number;
  readonly place: QueuePlace;
  /** The journal as it was then. */
  readonly journal: FileFacts;
}

export interface LoadedIndex {
  /** By task id. */
  readonly entries: ReadonlyMap<string, IndexEntry>;
  /** The process that wrote it closed the store: no journal has changed since, unless by other hands. */
  readonly isClean: boolean;
}

const HEAD = lineOf(["dragonfly cache index", 1]);
/** The last line of a run that ended in good order. */
const CLEAN = lineOf(["clean"]);
/** Begins a run. */
const OPEN = lineOf(["open"]);
/** Lines per task beyond which the file is written anew. */
const LINES_PER_TASK_MAX = 4;
const LINES_MIN = 1000;
const PART_LENGTH_BYTES = 128 * 1024;

export class IndexFile {
  readonly #disk: StoreDisk;
  readonly #path: string;
  #file: DiskFile | undefined;
  /** Where the next line goes; 0 while there is no file that can be added to. */
  #endByte = 0;
  #lineCount = 0;
  /** All that was to be noted in this run is. */
  #isComplete = true;

  constructor(disk: StoreDisk, path: string) {
    this.#disk = disk;
    this.#path = path;
  }

  /** What can be read of the file: nothing when it is not there, unreadable, or of another version. */
  async load(): Promise<LoadedIndex> {
    const entries = new Map<string, IndexEntry>();
    let isClean = false;
    try {
      this.#file = await this.#disk.open(this.#path, "edit");
      for await (const part of this.#parts(this.#file)) {
        // One string for all its lines, and no object per line but what is kept: there may be 100,000.
        const text = part.toString("utf8");
        for (let at = 0; at < text.length; ) {
          const end = text.indexOf("\n", at) + 1;
          const line = text.slice(at, end);
          const value = this.#lineCount === 0 && line !== HEAD ? undefined : valueOf(line);
          if (value === undefined) {
            this.#endByte += Buffer.byteLength(text.slice(0, at));
            return { entries, isClean };
          }
          const entry = decode(value);
          if (entry !== undefined) entries.set(entry.summary.taskId, entry);
          isClean = entry === undefined && line === CLEAN;
          this.#lineCount++;
          at = end;
        }
        this.#endByte += part.length;
      }
    } catch {
      this.#endByte = 0;
    }
    return { entries, isClean };
  }

  /**
   * Begins a run, after {@link load}: from now on the file on the device says that the end was not orderly, until
   * {@link close}.
   *
   * @param entries all there are, for a file that has to be written anew
   * @param count of them
   * @throws AppError DISK_FULL, DISK_FAILED
   */
  async begin(entries: Iterable<IndexEntry>, count: number): Promise<void> {
    const isTooLong = this.#lineCount > LINES_MIN && this.#lineCount > count * LINES_PER_TASK_MAX;
    try {
      if (this.#file === undefined || this.#endByte === 0 || isTooLong) await this.#writeAnew(entries);
      else await this.#file.truncate(this.#endByte);
      this.#append(OPEN);
      await this.#file?.sync();
    } catch (error) {
      await this.#file?.close();
      this.#file = undefined;
      throw diskError(error, "write", this.#path);
    }
  }

  /** Notes a task as it is now. Best effort: what is not noted is read from its journal at the next start. */
  note(entry: IndexEntry): void {
    try {
      this.#append(encode(entry));
    } catch {
      // A full disk: the file ends in part of a line, which the next one overwrites.
      this.omit();
    }
  }

  /** A task that has changed cannot be noted: this run's end cannot vouch for the file. */
  omit(): void {
    this.#isComplete = false;
  }

  /** @param isOrderly every task is closed and noted */
  async close(isOrderly: boolean): Promise<void> {
    const file = this.#file;
    if (file === undefined) return;
    try {
      if (isOrderly && this.#isComplete) {
        // What it vouches for is on the device first.
        await file.sync();
        this.#append(CLEAN);
        await file.sync();
      }
    } catch {
      // Then the next start compares.
    } finally {
      this.#file = undefined;
      await file.close().catch(() => undefined);
    }
  }

  async #writeAnew(entries: Iterable<IndexEntry>): Promise<void> {
    const path = `${this.#path}.new`;
    await this.#file?.close();
    this.#file = undefined;
    this.#file = await this.#disk.open(path, "replace");
    this.#endByte = 0;
    this.#lineCount = 1;
    let text = HEAD;
    for (const entry of entries) {
      this.#lineCount++;
      text += encode(entry);
      if (text.length < PART_LENGTH_BYTES) continue;
      this.#append(text);
      text = "";
    }
    this.#append(text);
    await this.#file.sync();
    await this.#disk.rename(path, this.#path);
    await this.#disk.syncDirectory(dirname(this.#path));
  }

  #append(text: string): void {
    const bytes = Buffer.from(text);
    this.#file?.writeSync(bytes, this.#endByte);
    this.#endByte += bytes.length;
  }

  /** The file, in parts of whole lines; each is valid until the next. */
  async *#parts(file: DiskFile): AsyncGenerator<Buffer, undefined> {
    const buffer = Buffer.alloc(PART_LENGTH_BYTES);
    for (let offsetByte = 0; ; ) {
      const part = buffer.subarray(0, await file.read(buffer, offsetByte));
      const end = part.lastIndexOf(LINE_END) + 1;
      // A line longer than a part is none of ours.
      if (end === 0) return;
      yield part.subarray(0, end);
      offsetByte += end;
    }
  }
}

/** A line, its end included. */
function lineOf(value: readonly unknown[]): string {
  const json = JSON.stringify(value);
  return `${crc32(json).toString(16).padStart(8, "0")} ${json}\n`;
}

/** @returns undefined when the line is not as it was written */
function valueOf(line: string): readonly unknown[] | undefined {
  const json = line.slice(9, -1);
  if (Number.parseInt(line.slice(0, 8), 16) !== crc32(json)) return undefined;
  return JSON.parse(json) as readonly unknown[];
}

const LINE_END = 10;

function encode({ summary, heldBytes, usedAtUnixMs, place, journal }: IndexEntry): string {
  const { taskId, displayUrl, lengthBytes, contentType, digest } = summary;
  const { queue, useCount, turn } = place;
  return lineOf([
    taskId, displayUrl, lengthBytes ?? null, contentType ?? null, digest ?? null,
    heldBytes, usedAtUnixMs, queue, useCount, turn, journal.lengthBytes, journal.modifiedUnixMs,
  ]);
}

/** The checksum and the version were right: what has the form of an entry is one. */
function decode(value: readonly unknown[]): IndexEntry | undefined {
  const [taskId, displayUrl, lengthBytes, contentType, digest, heldBytes, usedAtUnixMs, queue, useCount, turn, journalBytes, modifiedUnixMs] =
    value as Entry;
  if (value.length !== ENTRY_LENGTH) return undefined;
  return {
    summary: { taskId, displayUrl, lengthBytes: lengthBytes ?? undefined, contentType: shared(contentType), digest: digest ?? undefined },
    heldBytes,
    usedAtUnixMs,
    place: { queue: queue === "main" ? "main" : "small", useCount, turn },
    journal: { lengthBytes: journalBytes, modifiedUnixMs },
  };
}

/** There are few types, of many files: one string for each. */
function shared(contentType: string | null): string | undefined {
  if (contentType === null) return undefined;
  const known = contentTypes.get(contentType);
  if (known !== undefined) return known;
  if (contentTypes.size < CONTENT_TYPE_COUNT_MAX) contentTypes.set(contentType, contentType);
  return contentType;
}

const contentTypes = new Map<string, string>();
const CONTENT_TYPE_COUNT_MAX = 1_000;

type Entry = [
  TaskId, string, number | null, string | null, string | null,
  number, number, QueuePlace["queue"], number, number, number, number,
];
const ENTRY_LENGTH = 12;
