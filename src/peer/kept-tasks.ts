/**
 * Tasks this host takes part in: one per content, shared by all its readers, kept for others for a while after.
 */
import type { Source, TaskInfo } from "../protocol/control-messages.ts";
import type { TaskId } from "../protocol/ids.ts";
import type { ProgressStep } from "../protocol/progress-steps.ts";
import type { PeerTask } from "./peer.ts";

/** A task without readers goes on seeding (or loading) this long; on disk it stays until evicted. */
const KEEP_MS = 120_000;

export interface KeptTask {
  readonly task: PeerTask;
  /** The latest that the supernode let us in with. */
  source: Source;
  readonly info: TaskInfo;
  readers: number;
  /** What each reader allows the task, in bytes per second; undefined = no limit of its own. */
  readonly readerLimits: (number | undefined)[];
  /** Somebody who reads it lets this host read the origin. */
  mayReadOrigin: boolean;
  toldStep: ProgressStep;
  timer: NodeJS.Timeout | undefined;
  /** Joins under way that tell the supernode anew what is held here. */
  joinings: number;
  /** Gives the latest of them up: the next says all that it said. */
  rejoining: AbortController | undefined;
  /** When our ticket is to be renewed. */
  renewal: NodeJS.Timeout | undefined;
  /** The supernode that we are at has another version of the file, or is another one: it will mend nothing here. */
  isForsaken: boolean;
  /** Its pieces were thrown away: no newcomer shares it. */
  isWorthless: boolean;
}

export class KeptTasks {
  readonly #kept = new Map<TaskId, KeptTask>();
  /** A task is dropped that is not whole: nobody here waits for the rest any more. Set by the owner. */
  onUnfinished: (taskId: TaskId) => void = () => undefined;

  get(taskId: TaskId): KeptTask | undefined {
    return this.#kept.get(taskId);
  }

  [Symbol.iterator](): Iterator<KeptTask> {
    return this.#kept.values();
  }

  /** Adds a task with one reader, or one reader to the task that is here (then `task` is released). */
  hold(task: PeerTask, source: Source, info: TaskInfo, mayReadOrigin: boolean): KeptTask {
    const taskId = task.session.taskId;
    const present = this.#kept.get(taskId);
    if (present !== undefined) {
      task.release();
      this.use(present, mayReadOrigin);
      return present;
    }
    const kept: KeptTask = {
      task, source, info, readers: 1, readerLimits: [], mayReadOrigin, toldStep: 0, timer: undefined, joinings: 0, rejoining: undefined, renewal: undefined, isForsaken: false, isWorthless: false,
    };
    this.#kept.set(taskId, kept);
    return kept;
  }

  use(kept: KeptTask, mayReadOrigin: boolean): void {
    kept.mayReadOrigin ||= mayReadOrigin;
    clearTimeout(kept.timer);
    kept.timer = undefined;
    kept.readers++;
  }

  /** One reader less. */
  leave(kept: KeptTask): void {
    kept.readers--;
    if (kept.readers > 0) return;
    if (kept.isWorthless) return kept.task.release();
    kept.timer = setTimeout(() => this.#drop(kept), KEEP_MS);
    kept.timer.unref();
  }

  /** The task is worth nothing any more: its readers keep it until they have heard why, others begin anew. */
  expel(kept: KeptTask): void {
    kept.isWorthless = true;
    clearTimeout(kept.timer);
    clearTimeout(kept.renewal);
    if (this.#kept.get(kept.task.session.taskId) === kept) this.#kept.delete(kept.task.session.taskId);
    if (kept.readers === 0) kept.task.release();
  }

  /** Lets tasks without readers go at once: the disk needs room. @returns how many */
  dropIdle(): number {
    let dropped = 0;
    for (const kept of [...this.#kept.values()]) {
      if (kept.readers > 0) continue;
      this.#drop(kept);
      dropped++;
    }
    return dropped;
  }

  close(): void {
    for (const kept of [...this.#kept.values()]) this.#drop(kept);
  }

  #drop(kept: KeptTask): void {
    clearTimeout(kept.timer);
    clearTimeout(kept.renewal);
    const { taskId } = kept.task.session;
    this.#kept.delete(taskId);
    if (!kept.task.stored.complete) this.onUnfinished(taskId);
    kept.task.release();
  }
}

