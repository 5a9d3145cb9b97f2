/**
 * How many transfers to send at a time: `uploadCount`, and fewer on an uplink that is slower than those that feed us. A slow
 * uplink shared by many makes each of its pieces late, and holds a place at each of its receivers meanwhile.
 *
 * The quickest of the last few transfers tells, not their mean: one of them slow says something of its receiver, all of
 * them slow something of our uplink. It is held against what the downlink has shown at best: whoever's pieces take longer
 * to go out than as many take to come in has a slow uplink. Source: docs/policy.md, "Uploads that follow the uplink".
 */

import { placeShareOf } from "./place-share.ts";

/** A piece that is out sooner holds nobody up, whatever it is compared with: on a fast network it is the process that takes the time. */
const SLOW_MS_MIN = 50;

export class UploadPace {
  readonly #countMax: number;
  #count: number;
  #limitMs = Number.POSITIVE_INFINITY;
  #endedCount = 0;
  #quickestMs = Number.POSITIVE_INFINITY;

  /** @param countMax places for transfers (place-share.ts); at least 1 */
  constructor(countMax: number) {
    this.#countMax = countMax;
    this.#count = countMax;
  }

  /** Places for transfers to send at a time, now. */
  get count(): number {
    return this.#count;
  }

  /** What is out within this is not late; infinite while there is nothing to compare with. */
  get limitMs(): number {
    return this.#limitMs;
  }

  /**
   * A transfer of `pieceBytes` has ended that took `outMs` until it was out.
   *
   * @param inBytesPerMs the most that has come in; 0 while nothing has: nothing to compare with (a seed)
   */
  ended(outMs: number, pieceBytes: number, inBytesPerMs: number): void {
    if (inBytesPerMs === 0) return;
    this.#limitMs = Math.max(SLOW_MS_MIN, ((this.#countMax / placeShareOf(pieceBytes)) * pieceBytes) / inBytesPerMs);
    this.#endedCount++;
    this.#quickestMs = Math.min(this.#quickestMs, outMs);
    // One for each place; two at least, or a slow receiver would speak for the uplink.
    if (this.#endedCount < Math.max(2, this.#count)) return;
    // Who share an uplink take as many times as long as they are: so many would be out within the limit.
    const count = Math.floor((this.#count * this.#limitMs) / this.#quickestMs);
    if (count < this.#count) this.#count = Math.max(1, count);
    else if (count > this.#count) this.#count = Math.min(this.#countMax, this.#count + 1);
    this.#endedCount = 0;
    this.#quickestMs = Number.POSITIVE_INFINITY;
  }
}
