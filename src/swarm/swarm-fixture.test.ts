/** One brain on virtual time, and short words for what the world tells it. */
import type { PeerId, TaskId } from "../protocol/ids.ts";
import { PieceSet } from "../protocol/piece-set.ts";
import { DEFAULT_SWARM_CONFIG, type Priority, Swarm, type SwarmConfig, type SwarmEffect, type SwarmInput } from "./index.ts";

export const TASK = "a".repeat(64) as TaskId;
export const OTHER_TASK = "b".repeat(64) as TaskId;

/** A transfer as tests write it: link and piece. */
export type Transfer = readonly [linkId: number, piece: number];

export interface NeighbourTraits {
  readonly taskId?: TaskId;
  readonly have?: readonly number[];
  readonly incoming?: number;
  readonly capacity?: number;
  readonly receives?: boolean;
  readonly wants?: readonly number[];
}

/** So long that a transfer takes a whole place. */
export const PIECE_BYTES = 512 * 1024;

export class TestSwarm {
  readonly swarm: Swarm;
  nowMs = 0;

  constructor(config: Partial<SwarmConfig> = {}, seed = 1) {
    // One candidate: most tests are about which piece is offered first.
    this.swarm = new Swarm({ ...DEFAULT_SWARM_CONFIG, uploadCount: 1, candidateCount: 1, downloadCountMax: 3, ...config }, seed);
  }

  feed(input: SwarmInput): readonly SwarmEffect[] {
    return this.swarm.step(input, this.nowMs);
  }

  /** Opens a task of `pieceCount` pieces, of which `have` are here (default: all, a seed's). */
  open(
    pieceCount: number | undefined,
    have: readonly number[] | "all" = "all",
    traits: { readonly taskId?: TaskId; readonly priority?: Priority; readonly pieceLengthBytes?: number } = {},
  ): readonly SwarmEffect[] {
    return this.feed({
      type: "taskOpened",
      taskId: traits.taskId ?? TASK,
      pieceCount,
      pieceLengthBytes: traits.pieceLengthBytes ?? PIECE_BYTES,
      have: have === "all" ? PieceSet.full(pieceCount ?? 0) : setOf(have),
      priority: traits.priority ?? "normal",
    });
  }

  /** A link opens, says how busy it is, and takes part in the task. */
  neighbour(linkId: number, traits: NeighbourTraits = {}): readonly SwarmEffect[] {
    return [
      ...this.feed({ type: "linkOpened", linkId, peerId: `peer-${linkId}` as PeerId }),
      ...this.status(linkId, traits.incoming ?? 0, traits.capacity ?? 3),
      ...this.join(linkId, traits),
    ];
  }

  join(linkId: number, traits: NeighbourTraits = {}): readonly SwarmEffect[] {
    const { taskId = TASK, have = [], receives = true, wants = [] } = traits;
    return this.feed({ type: "remoteJoined", linkId, taskId, have: setOf(have), seed: false, receives, wants });
  }

  status(linkId: number, incoming: number, capacity = 3): readonly SwarmEffect[] {
    return this.feed({ type: "remoteStatus", linkId, incoming, capacity });
  }

  has(linkId: number, ...pieces: readonly number[]): readonly SwarmEffect[] {
    return this.feed({ type: "remoteHas", linkId, taskId: TASK, pieces });
  }

  wants(linkId: number, ...pieces: readonly number[]): readonly SwarmEffect[] {
    return this.feed({ type: "remoteWants", linkId, taskId: TASK, pieces });
  }

  /** What happened to one transfer. */
  tell(
    type:
      | "offered"
      | "offerAccepted"
      | "sendCancelled"
      | "receiveCancelled"
      | "sendFinished"
      | "receiveFinished"
      | "pieceRejected",
    linkId: number,
    piece: number,
    taskId: TaskId = TASK,
  ): readonly SwarmEffect[] {
    if (type === "offered") return this.offered(linkId, [piece], taskId);
    return this.feed({ type, linkId, taskId, piece });
  }

  offered(linkId: number, pieces: readonly number[], taskId: TaskId = TASK): readonly SwarmEffect[] {
    return this.feed({ type: "offered", linkId, taskId, pieces });
  }

  declined(linkId: number, piece: number, reason: "have" | "taking" | "busy" | "unwanted"): readonly SwarmEffect[] {
    return this.feed({ type: "offerDeclined", linkId, taskId: TASK, piece, reason });
  }

  progressed(direction: "send" | "receive", linkId: number, piece: number, bytes = 1_000): readonly SwarmEffect[] {
    return this.feed({ type: `${direction}Progressed`, linkId, taskId: TASK, piece, bytes });
  }

  stored(piece: number, taskId: TaskId = TASK): readonly SwarmEffect[] {
    return this.feed({ type: "pieceStored", taskId, piece });
  }

  /** All of one piece comes over one link, from offer to disk. */
  receive(linkId: number, piece: number): readonly SwarmEffect[] {
    return [
      ...this.tell("offered", linkId, piece),
      ...this.progressed("receive", linkId, piece),
      ...this.tell("receiveFinished", linkId, piece),
      ...this.stored(piece),
    ];
  }

  /** Lets time pass, with every deadline kept. */
  wait(ms: number): readonly SwarmEffect[] {
    const effects: SwarmEffect[] = [];
    const endMs = this.nowMs + ms;
    for (;;) {
      const dueMs = this.swarm.nextDeadlineMs();
      if (dueMs === undefined || dueMs > endMs) break;
      this.nowMs = Math.max(this.nowMs, dueMs);
      effects.push(...this.feed({ type: "deadlineReached" }));
    }
    this.nowMs = endMs;
    return effects;
  }

  task(taskId: TaskId = TASK): ReturnType<Swarm["snapshot"]>["tasks"][number] {
    const task = this.swarm.snapshot().tasks.find((candidate) => candidate.taskId === taskId);
    if (task === undefined) throw new Error(`task ${taskId} is not open`);
    return task;
  }
}

/** The transfers that effects of one type name, in order; an offer goes by its first piece. */
export function named(
  effects: readonly SwarmEffect[],
  type: "sendOffer" | "sendAccept" | "sendDecline" | "cancelReceive" | "cancelSend" | "startSend" | "isolate",
): readonly Transfer[] {
  return effects.flatMap((effect) => {
    if (effect.type !== type) return [];
    const piece = effect.type === "sendOffer" ? (effect.pieces[0] as number) : effect.piece;
    return [[effect.linkId, piece] as const];
  });
}

export function declines(effects: readonly SwarmEffect[]): readonly string[] {
  return effects.flatMap((effect) => (effect.type === "sendDecline" ? [effect.reason] : []));
}

export function of<T extends SwarmEffect["type"]>(
  effects: readonly SwarmEffect[],
  type: T,
): readonly Extract<SwarmEffect, { type: T }>[] {
  return effects.filter((effect): effect is Extract<SwarmEffect, { type: T }> => effect.type === type);
}

export function setOf(pieces: readonly number[]): PieceSet {
  const set = new PieceSet();
  for (const piece of pieces) set.add(piece);
  return set;
}
