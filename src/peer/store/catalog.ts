/**
 * Which tasks there are, what is pinned, and in which order they go when room is needed; kept over restarts.
 */
import { join } from "node:path";
import type { TaskId } from "../../protocol/ids.ts";
import type { StoreDisk } from "./disk.ts";
import { newEntry, type StoreEntry, summaryOf } from "./entry.ts";
import { EvictionQueue } from "./eviction.ts";
import { IndexFile } from "./index-file.ts";
import type { IndexEntry } from "./index-format.ts";
import type { JournalHead } from "./journal.ts";
import { Pins } from "./pins.ts";
import type { CachedTask, TaskSummary } from "./piece-store.ts";

/** Uses within this time are one: a wave of hosts that want the same file. */
const USE_GAP_MS = 60_000;
/** Between two notes of a task that is used again and again. */
const NOTE_GAP_MS = 60_000;

export class Catalog {
  readonly #index: IndexFile;
  readonly #pins: Pins;
  readonly #entries = new Map<TaskId, StoreEntry>();
  readonly #queue = new EvictionQueue();
  readonly #notedAtUnixMs = new Map<TaskId, number>();

  constructor(directory: string, disk: StoreDisk) {
    this.#index = new IndexFile(disk, join(directory, "index"));
    this.#pins = new Pins(disk, directory);
  }

  get size(): number {
    return this.#entries.size;
  }

  get evictableBytes(): number {
    return this.#queue.evictableBytes;
  }

  /**
   * Takes from the index what was there at the end of the last run; {@link Survey} compares it with the disk.
   *
   * @param warn a line that cannot be used
   * @returns whether no journal has changed since, unless by other hands
   * @throws AppError DISK_FAILED, DISK_FULL
   */
  async restore(warn: (message: string) => void): Promise<boolean> {
    const [{ entries, isClean }, badPins] = await Promise.all([this.#index.load(), this.#pins.load()]);
    for (const line of badPins) warn(`the file of pinned tasks has a line that is no task id: ${line.slice(0, 80)}`);
    const noted = [...entries.values()].sort((a, b) => a.place.turn - b.place.turn);
    for (const { summary, heldBytes, usedAtUnixMs, place, journal } of noted) {
      this.#insert(newEntry(summary, { isOnDisk: true, isUnseen: true, heldBytes, usedAtUnixMs, journal }), place);
    }
    await this.#index.begin();
    return isClean;
  }

  get(taskId: TaskId): StoreEntry | undefined {
    return this.#entries.get(taskId);
  }

  [Symbol.iterator](): Iterator<StoreEntry> {
    return this.#entries.values();
  }

  list(): readonly CachedTask[] {
    const cached: CachedTask[] = [];
    for (const entry of this.#entries.values()) {
      const { isOnDisk, task, heldBytes, usedAtUnixMs, refCount } = entry;
      if (!isOnDisk) continue;
      const summary = task === undefined ? entry.summary : summaryOf(task.record);
      const isPinned = this.#pins.has(summary.taskId);
      cached.push({ ...summary, heldBytes: task?.heldBytes ?? heldBytes, usedAtUnixMs, isPinned, isInUse: refCount > 0 });
    }
    return cached;
  }

  /** A task that is not on disk yet. */
  add(summary: TaskSummary, nowUnixMs: number): StoreEntry {
    const entry = newEntry(summaryOf(summary), { isOnDisk: false, isUnseen: false, heldBytes: 0, usedAtUnixMs: nowUnixMs, journal: undefined });
    this.#insert(entry);
    return entry;
  }

  /** A task on disk that the index did not know. Its last use was its last change. */
  addFound({ record, heldBytesEstimate, facts }: JournalHead): StoreEntry {
    const entry = newEntry(summaryOf(record), {
      isOnDisk: true,
      isUnseen: false,
      heldBytes: heldBytesEstimate,
      usedAtUnixMs: facts.modifiedUnixMs,
      journal: facts,
    });
    this.#insert(entry);
    this.note(entry);
    return entry;
  }

  /** What the index said of a closed task is old: its journal is another now. Its uses are not. */
  correct(entry: StoreEntry, { record, heldBytesEstimate, facts }: JournalHead): void {
    entry.summary = summaryOf(record);
    entry.heldBytes = heldBytesEstimate;
    entry.journal = facts;
    this.refresh(entry);
    this.note(entry);
  }

  delete(entry: StoreEntry): void {
    const { taskId } = entry.summary;
    if (this.#entries.get(taskId) !== entry) return;
    this.#entries.delete(taskId);
    this.#queue.remove(taskId);
    this.#notedAtUnixMs.delete(taskId);
    if (entry.journal !== undefined) this.#index.noteGone(taskId);
  }

  /** Somebody wants the task. */
  used(entry: StoreEntry, nowUnixMs: number): void {
    entry.usedAtUnixMs = nowUnixMs;
    if (nowUnixMs - entry.countedUseAtUnixMs < USE_GAP_MS) return;
    entry.countedUseAtUnixMs = nowUnixMs;
    this.#queue.used(entry.summary.taskId);
  }

  /** Brings the eviction queue up to who has the task open, what is on its way into it, and what it holds. */
  refresh(entry: StoreEntry): void {
    const { taskId } = entry.summary;
    if (this.#entries.get(taskId) !== entry) return;
    this.#queue.setBytes(taskId, entry.task?.heldBytes ?? entry.heldBytes);
    const isWanted = entry.refCount > 0 || entry.isStoring || entry.pinWriteCount > 0 || this.#pins.has(taskId);
    this.#queue.setHeld(taskId, isWanted || entry.removing !== undefined);
  }

  /** The next task to go; undefined when none may. */
  takeVictim(): StoreEntry | undefined {
    const taskId = this.#queue.takeVictim();
    return taskId === undefined ? undefined : this.#entries.get(taskId);
  }

  /** A victim that could not go after all. */
  putBack(entry: StoreEntry): void {
    if (this.#entries.get(entry.summary.taskId) !== entry) return;
    this.#queue.add(entry.summary.taskId, entry.heldBytes);
    this.refresh(entry);
  }

  /** Durable. @throws AppError DISK_FULL, DISK_FAILED */
  async pin(entry: StoreEntry, isPinned: boolean): Promise<void> {
    entry.pinWriteCount++;
    this.refresh(entry);
    try {
      await this.#pins.set(entry.summary.taskId, isPinned);
    } finally {
      entry.pinWriteCount--;
      this.refresh(entry);
    }
  }

  /** Of a task that may be gone. */
  async unpin(taskId: TaskId): Promise<void> {
    await this.#pins.set(taskId, false);
  }

  /** Writes down what the next start wants to know of a task whose files are closed. */
  note(entry: StoreEntry): void {
    const line = this.#lineOf(entry);
    if (line === undefined) return this.#index.omit();
    this.#notedAtUnixMs.set(entry.summary.taskId, entry.usedAtUnixMs);
    this.#index.note(line);
    this.#index.compact(this.size, () => this.#lines());
  }

  /** As {@link note}, of one whose files are as they were when it was noted, for its use: now and then. */
  noteUse(entry: StoreEntry): void {
    if (entry.journal === undefined) return;
    if (entry.usedAtUnixMs - (this.#notedAtUnixMs.get(entry.summary.taskId) ?? 0) >= NOTE_GAP_MS) this.note(entry);
  }

  /** @param isOrderly all tasks are closed and noted */
  async close(isOrderly: boolean): Promise<void> {
    await this.#index.close(isOrderly);
  }

  #insert(entry: StoreEntry, place?: IndexEntry["place"]): void {
    const { taskId } = entry.summary;
    this.#entries.set(taskId, entry);
    this.#queue.add(taskId, entry.heldBytes, place);
    if (this.#pins.has(taskId)) this.#queue.setHeld(taskId, true);
  }

  *#lines(): Generator<IndexEntry, undefined> {
    for (const entry of this.#entries.values()) {
      const line = this.#lineOf(entry);
      if (line !== undefined) yield line;
    }
  }

  /** Undefined for what is not there, or not for long: what is on its way out has no place in the queue any more. */
  #lineOf({ summary, isOnDisk, heldBytes, usedAtUnixMs, journal, removing }: StoreEntry): IndexEntry | undefined {
    if (!isOnDisk || journal === undefined || removing !== undefined) return undefined;
    return { summary, heldBytes, usedAtUnixMs, place: this.#queue.place(summary.taskId), journal };
  }
}
