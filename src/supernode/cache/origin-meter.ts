/** Counts what origins give, per task and in all, and holds it to the site's rate. */
import { AppError } from "../../base/errors.ts";
import type { Priority } from "../../base/priority.ts";
import type { RateFlow } from "../../base/rate-budget.ts";
import type { RateGate } from "../../peer/rate-gate.ts";
import type { TaskId } from "../../protocol/ids.ts";

export interface OriginMeterDeps {
  /** The site's rate for all origins together. Stays the caller's. */
  readonly limit: RateGate;
  readonly onBytes: (count: number) => void;
  readonly onRequest: (code: string) => void;
}

interface TaskReading {
  readonly flow: RateFlow;
  bytes: number;
}

export class OriginMeter {
  readonly #deps: OriginMeterDeps;
  readonly #readings = new Map<TaskId, TaskReading>();

  constructor(deps: OriginMeterDeps) {
    this.#deps = deps;
  }

  /**
   * Counts bytes that arrived; resolves when the next may be read. `priority` as the task's first reader had it.
   * @throws AppError ABORTED
   */
  async received(taskId: TaskId, priority: Priority, count: number, signal: AbortSignal): Promise<void> {
    const { limit, onBytes } = this.#deps;
    onBytes(count);
    let reading = this.#readings.get(taskId);
    if (reading === undefined) {
      // What comes yet of a read that has ended: its task may be forgotten already, and is forgotten once.
      if (signal.aborted) throw new AppError("ABORTED", "the read has ended");
      reading = { flow: limit.flow(priority), bytes: 0 };
      this.#readings.set(taskId, reading);
    }
    reading.bytes += count;
    await limit.passed(reading.flow, count, signal);
  }

  /** One request, by its outcome: `OK` or an error's code. */
  asked(code: string): void {
    this.#deps.onRequest(code);
  }

  /** Bytes read from the origin for a task since it was last forgotten. */
  bytesOf(taskId: TaskId): number {
    return this.#readings.get(taskId)?.bytes ?? 0;
  }

  /** True when the task's bytes had to wait for the site's limit within the last `withinMs`. */
  isHeldBack(taskId: TaskId, withinMs: number): boolean {
    const reading = this.#readings.get(taskId);
    return reading !== undefined && this.#deps.limit.heldBack(reading.flow, withinMs);
  }

  forget(taskId: TaskId): void {
    this.#readings.delete(taskId);
  }
}
