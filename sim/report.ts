/** What came of a run, and what could have come of it at best. */
import type { Host, Rack } from "./host.ts";
import { type Network, SLOT_US } from "./network.ts";
import type { SimOptions } from "./options.ts";
import type { Oracles } from "./oracles.ts";
import type { PeerModel } from "./peer-model.ts";
import type { SupernodeModel } from "./supernode-model.ts";
import type { TaskShape } from "./task-shape.ts";
import type { World } from "./world.ts";

export interface SimReport {
  /** T*: before this nobody's download can have ended, in ms. */
  readonly boundMs: number;
  readonly lastMs: number;
  /** Time to finish of each honest peer that is there and was left alone, from its own start, ascending. */
  readonly finishMs: readonly number[];
  /** The same, divided by that peer's own bound, ascending: its downlink may be a slower one than the others'. */
  readonly ownFactors: readonly number[];
  /** T* ÷ last finish. */
  readonly efficiency: number;
  /** When the last peer had each task, in ms from its start. */
  readonly taskLastMs: readonly number[];
  /** Copies of the files the seed sent. */
  readonly seedCopies: number;
  /** Copies of the files that came into each rack, the most. */
  readonly rackCopiesMax: number;
  /** Bytes asked of the origin as copies of the files. */
  readonly originCopies: number;
  /** Pieces that peers read of it in the seed's stead. */
  readonly broughtCount: number;
  /** Share of all uplinks in use, in each twentieth of the run. */
  readonly uplinkUse: readonly number[];
  readonly offersPerPiece: number;
  readonly declines: Readonly<Record<string, number>>;
  readonly late: number;
  readonly doubled: number;
  /** Payload received for nothing, as a share of all payload received. */
  readonly wastedShare: number;
  readonly storedTwice: number;
  readonly delivered: number;
  readonly messagesPerPiece: number;
  /** Writes that carried them: each wakes a process. */
  readonly wakeUpsPerPiece: number;
  readonly controlMessagesPerPeer: number;
  readonly events: number;
}

/**
 * T* in µs: the seed's uplink (or the origin), the slowest downlink, all uplinks together (Kumar & Ross 2006), and each
 * rack's link: all that its hosts want must come in once.
 */
export function boundUsOf(options: SimOptions, tasks: readonly TaskShape[], hosts: readonly Host[]): number {
  const bytes = sizeOf(tasks);
  const common = commonBoundUs(options, bytes, hosts);
  return Math.max(common, (bytes * 1e6) / Math.min(...hosts.map((host) => host.downBytesPerSecond)));
}

function commonBoundUs(options: SimOptions, bytes: number, hosts: readonly Host[]): number {
  const seedUp = options.seedFactor * options.linkBytesPerSecond;
  const sourceUp = options.originBytesPerSecond === 0 ? seedUp : Math.min(seedUp, options.originBytesPerSecond);
  const up = hosts.reduce((sum, host) => sum + host.upBytesPerSecond, seedUp);
  const rackDown = Math.min(...hosts.map((host) => host.rack?.bytesPerSecond ?? Number.POSITIVE_INFINITY));
  return 1e6 * Math.max(bytes / sourceUp, (hosts.length * bytes) / up, bytes / rackDown);
}

export interface RunResult {
  readonly tasks: readonly TaskShape[];
  readonly honest: readonly PeerModel[];
  readonly seedPeer: PeerModel;
  readonly world: World;
  readonly network: Network;
  readonly oracles: Oracles;
  readonly supernode: SupernodeModel;
  readonly boundUs: number;
}

export function reportOf(options: SimOptions, run: RunResult): SimReport {
  const { tasks, honest, seedPeer, oracles } = run;
  const bytes = sizeOf(tasks);
  const timed = honest.filter((peer) => peer.owed && peer.complete && !peer.disturbed);
  const tookUs = (peer: PeerModel): number => (peer.finishedUs as number) - (peer.startedUs as number);
  const finishMs = timed.map((peer) => tookUs(peer) / 1000).toSorted((a, b) => a - b);
  const commonUs = commonBoundUs(options, bytes, honest.map(({ host }) => host));
  const ownUs = (peer: PeerModel): number => Math.max(commonUs, (bytes * 1e6) / peer.host.downBytesPerSecond);
  const ownFactors = timed.map((peer) => tookUs(peer) / ownUs(peer)).toSorted((a, b) => a - b);
  const lastMs = finishMs.at(-1) ?? 0;
  let late = 0;
  let doubled = 0;
  let messages = 0;
  let wakeUps = 0;
  let offers = 0;
  let wasted = 0;
  let received = 0;
  for (const peer of [...honest, seedPeer]) {
    messages += peer.links.messageCount;
    wakeUps += peer.links.wakeUpCount;
    wasted += peer.payload.wastedBytes;
    received += peer.host.receivedPayloadBytes;
    if (peer.gone) continue;
    for (const task of peer.snapshot().tasks) {
      late += task.late;
      doubled += task.doubled;
      offers += task.offersSent;
    }
  }
  const racks = new Set<Rack>(honest.map(({ host }) => host.rack).filter((rack) => rack !== undefined));
  const pieceCount = tasks.reduce((sum, task) => sum + task.pieceCount, 0);
  return {
    boundMs: run.boundUs / 1000,
    lastMs,
    finishMs,
    ownFactors,
    // Nobody to time: all were disturbed, or gone.
    efficiency: lastMs === 0 ? 0 : run.boundUs / 1000 / lastMs,
    taskLastMs: tasks.map((task) => Math.max(0, ...timed.map((peer) => ((peer.finishedTaskUs(task) as number) - (peer.startedUs as number)) / 1000))),
    seedCopies: seedPeer.host.sentPayloadBytes / bytes,
    rackCopiesMax: Math.max(0, ...[...racks].map((rack) => rack.inBytes / bytes)),
    originCopies: oracles.originBytes / bytes,
    broughtCount: oracles.broughtCount,
    uplinkUse: uplinkUseOf([...honest, seedPeer], run.network, run.world.nowUs),
    offersPerPiece: offers / (options.peerCount * pieceCount),
    declines: oracles.declines,
    late,
    doubled,
    wastedShare: wasted / Math.max(1, received),
    storedTwice: oracles.storedTwiceCount,
    delivered: oracles.deliveredCount,
    messagesPerPiece: messages / (options.peerCount * pieceCount),
    wakeUpsPerPiece: wakeUps / (options.peerCount * pieceCount),
    controlMessagesPerPeer: run.supernode.messageCount / options.peerCount,
    events: run.world.eventCount,
  };
}

function sizeOf(tasks: readonly TaskShape[]): number {
  return tasks.reduce((sum, task) => sum + task.lengthBytes, 0);
}

function uplinkUseOf(peers: readonly PeerModel[], network: Network, endUs: number): number[] {
  const slotCount = Math.ceil(endUs / SLOT_US);
  const partCount = Math.min(20, slotCount);
  const used = Array.from({ length: partCount }, () => 0);
  const capacity = peers.reduce((sum, { host }) => sum + host.upBytesPerSecond, 0);
  network.sentBySlot.forEach((bytes, slot) => {
    const part = Math.min(partCount - 1, Math.floor((slot * partCount) / slotCount));
    used[part] = (used[part] as number) + bytes;
  });
  return used.map((bytes) => bytes / ((capacity * endUs) / 1e6 / partCount));
}

/** One line for a person. */
export function describeReport(report: SimReport): string {
  const at = (values: readonly number[], share: number): number => values[Math.min(values.length - 1, Math.floor(values.length * share))] ?? 0;
  const percent = (share: number, digits = 1): string => `${(share * 100).toFixed(digits)} %`;
  return [
    `efficiency ${percent(report.efficiency)}`,
    `T* ${report.boundMs.toFixed(0)} ms, p50 ${at(report.finishMs, 0.5).toFixed(0)}, p99 ${at(report.finishMs, 0.99).toFixed(0)}, last ${report.lastMs.toFixed(0)}`,
    `own bound × ${at(report.ownFactors, 0.5).toFixed(3)} p50, × ${at(report.ownFactors, 1).toFixed(3)} max`,
    `seed sent ${report.seedCopies.toFixed(2)} copies${report.originCopies > 0 ? `, origin ${report.originCopies.toFixed(3)}` : ""}${report.broughtCount > 0 ? `, ${report.broughtCount} pieces of it read by peers` : ""}${report.rackCopiesMax > 0 ? `, into a rack ${report.rackCopiesMax.toFixed(2)}` : ""}`,
    ...(report.taskLastMs.length > 1 ? [`tasks whole at ${report.taskLastMs.map((ms) => ms.toFixed(0)).join(" ")} ms`] : []),
    `uplinks in use ${report.uplinkUse.map((share) => (share * 100).toFixed(0)).join(" ")} %`,
    `${report.offersPerPiece.toFixed(2)} offers per piece, declined ${JSON.stringify(report.declines)}`,
    `late ${report.late}, doubled ${report.doubled}, wasted ${percent(report.wastedShare, 2)}, stored twice ${report.storedTwice}`,
    `${report.messagesPerPiece.toFixed(1)} messages and ${report.wakeUpsPerPiece.toFixed(1)} wake-ups per piece, ${report.controlMessagesPerPeer.toFixed(1)} control messages per peer`,
    `${(report.events / 1e6).toFixed(2)} M events`,
  ].join("; ");
}
