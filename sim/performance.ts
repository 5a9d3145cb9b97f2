/**
 * Performance mode: fixed workloads whose figures are kept in baseline.json, exactly. A change of policy, mesh or
 * protocol that moves them shows as a diff there. The goals are those of swarm.md §5.
 */
import { fileOf, MIB, NO_FAULTS, oneTask, plainOptions, type SimOptions, type TaskOptions } from "./options.ts";
import type { SimReport } from "./report.ts";

export interface Scenario {
  readonly name: string;
  readonly options: SimOptions;
  /** Takes minutes: run on demand, not in the tests. */
  readonly big: boolean;
}

/** 1 Gbit/s. */
const GIGABIT = 125_000_000;

/** 1 GiB at 1 Gbit/s. */
function datacentre(peerCount: number, changes: Partial<SimOptions> = {}): SimOptions {
  const tasks = [fileOf(1024 * MIB)];
  return plainOptions(1, { peerCount, tasks, linkBytesPerSecond: GIGABIT, seedFactor: 2, chunkBytes: 256 * 1024, windowBytes: 512 * 1024, ...changes });
}

/** An image: one large layer, some middling, some small. */
const LAYERS: readonly TaskOptions[] = [0.25, 0.5, 1, 1, 4, 10, 30].map((mebibytes) => fileOf(mebibytes * MIB));

/** Sockets that take more than a piece of the lab at once, and chunks fine enough to queue within 50 ms. */
const KERNEL_QUEUES: Partial<SimOptions> = { socketBytes: MIB / 2, chunkBytes: 16 * 1024 };
const leaving = (peerCount: number): Partial<SimOptions> => ({ faults: { ...NO_FAULTS, crashes: peerCount / 10, leaves: peerCount / 10 } });
const racks = (rackSize: number, oversubscription: number): Partial<SimOptions> => ({ rackSize, oversubscription, labelled: true });

export const SCENARIOS: readonly Scenario[] = [
  small("lab-16", { peerCount: 16 }),
  small("lab-16-seed-4x", { peerCount: 16, seedFactor: 4 }),
  small("lab-16-fair-queues", { peerCount: 16, fairQueueing: true }),
  // The seed reads the origin meanwhile, twenty times as fast as a link: the lab's case, and a cluster's first pull.
  small("lab-16-cold-seed", { peerCount: 16, originBytesPerSecond: GIGABIT }),
  // As in the lab, whose sockets take a whole piece at once.
  small("lab-16-kernel-queues", { peerCount: 16, ...KERNEL_QUEUES }),
  // The lab's `--slow 2x0.25`: who hands whole pieces to a slow uplink must not take himself for a quick one.
  small("lab-16-slow-uplinks", { peerCount: 16, ...KERNEL_QUEUES, uplinks: "someSlow" }),
  small("lab-16-readers", { peerCount: 16, readers: true }),
  small("lab-16-racks", { peerCount: 16, ...racks(4, 4) }),
  // Every connection may fill the racks' links with 4 MiB: nothing is dropped, everything is late.
  small("lab-16-racks-deep-queues", { peerCount: 16, tasks: oneTask(50, 1024), windowBytes: 4096 * 1024, ...racks(4, 4) }),
  small("lab-16-image", { peerCount: 16, tasks: LAYERS }),
  small("100", { peerCount: 100 }),
  small("100-cold-seed", { peerCount: 100, originBytesPerSecond: GIGABIT }),
  small("100-mixed", { peerCount: 100, uplinks: "mixed", seedFactor: 2 }),
  small("100-slow-downlinks", { peerCount: 100, downlinks: "someSlow", seedFactor: 2 }),
  small("100-mixed-slow-downlinks", { peerCount: 100, uplinks: "mixed", downlinks: "someSlow", seedFactor: 2 }),
  // Pieces of 4 MiB at 10 Mbit/s: each takes three seconds and a half alone.
  small("50-slow-downlinks-large-pieces", { peerCount: 50, tasks: oneTask(50, 4 * 1024), chunkBytes: 64 * 1024, downlinks: "someSlow", seedFactor: 2 }),
  // 20 Mbit/s beside 1 Gbit/s: a sender's places are few, and each piece of theirs holds one for seconds.
  small("60-crawling-downlinks", { peerCount: 60, tasks: oneTask(25, 4 * 1024), linkBytesPerSecond: GIGABIT, chunkBytes: 128 * 1024, windowBytes: 512 * 1024, downlinks: "someCrawling", seedFactor: 2 }),
  small("100-leaving", { peerCount: 100, seedFactor: 2, ...leaving(100) }),
  small("100-readers", { peerCount: 100, readers: true }),
  small("100-wan", { peerCount: 100, delayUs: 20_000, slowStart: true, windowBytes: 1024 * 1024 }),
  big("1000", datacentre(1_000)),
  big("1000-leaving", datacentre(1_000, leaving(1_000))),
  big("1000-mixed", datacentre(1_000, { uplinks: "mixed" })),
  big("1000-readers", datacentre(1_000, { readers: true })),
  big("1000-racks", datacentre(1_000, racks(40, 4))),
  big("10000", datacentre(10_000)),
];

function small(name: string, changes: Partial<SimOptions>): Scenario {
  return { name, options: plainOptions(1, changes), big: false };
}

function big(name: string, options: SimOptions): Scenario {
  return { name, options, big: true };
}

/** What is kept of a run: exact, so that nothing moves unseen; rounded, so that a person can read it. */
export type Figures = Readonly<Record<string, number | readonly number[]>>;
export type Baseline = Readonly<Record<string, Figures>>;

export function figuresOf(report: SimReport): Figures {
  const at = (values: readonly number[], share: number): number => values[Math.min(values.length - 1, Math.floor(values.length * share))] ?? 0;
  const round = (value: number, digits: number): number => Number(value.toFixed(digits));
  return {
    efficiencyPercent: round(report.efficiency * 100, 2),
    boundMs: round(report.boundMs, 1),
    p50Ms: round(at(report.finishMs, 0.5), 1),
    p99Ms: round(at(report.finishMs, 0.99), 1),
    lastMs: round(report.lastMs, 1),
    ownBoundP50: round(at(report.ownFactors, 0.5), 3),
    ownBoundMax: round(at(report.ownFactors, 1), 3),
    seedCopies: round(report.seedCopies, 3),
    ...(report.rackCopiesMax > 0 ? { rackCopiesMax: round(report.rackCopiesMax, 2) } : {}),
    ...(report.taskLastMs.length > 1 ? { taskLastMs: report.taskLastMs.map((ms) => round(ms, 0)) } : {}),
    wastedPercent: round(report.wastedShare * 100, 3),
    late: report.late,
    doubled: report.doubled,
    offersPerPiece: round(report.offersPerPiece, 2),
    messagesPerPiece: round(report.messagesPerPiece, 2),
    wakeUpsPerPiece: round(report.wakeUpsPerPiece, 2),
    controlMessagesPerPeer: round(report.controlMessagesPerPeer, 2),
  };
}

/** @returns a line for each figure that is not what the baseline says; empty when all are */
export function differences(was: Figures | undefined, now: Figures): readonly string[] {
  if (was === undefined) return ["it is not in the baseline"];
  return [...new Set([...Object.keys(was), ...Object.keys(now)])]
    .filter((figure) => JSON.stringify(was[figure]) !== JSON.stringify(now[figure]))
    .map((figure) => `${figure}: ${JSON.stringify(was[figure])} → ${JSON.stringify(now[figure])}`);
}
