/**
 * Tasks that the operator wants kept, whatever room is needed: one id per line in the file `pins`, written anew with
 * each change and on the device before the change counts.
 */
import { isTaskId, type TaskId } from "../../protocol/ids.ts";
import type { StoreDisk } from "./disk.ts";
import { diskError, errnoOf } from "./errors.ts";

export class Pins {
  readonly #disk: StoreDisk;
  readonly #directory: string;
  readonly #taskIds = new Set<TaskId>();
  #lastWrite: Promise<void> = Promise.resolve();

  constructor(disk: StoreDisk, directory: string) {
    this.#disk = disk;
    this.#directory = directory;
  }

  get #path(): string {
    return `${this.#directory}/pins`;
  }

  /** @returns lines that are no task ids, which are not kept. @throws AppError DISK_FAILED */
  async load(): Promise<readonly string[]> {
    let lines: readonly string[];
    try {
      const file = await this.#disk.open(this.#path, "read");
      try {
        const bytes = Buffer.alloc((await file.facts()).lengthBytes);
        lines = bytes.toString("utf8", 0, await file.read(bytes, 0)).split("\n").filter((line) => line !== "");
      } finally {
        await file.close();
      }
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return [];
      throw diskError(error, "read", this.#path);
    }
    for (const line of lines) if (isTaskId(line)) this.#taskIds.add(line);
    return lines.filter((line) => !isTaskId(line));
  }

  has(taskId: TaskId): boolean {
    return this.#taskIds.has(taskId);
  }

  /** Durable when it resolves; as before when it rejects. @throws AppError DISK_FULL, DISK_FAILED */
  set(taskId: TaskId, isPinned: boolean): Promise<void> {
    const write = this.#lastWrite.then(async () => {
      if (this.has(taskId) === isPinned) return;
      const wanted = new Set(this.#taskIds);
      if (isPinned) wanted.add(taskId);
      else wanted.delete(taskId);
      await this.#write(wanted);
      if (isPinned) this.#taskIds.add(taskId);
      else this.#taskIds.delete(taskId);
    });
    this.#lastWrite = write.catch(() => undefined);
    return write;
  }

  async #write(taskIds: ReadonlySet<TaskId>): Promise<void> {
    const path = `${this.#path}.new`;
    try {
      const file = await this.#disk.open(path, "replace");
      try {
        file.writeSync(Buffer.from([...taskIds, ""].join("\n")), 0);
        await file.sync();
      } finally {
        await file.close();
      }
      await this.#disk.rename(path, this.#path);
      await this.#disk.syncDirectory(this.#directory);
    } catch (error) {
      throw diskError(error, "write", path);
    }
  }
}
