/**
 * How long pieces take to come in. From the first byte to the last is not enough: what has waited in the kernel while the
 * process was busy is read at once, and takes no time. So it is at least what Little's law says: as many as come in at a
 * time, times how long from the end of one to the end of the next.
 */

/** A pause says nothing of how fast pieces come. */
const INTERVAL_MS_MAX = 1_000;

export class IntakePace {
  #intervalMs: number | undefined;
  #endedMs: number | undefined;
  #usualMs = 0;

  /** 0 while unknown. */
  get usualMs(): number {
    return this.#usualMs;
  }

  /** A piece has come that took `tookMs` from its first byte to its last; `count` were coming in, itself included. */
  ended(tookMs: number, count: number, nowMs: number): void {
    const intervalMs = this.#endedMs === undefined ? undefined : Math.min(nowMs - this.#endedMs, INTERVAL_MS_MAX);
    this.#endedMs = nowMs;
    if (intervalMs === undefined) return;
    this.#intervalMs = this.#intervalMs === undefined ? intervalMs : average(this.#intervalMs, intervalMs);
    const sampleMs = Math.max(tookMs, this.#intervalMs * count);
    this.#usualMs = this.#usualMs === 0 ? sampleMs : average(this.#usualMs, sampleMs);
  }
}

function average(formerMs: number, sampleMs: number): number {
  return formerMs * 0.8 + sampleMs * 0.2;
}
