import type { TaskId } from "../protocol/ids.ts";

/** Of tasks that were joined and never opened: only asked about, or given up meanwhile. */
const TASK_COUNT_MAX = 1_000;
/** Rewirings of a mesh within the moment that opening files takes are few. */
const WORD_COUNT_MAX = 64;

/**
 * What the supernode says of a task while its files are still being opened: it may follow the answer to the join in the same
 * packet. Kept in order until the task is here; what was said before an answer is in the answer.
 */
export class EarlyWords<Task> {
  /** The latest joined last. */
  readonly #words = new Map<TaskId, ((task: Task) => void)[]>();

  /** The supernode has answered a join of a task that is not open here. */
  joined(taskId: TaskId): void {
    this.#words.delete(taskId);
    this.#words.set(taskId, []);
    if (this.#words.size > TASK_COUNT_MAX) this.#words.delete(this.#words.keys().next().value as TaskId);
  }

  /** Dropped where nobody has joined the task. */
  keep(taskId: TaskId, word: (task: Task) => void): void {
    const words = this.#words.get(taskId);
    if (words !== undefined && words.length < WORD_COUNT_MAX) words.push(word);
  }

  /** The task is open and knows the answer to its join: it hears what came after. */
  opened(taskId: TaskId, task: Task): void {
    const words = this.#words.get(taskId) ?? [];
    this.#words.delete(taskId);
    for (const word of words) word(task);
  }
}
