/**
 * How many transfers at a time fill a pipe: found by trying, never by asking.
 *
 * One transfer at full speed beats many slow ones (a piece that is whole can be passed on), so the count stays at the
 * least that reaches the rate. In each window the bytes moved are compared with the best recent window: while the pipe
 * is not as full as it has been, or a trial of one more has just paid, the count goes up; when one less would do as
 * well it goes down.
 */

const WINDOW_MS = 200;
/** A trial of one more transfer must raise the rate by this share to be kept. */
const GAIN_SHARE = 0.1;
/** Windows between trials while the pipe seems full. */
const WINDOWS_BETWEEN_TRIALS = 5;

export class RateProbe {
  readonly #countMin: number;
  readonly #countMax: number;
  #count: number;
  #windowStartMs: number | undefined;
  #windowBytes = 0;
  #limitedByCount = false;
  #rate = 0;
  #trialBaseRate: number | undefined;
  #windowsSinceTrial = 0;

  constructor(countMin: number, countMax: number) {
    this.#countMin = countMin;
    this.#countMax = countMax;
    this.#count = countMin;
  }

  /** Transfers to run at a time, in [countMin, countMax]. */
  get count(): number {
    return this.#count;
  }

  /** Bytes per second of the last full window. */
  get rateBytesPerSecond(): number {
    return this.#rate;
  }

  moved(bytes: number): void {
    this.#windowBytes += bytes;
  }

  /** More transfers were possible but for the count: only such windows say anything about it. */
  limited(): void {
    this.#limitedByCount = true;
  }

  /** Closes the window when it is over. Call at least every {@link WINDOW_MS} while transfers run. */
  tick(nowMs: number): void {
    if (this.#windowStartMs === undefined) {
      this.#windowStartMs = nowMs;
      return;
    }
    const elapsedMs = nowMs - this.#windowStartMs;
    if (elapsedMs < WINDOW_MS) return;
    const rate = (this.#windowBytes * 1000) / elapsedMs;
    const wasLimited = this.#limitedByCount;
    this.#rate = rate;
    this.#windowStartMs = nowMs;
    this.#windowBytes = 0;
    this.#limitedByCount = false;
    if (!wasLimited || elapsedMs > WINDOW_MS * 3) {
      // An idle pipe says nothing; a finished trial is void.
      this.#trialBaseRate = undefined;
      return;
    }
    if (this.#trialBaseRate !== undefined) {
      const paid = rate > this.#trialBaseRate * (1 + GAIN_SHARE);
      if (paid && this.#count < this.#countMax) {
        this.#trialBaseRate = rate;
        this.#count++;
        return;
      }
      if (!paid) this.#count--;
      this.#trialBaseRate = undefined;
      this.#windowsSinceTrial = 0;
      return;
    }
    if (++this.#windowsSinceTrial >= WINDOWS_BETWEEN_TRIALS && this.#count < this.#countMax) {
      this.#trialBaseRate = rate;
      this.#count++;
    }
  }

  /** Drops to the least again, e.g. when a new task starts after an idle time. */
  reset(): void {
    this.#count = this.#countMin;
    this.#trialBaseRate = undefined;
    this.#windowsSinceTrial = 0;
    this.#windowStartMs = undefined;
    this.#windowBytes = 0;
  }
}
