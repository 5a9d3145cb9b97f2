/** One end of a link, and what goes over it. */
import type { PeerId } from "../src/protocol/ids.ts";
import type { DeclineReason } from "../src/protocol/link-frames.ts";
import type { Buckets } from "../src/protocol/topology.ts";
import type { PieceSet } from "../src/protocol/piece-set.ts";
import type { LinkId } from "../src/swarm/index.ts";
import type { Connection } from "./network.ts";
import type { TaskShape } from "./task-shape.ts";

export type LinkMessage =
  | { readonly type: "join"; readonly task: TaskShape; readonly have: Uint8Array; readonly seed: boolean; readonly wants: readonly number[] }
  | { readonly type: "leave" | "length"; readonly task: TaskShape }
  | { readonly type: "have" | "lost" | "want" | "offer"; readonly task: TaskShape; readonly pieces: readonly number[] }
  | { readonly type: "imports"; readonly task: TaskShape; readonly buckets: Buckets }
  | { readonly type: "status"; readonly incoming: number; readonly capacity: number }
  | { readonly type: "accept" | "cancel" | "withdraw"; readonly task: TaskShape; readonly piece: number }
  | { readonly type: "decline"; readonly task: TaskShape; readonly piece: number; readonly reason: DeclineReason };

/** One task on one end of a link. */
export interface TaskPart {
  /** What our join told the other side, until it has joined too; undefined before we joined and after. */
  toldHave: PieceSet | undefined;
  joined: boolean;
  /** Pieces of ours on the wire. */
  readonly sends: Set<number>;
  /** Of accepted pieces: bytes that have come, those of them that the brain has not heard of, and when it heard last. */
  readonly arrivals: Map<number, { bytes: number; untoldBytes: number; toldUs: number }>;
  /** Pieces accepted and not given up: bytes of others are dropped. */
  readonly accepted: Set<number>;
}

export class SimLink {
  readonly linkId: LinkId;
  readonly end: 0 | 1;
  readonly peerId: PeerId;
  readonly connection: Connection<readonly LinkMessage[]>;
  /** Said in this turn, not sent yet. */
  outbox: LinkMessage[] = [];
  /** By the task's index. */
  readonly parts: (TaskPart | undefined)[] = [];

  constructor(linkId: LinkId, end: 0 | 1, peerId: PeerId, connection: Connection<readonly LinkMessage[]>) {
    this.linkId = linkId;
    this.end = end;
    this.peerId = peerId;
    this.connection = connection;
  }

  part(task: TaskShape): TaskPart {
    let part = this.parts[task.index];
    if (part === undefined) {
      part = { toldHave: undefined, joined: false, sends: new Set(), arrivals: new Map(), accepted: new Set() };
      this.parts[task.index] = part;
    }
    return part;
  }

  /** Nothing more of this task goes over the link, nor is taken from it. */
  endPart(task: TaskShape): void {
    for (const piece of this.parts[task.index]?.sends ?? []) this.connection.stopTransfer(this.end, keyOf(task, piece));
    this.parts[task.index] = undefined;
  }
}

/** Names a transfer on a connection. */
export function keyOf(task: TaskShape, piece: number): number {
  return task.index * 2 ** 20 + piece;
}

/** Bytes of the frame on the wire, as in src/protocol/link-frames.ts. */
export function messageBytes(message: LinkMessage): number {
  switch (message.type) {
    case "join":
      return 300 + message.have.length;
    case "have":
    case "lost":
    case "want":
    case "offer":
      return 9 + message.pieces.length * 4;
    default:
      return 14;
  }
}
