/**
 * How long what was handed to the kernel needs until it is out, where it is the uplink that is slow. A socket takes a whole
 * piece at once however slow the uplink, so that who measures the handing over thinks himself quick; meanwhile answers wait
 * behind hundreds of KiB of payload.
 */
import type { UplinkSample } from "./contract.ts";

/** After a longer pause the speed is not known any more: a trickle of now says nothing of what comes then. */
const INTERVAL_MS_MAX = 1_000;
/** All that leaves a slow uplink waits in its queue. Where one link's bytes wait less than this, it is receivers that are slow. */
const QUEUE_MS_MIN = 10;

export class Uplink {
  #sampledMs = Number.NEGATIVE_INFINITY;
  #heldBytes = 0;
  /** Handed over and gone, at the last sample. */
  #goneBytes = 0;
  /** Of the link whose bytes wait least. */
  #queueMs = Number.POSITIVE_INFINITY;
  #leastRoundTripMs = 0;
  /** Moving average, of times when there was always something to send; 0 while unknown. */
  #bytesPerMs = 0;

  /** Until all that the kernels held at the last sample is out, at the speed at which it has gone out lately; 0 while that is not known, or not the uplink's. */
  get leavesInMs(): number {
    if (this.#bytesPerMs === 0 || this.#heldBytes === 0 || this.#queueMs < QUEUE_MS_MIN) return 0;
    // What is held for a round trip's time is on its way, not in a queue.
    return Math.max(0, this.#heldBytes / this.#bytesPerMs - this.#leastRoundTripMs);
  }

  /** At the last sample one link's bytes hardly waited, so that what takes long does so for receivers, or for a long way; false while that is not known. */
  get isFree(): boolean {
    return this.#queueMs < QUEUE_MS_MIN;
  }

  sampled({ handedBytes, links }: UplinkSample, nowMs: number): void {
    let sumBytes = 0;
    this.#queueMs = Number.POSITIVE_INFINITY;
    for (const { heldBytes, roundTripMs, leastRoundTripMs } of links) {
      sumBytes += heldBytes;
      if (roundTripMs - leastRoundTripMs >= this.#queueMs) continue;
      this.#queueMs = roundTripMs - leastRoundTripMs;
      this.#leastRoundTripMs = leastRoundTripMs;
    }
    const goneBytes = handedBytes - sumBytes;
    this.#learn(goneBytes - this.#goneBytes, nowMs - this.#sampledMs);
    this.#sampledMs = nowMs;
    this.#heldBytes = sumBytes;
    this.#goneBytes = goneBytes;
  }

  /**
   * Of the time since the last sample; what was held then is still known.
   *
   * @param wentBytes since then
   */
  #learn(wentBytes: number, intervalMs: number): void {
    if (intervalMs > INTERVAL_MS_MAX) {
      this.#bytesPerMs = 0;
      return;
    }
    // Control frames are held but not handed over, and a block counts at its end: now and then it seems to go backwards.
    if (wentBytes <= 0 || intervalMs <= 0) return;
    const bytesPerMs = wentBytes / intervalMs;
    // Less went than was there at its beginning: it was never idle. Else it may have been, and is at least so quick.
    if (wentBytes < this.#heldBytes) this.#bytesPerMs = this.#bytesPerMs === 0 ? bytesPerMs : this.#bytesPerMs * 0.8 + bytesPerMs * 0.2;
    else if (this.#bytesPerMs > 0) this.#bytesPerMs = Math.max(this.#bytesPerMs, bytesPerMs);
  }
}
