/** One run: a seed, a supernode, peers, a network between them, and what came of it. */
import { Prng } from "../src/base/prng.ts";
import type { PeerId, TaskId } from "../src/protocol/ids.ts";
import { PieceSet } from "../src/protocol/piece-set.ts";
import type { SchedulerEffect, SchedulerInput } from "../src/scheduler/index.ts";
import type { SwarmEffect, SwarmInput } from "../src/swarm/index.ts";
import { scheduleFaults } from "./faults.ts";
import { Host, Network } from "./network.ts";
import type { SimOptions } from "./options.ts";
import { explainWaiting, Oracles } from "./oracles.ts";
import { OriginModel } from "./origin-model.ts";
import { PeerModel, type TaskShape } from "./peer-model.ts";
import { SupernodeModel } from "./supernode-model.ts";
import { World } from "./world.ts";

export interface Recorder {
  swarm(peer: PeerModel, input: SwarmInput, nowMs: number, effects: readonly SwarmEffect[]): void;
  /** `seed` is the one this life of the scheduler began with. */
  scheduler(seed: number, input: SchedulerInput, nowMs: number, effects: readonly SchedulerEffect[]): void;
}

export interface SimReport {
  /** T*: before this nobody's download can have ended, in ms. */
  readonly boundMs: number;
  readonly lastMs: number;
  /** Time to finish of each living peer that was never frozen, from its own start, ascending. */
  readonly finishMs: readonly number[];
  /** T* ÷ last finish. */
  readonly efficiency: number;
  /** Copies of the file the seed sent. */
  readonly seedCopies: number;
  /** Share of all uplinks in use, in each twentieth of the run. */
  readonly uplinkUse: readonly number[];
  readonly offers: number;
  readonly declines: Readonly<Record<string, number>>;
  readonly late: number;
  readonly doubled: number;
  /** Payload received for nothing, as a share of all payload received. */
  readonly wastedShare: number;
  readonly storedTwice: number;
  readonly messagesPerPiece: number;
  /** Writes that carried them: each wakes a process. */
  readonly wakeUpsPerPiece: number;
  readonly controlMessagesPerPeer: number;
  readonly events: number;
}

const TASK_ID = "5".repeat(64) as TaskId;

/**
 * Runs until every living peer holds the whole file.
 *
 * @throws Error when an oracle is violated, or somebody waits beyond the deadline (40 × T* and a minute); the message
 *   says why each of those waits
 */
export function simulate(options: SimOptions, recorder?: Recorder): SimReport {
  const world = new World();
  const prng = new Prng(options.seed);
  const network = new Network(world, options);
  const oracles = new Oracles();
  const task: TaskShape = {
    taskId: TASK_ID,
    pieceCount: options.pieceCount,
    pieceLengthBytes: options.pieceLengthBytes,
    // A last piece shorter than the others.
    lengthBytes: options.pieceCount * options.pieceLengthBytes - (options.pieceCount > 1 ? options.pieceLengthBytes >>> 2 : 0),
  };
  const originBytesPerSecond = options.originBytesPerSecond ?? Number.POSITIVE_INFINITY;
  const origin = new OriginModel(world, oracles, task, originBytesPerSecond);
  const peers = new Map<string, PeerModel>();
  const supernode = new SupernodeModel(
    {
      world,
      task,
      config: options.scheduler,
      peers,
      origin,
      delayUs: options.delayUs,
      record: recorder && ((seed, input, nowMs, effects) => recorder.scheduler(seed, input, nowMs, effects)),
    },
    prng.nextUint32() | 0,
  );
  let waitingCount = options.peerCount;
  const deps = {
    world,
    network,
    oracles,
    task,
    swarm: options.swarm,
    verifyUs: (bytes: number) => (bytes * 1e6) / options.verifyBytesPerSecond,
    needNeighbours: (peer: PeerModel, lost: readonly PeerId[]) => supernode.needNeighbours(peer, lost),
    accuse: (peer: PeerModel, accused: PeerId, piece: number) => supernode.accuse(peer, accused, piece),
    stored: (peer: PeerModel) => {
      supernode.progressed(peer);
      if (peer.complete && !peer.seed && peer.finishedUs === world.nowUs) waitingCount--;
    },
    record:
      recorder &&
      ((peer: PeerModel, input: SwarmInput, nowMs: number, effects: readonly SwarmEffect[]) =>
        recorder.swarm(peer, input, nowMs, effects)),
  };

  const downBytesPerSecond = options.linkBytesPerSecond;
  const add = (name: string, seed: boolean, upBytesPerSecond: number, have: PieceSet): PeerModel => {
    const host = new Host(upBytesPerSecond, Math.max(downBytesPerSecond, upBytesPerSecond));
    const peer = new PeerModel(deps, { peerId: name as PeerId, host, seed, have, swarmSeed: prng.nextUint32() | 0 });
    peers.set(name, peer);
    return peer;
  };
  const warm = options.originBytesPerSecond === undefined;
  const seedPeer = add("seed", true, options.seedFactor * options.linkBytesPerSecond, warm ? PieceSet.full(task.pieceCount) : new PieceSet());
  seedPeer.start();
  supernode.connect(seedPeer);
  const plain: PeerModel[] = [];
  for (let i = 0; i < options.peerCount; i++) {
    const peer = add(`peer-${i}`, false, (options.uplinkShares[i] as number) * options.linkBytesPerSecond, new PieceSet());
    plain.push(peer);
    world.at((options.arrivalMs * 1000 * i) / options.peerCount, () => {
      peer.start();
      supernode.connect(peer);
    });
  }

  const boundUs = boundOf(options, task.lengthBytes, plain) * 1e6;
  const horizonUs = boundUs + options.arrivalMs * 1000;
  const thaw = (peer: PeerModel): void => network.thaw(peer.host);
  scheduleFaults({ world, supernode, peers: plain, thaw }, options, horizonUs, prng);

  const deadlineUs = horizonUs * 40 + 60e6;
  const isDone = (): boolean => waitingCount <= 0 || (options.crashCount > 0 && plain.every((peer) => peer.gone || peer.complete));
  world.run(deadlineUs, isDone);
  const waiting = plain.filter((peer) => !peer.gone && !peer.complete);
  if (waiting.length > 0) {
    throw new Error(`${waiting.length} peers wait at ${world.nowMs} ms (T* ${Math.round(boundUs / 1000)} ms)\n${explainWaiting(waiting, peers)}`);
  }
  return reportOf(options, task, plain, seedPeer, { world, oracles, supernode, boundMs: boundUs / 1000 });
}

/** T* in seconds: the seed's uplink (or the origin), the slowest downlink, all uplinks together. Source: Kumar & Ross 2006. */
function boundOf(options: SimOptions, lengthBytes: number, plain: readonly PeerModel[]): number {
  const seedUp = options.seedFactor * options.linkBytesPerSecond;
  const sourceUp = Math.min(seedUp, options.originBytesPerSecond ?? Number.POSITIVE_INFINITY);
  const down = Math.min(...plain.map((peer) => peer.host.downBytesPerSecond));
  const up = plain.reduce((sum, peer) => sum + peer.host.upBytesPerSecond, seedUp);
  return Math.max(lengthBytes / sourceUp, lengthBytes / down, (plain.length * lengthBytes) / up);
}

function reportOf(
  options: SimOptions,
  task: TaskShape,
  plain: readonly PeerModel[],
  seedPeer: PeerModel,
  run: { readonly world: World; readonly oracles: Oracles; readonly supernode: SupernodeModel; readonly boundMs: number },
): SimReport {
  const alive = plain.filter((peer) => !peer.gone);
  const finishMs = alive.filter((peer) => !peer.wasFrozen).map((peer) => ((peer.finishedUs as number) - (peer.startedUs as number)) / 1000).sort((a, b) => a - b);
  const lastMs = finishMs.at(-1) ?? 0;
  let late = 0;
  let doubled = 0;
  let messages = 0;
  let wakeUps = 0;
  let wasted = 0;
  let received = 0;
  for (const peer of [...alive, seedPeer]) {
    const snapshot = peer.snapshot().tasks[0];
    late += snapshot?.late ?? 0;
    doubled += snapshot?.doubled ?? 0;
    messages += peer.counters.messages;
    wakeUps += peer.counters.wakeUps;
    wasted += peer.counters.wastedBytes;
    received += peer.host.receivedPayloadBytes;
  }
  return {
    boundMs: run.boundMs,
    lastMs,
    finishMs,
    efficiency: run.boundMs / lastMs,
    seedCopies: seedPeer.host.sentPayloadBytes / task.lengthBytes,
    uplinkUse: uplinkUseOf([...plain, seedPeer], run.world.nowUs),
    offers: run.oracles.offerCount,
    declines: run.oracles.declines,
    late,
    doubled,
    wastedShare: wasted / Math.max(1, received),
    storedTwice: run.oracles.storedTwiceCount,
    messagesPerPiece: messages / (options.peerCount * task.pieceCount),
    wakeUpsPerPiece: wakeUps / (options.peerCount * task.pieceCount),
    controlMessagesPerPeer: run.supernode.messageCount / options.peerCount,
    events: run.world.eventCount,
  };
}

function uplinkUseOf(peers: readonly PeerModel[], endUs: number): number[] {
  const hundredths = Math.ceil(endUs / 1e4);
  const partCount = Math.min(20, hundredths);
  const used = Array.from({ length: partCount }, () => 0);
  let capacity = 0;
  for (const { host } of peers) {
    capacity += host.upBytesPerSecond;
    host.sentByHundredth.forEach((bytes, hundredth) => {
      const part = Math.min(partCount - 1, Math.floor((hundredth * partCount) / hundredths));
      used[part] = (used[part] as number) + bytes;
    });
  }
  return used.map((bytes) => bytes / ((capacity * endUs) / 1e6 / partCount));
}
