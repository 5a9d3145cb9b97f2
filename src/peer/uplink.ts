/**
 * How long what was handed to the kernel needs until it is out, where it is the uplink that is slow. A socket takes a whole
 * piece at once however slow the uplink, so that who measures the handing over thinks himself quick; meanwhile answers wait
 * behind hundreds of KiB of payload.
 */
import type { RoundTrip } from "./link/native-socket.ts";

/** Asking all sockets costs system calls. */
const SAMPLE_MS = 50;
/** After a longer pause the speed is not known any more: a trickle of now says nothing of what comes then. */
const INTERVAL_MS_MAX = 1_000;
/** All that leaves a slow uplink waits in its queue. Where one link's bytes wait less than this, it is receivers that are slow. */
const QUEUE_MS_MIN = 10;

/** What a link tells of its sending side. */
export interface LinkOutput {
  /** Of what was written to it, what the kernel still holds, sent and not acknowledged included. */
  readonly heldBytes: number;
  /** Undefined where the kernel does not say. */
  readonly roundTrip: RoundTrip | undefined;
}

export interface UplinkDeps {
  /** Payload handed to the kernel since the start. */
  readonly handedBytes: () => number;
  readonly links: () => Iterable<LinkOutput>;
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
  /** Of the link whose bytes wait least. */
  #queueMs = 0;
  #leastRoundTripMs = 0;

  constructor(deps: UplinkDeps) {
    this.#deps = deps;
  }

  /** Until all that the kernels hold is out, at the speed at which it has gone out lately; 0 while that is not known, or not the uplink's. */
  leavesInMs(): number {
    const nowMs = this.#deps.nowMs();
    if (nowMs - this.#sampledMs >= SAMPLE_MS) this.#sample(nowMs);
    if (this.#bytesPerMs === 0 || this.#queueMs < QUEUE_MS_MIN) return 0;
    // What is held for a round trip's time is on its way, not in a queue.
    return Math.max(0, this.#heldBytes / this.#bytesPerMs - this.#leastRoundTripMs);
  }

  #sample(nowMs: number): void {
    let heldBytes = 0;
    this.#queueMs = Number.POSITIVE_INFINITY;
    for (const link of this.#deps.links()) {
      const linkBytes = link.heldBytes;
      if (linkBytes === 0) continue;
      heldBytes += linkBytes;
      const { recentMs, leastMs } = link.roundTrip ?? { recentMs: 0, leastMs: 0 };
      if (recentMs - leastMs >= this.#queueMs) continue;
      this.#queueMs = recentMs - leastMs;
      this.#leastRoundTripMs = leastMs;
    }
    const goneBytes = this.#deps.handedBytes() - heldBytes;
    this.#learn(goneBytes - this.#goneBytes, nowMs - this.#sampledMs);
    this.#sampledMs = nowMs;
    this.#heldBytes = heldBytes;
    this.#goneBytes = goneBytes;
  }

  /** @param wentBytes since the last sample */
  #learn(wentBytes: number, intervalMs: number): void {
    if (intervalMs > INTERVAL_MS_MAX) {
      this.#bytesPerMs = 0;
      return;
    }
    const bytesPerMs = wentBytes / intervalMs;
    // Control frames are held but not handed over, and a block counts at its end: now and then it seems to go backwards.
    if (bytesPerMs <= 0) return;
    // Less went than was there: it was never idle. Else it may have been, and is at least so quick.
    if (wentBytes < this.#heldBytes) this.#bytesPerMs = this.#bytesPerMs === 0 ? bytesPerMs : this.#bytesPerMs * 0.8 + bytesPerMs * 0.2;
    else if (this.#bytesPerMs > 0) this.#bytesPerMs = Math.max(this.#bytesPerMs, bytesPerMs);
  }
}
