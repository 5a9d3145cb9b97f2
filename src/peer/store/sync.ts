/**
 * Brings a task's files to the device in the background: names, data, then journal, about once a second. What the
 * journal said before a flush began outlives the machine once the flush is done.
 */
import type { AppError } from "../../base/errors.ts";
import type { DiskFile, StoreDisk } from "./disk.ts";
import type { Journal } from "./journal.ts";
import { diskError } from "./errors.ts";

export interface TaskSyncFiles {
  readonly disk: StoreDisk;
  readonly data: DiskFile;
  readonly dataPath: string;
  readonly journal: Journal;
  /** Directories whose new names are not on the device yet. */
  readonly newIn: readonly string[];
}

/** Loses at most this much at a power cut, and costs one flush per busy task and second. */
const SYNC_AFTER_MS = 1000;

export class TaskSync {
  readonly #files: TaskSyncFiles;
  readonly #onFailed: (error: AppError) => void;
  #newIn: readonly string[];
  #isDirty = false;
  #isEnded = false;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  /** After a failed flush the system may have forgotten bytes it accepted: nothing more is stored then. */
  #failure: AppError | undefined;

  constructor(files: TaskSyncFiles, onFailed: (error: AppError) => void) {
    this.#files = files;
    this.#newIn = files.newIn;
    this.#onFailed = onFailed;
  }

  /** False: the system may have forgotten bytes it accepted. */
  get isHealthy(): boolean {
    return this.#failure === undefined;
  }

  /** Throws what a flush failed with, DISK_FAILED or DISK_FULL. */
  assertHealthy(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Something was written: flush within {@link SYNC_AFTER_MS}. */
  soon(): void {
    this.#isDirty = true;
    if (!this.#isEnded) this.#timer ??= setTimeout(() => void this.#flush(), SYNC_AFTER_MS).unref();
  }

  /** @throws AppError DISK_FAILED, DISK_FULL */
  async now(): Promise<void> {
    await this.#flush();
    this.assertHealthy();
  }

  /** Waits for a flush under way, makes a last one when `flush`. Never rejects. */
  async end(flush: boolean): Promise<void> {
    this.#isEnded = true;
    if (flush) await this.#flush();
    clearTimeout(this.#timer);
    await this.#running;
  }

  #flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#running = this.#running.then(async () => {
      if (!this.#isDirty) return;
      this.#isDirty = false;
      const { disk, data, dataPath, journal } = this.#files;
      try {
        await Promise.all(this.#newIn.map((path) => disk.syncDirectory(path)));
        this.#newIn = [];
        await data.sync();
        await journal.sync();
      } catch (error) {
        this.#failure = diskError(error, "flush", dataPath);
        this.#onFailed(this.#failure);
      }
    });
    return this.#running;
  }
}
