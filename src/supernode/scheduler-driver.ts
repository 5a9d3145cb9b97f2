/**
 * Turns the world into inputs of the scheduler, and its effects into the world.
 *
 * Never re-entrant: what an effect causes waits in the queue until the effects before it are done. One timer, for the
 * scheduler's next deadline.
 */
import { AppError } from "../base/errors.ts";
import type { Scheduler, SchedulerEffect, SchedulerInput, SchedulerSnapshot } from "../scheduler/index.ts";

/** Executes effects; must not throw and must not wait. */
export type SchedulerExecutor = (effect: SchedulerEffect) => void;

export interface SchedulerDriverDeps {
  readonly scheduler: Pick<Scheduler, "step" | "nextDeadlineMs" | "snapshot">;
  readonly execute: SchedulerExecutor;
  /** Monotonic milliseconds, any fraction. */
  readonly nowMs: () => number;
}

export class SchedulerDriver {
  readonly #deps: SchedulerDriverDeps;
  #queue: SchedulerInput[] = [];
  #isDraining = false;
  #timer: NodeJS.Timeout | undefined;
  #timerMs: number | undefined;
  #isClosed = false;

  constructor(deps: SchedulerDriverDeps) {
    this.#deps = deps;
  }

  /** Applies an input, now or after those before it. Its effects are done when this returns, unless called from one. */
  push(input: SchedulerInput): void {
    if (this.#isClosed) return;
    this.#queue.push(input);
    if (this.#isDraining) return;
    this.#isDraining = true;
    try {
      while (this.#queue.length > 0) {
        const batch = this.#queue;
        this.#queue = [];
        for (const queued of batch) {
          for (const effect of this.#deps.scheduler.step(queued, Math.floor(this.#deps.nowMs()))) this.#deps.execute(effect);
        }
      }
    } finally {
      this.#isDraining = false;
    }
    this.#arm();
  }

  snapshot(): SchedulerSnapshot {
    return this.#deps.scheduler.snapshot();
  }

  /** No effect comes after this. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  #arm(): void {
    const dueMs = this.#deps.scheduler.nextDeadlineMs();
    if (dueMs === this.#timerMs || this.#isClosed) return;
    clearTimeout(this.#timer);
    this.#timerMs = dueMs;
    if (dueMs === undefined) return;
    // One more millisecond: the scheduler is told whole ones, rounded down.
    const delayMs = Math.max(0, dueMs - this.#deps.nowMs()) + 1;
    if (Number.isNaN(delayMs)) throw new AppError("INTERNAL", `the scheduler's deadline is ${dueMs}`);
    this.#timer = setTimeout(() => {
      this.#timerMs = undefined;
      this.push({ type: "deadlineReached" });
    }, delayMs);
    this.#timer.unref();
  }
}
