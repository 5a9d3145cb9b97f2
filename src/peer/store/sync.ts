/**
 * Brings a task's files to the device in the background: data, then journal, about once a second.
 */
import type { FileHandle } from "node:fs/promises";
import type { AppError } from "../../base/errors.ts";
import type { Journal } from "./journal.ts";
import { diskError } from "./errors.ts";

/** Loses at most this much at a power cut, and costs one flush per busy task and second. */
const SYNC_AFTER_MS = 1000;

export class TaskSync {
  readonly #data: FileHandle;
  readonly #dataPath: string;
  readonly #journal: Journal;
  readonly #onFailed: (error: AppError) => void;
  #isDirty = false;
  #isEnded = false;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  /** After a failed flush the system may have forgotten bytes it accepted: nothing more is stored then. */
  #failure: AppError | undefined;

  constructor(data: FileHandle, dataPath: string, journal: Journal, onFailed: (error: AppError) => void) {
    this.#data = data;
    this.#dataPath = dataPath;
    this.#journal = journal;
    this.#onFailed = onFailed;
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
      try {
        await this.#data.datasync().catch((error: unknown) => {
          throw diskError(error, "flush", this.#dataPath);
        });
        await this.#journal.sync();
      } catch (error) {
        this.#failure = diskError(error, "flush", this.#dataPath);
        this.#onFailed(this.#failure);
      }
    });
    return this.#running;
  }
}
