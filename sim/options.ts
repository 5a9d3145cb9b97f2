/** Everything a run depends on: small, plain JSON. A run repeats from the options that were printed, or from its seed. */
import { Prng } from "../src/base/prng.ts";
import { pieceCountOf, pieceLengthFor } from "../src/protocol/geometry.ts";
import { DEFAULT_SCHEDULER_CONFIG, type SchedulerConfig } from "../src/scheduler/index.ts";
import { DEFAULT_SWARM_CONFIG, type SwarmConfig } from "../src/swarm/index.ts";

export interface TaskOptions {
  readonly pieceCount: number;
  readonly pieceLengthBytes: number;
  readonly priority: "interactive" | "normal" | "preheat";
}

/** How often each thing goes wrong; when, to whom and for how long is drawn from the run's seed. */
export interface FaultOptions {
  /** Process killed or host without power, for good. */
  readonly crashes: number;
  /** The same, but it comes back with what its disk holds. */
  readonly rebirths: number;
  /** Leaves its tasks in good order, for good. */
  readonly leaves: number;
  /** Leaves and joins again. */
  readonly returns: number;
  /** Process stopped for a while; its kernel still answers. */
  readonly freezes: number;
  /** One link reset. */
  readonly resets: number;
  /** Some hosts cannot reach the others, the supernode and the seed among those, for a while. */
  readonly partitions: number;
  /** The supernode's process, scheduler and seed, dies and comes back. */
  readonly restarts: number;
  /** A host's links carry a tenth for a while. */
  readonly slowdowns: number;
  /** A host's disk takes nothing for a while. */
  readonly fullDisks: number;
  /** Peers that send rubbish, nothing at all, or boast of what they do not hold, all the time. */
  readonly liars: number;
  /** The origin cuts the read, and gives nothing for a while. */
  readonly originCuts: number;
  /** The seed cannot read the origin for a while, though others can: peers read in its stead. */
  readonly seedOutages: number;
  /** Peers that cannot read the origin either, or hardly, all the time. */
  readonly poorReaders: number;
  /** Some of what a host's disk holds is found damaged, and thrown away. */
  readonly vanishings: number;
  /** The same of the seed's. */
  readonly seedVanishings: number;
  /** Peers that say that nobody can open links to them, all the time. */
  readonly undialables: number;
  /** Peers behind something that lets no link in, and that do not know it. */
  readonly walled: number;
  /** Who has all of a file closes it, and opens it again when a neighbour asks. */
  readonly sleeps: number;
  /** A host has no memory for what comes in, now and then, for a while. */
  readonly shortages: number;
  /** The supernode's process dies for good: peers give each other what they hold. */
  readonly endings: number;
}

export const NO_FAULTS: FaultOptions = {
  crashes: 0,
  rebirths: 0,
  leaves: 0,
  returns: 0,
  freezes: 0,
  resets: 0,
  partitions: 0,
  restarts: 0,
  slowdowns: 0,
  fullDisks: 0,
  liars: 0,
  originCuts: 0,
  seedOutages: 0,
  poorReaders: 0,
  vanishings: 0,
  seedVanishings: 0,
  undialables: 0,
  walled: 0,
  sleeps: 0,
  shortages: 0,
  endings: 0,
};

export interface SimOptions {
  readonly seed: number;
  readonly peerCount: number;
  /** All of them are wanted by every peer. */
  readonly tasks: readonly TaskOptions[];
  /** Of a plain peer with share 1, both ways. */
  readonly linkBytesPerSecond: number;
  /** Uplinks as shares of that: all 1; the fixed mix of {@link mixedShare}; one in eight a quarter; any. */
  readonly uplinks: "equal" | "mixed" | "someSlow" | "any";
  /** Downlinks: as fast as the uplink, and at least 1; or one in ten of them a fifth; or one in five a fiftieth. */
  readonly downlinks: "wide" | "someSlow" | "someCrawling";
  /** Seed's uplink as a multiple of `linkBytesPerSecond`. */
  readonly seedFactor: number;
  /** 0: the seed holds everything at the start. */
  readonly originBytesPerSecond: number;
  readonly delayUs: number;
  readonly chunkBytes: number;
  readonly windowBytes: number;
  readonly slowStart: boolean;
  readonly fairQueueing: boolean;
  readonly socketBytes: number;
  readonly verifyBytesPerSecond: number;
  /** Peers arrive evenly over this time. */
  readonly arrivalMs: number;
  /** Hosts per rack; 0: no racks. The seed is in none. */
  readonly rackSize: number;
  /** Sum of the downlinks in a rack ÷ its link to the core. */
  readonly oversubscription: number;
  /** Whether the supernode is told of the racks. */
  readonly labelled: boolean;
  /** Each peer reads each file in order, as fast as it comes. */
  readonly readers: boolean;
  /** So many of the peers, the first ones, want nothing themselves, and take what others take. */
  readonly keeperCount: number;
  /** How long a file is is known once the seed has read all of it, as by an origin that does not say. */
  readonly lateLengths: boolean;
  readonly faults: FaultOptions;
  readonly swarm: SwarmConfig;
  readonly scheduler: SchedulerConfig;
}

const KIB = 1024;
/** 50 Mbit/s: the lab's links. */
export const LAB_BYTES_PER_SECOND = 6_250_000;

export const MIB: number = 1024 * KIB;
/** What the lab sends. */
const LAB_FILE_BYTES = 50 * MIB;

/** A file in the pieces that the supernode would give it. */
export function fileOf(lengthBytes: number): TaskOptions {
  const pieceLengthBytes = pieceLengthFor(lengthBytes);
  return { pieceCount: pieceCountOf(lengthBytes, pieceLengthBytes), pieceLengthBytes, priority: "normal" };
}

/** The plain workload: 100 equal peers, everybody at once, one file of 50 MiB, a warm seed as fast as a peer. */
export function plainOptions(seed: number, changes: Partial<SimOptions> = {}): SimOptions {
  const tasks = changes.tasks ?? [fileOf(LAB_FILE_BYTES)];
  return {
    seed,
    peerCount: 100,
    tasks,
    linkBytesPerSecond: LAB_BYTES_PER_SECOND,
    uplinks: "equal",
    downlinks: "wide",
    seedFactor: 1,
    originBytesPerSecond: 0,
    delayUs: 200,
    chunkBytes: Math.max(32 * KIB, Math.max(...tasks.map((task) => task.pieceLengthBytes)) >>> 3),
    windowBytes: 256 * KIB,
    slowStart: false,
    fairQueueing: false,
    socketBytes: 0,
    verifyBytesPerSecond: 1e9,
    arrivalMs: 0,
    rackSize: 0,
    oversubscription: 1,
    labelled: false,
    readers: false,
    keeperCount: 0,
    lateLengths: false,
    faults: NO_FAULTS,
    swarm: DEFAULT_SWARM_CONFIG,
    scheduler: DEFAULT_SCHEDULER_CONFIG,
    ...changes,
  };
}

export function oneTask(pieceCount: number, pieceKib: number): TaskOptions[] {
  return [{ pieceCount, pieceLengthBytes: pieceKib * KIB, priority: "normal" }];
}

/** 10 % at 0.2×, 20 % at 0.5×, 60 % at 1×, 10 % at 4×. Source: swarm.md §5. */
export function mixedShare(peerIndex: number): number {
  const pattern = [1, 0.5, 1, 1, 4, 1, 0.2, 1, 0.5, 1];
  return pattern[peerIndex % pattern.length] as number;
}

/** With `someSlow`: two of the lab's sixteen. */
export function slowUplinkShare(peerIndex: number): number {
  return peerIndex % 8 === 3 ? 0.25 : 1;
}

/** With `someSlow`: of ten hosts the fourth, whose uplink is a plain one in the mix. With `someCrawling` of five the fourth. */
export function downlinkShare(peerIndex: number, options: SimOptions, uplinkShare: number): number {
  if (options.downlinks === "someCrawling" && peerIndex % 5 === 3) return 0.02;
  return options.downlinks === "someSlow" && peerIndex % 10 === 3 ? 0.2 : Math.max(1, uplinkShare);
}

/** Any workload small enough to be run by the thousand, with every kind of fault in some of them. */
export function drawnOptions(seed: number): SimOptions {
  const prng = new Prng(seed);
  const pick = <T>(...choices: readonly T[]): T => choices[prng.below(choices.length)] as T;
  const peerCount = 2 + prng.below(pick(4, 12, 24));
  const taskCount = pick(1, 1, 1, 2, 4);
  const pieceCountMax = pick(3, 30, 120);
  const tasks = Array.from({ length: taskCount }, (): TaskOptions => ({
    pieceCount: 1 + prng.below(pieceCountMax),
    pieceLengthBytes: pick(64, 256, 1024) * KIB,
    priority: pick("interactive", "normal", "normal", "preheat"),
  }));
  // Each kind in about half of the runs, so that many run without the one that hides another's effects.
  const some = (most: number): number => (prng.below(2) === 0 ? 0 : prng.below(most + 1));
  const few = Math.ceil(peerCount / 4);
  const drawn = plainOptions(seed, {
    peerCount,
    tasks,
    linkBytesPerSecond: pick(LAB_BYTES_PER_SECOND, 125_000_000),
    uplinks: pick("equal", "equal", "mixed", "any"),
    seedFactor: pick(1, 1, 2, 4),
    originBytesPerSecond: pick(0, LAB_BYTES_PER_SECOND / 2, LAB_BYTES_PER_SECOND * 4),
    delayUs: pick(100, 200, 1_000, 10_000, 40_000),
    windowBytes: pick(128, 256, 1024) * KIB,
    slowStart: pick(false, true),
    fairQueueing: pick(false, true),
    arrivalMs: pick(0, 0, 500, 5_000),
    rackSize: pick(0, 0, 4),
    oversubscription: pick(1, 4),
    labelled: pick(false, true),
    readers: pick(false, true),
    faults: {
      ...NO_FAULTS,
      crashes: some(few),
      rebirths: some(few),
      leaves: some(few),
      returns: some(few),
      freezes: some(few),
      resets: some(peerCount),
      partitions: some(2),
      restarts: some(2),
      slowdowns: some(few),
      fullDisks: some(few),
      liars: some(Math.min(2, few)),
      originCuts: some(2),
    },
    // What was added later is drawn last, so that a seed keeps what it meant before.
    downlinks: pick("wide", "wide", "someSlow"),
  });
  const isLarge = pick(false, false, true) && tasks.reduce((sum, { pieceCount }) => sum + pieceCount, 0) <= LARGE_PIECE_COUNT_MAX;
  const faults = { ...drawn.faults, seedOutages: some(2), poorReaders: some(few) };
  const socketBytes = pick(0, 0, 512 * KIB);
  const vanishings = some(few);
  const keeperCount = Math.min(pick(0, 0, 1, 2), peerCount - 2);
  const reached = { seedVanishings: some(2), undialables: some(few), walled: some(few), sleeps: some(peerCount), shortages: some(few) };
  const scheduler = { ...drawn.scheduler, ...pick({}, {}, SPARSE, SPARSER), ...pick({}, {}, FORGETFUL) };
  const endings = pick(0, 0, 0, 0, 1);
  const lateLengths = pick(false, false, true);
  return { ...(isLarge ? withLargePieces(drawn) : drawn), faults: { ...faults, vanishings, ...reached, endings }, socketBytes, keeperCount, lateLengths, scheduler };
}

/** With the usual degrees the few peers of a drawn run nearly all know each other. */
const SPARSE: Partial<SchedulerConfig> = { neighbourCount: 4, neighbourCountMax: 6, seedNeighbourCountMax: 6 };
const SPARSER: Partial<SchedulerConfig> = { neighbourCount: 2, neighbourCountMax: 4, seedNeighbourCountMax: 3 };
/** What is remembered for minutes outlasts a drawn run. */
const FORGETFUL: Partial<SchedulerConfig> = { emptyTaskMs: 300, disconnectedPeerMs: 500 };

/** Of four times as many bytes no more are drawn, for the time that it takes. */
const LARGE_PIECE_COUNT_MAX = 40;

/** Up to 4 MiB each: several seconds over a slow downlink. */
function withLargePieces(options: SimOptions): SimOptions {
  const tasks = options.tasks.map((task) => ({ ...task, pieceLengthBytes: task.pieceLengthBytes * 4 }));
  return { ...options, tasks, chunkBytes: Math.min(256 * KIB, plainOptions(options.seed, { tasks }).chunkBytes) };
}

/** One line of JSON, from which {@link parseOptions} makes the same options; what is the default is left out. */
export function describeOptions(options: SimOptions): string {
  const plain = plainOptions(options.seed, { tasks: options.tasks });
  const changed = Object.entries(options).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(plain[key as keyof SimOptions]));
  const faults = Object.entries(options.faults).filter(([, count]) => count > 0);
  return JSON.stringify({
    seed: options.seed,
    ...Object.fromEntries(changed),
    tasks: options.tasks,
    ...(faults.length > 0 ? { faults: Object.fromEntries(faults) } : {}),
  });
}

/**
 * Some of the options of an object like that one.
 *
 * @throws Error naming an option that there is not: the run would be another than was meant
 */
export function parseChanges<Options extends object>(text: string, like: Options): Partial<Options> {
  const given = JSON.parse(text) as Partial<Options>;
  for (const key of Object.keys(given)) if (!(key in like)) throw new Error(`there is no option ${key}: one of ${Object.keys(like).join(", ")}`);
  return given;
}

export function parseOptions(text: string): SimOptions {
  const given = parseChanges(text, plainOptions(1)) as Partial<SimOptions> & { readonly seed: number };
  const plain = plainOptions(given.seed, given);
  return {
    ...plain,
    faults: { ...NO_FAULTS, ...plain.faults },
    swarm: { ...DEFAULT_SWARM_CONFIG, ...plain.swarm },
    scheduler: { ...DEFAULT_SCHEDULER_CONFIG, ...plain.scheduler },
  };
}
