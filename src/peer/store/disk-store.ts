/**
 * The piece store on a directory: who has which task open, and what goes when room is needed.
 */
import { assert } from "../../base/assert.ts";
import { AppError, toAppError } from "../../base/errors.ts";
import type { TaskId } from "../../protocol/ids.ts";
import { PieceSet } from "../../protocol/piece-set.ts";
import { Catalog } from "./catalog.ts";
import { type StoreDisk, systemDisk } from "./disk.ts";
import type { EvictionReason } from "./eviction.ts";
import type { CachedTask, PieceStore, PieceStoreConfig, StoredTask, StoreUsage, TaskRecord, VerifiedTask } from "./piece-store.ts";
import { type StoreEntry, summaryOf } from "./entry.ts";
import { StoreFiles, type TaskFiles } from "./files.ts";
import { StoreLock } from "./lock.ts";
import { StorePool, type StoreRunner } from "./pool.ts";
import { Scrub } from "./scrub.ts";
import { StoreSpace } from "./space.ts";
import { Survey } from "./survey.ts";
import { StoreTask } from "./task.ts";

/** Something an operator should see. `fields` carry no secret. */
export type StoreLog = (level: "info" | "warn" | "error", message: string, fields: Readonly<Record<string, string | number>>) => void;

export interface DiskStoreDeps {
  readonly log?: StoreLog;
  /**
   * Room is needed and only open tasks are left: lets those go that nobody needs open.
   * @returns whether there were any
   */
  readonly letGo?: () => Promise<boolean>;
  /** A task that nobody used is gone from the disk. */
  readonly onEvicted?: (taskId: TaskId) => void;
  /** Stand-ins for tests: threads, files, wall clock. */
  readonly runner?: StoreRunner;
  readonly disk?: StoreDisk;
  readonly nowMs?: () => number;
}

/** Tasks kept open though nobody uses them: opening again is free then. Each holds two descriptors, for a while. */
const IDLE_TASK_COUNT_MAX = 32;
const IDLE_MS = 20_000;

export class DiskStore implements PieceStore {
  readonly #disk: StoreDisk;
  readonly #files: StoreFiles;
  readonly #lock: StoreLock;
  readonly #runner: StoreRunner;
  readonly #workerCount: number;
  readonly #space: StoreSpace;
  readonly #log: StoreLog;
  readonly #onEvicted: (taskId: TaskId) => void;
  /** Kept on disk: when a task was used. */
  readonly #nowMs: () => number;
  /** For ages within this process: it does not jump. */
  readonly #steadyMs: () => number;
  readonly #catalog: Catalog;
  readonly #scrub: Scrub;
  readonly #survey: Survey;
  readonly #evictedTasks: Record<EvictionReason, number> = { quota: 0, "free-space": 0 };
  /** Leftovers of the process before; nobody waits for it. */
  #emptying: Promise<void> = Promise.resolve();
  /** Open though nobody uses them, and since when; the one released last, last. */
  readonly #idle = new Map<StoreEntry, number>();
  #idleTimer: NodeJS.Timeout | undefined;
  #openTaskCount = 0;
  #evictedBytes = 0;
  #damagedPieces = 0;
  #verifyMsTotal = 0;
  #isClosed = false;

  private constructor(config: PieceStoreConfig, deps: DiskStoreDeps, files: StoreFiles, lock: StoreLock) {
    this.#disk = deps.disk ?? systemDisk;
    this.#files = files;
    this.#lock = lock;
    this.#runner = deps.runner ?? new StorePool(config.workerCount);
    this.#workerCount = config.workerCount;
    this.#log = deps.log ?? (() => undefined);
    this.#onEvicted = deps.onEvicted ?? (() => undefined);
    this.#nowMs = deps.nowMs ?? Date.now;
    this.#steadyMs = deps.nowMs ?? ((): number => performance.now());
    this.#catalog = new Catalog(files.directory, this.#disk);
    this.#space = new StoreSpace(config, {
      disk: this.#disk,
      evictableBytes: () => this.#catalog.evictableBytes,
      evictOne: (reason) => this.#evictOne(reason),
      letGo: async () => {
        // What is on disk and not known yet may go, too.
        const isLearning = !this.#survey.isThrough;
        await this.#survey.ended;
        const [others, scrub] = await Promise.all([deps.letGo?.(), this.#scrub.letGo()]);
        return others === true || scrub || isLearning;
      },
      nowMs: this.#steadyMs,
    });
    this.#survey = new Survey({
      disk: this.#disk,
      files,
      get: (taskId) => this.#catalog.get(taskId),
      onFound: (head) => this.#space.count(this.#catalog.addFound(head).heldBytes),
      onChanged: (entry, head) => {
        this.#space.count(head.heldBytesEstimate - entry.heldBytes);
        this.#catalog.correct(entry, head);
      },
      onGone: (entry) => {
        this.#catalog.delete(entry);
        this.#space.giveBack(entry.heldBytes);
      },
      onRefused: (taskId, error) => this.#log("warn", `a cached task is not used: ${error.message}`, { taskId }),
    });
    this.#scrub = new Scrub(config.scrubBytesPerSecond, {
      taskIds: () => this.#catalog.list().map(({ taskId }) => taskId),
      open: (taskId) => this.#acquire(taskId, undefined, false),
      isBusy: () => this.#runner.isBusy,
      onFailed: (taskId, error) => this.#log("warn", `cannot read back a cached task: ${error.message}`, { taskId }),
      nowMs: this.#nowMs,
    });
  }

  /**
   * Opens the store on `config.directory`, creating it when new: takes its lock and reads from its index what is there; what the
   * index does not know is found in the background (see {@link surveyed}).
   *
   * @throws AppError DISK_FAILED (another process has it, not writable, …), DISK_FULL
   */
  static async open(config: PieceStoreConfig, deps: DiskStoreDeps = {}): Promise<DiskStore> {
    const files = new StoreFiles(config.directory, deps.disk ?? systemDisk);
    await files.prepare();
    const lock = await StoreLock.take(config.directory);
    try {
      const store = new DiskStore(config, deps, files, lock);
      await store.#restore();
      store.#scrub.start();
      return store;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** Resolves when all that is on disk has been found, or cannot be. */
  get surveyed(): Promise<void> {
    return this.#survey.ended;
  }

  list(): readonly CachedTask[] {
    return this.#catalog.list();
  }

  async has(taskId: TaskId): Promise<boolean> {
    if (!this.#survey.isThrough) await this.#survey.find(taskId);
    return this.#catalog.get(taskId)?.isOnDisk === true;
  }

  used(taskId: TaskId): void {
    const entry = this.#catalog.get(taskId);
    if (entry !== undefined) this.#catalog.used(entry, this.#nowMs());
  }

  async open(record: TaskRecord): Promise<StoredTask> {
    // With a record there is always a task.
    const task = (await this.#acquire(record.taskId, record, true)) as StoreTask;
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
    return await this.#acquire(taskId, undefined, true);
  }

  async remove(taskId: TaskId): Promise<boolean> {
    if (!this.#survey.isThrough) await this.#survey.find(taskId);
    if ((this.#catalog.get(taskId)?.refCount ?? 0) > 0) await this.#scrub.letGo(taskId);
    const entry = this.#catalog.get(taskId);
    if (entry !== undefined && entry.refCount > 0) return false;
    if (entry !== undefined) await this.#remove(entry, true);
    await this.#catalog.unpin(taskId);
    return true;
  }

  async pin(taskId: TaskId, isPinned: boolean): Promise<boolean> {
    if (!this.#survey.isThrough) await this.#survey.find(taskId);
    const entry = this.#catalog.get(taskId);
    if (entry === undefined || !entry.isOnDisk || entry.removing !== undefined) return false;
    await this.#catalog.pin(entry, isPinned);
    return true;
  }

  async verify(taskId: TaskId): Promise<VerifiedTask | undefined> {
    const task = await this.#acquire(taskId, undefined, false);
    if (task === undefined) return undefined;
    try {
      const pieces = [...task.have];
      const damaged = await task.verify(pieces, true);
      return { checkedPieces: pieces.length, damagedPieces: damaged.length };
    } finally {
      task.release();
    }
  }

  usage(): StoreUsage {
    return {
      usedBytes: this.#space.usedBytes,
      taskCount: this.#catalog.size,
      openTaskCount: this.#openTaskCount,
      evictedBytes: this.#evictedBytes,
      evictedTasks: { ...this.#evictedTasks },
      refusedRequests: { ...this.#space.refused },
      damagedPieces: this.#damagedPieces,
      verifyMsTotal: this.#verifyMsTotal,
      scrubbedBytes: this.#scrub.bytes,
      scrubbedAllAtUnixMs: this.#scrub.doneAtUnixMs,
    };
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#scrub.stop();
    clearInterval(this.#idleTimer);
    await this.#survey.stop();
    const entries = [...this.#catalog].filter((entry) => (entry.task ?? entry.opening ?? entry.closing ?? entry.removing) !== undefined);
    await Promise.all(entries.map(async ({ task }) => await task?.settleWrites()));
    // Digests and verifications under way are of no use any more; their jobs are rejected.
    await this.#runner.close();
    await Promise.allSettled(entries.map(async ({ removing, opening }) => await (removing ?? opening)));
    await Promise.all(entries.map((entry) => this.#shut(entry, true)));
    await this.#emptying;
    await this.#catalog.close(this.#survey.isThrough);
    await this.#lock.release();
  }

  async #restore(): Promise<void> {
    const isClean = await this.#catalog.restore((message) => this.#log("warn", message, {}));
    for (const { heldBytes } of this.#catalog) this.#space.count(heldBytes);
    this.#survey.start(this.#catalog, isClean, (error) => this.#log("warn", `what is in the cache is not all known: ${error.message}`, {}));
    this.#idleTimer = setInterval(() => this.#shutIdle(), IDLE_MS / 4).unref();
    this.#emptying = this.#files.emptyTrash().catch((error: unknown) => this.#log("warn", toAppError(error).message, {}));
  }

  /** The task, kept open; undefined when it is not there and `record` is undefined. */
  async #acquire(taskId: TaskId, record: TaskRecord | undefined, isUse: boolean): Promise<StoreTask | undefined> {
    if (!this.#survey.isThrough) await this.#survey.find(taskId);
    let entry = this.#catalog.get(taskId);
    while (entry?.removing !== undefined) {
      await entry.removing.catch(() => undefined);
      entry = this.#catalog.get(taskId);
    }
    if (this.#isClosed) throw new AppError("SHUTTING_DOWN", "the piece store is closing");
    if (entry === undefined) {
      if (record === undefined) return undefined;
      entry = this.#catalog.add(record, this.#nowMs());
    }
    if (entry.refCount++ === 0) this.#openTaskCount++;
    if (isUse) this.#catalog.used(entry, this.#nowMs());
    this.#catalog.refresh(entry);
    try {
      entry.opening ??= this.#load(entry, record);
      const task = await entry.opening;
      if (task !== undefined) return task;
    } catch (error) {
      this.#unpin(entry);
      throw error;
    }
    this.#unpin(entry);
    return record === undefined ? undefined : await this.#acquire(taskId, record, isUse);
  }

  /** Opens the files of `entry`, after whatever closing of them is under way. */
  async #load(entry: StoreEntry, record: TaskRecord | undefined): Promise<StoreTask | undefined> {
    try {
      await entry.closing;
      const files = await this.#openFiles(entry.summary.taskId, record);
      if (files !== undefined) return (entry.task = this.#opened(entry, files));
    } catch (error) {
      entry.opening = undefined;
      if (!entry.isOnDisk) this.#catalog.delete(entry);
      throw error;
    }
    // Gone from the disk, or moved aside. All who wait for it share this answer.
    entry.opening = undefined;
    this.#catalog.delete(entry);
    this.#space.giveBack(entry.heldBytes);
    return undefined;
  }

  async #openFiles(taskId: TaskId, record: TaskRecord | undefined): Promise<TaskFiles | undefined> {
    try {
      return await this.#files.open(taskId, record);
    } catch (thrown) {
      const error = toAppError(thrown);
      if (error.code === "DISK_FULL" && record !== undefined && (await this.#space.makeRoom())) return await this.#openFiles(taskId, record);
      if (error.code !== "CACHE_CORRUPT") throw error;
      const path = await this.#files.moveAside(taskId);
      this.#log("warn", `a cached task was moved aside: ${error.message}`, { taskId, path });
      return await this.#files.open(taskId, record);
    }
  }

  #opened(entry: StoreEntry, files: TaskFiles): StoreTask {
    const { journal, state, cutBytes } = files;
    const { taskId } = state.record;
    if (cutBytes > 0) this.#log("info", `cut ${cutBytes} bytes of an unfinished entry off ${journal.path}`, { taskId, cutBytes });
    entry.isOnDisk = true;
    entry.isUnseen = false;
    const task = new StoreTask({
      disk: this.#disk,
      files,
      trusted: entry.trusted ?? new PieceSet(),
      runner: this.#runner,
      workerCount: this.#workerCount,
      space: this.#space,
      onRelease: () => this.#unpin(entry),
      onStoring: (isStoring) => {
        entry.isStoring = isStoring;
        this.#catalog.refresh(entry);
      },
      onDamage: (pieces, why) => this.#reportDamage(taskId, pieces, why),
      onVerified: (tookMs) => (this.#verifyMsTotal += tookMs),
      onSyncFailed: (error) => this.#log("error", error.message, { taskId }),
    });
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
    assert(entry.refCount > 0, `task ${entry.summary.taskId} released more often than opened`);
    entry.refCount--;
    if (entry.refCount > 0) return;
    this.#openTaskCount--;
    this.#catalog.refresh(entry);
    if (this.#isClosed || entry.task === undefined) return;
    this.#catalog.noteUse(entry);
    this.#idle.delete(entry);
    this.#idle.set(entry, this.#steadyMs());
    this.#shutIdle();
  }

  /** Closes those that nobody has used for long, and those beyond what may be kept. */
  #shutIdle(): void {
    const beforeMs = this.#steadyMs() - IDLE_MS;
    for (const [oldest, sinceMs] of this.#idle) {
      if (this.#idle.size <= IDLE_TASK_COUNT_MAX && sinceMs > beforeMs) return;
      this.#idle.delete(oldest);
      if (oldest.refCount === 0 && oldest.removing === undefined) void this.#shut(oldest, true);
    }
  }

  /** Closes the files of a task; it stays on disk and known. Never rejects. */
  #shut(entry: StoreEntry, flush: boolean): Promise<void> {
    const { task } = entry;
    if (task === undefined) return entry.closing ?? Promise.resolve();
    this.#idle.delete(entry);
    entry.task = undefined;
    entry.opening = undefined;
    entry.summary = summaryOf(task.record);
    entry.heldBytes = task.heldBytes;
    const closing = task.shutDown(flush).then((journal) => {
      entry.heldBytes = task.heldBytes;
      // What a failed flush leaves of them in the page cache is no longer what was seen.
      entry.trusted = task.isHealthy ? task.trusted : undefined;
      entry.journal = journal;
      if (entry.closing === closing) entry.closing = undefined;
      if (entry.removing !== undefined) return;
      this.#catalog.refresh(entry);
      this.#catalog.note(entry);
    });
    entry.closing = closing;
    return closing;
  }

  /** Removes a task that nobody has open from the disk and from the account. */
  #remove(entry: StoreEntry, durably: boolean): Promise<void> {
    entry.removing ??= (async () => {
      try {
        await this.#shut(entry, false);
        await this.#files.trash(entry.summary.taskId, durably);
        this.#catalog.delete(entry);
        this.#space.giveBack(entry.heldBytes);
      } finally {
        entry.removing = undefined;
      }
    })();
    return entry.removing;
  }

  async #evictOne(reason: EvictionReason): Promise<boolean> {
    const entry = this.#catalog.takeVictim();
    if (entry === undefined) return false;
    try {
      await this.#remove(entry, false);
    } catch (error) {
      this.#catalog.putBack(entry);
      throw error;
    }
    const { taskId } = entry.summary;
    this.#onEvicted(taskId);
    this.#evictedBytes += entry.heldBytes;
    this.#evictedTasks[reason]++;
    this.#log("info", `evicted a cached task of ${entry.heldBytes} bytes (${reason})`, { taskId, reason, bytes: entry.heldBytes });
    return true;
  }
}
