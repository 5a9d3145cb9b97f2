/**
 * How much has come in at best, over all tasks and links: what this host's downlink can carry, as far as it has shown.
 * Whoever has slow neighbours only takes it for slower than it is; see docs/policy.md, "Downloads that follow the downlink".
 */

/** Bytes that came longer ago count ever less. */
const RECENT_MS = 1_000;
/** So much must have been seen before there is a rate: the first bytes come by chance. */
const SEEN_MS_MIN = 250;
/** After a longer pause it begins anew: who had nothing to receive is no slower for that. */
const PAUSE_MS = 1_000;
/** The best of longer ago counts less than what comes now: networks change. */
const BEST_MS = 60_000;

export class IntakeRate {
  #atMs: number | undefined;
  #recentBytes = 0;
  #recentMs = 0;
  #totalBytes = 0;
  #bestBytesPerMs = 0;

  /** All that has ever come in. */
  get totalBytes(): number {
    return this.#totalBytes;
  }

  /** Of the last minute or so; 0 while unknown. */
  get bestBytesPerMs(): number {
    return this.#bestBytesPerMs;
  }

  came(bytes: number, nowMs: number): void {
    this.#totalBytes += bytes;
    const passedMs = this.#atMs === undefined ? undefined : nowMs - this.#atMs;
    this.#atMs = nowMs;
    if (passedMs === undefined || passedMs > PAUSE_MS) {
      this.#recentBytes = 0;
      this.#recentMs = 0;
      return;
    }
    const kept = RECENT_MS / (RECENT_MS + passedMs);
    this.#recentBytes = this.#recentBytes * kept + bytes;
    this.#recentMs = this.#recentMs * kept + passedMs;
    if (this.#recentMs < SEEN_MS_MIN) return;
    this.#bestBytesPerMs = Math.max(this.#recentBytes / this.#recentMs, (this.#bestBytesPerMs * BEST_MS) / (BEST_MS + passedMs));
  }
}
