/**
 * What a start wants to know of every task, in one file that is read in one go, so that it need not open each journal:
 * `index` (index-format.ts). It is a memory of the journals, never above them: whoever opens a task reads its journal,
 * and after the start all of it is compared with what is on disk (survey.ts). Lost, damaged or of another version, it is
 * made anew from the journals.
 */
import { dirname } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import type { TaskId } from "../../protocol/ids.ts";
import type { DiskFile, StoreDisk } from "./disk.ts";
import { diskError } from "./errors.ts";
import { decodeIndex, encodeGone, encodeIndexEntry, encodeIndexPreamble, INDEX_CLEAN, INDEX_OPEN, type IndexEntry } from "./index-format.ts";

export interface LoadedIndex {
  readonly entries: ReadonlyMap<TaskId, IndexEntry>;
  /** The process that wrote it closed the store: no journal has changed since, unless by other hands. */
  readonly isClean: boolean;
}

/** Frames per task beyond which the file is written anew. */
const FRAMES_PER_TASK_MAX = 2;
const FRAMES_MIN = 1000;
const PART_LENGTH_BYTES = 128 * 1024;

export class IndexFile {
  readonly #disk: StoreDisk;
  readonly #path: string;
  #file: DiskFile | undefined;
  /** Where the next frame goes; 0 while there is no file that can be added to. */
  #endByte = 0;
  #frameCount = 0;
  /** All that was to be noted in this run is. */
  #isComplete = true;
  /** Set while the file is written anew: what is noted meanwhile, which the new one has to have too. */
  #meanwhile: Buffer[] | undefined;
  #compacting: Promise<void> | undefined;

  constructor(disk: StoreDisk, path: string) {
    this.#disk = disk;
    this.#path = path;
  }

  /** What can be read of the file: nothing when it is not there, unreadable, or of another version. */
  async load(): Promise<LoadedIndex> {
    try {
      this.#file = await this.#disk.open(this.#path, "edit");
      const bytes = Buffer.allocUnsafeSlow((await this.#file.facts()).lengthBytes);
      const { entries, frameCount, endByte, isClean } = decodeIndex(bytes.subarray(0, await this.#file.read(bytes, 0)));
      this.#endByte = endByte;
      this.#frameCount = frameCount;
      // Behind a frame that is damaged there may be any number.
      return { entries, isClean: isClean && endByte === bytes.length };
    } catch {
      this.#endByte = 0;
      return { entries: new Map(), isClean: false };
    }
  }

  /**
   * Begins a run, after {@link load}: from now on the file on the device says that the end was not orderly, until
   * {@link close}. On a full disk it is removed, and there is none in this run: what is cached is what can make room.
   *
   * @throws AppError DISK_FAILED
   */
  async begin(): Promise<void> {
    try {
      if (this.#file === undefined || this.#endByte === 0) await this.#writeAnew([]);
      else await this.#file.truncate(this.#endByte);
      this.#append(INDEX_OPEN);
      await this.#file?.sync();
    } catch (error) {
      await this.#file?.close();
      this.#file = undefined;
      const failure = diskError(error, "write", this.#path);
      if (failure.code !== "DISK_FULL") throw failure;
      await this.#remove();
    }
  }

  async #remove(): Promise<void> {
    try {
      for (const path of [this.#path, `${this.#path}.new`]) await this.#disk.remove(path);
      await this.#disk.syncDirectory(dirname(this.#path));
    } catch (error) {
      throw diskError(error, "remove", this.#path);
    }
  }

  /** Notes a task as it is now. Best effort: what is not noted is read from its journal after the next start. */
  note(entry: IndexEntry): void {
    this.#add(encodeIndexEntry(entry));
  }

  noteGone(taskId: TaskId): void {
    this.#add(encodeGone(taskId));
  }

  /** A task that has changed cannot be noted: this run's end cannot vouch for the file. */
  omit(): void {
    this.#isComplete = false;
  }

  /**
   * Writes the file anew, in the background, when it says much that no longer counts.
   *
   * @param entries all there are, read as it goes
   */
  compact(taskCount: number, entries: () => Iterable<IndexEntry>): void {
    if (this.#file === undefined || this.#frameCount <= FRAMES_MIN || this.#frameCount <= taskCount * FRAMES_PER_TASK_MAX) return;
    this.#compacting ??= this.#writeAnew(entries())
      // The old one goes on; tried again with the next note.
      .catch(() => undefined)
      .finally(() => (this.#compacting = undefined));
  }

  /** @param isOrderly every task is closed and noted */
  async close(isOrderly: boolean): Promise<void> {
    await this.#compacting;
    const file = this.#file;
    if (file === undefined) return;
    try {
      if (isOrderly && this.#isComplete) {
        // What it vouches for is on the device first.
        await file.sync();
        this.#append(INDEX_CLEAN);
        await file.sync();
      }
    } catch {
      // Then the next start compares.
    } finally {
      this.#file = undefined;
      await file.close().catch(() => undefined);
    }
  }

  /** Beside the file that is there, a part per turn of the loop; then in its place. */
  async #writeAnew(entries: Iterable<IndexEntry>): Promise<void> {
    const meanwhile: Buffer[] = [];
    this.#meanwhile = meanwhile;
    const path = `${this.#path}.new`;
    let file: DiskFile | undefined;
    try {
      file = await this.#disk.open(path, "replace");
      let endByte = 0;
      let frameCount = 0;
      let parts = [encodeIndexPreamble()];
      let lengthBytes = 0;
      const write = (into: DiskFile): void => {
        const bytes = Buffer.concat(parts);
        into.writeSync(bytes, endByte);
        endByte += bytes.length;
        frameCount += parts.length;
        [parts, lengthBytes] = [[], 0];
      };
      for (const entry of entries) {
        const bytes = encodeIndexEntry(entry);
        parts.push(bytes);
        lengthBytes += bytes.length;
        if (lengthBytes < PART_LENGTH_BYTES) continue;
        write(file);
        // oxlint-disable-next-line no-await-in-loop -- others have a turn
        await turn();
      }
      write(file);
      await file.sync();
      await this.#disk.rename(path, this.#path);
      await this.#disk.syncDirectory(dirname(this.#path));
      parts = meanwhile;
      write(file);
      const old = this.#file;
      this.#file = file;
      this.#endByte = endByte;
      this.#frameCount = frameCount;
      await old?.close();
    } catch (error) {
      if (file !== this.#file) await file?.close();
      throw error;
    } finally {
      if (this.#meanwhile === meanwhile) this.#meanwhile = undefined;
    }
  }

  #add(frame: Buffer): void {
    this.#meanwhile?.push(frame);
    try {
      this.#append(frame);
    } catch {
      // A full disk: the file ends in part of a frame, which the next one overwrites.
      this.omit();
    }
  }

  #append(frame: Buffer): void {
    this.#file?.writeSync(frame, this.#endByte);
    this.#endByte += frame.length;
    this.#frameCount++;
  }
}
