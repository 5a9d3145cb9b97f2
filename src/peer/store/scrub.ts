/**
 * Reads what is stored back in the background, task after task and round after round, so that damage is found before the
 * piece is needed. At a bounded rate, and only while the store's threads have nothing else to do.
 */
import { setTimeout as sleepFor } from "node:timers/promises";
import { type AppError, toAppError } from "../../base/errors.ts";
import type { TaskId } from "../../protocol/ids.ts";
import type { StoredTask } from "./piece-store.ts";

export interface ScrubDeps {
  readonly taskIds: () => readonly TaskId[];
  /** Opens a task, which does not count as a use; undefined when it is gone. */
  readonly open: (taskId: TaskId) => Promise<StoredTask | undefined>;
  readonly isBusy: () => boolean;
  readonly onFailed: (taskId: TaskId, error: AppError) => void;
  /** Wall clock. */
  readonly nowMs: () => number;
  /** Rejects when aborted. */
  readonly sleep?: (delayMs: number, signal: AbortSignal) => Promise<unknown>;
}

/** One job: what a piece that is wanted meanwhile waits for. */
const STEP_LENGTH_BYTES = 4 * 1024 * 1024;
/** How soon a busy store is looked at again. */
const BUSY_MS = 100;
/** Between two rounds: a small cache is not read all day. */
const ROUND_GAP_MS = 60 * 60_000;
/** A store that has just started has better things to do. */
const START_MS = 60_000;

export class Scrub {
  readonly #bytesPerSecond: number;
  readonly #deps: ScrubDeps;
  readonly #ending = new AbortController();
  readonly #sleep: (delayMs: number, signal?: AbortSignal) => Promise<unknown>;
  /** The task that is open here, and what ends its turn. */
  #turn: { readonly taskId: TaskId; readonly leaving: AbortController; readonly ended: Promise<void> } | undefined;
  /** Its files are open, and not just being opened. */
  #isOpen = false;
  #bytes = 0;
  #doneAtUnixMs: number | undefined;

  /** @param bytesPerSecond 0: never */
  constructor(bytesPerSecond: number, deps: ScrubDeps) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#deps = deps;
    const { sleep = (delayMs, signal) => sleepFor(delayMs, undefined, { signal, ref: false }) } = deps;
    this.#sleep = (delayMs, signal = this.#ending.signal) => sleep(delayMs, signal);
  }

  /** Read back since the start. */
  get bytes(): number {
    return this.#bytes;
  }

  /** When the last round was through; undefined before the first. */
  get doneAtUnixMs(): number | undefined {
    return this.#doneAtUnixMs;
  }

  start(): void {
    if (this.#bytesPerSecond > 0) void this.#run().catch(() => undefined);
  }

  stop(): void {
    this.#ending.abort();
  }

  /**
   * Somebody needs the room of what is open here only to be read back, or wants it removed: its turn ends; the next round reads it.
   *
   * @param taskId that one only. Without it what is still being opened is not waited for: its opening may wait for the room that is asked for here
   * @returns whether there was one, once it is released
   */
  async letGo(taskId?: TaskId): Promise<boolean> {
    const turn = this.#turn;
    if (turn === undefined || (taskId !== undefined && turn.taskId !== taskId)) return false;
    turn.leaving.abort();
    if (taskId === undefined && !this.#isOpen) return false;
    await turn.ended;
    return true;
  }

  async #run(): Promise<void> {
    const { signal } = this.#ending;
    await this.#sleep(START_MS);
    for (;;) {
      for (const taskId of this.#deps.taskIds()) {
        // oxlint-disable-next-line no-await-in-loop -- one after the other is the point
        await this.#idle();
        const leaving = new AbortController();
        const stop = AbortSignal.any([signal, leaving.signal]);
        const ended = this.#scrub(taskId, stop).catch((thrown: unknown) => {
          if (!stop.aborted) this.#deps.onFailed(taskId, toAppError(thrown));
        });
        this.#turn = { taskId, leaving, ended };
        // oxlint-disable-next-line no-await-in-loop -- likewise
        await ended;
        this.#turn = undefined;
        if (signal.aborted) return;
      }
      this.#doneAtUnixMs = this.#deps.nowMs();
      // oxlint-disable-next-line no-await-in-loop -- a pause
      await this.#sleep(ROUND_GAP_MS);
    }
  }

  async #scrub(taskId: TaskId, signal: AbortSignal): Promise<void> {
    const task = await this.#deps.open(taskId);
    if (task === undefined) return;
    this.#isOpen = true;
    try {
      const { pieceLengthBytes } = task.record;
      const perStep = Math.max(1, Math.floor(STEP_LENGTH_BYTES / pieceLengthBytes));
      const pieces = [...task.have];
      for (let at = 0; at < pieces.length; at += perStep) {
        const step = pieces.slice(at, at + perStep);
        // oxlint-disable-next-line no-await-in-loop -- the rate is the point
        await this.#idle(signal);
        if (signal.aborted) return;
        // oxlint-disable-next-line no-await-in-loop -- the rate is the point
        await task.verify(step, true);
        const bytes = step.length * pieceLengthBytes;
        this.#bytes += bytes;
        // oxlint-disable-next-line no-await-in-loop -- the rate is the point
        await this.#sleep((bytes * 1000) / this.#bytesPerSecond, signal);
      }
    } finally {
      this.#isOpen = false;
      task.release();
    }
  }

  async #idle(signal?: AbortSignal): Promise<void> {
    // oxlint-disable-next-line no-await-in-loop -- waiting is the point
    while (this.#deps.isBusy()) await this.#sleep(BUSY_MS, signal);
  }
}
