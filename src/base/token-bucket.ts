/**
 * A rate limit on a virtual clock: `take` spends at once and says how long the spender must wait before it goes on.
 *
 * Going into debt instead of refusing keeps the rate exact for amounts larger than the burst, and keeps order with
 * the caller. The rate may change at any time; debt is then repaid at the new rate.
 */
export class TokenBucket {
  #bytesPerSecond: number | undefined;
  #balanceBytes = 0;
  #updatedMs = 0;

  /** @param bytesPerSecond the rate, > 0; `undefined` is no limit */
  constructor(bytesPerSecond: number | undefined) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  get bytesPerSecond(): number | undefined {
    return this.#bytesPerSecond;
  }

  /** Changes the rate from `nowMs` on. */
  setRate(bytesPerSecond: number | undefined, nowMs: number): void {
    this.#refill(nowMs);
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Spends `bytes` and returns the milliseconds to wait, 0 when within the rate. `nowMs` must not decrease. */
  take(bytes: number, nowMs: number): number {
    if (this.#bytesPerSecond === undefined) return 0;
    this.#refill(nowMs);
    this.#balanceBytes -= bytes;
    return this.#balanceBytes >= 0 ? 0 : Math.ceil((-this.#balanceBytes * 1000) / this.#bytesPerSecond);
  }

  #refill(nowMs: number): void {
    const rate = this.#bytesPerSecond;
    if (rate !== undefined) {
      // A burst of 50 ms: large enough for one timer period, small enough to stay within 5 % over one second.
      const burstBytes = rate * 0.05;
      const earned = ((nowMs - this.#updatedMs) * rate) / 1000;
      this.#balanceBytes = Math.min(burstBytes, this.#balanceBytes + earned);
    } else {
      this.#balanceBytes = 0;
    }
    this.#updatedMs = nowMs;
  }
}
