/**
 * Compares what the index said at the start with what is on disk, in the background, a few tasks at a time: finds tasks
 * that the index does not know, corrects those that it knew otherwise, drops those that are gone. So a start costs the
 * same with one task as with 100,000; until it is through, a task that nobody knows is looked for on disk when it is wanted.
 */
import { setImmediate as turn } from "node:timers/promises";
import { type AppError, toAppError } from "../../base/errors.ts";
import type { TaskId } from "../../protocol/ids.ts";
import type { StoreDisk } from "./disk.ts";
import type { StoreEntry } from "./entry.ts";
import { diskError } from "./errors.ts";
import type { StoreFiles } from "./files.ts";
import type { JournalHead } from "./journal.ts";

export interface SurveyDeps {
  readonly disk: StoreDisk;
  readonly files: StoreFiles;
  readonly get: (taskId: TaskId) => StoreEntry | undefined;
  /** A task that nobody knew: from now on it is known. */
  readonly onFound: (head: JournalHead) => void;
  /** A closed task is not as the index said. */
  readonly onChanged: (entry: StoreEntry, head: JournalHead) => void;
  /** A closed task of the index is not there, or not of any use. */
  readonly onGone: (entry: StoreEntry) => void;
  readonly onRefused: (taskId: TaskId, error: AppError) => void;
}

/** Enough to be through 100,000 in some seconds, and few enough for others to have the disk and this thread. */
const CONCURRENCY = 4;
const FOUND_PER_TURN = 200;

export class Survey {
  readonly #deps: SurveyDeps;
  /** Heads being read of tasks that nobody knows; who wants one waits. */
  readonly #looking = new Map<TaskId, Promise<void>>();
  /** Read, and to be told at the end, in the order of their last change: that of eviction. */
  readonly #found = new Map<TaskId, JournalHead>();
  #running: Promise<void> = Promise.resolve();
  #isEnding = false;
  #isThrough = false;

  constructor(deps: SurveyDeps) {
    this.#deps = deps;
  }

  /** All that is on disk is known. */
  get isThrough(): boolean {
    return this.#isThrough;
  }

  /** Resolves when it has ended, one way or another. Never rejects. */
  get ended(): Promise<void> {
    return this.#running;
  }

  /**
   * @param entries what the index knew
   * @param isClean it was written at an orderly end: which tasks there are is all that is compared
   * @param onFailed a directory cannot be read; what was not looked at stays as the index had it
   */
  start(entries: Iterable<StoreEntry>, isClean: boolean, onFailed: (error: AppError) => void): void {
    const known = Map.groupBy(entries, ({ summary }) => summary.taskId.slice(0, 2));
    this.#running = this.#run(known, isClean).catch((thrown: unknown) => onFailed(toAppError(thrown)));
  }

  /** Waits for the step under way. */
  async stop(): Promise<void> {
    this.#isEnding = true;
    await this.#running;
    await Promise.all(this.#looking.values());
  }

  /** Looks for a task that nobody knows; if it is there, it is known when this resolves. @throws AppError DISK_FAILED */
  async find(taskId: TaskId): Promise<void> {
    if (this.#isThrough || this.#deps.get(taskId) !== undefined) return;
    if (!this.#found.has(taskId)) await this.#look(taskId);
    this.#tell(taskId);
  }

  async #run(known: ReadonlyMap<string, readonly StoreEntry[]>, isClean: boolean): Promise<void> {
    const prefixes = new Set(await this.#deps.files.prefixes());
    for (const [prefix, entries] of known) if (!prefixes.has(prefix)) for (const entry of entries) this.#missing(entry);
    let failure: AppError | undefined;
    for (const prefix of prefixes) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other is the point
      const listed = await this.#deps.files.taskIds(prefix).catch((thrown: unknown) => void (failure ??= toAppError(thrown)));
      if (listed === undefined) continue;
      const taskIds = new Set(listed);
      const entries = known.get(prefix) ?? [];
      for (const entry of entries) if (!taskIds.has(entry.summary.taskId)) this.#missing(entry);
      const unsure = entries.filter(({ summary }) => taskIds.has(summary.taskId));
      for (const { summary } of unsure) taskIds.delete(summary.taskId);
      // oxlint-disable-next-line no-await-in-loop -- likewise
      await Promise.all([
        this.#each(taskIds, (taskId) => this.#look(taskId)),
        isClean ? undefined : this.#each(unsure, (entry) => this.#compare(entry)),
      ]);
      if (this.#isEnding) return;
      for (const entry of unsure) entry.isUnseen = false;
    }
    const found = [...this.#found].sort(([, a], [, b]) => a.facts.modifiedUnixMs - b.facts.modifiedUnixMs);
    for (const [at, [taskId]] of found.entries()) {
      this.#tell(taskId);
      // oxlint-disable-next-line no-await-in-loop -- others have a turn
      if (at % FOUND_PER_TURN === FOUND_PER_TURN - 1) await turn();
      if (this.#isEnding) return;
    }
    if (failure !== undefined) throw failure;
    this.#isThrough = true;
  }

  async #each<T>(items: ReadonlySet<T> | readonly T[], work: (item: T) => Promise<void>): Promise<void> {
    const rest = items.values();
    const lane = async (): Promise<void> => {
      // oxlint-disable-next-line no-await-in-loop -- one after the other is the point
      for (const item of rest) if (!this.#isEnding) await work(item);
    };
    await Promise.all(Array.from({ length: CONCURRENCY }, lane));
  }

  /** Reads a head, unless the task became known; whoever creates it meanwhile waits, as it may be removed here. */
  #look(taskId: TaskId): Promise<void> {
    if (this.#deps.get(taskId) !== undefined || this.#found.has(taskId)) return Promise.resolve();
    const running = this.#looking.get(taskId);
    if (running !== undefined) return running;
    const looking = this.#read(taskId).finally(() => this.#looking.delete(taskId));
    this.#looking.set(taskId, looking);
    return looking;
  }

  /** A task of whom nothing can be known is removed; one of another format version, or that may not be read, stays as it is. */
  async #read(taskId: TaskId): Promise<void> {
    const { files, onRefused } = this.#deps;
    try {
      const head = await files.head(taskId);
      if (head !== undefined) this.#found.set(taskId, head);
      // Without a journal nothing is known of the bytes: left behind by a kill while the task was created.
      else await files.trash(taskId, false);
    } catch (thrown) {
      const error = toAppError(thrown);
      onRefused(taskId, error);
      if (error.code !== "CACHE_CORRUPT" || error.details["version"] !== undefined) return;
      await files.trash(taskId, false).catch((why: unknown) => onRefused(taskId, toAppError(why)));
    }
  }

  #tell(taskId: TaskId): void {
    const head = this.#found.get(taskId);
    if (head === undefined) return;
    this.#found.delete(taskId);
    this.#deps.onFound(head);
  }

  async #compare(entry: StoreEntry): Promise<void> {
    if (!this.#isAsLoaded(entry)) return;
    const { disk, files, onRefused, onChanged, onGone } = this.#deps;
    const { taskId } = entry.summary;
    try {
      const facts = await disk.facts(files.journalPath(taskId));
      if (facts?.lengthBytes === entry.journal?.lengthBytes && facts?.modifiedUnixMs === entry.journal?.modifiedUnixMs) return;
      const head = await files.head(taskId);
      if (!this.#isAsLoaded(entry)) return;
      if (head === undefined) onGone(entry);
      else onChanged(entry, head);
    } catch (thrown) {
      // Whoever opens it will see what is the matter.
      onRefused(taskId, diskError(thrown, "look at", files.journalPath(taskId)));
    }
  }

  #missing(entry: StoreEntry): void {
    if (this.#isAsLoaded(entry)) this.#deps.onGone(entry);
  }

  /** Nobody has opened, evicted or removed it since the start. */
  #isAsLoaded(entry: StoreEntry): boolean {
    return entry.isUnseen && entry.opening === undefined && entry.removing === undefined && this.#deps.get(entry.summary.taskId) === entry;
  }
}
