/** The books of one reader: what its time goes by beside the task's, and when it got its first byte. */
import { type Bound, BoundAccount } from "../base/bounds.ts";
import type { Explanation } from "../protocol/explanation.ts";
import { explain } from "./explain.ts";
import { figuresSince, type TaskAccount, type TaskFigures } from "./task-account.ts";

/** What a reader is at when it does not wait for pieces. */
export type ReaderDoing = Extract<Bound, "reader" | "disk" | "origin" | "downlink">;

export class ReaderAccount {
  readonly #own: BoundAccount;
  readonly #startedMs: number;
  readonly #openedMs: number;
  readonly #task: TaskAccount | undefined;
  readonly #before: TaskFigures | undefined;
  /** As the task's books stood when the reader turned away from the swarm. */
  #after: TaskFigures | undefined;
  #doing: ReaderDoing = "reader";
  #isDirect: boolean;
  #firstByteMs: number | undefined;
  #final: Explanation | undefined;

  /**
   * @param startedMs when the content was asked for, by performance.now()
   * @param task whose pieces are read; undefined: there is no swarm behind it
   * @param originMs since when it was the origin, and no more the supernode, that was waited for; undefined: never
   */
  constructor(startedMs: number, task: TaskAccount | undefined, originMs?: number) {
    this.#startedMs = startedMs;
    this.#own = new BoundAccount(startedMs);
    const nowMs = performance.now();
    this.#openedMs = nowMs - startedMs;
    this.#own.charge(originMs ?? nowMs, () => ({ waiting: 1 }));
    this.#own.charge(nowMs, () => ({ origin: 1 }));
    this.#task = task;
    this.#before = task?.figures();
    this.#isDirect = task === undefined;
  }

  /** From now on the reader does this. */
  does(doing: ReaderDoing): void {
    this.#settle();
    this.#doing = doing;
  }

  /** From now on the origin is read, and the swarm counts no more. */
  turnsToOrigin(): void {
    this.does("origin");
    this.#after = this.#task?.figures();
    this.#isDirect = true;
  }

  /** Bytes are handed on. */
  gives(): void {
    this.does("reader");
    this.#firstByteMs ??= performance.now() - this.#startedMs;
  }

  explanation(bytes: Explanation["bytes"]): Explanation {
    if (this.#final !== undefined) return this.#final;
    this.#settle();
    const figures = this.#before && figuresSince(this.#before, this.#after ?? (this.#task as TaskAccount).figures());
    const times = { tookMs: performance.now() - this.#startedMs, openedMs: this.#openedMs, firstByteMs: this.#firstByteMs, spentMs: this.#own.spentMs() };
    return explain(times, bytes, figures);
  }

  /** The reader is done: what was is all there is to tell. */
  end(bytes: Explanation["bytes"]): void {
    this.#final ??= this.explanation(bytes);
  }

  /** While something is missing, the task's own books say what its time goes by. */
  #settle(): void {
    const completedMs = this.#task?.completedMs;
    const nowMs = performance.now();
    if (!this.#isDirect) this.#own.skip(completedMs === undefined ? nowMs : Math.min(nowMs, completedMs));
    this.#own.charge(nowMs, () => ({ [this.#doing]: 1 }));
  }
}
