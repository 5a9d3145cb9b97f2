/** A world put together: the processes and what lies between them, nobody started yet. */
import { Prng } from "../src/base/prng.ts";
import type { PeerId } from "../src/protocol/ids.ts";
import { Scheduler, type SchedulerConfig, type SchedulerEffect, type SchedulerInput } from "../src/scheduler/index.ts";
import { Swarm, type SwarmConfig, type SwarmEffect, type SwarmInput } from "../src/swarm/index.ts";
import { drawLies } from "./lies.ts";
import { Host, Rack } from "./host.ts";
import { Network } from "./network.ts";
import { downlinkShare, mixedShare, type SimOptions, slowUplinkShare } from "./options.ts";
import { Oracles } from "./oracles.ts";
import { OriginModel } from "./origin-model.ts";
import { PeerModel } from "./peer-model.ts";
import type { Brain } from "./peer-ports.ts";
import { type SchedulerBrain, SupernodeModel } from "./supernode-model.ts";
import { TaskShape } from "./task-shape.ts";
import { World } from "./world.ts";

export interface Recorder {
  swarm(peer: PeerModel, input: SwarmInput, nowMs: number, effects: readonly SwarmEffect[]): void;
  /** `seed` is the one this life of the scheduler began with. */
  scheduler(seed: number, input: SchedulerInput, nowMs: number, effects: readonly SchedulerEffect[]): void;
}

export interface RunParts {
  readonly recorder?: Recorder;
  /** Called twice a second of virtual time. */
  readonly look?: (nowMs: number, plain: readonly PeerModel[]) => void;
  readonly newBrain?: (config: SwarmConfig, seed: number) => Brain;
  readonly newScheduler?: (config: SchedulerConfig, seed: number) => SchedulerBrain;
}

export interface Assembled {
  readonly world: World;
  readonly network: Network;
  readonly oracles: Oracles;
  readonly tasks: readonly TaskShape[];
  readonly supernode: SupernodeModel;
  readonly origin: OriginModel;
  /** The run's own generator, already used for what is here. */
  readonly prng: Prng;
  readonly seedPeer: PeerModel;
  readonly plain: readonly PeerModel[];
  readonly find: (peerId: PeerId) => PeerModel | undefined;
}

export function assemble(options: SimOptions, parts: RunParts = {}): Assembled {
  const { recorder } = parts;
  const world = new World();
  const prng = new Prng(options.seed);
  const network = new Network(world, options);
  const oracles = new Oracles();
  const tasks = options.tasks.map((task, index) => new TaskShape(task, index));
  const warm = options.originBytesPerSecond === 0;
  const peers = new Map<string, PeerModel>();
  const origin = new OriginModel(world, oracles, warm ? Number.POSITIVE_INFINITY : options.originBytesPerSecond);
  // A new process has a new id, so what it has is looked up by it, and never stale.
  const find = (peerId: PeerId): PeerModel | undefined => {
    const peer = peers.get(peerId.split(".", 1)[0] as string);
    return peer?.peerId === peerId ? peer : undefined;
  };
  const seedHost = new Host(options.seedFactor * options.linkBytesPerSecond, Math.max(1, options.seedFactor) * options.linkBytesPerSecond);
  const supernode = new SupernodeModel(
    {
      world,
      network,
      oracles,
      tasks,
      config: options.scheduler,
      find,
      origin,
      host: seedHost,
      seedDisk: (task) => (peers.get("seed") as PeerModel).diskOf(task),
      isLengthKnown: (task) => (peers.get("seed") as PeerModel).knowsLength(task),
      newScheduler: parts.newScheduler ?? ((config: SchedulerConfig, seed: number): SchedulerBrain => new Scheduler(config, seed)),
      record: recorder && ((seed, input, nowMs, effects) => recorder.scheduler(seed, input, nowMs, effects)),
    },
    prng.nextUint32() | 0,
  );
  const deps = {
    world,
    network,
    oracles,
    tasks,
    swarm: options.swarm,
    newBrain: parts.newBrain ?? ((config: SwarmConfig, seed: number): Brain => new Swarm(config, seed)),
    verifyBytesPerSecond: options.verifyBytesPerSecond,
    readers: options.readers,
    lateLengths: options.lateLengths,
    control: supernode,
    find,
    record:
      recorder &&
      ((peer: PeerModel, input: SwarmInput, nowMs: number, effects: readonly SwarmEffect[]) =>
        recorder.swarm(peer, input, nowMs, effects)),
  };
  const seedPeer = new PeerModel(deps, { name: "seed", host: seedHost, seed: true, full: warm, prng });
  peers.set("seed", seedPeer);
  const hosts = hostsOf(options, prng);
  const plain = hosts.map((host, i) => {
    const lies = i >= options.peerCount - options.faults.liars ? drawLies(prng) : undefined;
    const peer = new PeerModel(deps, { name: `peer-${i}`, host, seed: false, full: false, prng, lies, keeper: i < options.keeperCount });
    peers.set(`peer-${i}`, peer);
    return peer;
  });
  return { world, network, oracles, tasks, supernode, origin, prng, seedPeer, plain, find };
}

function hostsOf(options: SimOptions, prng: Prng): Host[] {
  const { linkBytesPerSecond, rackSize, oversubscription } = options;
  const racks: Rack[] = [];
  return Array.from({ length: options.peerCount }, (_, i) => {
    if (rackSize > 0 && i % rackSize === 0) racks.push(new Rack(`rack-${racks.length}`, (rackSize * linkBytesPerSecond) / oversubscription));
    const any = [0.2, 0.5, 1, 1, 1, 4][prng.below(6)] as number;
    const share = { equal: 1, mixed: mixedShare(i), someSlow: slowUplinkShare(i), any }[options.uplinks];
    const rack = racks.at(-1);
    const topology = options.labelled && rack !== undefined ? { rack: rack.name } : {};
    return new Host(share * linkBytesPerSecond, downlinkShare(i, options, share) * linkBytesPerSecond, rack, topology);
  });
}
