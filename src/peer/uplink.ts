/**
 * How long what was handed to the kernel needs until it is out. A socket takes a whole piece at once however slow the uplink,
 * so that who measures the handing over thinks himself quick; meanwhile answers wait behind hundreds of KiB of payload.
 */

/** Asking all sockets costs a system call each. */
const SAMPLE_MS = 50;
/** A pause says nothing of how fast the uplink is. */
const INTERVAL_MS_MAX = 1_000;
/** With less than this in it the uplink may have been idle: a token bucket's burst, one packet of segmentation offload. */
const HELD_BYTES_MIN = 64 * 1024;

export interface UplinkDeps {
  /** Payload handed to the kernel since the start. */
  readonly handedBytes: () => number;
  /** Of what was written to all links, what the kernel still holds. */
  readonly heldBytes: () => number;
  /** Monotonic. */
  readonly nowMs: () => number;
}

export class Uplink {
  readonly #deps: UplinkDeps;
  #sampledMs = Number.NEGATIVE_INFINITY;
  #heldBytes = 0;
  /** Handed over and gone, at the last sample. */
  #goneBytes = 0;
  /** Moving average, of times when there was always something to send; 0 while unknown. */
  #bytesPerMs = 0;

  constructor(deps: UplinkDeps) {
    this.#deps = deps;
  }

  /** Until all that the kernel holds is out, at the speed at which it has gone out lately; 0 while that is not known. */
  leavesInMs(): number {
    const nowMs = this.#deps.nowMs();
    if (nowMs - this.#sampledMs >= SAMPLE_MS) this.#sample(nowMs);
    return this.#bytesPerMs === 0 ? 0 : this.#heldBytes / this.#bytesPerMs;
  }

  #sample(nowMs: number): void {
    const heldBytes = this.#deps.heldBytes();
    const goneBytes = this.#deps.handedBytes() - heldBytes;
    const intervalMs = nowMs - this.#sampledMs;
    const wasBusy = this.#heldBytes >= HELD_BYTES_MIN && heldBytes >= HELD_BYTES_MIN;
    if (intervalMs <= INTERVAL_MS_MAX && wasBusy) {
      // Control frames are held but not handed over: in a turn with many of them it seems to go backwards.
      const bytesPerMs = Math.max(0, goneBytes - this.#goneBytes) / intervalMs;
      this.#bytesPerMs = this.#bytesPerMs === 0 ? bytesPerMs : this.#bytesPerMs * 0.8 + bytesPerMs * 0.2;
    }
    this.#sampledMs = nowMs;
    this.#heldBytes = heldBytes;
    this.#goneBytes = goneBytes;
  }
}
