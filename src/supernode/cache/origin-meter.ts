/** Counts what origins give, per task and in all, and holds it to the site's rate. */
import { setTimeout as sleepFor } from "node:timers/promises";
import { TokenBucket } from "../../base/token-bucket.ts";
import type { TaskId } from "../../protocol/ids.ts";

export interface OriginMeterDeps {
  /** Undefined: no limit. */
  readonly bytesPerSecond: number | undefined;
  readonly onBytes: (count: number) => void;
  readonly onRequest: (code: string) => void;
  /** Monotonic. */
  readonly nowMs: () => number;
  readonly sleep?: (delayMs: number, signal: AbortSignal) => Promise<void>;
}

export class OriginMeter {
  readonly #deps: OriginMeterDeps;
  readonly #bucket: TokenBucket;
  readonly #bytesOf = new Map<TaskId, number>();

  constructor(deps: OriginMeterDeps) {
    this.#deps = deps;
    this.#bucket = new TokenBucket(deps.bytesPerSecond);
  }

  setRate(bytesPerSecond: number | undefined): void {
    this.#bucket.setRate(bytesPerSecond, this.#deps.nowMs());
  }

  /** Counts bytes that arrived; resolves when the next may be read. @throws when `signal` aborts */
  async received(taskId: TaskId, count: number, signal: AbortSignal): Promise<void> {
    this.#bytesOf.set(taskId, this.bytesOf(taskId) + count);
    this.#deps.onBytes(count);
    const waitMs = this.#bucket.take(count, this.#deps.nowMs());
    if (waitMs === 0) return;
    const sleep = this.#deps.sleep ?? ((delayMs, stop) => sleepFor(delayMs, undefined, { signal: stop }));
    await sleep(waitMs, signal);
  }

  /** One request, by its outcome: `OK` or an error's code. */
  asked(code: string): void {
    this.#deps.onRequest(code);
  }

  /** Bytes read from the origin for a task since it was last forgotten. */
  bytesOf(taskId: TaskId): number {
    return this.#bytesOf.get(taskId) ?? 0;
  }

  forget(taskId: TaskId): void {
    this.#bytesOf.delete(taskId);
  }
}
