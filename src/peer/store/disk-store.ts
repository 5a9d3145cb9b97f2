/**
 * The piece store on a directory: which tasks there are, who has them open, and which go when room is needed.
 */
import { performance } from "node:perf_hooks";
import { assert } from "../../base/assert.ts";
import { AppError, toAppError } from "../../base/errors.ts";
import type { TaskId } from "../../protocol/ids.ts";
import type { EvictionCandidate, EvictionReason } from "./eviction.ts";
import type { PieceStore, PieceStoreConfig, StoredTask, StoreUsage, TaskRecord } from "./piece-store.ts";
import { newEntry, type StoreEntry } from "./entry.ts";
import { StoreFiles, type TaskFiles } from "./files.ts";
import { StoreLock } from "./lock.ts";
import { StorePool, type StoreRunner } from "./pool.ts";
import { StoreSpace } from "./space.ts";
import { StoreTask } from "./task.ts";
import { dropDamaged } from "./verify.ts";

/** Something an operator should see. `fields` carry no secret. */
export type StoreLog = (level: "info" | "warn" | "error", message: string, fields: Readonly<Record<string, string | number>>) => void;

export interface DiskStoreDeps {
  readonly log?: StoreLog;
  /** Stand-ins for tests: threads, wall clock, free bytes of the file system. */
  readonly runner?: StoreRunner;
  readonly nowMs?: () => number;
  readonly freeBytes?: (directory: string) => Promise<number>;
}

/** Tasks kept open though nobody uses them: opening again is free then. Each holds two descriptors. */
const IDLE_TASK_COUNT_MAX = 128;

export class DiskStore implements PieceStore {
  readonly #files: StoreFiles;
  readonly #lock: StoreLock;
  readonly #runner: StoreRunner;
  readonly #workerCount: number;
  readonly #space: StoreSpace;
  readonly #log: StoreLog;
  readonly #nowMs: () => number;
  readonly #entries = new Map<TaskId, StoreEntry>();
  readonly #evictedTasks: Record<EvictionReason, number> = { quota: 0, "free-space": 0 };
  /** Leftovers of the process before; nobody waits for it. */
  #emptying: Promise<void> = Promise.resolve();
  #evictedBytes = 0;
  #damagedPieces = 0;
  #verifyMsTotal = 0;
  #isClosed = false;

  private constructor(config: PieceStoreConfig, deps: DiskStoreDeps, files: StoreFiles, lock: StoreLock) {
    this.#files = files;
    this.#lock = lock;
    this.#runner = deps.runner ?? new StorePool(config.workerCount);
    this.#workerCount = config.workerCount;
    this.#log = deps.log ?? (() => undefined);
    this.#nowMs = deps.nowMs ?? Date.now;
    this.#space = new StoreSpace(config, {
      candidates: () => this.#candidates(),
      evict: (taskId, reason) => this.#evict(taskId, reason),
      nowMs: this.#nowMs,
      ...(deps.freeBytes && { freeBytes: deps.freeBytes }),
    });
  }

  /**
   * Opens the store on `config.directory`, creating it when new: takes its lock and reads the heads of its journals.
   *
   * @throws AppError DISK_FAILED (another process has it, not writable, …), DISK_FULL
   */
  static async open(config: PieceStoreConfig, deps: DiskStoreDeps = {}): Promise<DiskStore> {
    const files = new StoreFiles(config.directory);
    await files.prepare();
    const lock = await StoreLock.take(config.directory);
    try {
      const store = new DiskStore(config, deps, files, lock);
      await store.#restore();
      return store;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  list(): readonly TaskRecord[] {
    return [...this.#entries.values()].flatMap((entry) => (entry.isOnDisk ? [entry.task?.record ?? entry.record] : []));
  }

  async open(record: TaskRecord): Promise<StoredTask> {
    // With a record there is always a task.
    const task = (await this.#acquire(record.taskId, record)) as StoreTask;
    const { lengthBytes, lengthSignature } = record;
    if (task.record.lengthBytes === undefined && lengthBytes !== undefined && lengthSignature !== undefined) {
      await task.setLength(lengthBytes, lengthSignature).catch((error: unknown) => {
        task.release();
        throw error;
      });
    }
    return task;
  }

  async find(taskId: TaskId): Promise<StoredTask | undefined> {
    return this.#entries.has(taskId) ? await this.#acquire(taskId, undefined) : undefined;
  }

  async remove(taskId: TaskId): Promise<boolean> {
    const entry = this.#entries.get(taskId);
    if (entry !== undefined && entry.refCount > 0) return false;
    if (entry !== undefined) await this.#remove(entry);
    return true;
  }

  usage(): StoreUsage {
    let openTaskCount = 0;
    for (const { refCount } of this.#entries.values()) if (refCount > 0) openTaskCount++;
    return {
      usedBytes: this.#space.usedBytes,
      taskCount: this.#entries.size,
      openTaskCount,
      evictedBytes: this.#evictedBytes,
      evictedTasks: { ...this.#evictedTasks },
      damagedPieces: this.#damagedPieces,
      verifyMsTotal: this.#verifyMsTotal,
    };
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const entries = [...this.#entries.values()];
    await Promise.all(entries.map(async ({ task }) => await task?.settleWrites()));
    // Digests and verifications under way are of no use any more; their jobs are rejected.
    await this.#runner.close();
    await Promise.allSettled(entries.map(async ({ removing, opening }) => await (removing ?? opening)));
    await Promise.all(entries.map((entry) => this.#shut(entry, true)));
    await this.#emptying;
    await this.#lock.release();
  }

  async #restore(): Promise<void> {
    const heads = await this.#files.scan((taskId, error) => {
      this.#log("warn", `a cached task is not used: ${error.message}`, { taskId });
    });
    for (const [taskId, { record, heldBytesEstimate, usedAtUnixMs }] of heads) {
      this.#entries.set(taskId, newEntry(record, true, heldBytesEstimate, usedAtUnixMs));
      this.#space.count(heldBytesEstimate);
    }
    this.#emptying = this.#files.emptyTrash().catch((error: unknown) => this.#log("warn", toAppError(error).message, {}));
  }

  /** The task, pinned; undefined when it is not there and `record` is undefined. */
  async #acquire(taskId: TaskId, record: TaskRecord | undefined): Promise<StoreTask | undefined> {
    let entry = this.#entries.get(taskId);
    while (entry?.removing !== undefined) {
      await entry.removing.catch(() => undefined);
      entry = this.#entries.get(taskId);
    }
    if (this.#isClosed) throw new AppError("SHUTTING_DOWN", "the piece store is closing");
    if (entry === undefined) {
      if (record === undefined) return undefined;
      entry = newEntry(record, false, 0, this.#nowMs());
      this.#entries.set(taskId, entry);
    }
    entry.refCount++;
    entry.usedAtUnixMs = this.#nowMs();
    try {
      entry.opening ??= this.#load(entry, record);
      const task = await entry.opening;
      if (task !== undefined) {
        void task.touch().catch(() => undefined);
        return task;
      }
    } catch (error) {
      this.#unpin(entry);
      throw error;
    }
    this.#unpin(entry);
    return record === undefined ? undefined : await this.#acquire(taskId, record);
  }

  /** Opens the files of `entry`, after whatever closing of them is under way. */
  async #load(entry: StoreEntry, record: TaskRecord | undefined): Promise<StoreTask | undefined> {
    try {
      await entry.closing;
      const files = await this.#openFiles(entry.record.taskId, record);
      if (files !== undefined) return (entry.task = await this.#verified(entry, files));
    } catch (error) {
      entry.opening = undefined;
      if (!entry.isOnDisk) this.#entries.delete(entry.record.taskId);
      throw error;
    }
    // Gone from the disk, or moved aside. All who wait for it share this answer.
    entry.opening = undefined;
    this.#entries.delete(entry.record.taskId);
    this.#space.giveBack(entry.heldBytes);
    return undefined;
  }

  async #openFiles(taskId: TaskId, record: TaskRecord | undefined): Promise<TaskFiles | undefined> {
    try {
      return await this.#files.open(taskId, record);
    } catch (thrown) {
      const error = toAppError(thrown);
      if (error.code !== "CACHE_CORRUPT") throw error;
      const path = await this.#files.moveAside(taskId);
      this.#log("warn", `a cached task was moved aside: ${error.message}`, { taskId, path });
      return await this.#files.open(taskId, record);
    }
  }

  /** The task with those of its pieces that are right on disk; what this process verified or wrote before is trusted. */
  async #verified(entry: StoreEntry, files: TaskFiles): Promise<StoreTask> {
    const { data, dataPath, journal, state, cutBytes } = files;
    const { taskId } = state.record;
    if (cutBytes > 0) this.#log("info", `cut ${cutBytes} bytes of an unfinished entry off ${journal.path}`, { taskId, cutBytes });
    const beganMs = performance.now();
    const damaged = await dropDamaged(files, entry.trusted, this.#runner, this.#workerCount);
    this.#verifyMsTotal += performance.now() - beganMs;
    if (damaged.length > 0) this.#reportDamage(taskId, damaged, `${dataPath} does not hold what was written to it`);
    entry.isOnDisk = true;
    const task = new StoreTask(
      {
        record: state.record,
        data,
        dataPath,
        journal,
        runner: this.#runner,
        space: this.#space,
        onRelease: () => this.#unpin(entry),
        onDamage: (pieces, why) => this.#reportDamage(taskId, pieces, why),
        onSyncFailed: (error) => this.#log("error", error.message, { taskId }),
      },
      state.pieces,
    );
    this.#space.giveBack(entry.heldBytes);
    this.#space.count(task.heldBytes);
    return task;
  }

  #reportDamage(taskId: TaskId, pieces: readonly number[], why: string): void {
    this.#damagedPieces += pieces.length;
    const which = pieces.toSorted((a, b) => a - b).slice(0, 10).join(", ") + (pieces.length > 10 ? ", …" : "");
    this.#log("warn", `dropped ${pieces.length} damaged pieces (${which}): ${why}; check the disk`, { taskId, pieceCount: pieces.length });
  }

  #unpin(entry: StoreEntry): void {
    assert(entry.refCount > 0, `task ${entry.record.taskId} released more often than opened`);
    entry.refCount--;
    entry.usedAtUnixMs = this.#nowMs();
    if (entry.refCount > 0 || this.#isClosed) return;
    void entry.task?.touch().catch(() => undefined);
    const idle = [...this.#entries.values()].filter(({ task, refCount }) => task !== undefined && refCount === 0);
    if (idle.length <= IDLE_TASK_COUNT_MAX) return;
    idle.sort((a, b) => a.usedAtUnixMs - b.usedAtUnixMs);
    for (const old of idle.slice(0, idle.length - IDLE_TASK_COUNT_MAX)) void this.#shut(old, true);
  }

  /** Closes the files of a task; it stays on disk and known. Never rejects. */
  #shut(entry: StoreEntry, flush: boolean): Promise<void> {
    const { task } = entry;
    if (task === undefined) return entry.closing;
    entry.task = undefined;
    entry.opening = undefined;
    entry.record = task.record;
    entry.heldBytes = task.heldBytes;
    entry.closing = task.shutDown(flush).then(() => {
      entry.heldBytes = task.heldBytes;
      entry.trusted = task.have;
    });
    return entry.closing;
  }

  /** Removes a task that is not pinned from the disk and from the account. */
  #remove(entry: StoreEntry): Promise<void> {
    entry.removing ??= (async () => {
      try {
        await this.#shut(entry, false);
        await this.#files.trash(entry.record.taskId);
        this.#entries.delete(entry.record.taskId);
        this.#space.giveBack(entry.heldBytes);
      } finally {
        entry.removing = undefined;
      }
    })();
    return entry.removing;
  }

  async #evict(taskId: TaskId, reason: EvictionReason): Promise<void> {
    const entry = this.#entries.get(taskId);
    if (entry === undefined || entry.refCount > 0) return;
    await this.#remove(entry);
    this.#evictedBytes += entry.heldBytes;
    this.#evictedTasks[reason]++;
    this.#log("info", `evicted a cached task of ${entry.heldBytes} bytes (${reason})`, { taskId, reason, bytes: entry.heldBytes });
  }

  *#candidates(): Iterable<EvictionCandidate> {
    for (const [taskId, { task, heldBytes, usedAtUnixMs, refCount }] of this.#entries) {
      yield { taskId, heldBytes: task?.heldBytes ?? heldBytes, usedAtUnixMs, isPinned: refCount > 0 };
    }
  }
}
