/** Everything a run depends on, drawn from its seed; a run is repeated from the seed alone. */
import { Prng } from "../src/base/prng.ts";
import { DEFAULT_SCHEDULER_CONFIG, type SchedulerConfig } from "../src/scheduler/index.ts";
import { DEFAULT_SWARM_CONFIG, type SwarmConfig } from "../src/swarm/index.ts";

export interface SimOptions {
  readonly seed: number;
  readonly peerCount: number;
  readonly pieceCount: number;
  readonly pieceLengthBytes: number;
  /** Of a plain peer with share 1, both ways. */
  readonly linkBytesPerSecond: number;
  /** Uplink of each plain peer as a share of `linkBytesPerSecond`. */
  readonly uplinkShares: readonly number[];
  /** Seed's uplink as a multiple of `linkBytesPerSecond`. */
  readonly seedFactor: number;
  /** Undefined: the seed holds everything at the start. */
  readonly originBytesPerSecond: number | undefined;
  readonly delayUs: number;
  readonly chunkBytes: number;
  readonly windowBytes: number;
  readonly fairQueueing: boolean;
  readonly verifyBytesPerSecond: number;
  /** Peers arrive evenly over this time. */
  readonly arrivalMs: number;
  readonly crashCount: number;
  readonly freezeCount: number;
  readonly resetCount: number;
  readonly restartCount: number;
  readonly swarm: SwarmConfig;
  readonly scheduler: SchedulerConfig;
}

const KIB = 1024;
/** 50 Mbit/s: the lab's links. */
const LAB_BYTES_PER_SECOND = 6_250_000;

/** The fixed workload of the efficiency table: equal peers, everybody at once, a warm seed as fast as a peer. */
export function plainOptions(seed: number, changes: Partial<SimOptions> = {}): SimOptions {
  const pieceLengthBytes = changes.pieceLengthBytes ?? 256 * KIB;
  const peerCount = changes.peerCount ?? 100;
  return {
    seed,
    peerCount,
    pieceCount: 200,
    pieceLengthBytes,
    linkBytesPerSecond: LAB_BYTES_PER_SECOND,
    uplinkShares: Array.from({ length: peerCount }, () => 1),
    seedFactor: 1,
    originBytesPerSecond: undefined,
    delayUs: 200,
    chunkBytes: Math.max(32 * KIB, pieceLengthBytes >>> 3),
    windowBytes: 256 * KIB,
    fairQueueing: false,
    verifyBytesPerSecond: 1e9,
    arrivalMs: 0,
    crashCount: 0,
    freezeCount: 0,
    resetCount: 0,
    restartCount: 0,
    swarm: DEFAULT_SWARM_CONFIG,
    scheduler: DEFAULT_SCHEDULER_CONFIG,
    ...changes,
  };
}

/** The lab's mix of hosts (10 % at 0.2×, 20 % at 0.5×, 60 % at 1×, 10 % at 4×), the same for every seed. */
export function mixedShares(peerCount: number): number[] {
  const pattern = [1, 0.5, 1, 1, 4, 1, 0.2, 1, 0.5, 1];
  return Array.from({ length: peerCount }, (_, i) => pattern[i % pattern.length] as number);
}

/** Any workload: sizes, speeds, delays, arrivals, and `faults` if asked for. */
export function drawnOptions(seed: number, faults: boolean): SimOptions {
  const prng = new Prng(seed);
  const pick = <T>(...choices: readonly T[]): T => choices[prng.below(choices.length)] as T;
  const peerCount = 4 + prng.below(40);
  const equal = prng.below(3) > 0;
  return plainOptions(seed, {
    peerCount,
    pieceCount: 1 + prng.below(pick(8, 100, 300)),
    pieceLengthBytes: pick(64, 256, 1024) * KIB,
    uplinkShares: Array.from({ length: peerCount }, () => (equal ? 1 : pick(0.2, 0.5, 1, 1, 1, 4))),
    seedFactor: pick(1, 1, 2, 4),
    originBytesPerSecond: pick(undefined, LAB_BYTES_PER_SECOND / 2, LAB_BYTES_PER_SECOND * 4),
    delayUs: pick(100, 200, 1_000, 10_000, 40_000),
    fairQueueing: pick(false, true),
    arrivalMs: pick(0, 0, 500, 5_000),
    crashCount: faults ? prng.below(1 + (peerCount >>> 2)) : 0,
    freezeCount: faults ? prng.below(1 + (peerCount >>> 2)) : 0,
    resetCount: faults ? prng.below(peerCount) : 0,
    restartCount: faults ? prng.below(2) : 0,
  });
}

/** One line for a person; configurations that are the default are left out. */
export function describeOptions(options: SimOptions): string {
  const { swarm, scheduler, uplinkShares, ...rest } = options;
  const shares = new Map<number, number>();
  for (const share of uplinkShares) shares.set(share, (shares.get(share) ?? 0) + 1);
  return JSON.stringify({
    ...rest,
    uplinkShares: [...shares].map(([share, count]) => `${count}×${share}`).join(" "),
    ...(swarm === DEFAULT_SWARM_CONFIG ? {} : { swarm }),
    ...(scheduler === DEFAULT_SCHEDULER_CONFIG ? {} : { scheduler }),
  });
}
