/**
 * Which tasks there are, what is pinned, and in which order they go when room is needed; kept over restarts.
 */
import { join } from "node:path";
import type { AppError } from "../../base/errors.ts";
import { isTaskId, type TaskId } from "../../protocol/ids.ts";
import type { StoreDisk } from "./disk.ts";
import { newEntry, type StoreEntry, summaryOf } from "./entry.ts";
import { EvictionQueue } from "./eviction.ts";
import type { StoreFiles } from "./files.ts";
import { IndexFile, type IndexEntry } from "./index-file.ts";
import type { JournalHead } from "./journal.ts";
import { Pins } from "./pins.ts";
import type { CachedTask, TaskSummary } from "./piece-store.ts";

/** Uses within this time are one: a wave of hosts that want the same file. */
const USE_GAP_MS = 60_000;
/** Between two notes of a task that is used again and again. */
const NOTE_GAP_MS = 60_000;

export class Catalog {
  readonly #disk: StoreDisk;
  readonly #files: StoreFiles;
  readonly #index: IndexFile;
  readonly #pins: Pins;
  readonly #entries = new Map<TaskId, StoreEntry>();
  readonly #queue = new EvictionQueue();
  readonly #notedAtUnixMs = new Map<TaskId, number>();

  constructor(files: StoreFiles, disk: StoreDisk) {
    this.#disk = disk;
    this.#files = files;
    this.#index = new IndexFile(disk, join(files.directory, "index"));
    this.#pins = new Pins(disk, files.directory);
  }

  get size(): number {
    return this.#entries.size;
  }

  get evictableBytes(): number {
    return this.#queue.evictableBytes;
  }

  /**
   * Finds out what is on disk: from the index where it stands, from the journals else.
   *
   * @param warn a task or a line that cannot be used
   * @throws AppError DISK_FAILED, DISK_FULL
   */
  async restore(warn: (message: string, taskId: TaskId | undefined) => void): Promise<void> {
    const refused = (taskId: TaskId, error: AppError): void => warn(`a cached task is not used: ${error.message}`, taskId);
    const [names, index, badPins] = await Promise.all([this.#files.names(), this.#index.load(), this.#pins.load()]);
    for (const line of badPins) warn(`the file of pinned tasks has a line that is no task id: ${line.slice(0, 80)}`, undefined);
    const noted: IndexEntry[] = [];
    const rest = new Set(names);
    // In the order of the file, which is nearly that of the turns.
    for (const [taskId, entry] of index.entries) {
      if (!rest.has(taskId) || !(index.isClean || this.#isAsNoted(entry))) continue;
      rest.delete(taskId);
      noted.push(entry);
    }
    const unsure = [...rest].filter((name) => isTaskId(name));
    const heads = await this.#files.scan(unsure, refused);
    noted.sort((a, b) => a.place.turn - b.place.turn);
    for (const entry of noted) this.#addNoted(entry);
    // Those of whom nothing else is known come last, in the order of their journals' last change.
    const found = [...heads].sort(([, a], [, b]) => a.facts.modifiedUnixMs - b.facts.modifiedUnixMs);
    for (const [taskId, head] of found) this.#addFound(head, index.entries.get(taskId));
    await this.#index.begin(this.#lines(), this.#entries.size);
    for (const [taskId] of found) this.note(this.#entries.get(taskId) as StoreEntry);
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
    const entry = newEntry(summaryOf(summary), { isOnDisk: false, heldBytes: 0, usedAtUnixMs: nowUnixMs, journal: undefined });
    this.#insert(entry);
    return entry;
  }

  delete(entry: StoreEntry): void {
    const { taskId } = entry.summary;
    if (this.#entries.get(taskId) !== entry) return;
    this.#entries.delete(taskId);
    this.#queue.remove(taskId);
    this.#notedAtUnixMs.delete(taskId);
  }

  /** Somebody wants the task. */
  used(entry: StoreEntry, nowUnixMs: number): void {
    entry.usedAtUnixMs = nowUnixMs;
    if (nowUnixMs - entry.countedUseAtUnixMs < USE_GAP_MS) return;
    entry.countedUseAtUnixMs = nowUnixMs;
    this.#queue.used(entry.summary.taskId);
  }

  /** Brings the eviction queue up to who has the task open, and to what it holds. */
  refresh(entry: StoreEntry): void {
    const { taskId } = entry.summary;
    if (this.#entries.get(taskId) !== entry) return;
    this.#queue.setBytes(taskId, entry.task?.heldBytes ?? entry.heldBytes);
    this.#queue.setHeld(taskId, entry.refCount > 0 || entry.removing !== undefined || this.#pins.has(taskId));
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
    await this.#pins.set(entry.summary.taskId, isPinned);
    this.refresh(entry);
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

  #isAsNoted({ summary, journal }: IndexEntry): boolean {
    const facts = this.#disk.factsSync(this.#files.journalPath(summary.taskId));
    return facts?.lengthBytes === journal.lengthBytes && facts.modifiedUnixMs === journal.modifiedUnixMs;
  }

  #addNoted({ summary, heldBytes, usedAtUnixMs, place, journal }: IndexEntry): void {
    this.#insert(newEntry(summary, { isOnDisk: true, heldBytes, usedAtUnixMs, journal }), place);
  }

  /** @param before what the index said of it once: its journal is another now, its uses are not */
  #addFound({ record, heldBytesEstimate, facts }: JournalHead, before: IndexEntry | undefined): void {
    const usedAtUnixMs = before?.usedAtUnixMs ?? facts.modifiedUnixMs;
    const entry = newEntry(summaryOf(record), { isOnDisk: true, heldBytes: heldBytesEstimate, usedAtUnixMs, journal: facts });
    this.#insert(entry, before?.place);
  }

  #insert(entry: StoreEntry, place?: IndexEntry["place"]): void {
    const { taskId } = entry.summary;
    this.#entries.set(taskId, entry);
    this.#queue.add(taskId, entry.heldBytes, place);
    this.refresh(entry);
  }

  *#lines(): Generator<IndexEntry, undefined> {
    for (const entry of this.#entries.values()) {
      const line = this.#lineOf(entry);
      if (line !== undefined) yield line;
    }
  }

  #lineOf({ summary, isOnDisk, heldBytes, usedAtUnixMs, journal }: StoreEntry): IndexEntry | undefined {
    if (!isOnDisk || journal === undefined) return undefined;
    return { summary, heldBytes, usedAtUnixMs, place: this.#queue.place(summary.taskId), journal };
  }
}
