/**
 * What a download's time went by: each interval of its life is put down to what held it up during that interval.
 * Pure: the edge says what is true, and when.
 */

/**
 * `waiting`: for the supernode, for links, for anybody who has something; `origin`: nobody at the site has what is
 * missing, or this host reads the origin itself; `downlink`: a limit of this host, or its network interface; `seed`,
 * `neighbours`: their uplinks; `disk`: pieces are here, but not written (or read) yet; `cpu`: this process has no time
 * left; `reader`: all is here, who reads it sets the pace.
 */
export const BOUNDS = ["waiting", "origin", "downlink", "seed", "neighbours", "disk", "cpu", "reader"] as const;
export type Bound = (typeof BOUNDS)[number];
export type BoundShares = Readonly<Record<Bound, number>>;

/** What is true of a task that is not complete, as far as it tells what it waits for. */
export interface Situation {
  /** A rate limit makes it wait, or the interface is as good as full. */
  readonly isDownlinkFull: boolean;
  readonly isCpuBusy: boolean;
  /** This host reads the origin itself. */
  readonly isReadingOrigin: boolean;
  /** Pieces whole but not on disk yet; and whether nothing more is taken in because of such. */
  readonly storingCount: number;
  readonly isStoringFull: boolean;
  /** Pieces that the seed, or other peers, are sending or have agreed to send. */
  readonly fromSeedCount: number;
  readonly fromNeighboursCount: number;
  /** They hold something that is missing here. Asked only while nothing comes in. */
  readonly seedHasMore: () => boolean;
  readonly neighboursHaveMore: () => boolean;
  readonly isSeedLinked: boolean;
  /** Links on which the other side takes part in the task, the seed's included. */
  readonly linkCount: number;
}

/** @returns shares of the time spent like this, by what it is put down to; together 1 */
export function boundsOf(now: Situation): Readonly<Partial<Record<Bound, number>>> {
  if (now.isDownlinkFull) return { downlink: 1 };
  if (now.isStoringFull) return { disk: 1 };
  if (now.isCpuBusy) return { cpu: 1 };
  const sending = now.fromSeedCount + now.fromNeighboursCount;
  if (sending > 0) return { seed: now.fromSeedCount / sending, neighbours: now.fromNeighboursCount / sending };
  if (now.isReadingOrigin) return { origin: 1 };
  if (now.storingCount > 0) return { disk: 1 };
  // Somebody could send, and has not offered it: its uplink is busy with others.
  if (now.seedHasMore()) return { seed: 1 };
  if (now.neighboursHaveMore()) return { neighbours: 1 };
  // The seed holds nothing new: it waits for the origin. Without a link to it, others' supply is all there is.
  if (now.isSeedLinked) return { origin: 1 };
  return now.linkCount > 0 ? { neighbours: 1 } : { waiting: 1 };
}

/** Sums intervals up. Times in ms, of one monotonic clock. */
export class BoundAccount {
  readonly #spentMs: Record<Bound, number> = emptyShares();
  #atMs: number;

  constructor(startMs: number) {
    this.#atMs = startMs;
  }

  /** Till when time has been put down. */
  get atMs(): number {
    return this.#atMs;
  }

  /** Since the last call it was like this. `now` is asked only when time has passed. */
  charge(nowMs: number, now: () => Readonly<Partial<Record<Bound, number>>>): void {
    const tookMs = nowMs - this.#atMs;
    if (tookMs <= 0) return;
    this.#atMs = nowMs;
    const shares = now();
    for (const bound of BOUNDS) this.#spentMs[bound] += tookMs * (shares[bound] ?? 0);
  }

  /** Time from before the start. */
  add(bound: Bound, tookMs: number): void {
    this.#spentMs[bound] += tookMs;
  }

  /** The time since the last call belongs to nobody. */
  skip(nowMs: number): void {
    this.#atMs = Math.max(this.#atMs, nowMs);
  }

  /** A copy. */
  spentMs(): BoundShares {
    return { ...this.#spentMs };
  }
}

export function emptyShares(): Record<Bound, number> {
  return { waiting: 0, origin: 0, downlink: 0, seed: 0, neighbours: 0, disk: 0, cpu: 0, reader: 0 };
}

/** `to` − `from`, bound by bound. */
export function sharesSince(from: BoundShares, to: BoundShares): BoundShares {
  const since = emptyShares();
  for (const bound of BOUNDS) since[bound] = to[bound] - from[bound];
  return since;
}

/** @returns what most of the time went by; undefined when it took none */
export function mainBound(spentMs: BoundShares): Bound | undefined {
  let main: Bound | undefined;
  for (const bound of BOUNDS) if (spentMs[bound] > (main === undefined ? 0 : spentMs[main])) main = bound;
  return main;
}
