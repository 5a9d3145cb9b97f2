/**
 * Where the store keeps what: `tasks/<2 hex>/<task id>/{data,journal}`, and how task directories come and go.
 */
import { dirname, join } from "node:path";
import { isTaskId, type TaskId } from "../../protocol/ids.ts";
import { Journal, readJournalHead, type JournalHead, type JournalState } from "./journal.ts";
import type { TaskRecord } from "./piece-store.ts";
import type { DiskFile, StoreDisk } from "./disk.ts";
import { diskError, errnoOf } from "./errors.ts";

/** A task's files, open. */
export interface TaskFiles {
  readonly data: DiskFile;
  readonly dataPath: string;
  readonly journal: Journal;
  readonly state: JournalState;
  /** Bytes of a torn tail cut off the journal. */
  readonly cutBytes: number;
  /** Whose names are to be on the device before the files count as kept; empty for files that were there. */
  readonly newIn: readonly string[];
}

export class StoreFiles {
  readonly directory: string;
  readonly #disk: StoreDisk;
  #nextMove = 1;

  constructor(directory: string, disk: StoreDisk) {
    this.directory = directory;
    this.#disk = disk;
  }

  /** Creates the directories. @throws AppError DISK_FAILED, DISK_FULL */
  async prepare(): Promise<void> {
    for (const name of ["tasks", "trash"]) await this.#makeDirectory(join(this.directory, name));
    // No task is on the device before the names above it.
    await this.#disk.syncDirectory(this.directory).catch((error: unknown) => {
      throw diskError(error, "flush", this.directory);
    });
  }

  /**
   * Reads the head of a task's journal; nothing else of it is read.
   *
   * @returns undefined when there is none
   * @throws AppError CACHE_CORRUPT, DISK_FAILED
   */
  async head(taskId: TaskId): Promise<JournalHead | undefined> {
    return await readJournalHead(this.#disk, this.journalPath(taskId));
  }

  /**
   * Opens a task's files.
   *
   * @param record for a task that is new; undefined to open only what is there
   * @returns undefined when there is nothing and `record` is undefined
   * @throws AppError CACHE_CORRUPT when the journal cannot be read (see {@link moveAside}); DISK_FULL, DISK_FAILED
   */
  async open(taskId: TaskId, record: TaskRecord | undefined): Promise<TaskFiles | undefined> {
    const directory = this.#taskDirectory(taskId);
    const opened = await Journal.open(this.#disk, this.journalPath(taskId));
    if (opened === undefined && record === undefined) return undefined;
    let journal = opened?.journal;
    let data: DiskFile | undefined;
    const dataPath = join(directory, "data");
    try {
      await this.#makeDirectory(directory);
      data = await this.#disk.open(dataPath, "editOrCreate");
      const state: JournalState = opened?.state ?? { record: record as TaskRecord, pieces: new Map() };
      // Data first: a journal says that its data file exists.
      if (opened === undefined) await data.truncate(0);
      if (state.record.lengthBytes !== undefined) await data.truncate(state.record.lengthBytes);
      journal ??= await Journal.create(this.#disk, this.journalPath(taskId), state.record);
      const newIn = opened === undefined ? [directory, dirname(directory), dirname(dirname(directory))] : [];
      return { data, dataPath, journal, state, cutBytes: opened?.cutBytes ?? 0, newIn };
    } catch (error) {
      await data?.close();
      await journal?.close();
      throw diskError(error, "open", dataPath);
    }
  }

  /**
   * Takes a task away at once (a rename, so a kill leaves all or nothing of it), then frees its bytes.
   *
   * @param durably resolve only when not even a power cut brings it back
   */
  async trash(taskId: TaskId, durably: boolean): Promise<void> {
    const path = join(this.directory, "trash", this.#movedName(taskId));
    if (!(await this.#move(taskId, path))) return;
    if (durably) {
      const from = dirname(this.#taskDirectory(taskId));
      await this.#disk.syncDirectory(from).catch((error: unknown) => {
        throw diskError(error, "flush", from);
      });
    }
    await this.#remove(path);
  }

  /** Frees what a killed process had no time to free. */
  async emptyTrash(): Promise<void> {
    const path = join(this.directory, "trash");
    for (const name of await this.#disk.list(path).catch(() => [])) await this.#remove(join(path, name));
  }

  /** Puts a task that this program cannot read where another can be found. @returns its new place */
  async moveAside(taskId: TaskId): Promise<string> {
    const aside = join(this.directory, "aside");
    await this.#makeDirectory(aside);
    const path = join(aside, this.#movedName(taskId));
    await this.#move(taskId, path);
    return path;
  }

  async #move(taskId: TaskId, to: string): Promise<boolean> {
    const from = this.#taskDirectory(taskId);
    try {
      await this.#disk.rename(from, to);
      return true;
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return false;
      throw diskError(error, "remove", from);
    }
  }

  /** First two digits of the ids of which there may be tasks. @throws AppError DISK_FAILED when they cannot be read */
  async prefixes(): Promise<string[]> {
    const names = await this.#list(join(this.directory, "tasks"));
    return names.filter((name) => /^[0-9a-f]{2}$/.test(name));
  }

  /** The tasks whose ids begin so. @throws AppError DISK_FAILED */
  async taskIds(prefix: string): Promise<TaskId[]> {
    const names = await this.#list(join(this.directory, "tasks", prefix));
    return names.filter((name) => isTaskId(name));
  }

  async #list(path: string): Promise<string[]> {
    return await this.#disk.list(path).catch((error: unknown) => {
      throw diskError(error, "list", path);
    });
  }

  #taskDirectory(taskId: TaskId): string {
    return join(this.directory, "tasks", taskId.slice(0, 2), taskId);
  }

  journalPath(taskId: TaskId): string {
    return join(this.#taskDirectory(taskId), "journal");
  }

  /** Creates `path` and what is missing above it. */
  async #makeDirectory(path: string): Promise<void> {
    try {
      await this.#disk.makeDirectory(path);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "EEXIST") return;
      if (errno !== "ENOENT" || dirname(path) === path) throw diskError(error, "create the directory", path);
      await this.#makeDirectory(dirname(path));
      await this.#makeDirectory(path);
    }
  }

  async #remove(path: string): Promise<void> {
    await this.#disk.remove(path).catch((error: unknown) => {
      throw diskError(error, "remove", path);
    });
  }

  #movedName(taskId: TaskId): string {
    return `${taskId}.${Date.now()}.${this.#nextMove++}`;
  }
}
