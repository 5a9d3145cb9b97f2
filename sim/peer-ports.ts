/** What a peer's process is given: its brain, the world around it, and its line to the supernode. */
import type { PeerId, TaskId } from "../src/protocol/ids.ts";
import { PieceSet } from "../src/protocol/piece-set.ts";
import type { Swarm, SwarmConfig, SwarmEffect, SwarmInput } from "../src/swarm/index.ts";
import type { Network } from "./network.ts";
import type { Oracles } from "./oracles.ts";
import type { PeerModel } from "./peer-model.ts";
import type { TaskShape } from "./task-shape.ts";
import type { World } from "./world.ts";

/** What a peer's process asks of the supernode; nothing is heard of it while there is no connection. */
export interface ControlPort {
  /** One more task is wanted, or more of it than before. */
  join(peer: PeerModel, task: TaskShape): void;
  needNeighbours(peer: PeerModel, task: TaskShape, useless: readonly PeerId[]): void;
  accuse(peer: PeerModel, accused: PeerId, task: TaskShape, piece: number): void;
  stored(peer: PeerModel, task: TaskShape): void;
  /** Pieces are gone. */
  lost(peer: PeerModel, task: TaskShape): void;
}

/** The brain, or one that is compared with it. */
export interface Brain {
  step(input: SwarmInput, nowMs: number): readonly SwarmEffect[];
  nextDeadlineMs(): number | undefined;
  wanted(taskId: TaskId): readonly number[];
  snapshot(): ReturnType<Swarm["snapshot"]>;
}

export interface PeerModelDeps {
  readonly world: World;
  readonly network: Network;
  readonly oracles: Oracles;
  readonly tasks: readonly TaskShape[];
  readonly swarm: SwarmConfig;
  readonly newBrain: (config: SwarmConfig, seed: number) => Brain;
  readonly verifyBytesPerSecond: number;
  /** Whether each file is read in order as it comes. */
  readonly readers: boolean;
  /** Lengths are not known from the start. */
  readonly lateLengths: boolean;
  readonly control: ControlPort;
  /** The process of this id, while it runs. */
  readonly find: (peerId: PeerId) => PeerModel | undefined;
  /** Sees every input before the brain does; what it keeps it must copy. */
  readonly record: ((peer: PeerModel, input: SwarmInput, nowMs: number, effects: readonly SwarmEffect[]) => void) | undefined;
}

/** Inputs give some of what they carry away; a log keeps copies. */
export function copyOf(input: SwarmInput): SwarmInput {
  if (input.type !== "taskOpened" && input.type !== "remoteJoined") return input;
  return { ...input, have: PieceSet.fromBytes(input.have.toBytes()) };
}
