/** A moving average of the rate at which a count grows. */
export class RateMeter {
  readonly #windowMs: number;
  /** Oldest first; the first may be older than the window, so that the window is always spanned. */
  readonly #samples: { readonly nowMs: number; readonly bytes: number }[] = [];

  /** @param windowMs the time averaged over. curl and wget: about 5 s */
  constructor(windowMs = 5000) {
    this.#windowMs = windowMs;
  }

  /** @param bytes the whole count so far; `nowMs` must not decrease */
  add(bytes: number, nowMs: number): void {
    this.#samples.push({ nowMs, bytes });
    while (this.#samples.length > 2 && (this.#samples[1]?.nowMs ?? 0) <= nowMs - this.#windowMs) this.#samples.shift();
  }

  /** Bytes per second; undefined until two samples are apart in time. */
  get bytesPerSecond(): number | undefined {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || last.nowMs === first.nowMs) return undefined;
    return ((last.bytes - first.bytes) * 1000) / (last.nowMs - first.nowMs);
  }
}
