/**
 * What the world tells the supernode's brain, and what the brain asks of the world. The door is index.ts.
 */
import type { PeerId, TaskId } from "../protocol/ids.ts";
import type { Imports, Topology } from "../protocol/topology.ts";

export type { Imports, Topology } from "../protocol/topology.ts";

/** Pieces [firstPiece, endPiece) of a task. */
export interface PieceSpan {
  readonly firstPiece: number;
  readonly endPiece: number;
}

/** Past tense: it has already happened. */
export type SchedulerInput =
  /**
   * A peer's control connection is up. `seed` peers may read the origin. `keeper`: it takes and gives whatever others take (default: no).
   * `dialable`: others can open links to it.
   */
  | {
      readonly type: "peerConnected";
      readonly peerId: PeerId;
      readonly seed: boolean;
      readonly keeper?: boolean;
      readonly dialable: boolean;
      readonly topology: Topology;
    }
  | { readonly type: "peerDisconnected"; readonly peerId: PeerId }
  /**
   * A peer wants part of a task. `pieceCount` it holds already; undefined: it does not say, and what it last said stands.
   * `totalCount` undefined while the length is unknown.
   */
  | {
      readonly type: "taskJoined";
      readonly peerId: PeerId;
      readonly taskId: TaskId;
      readonly requestId: number;
      readonly pieceCount: number | undefined;
      readonly totalCount: number | undefined;
    }
  | { readonly type: "taskLeft"; readonly peerId: PeerId; readonly taskId: TaskId }
  | {
      readonly type: "taskProgressed";
      readonly peerId: PeerId;
      readonly taskId: TaskId;
      readonly pieceCount: number;
      readonly complete: boolean;
    }
  /** A peer lost these neighbours, or found them useless, and asks for others. */
  | {
      readonly type: "neighboursLost";
      readonly peerId: PeerId;
      readonly taskId: TaskId;
      readonly lost: readonly PeerId[];
    }
  /** `accuser` got a bad piece from `accused`. */
  | {
      readonly type: "peerAccused";
      readonly accuser: PeerId;
      readonly accused: PeerId;
      readonly taskId: TaskId;
      readonly piece: number;
    }
  /** The lease holder's read of the origin ended: whole, or failed. */
  | { readonly type: "originRead"; readonly taskId: TaskId; readonly holder: PeerId; readonly outcome: "complete" | "failed" }
  /** The seeds turned out unable to read these pieces: peers may. Disjoint, ascending; none: no peers are needed any more. */
  | { readonly type: "readersWanted"; readonly taskId: TaskId; readonly spans: readonly PieceSpan[] }
  /** Of a span lent to a peer all before `nextPiece` has come; its end ends the lease. */
  | { readonly type: "spanProgressed"; readonly taskId: TaskId; readonly leaseId: number; readonly nextPiece: number }
  /** The peer cannot read its span, or what it brought is wrong. */
  | { readonly type: "spanFailed"; readonly taskId: TaskId; readonly leaseId: number }
  | { readonly type: "deadlineReached" };

/** Imperative: it has not happened yet. Executed in order. */
export type SchedulerEffect =
  /** Answers a `taskJoined`. Dials go from `peerId` to the neighbours. */
  | {
      readonly type: "assign";
      readonly peerId: PeerId;
      readonly taskId: TaskId;
      readonly requestId: number;
      readonly neighbours: readonly PeerId[];
      readonly imports: readonly Imports[];
    }
  /** What it may bring into its rack, zone, … is now this. */
  | { readonly type: "assignImports"; readonly peerId: PeerId; readonly taskId: TaskId; readonly imports: readonly Imports[] }
  /** Later changes of the mesh; `add` are dialled by `peerId`. */
  | {
      readonly type: "rewire";
      readonly peerId: PeerId;
      readonly taskId: TaskId;
      readonly add: readonly PeerId[];
      readonly drop: readonly PeerId[];
    }
  /** `peerId`, a keeper, is to join the task, as somebody takes it. */
  | { readonly type: "invite"; readonly peerId: PeerId; readonly taskId: TaskId }
  /** `holder` may read the task's origin from now on: the only one until `originRead` or its disconnection. */
  | { readonly type: "grantLease"; readonly taskId: TaskId; readonly holder: PeerId }
  /** `holder`, who is no seed, may read these pieces from the task's origin. */
  | ({ readonly type: "grantSpan"; readonly taskId: TaskId; readonly holder: PeerId; readonly leaseId: number } & PieceSpan)
  /** Nothing more of that span is taken from `holder`, who may be gone. */
  | { readonly type: "revokeSpan"; readonly taskId: TaskId; readonly holder: PeerId; readonly leaseId: number }
  /** Peers are wanted to read, and none is left who could. They are no longer wanted. */
  | { readonly type: "nobodyReads"; readonly taskId: TaskId }
  /** All who take part have had everything for a while: the seeds are no members any more, until they join again. */
  | { readonly type: "restTask"; readonly taskId: TaskId }
  /** Nobody has been part of the task for a while: its soft state is gone. */
  | { readonly type: "forgetTask"; readonly taskId: TaskId }
  /** `peerId` gave bad pieces to several others: it takes part in nothing of this task any more. */
  | { readonly type: "expel"; readonly peerId: PeerId; readonly taskId: TaskId };

export interface SchedulerConfig {
  /** Neighbours a peer is given, in [1, 64]. Source: swarm.md §3 (8–20). */
  readonly neighbourCount: number;
  /** Links a plain peer may have per task, ≥ neighbourCount. */
  readonly neighbourCountMax: number;
  /** Links a seed, or a keeper, may have per task. */
  readonly seedNeighbourCountMax: number;
  /** Members of a rack, zone, … that bring pieces into it, in [1, 32]; each has its share of the pieces. */
  readonly importerCountMax: number;
  /** A task with no member is forgotten after this; one whose members all have everything rests. */
  readonly emptyTaskMs: number;
  /** A peer without a connection keeps its place for this long, so that a reconnect costs nothing. */
  readonly disconnectedPeerMs: number;
  /** Accusers (different peers) that expel a peer from a task. */
  readonly accuserCountMax: number;
  /** Peers that may read one task's origin at a time in the seeds' stead; 0 = none ever. */
  readonly spanHolderCountMax: number;
  /** Most pieces lent to one peer at a time. */
  readonly spanPieceCount: number;
  /** A peer that brings no piece of its span for this long loses it. */
  readonly spanMs: number;
}

export const DEFAULT_SCHEDULER_CONFIG: SchedulerConfig = {
  neighbourCount: 16,
  neighbourCountMax: 24,
  seedNeighbourCountMax: 48,
  importerCountMax: 16,
  emptyTaskMs: 120_000,
  disconnectedPeerMs: 10_000,
  accuserCountMax: 2,
  spanHolderCountMax: 3,
  spanPieceCount: 16,
  spanMs: 20_000,
};

/** Read-only view for REST and transcripts; arrays in stable order. */
export interface SchedulerSnapshot {
  readonly peers: readonly {
    readonly peerId: PeerId;
    readonly seed: boolean;
    readonly keeper: boolean;
    readonly connected: boolean;
    readonly topology: Topology;
    readonly taskCount: number;
  }[];
  readonly tasks: readonly {
    readonly taskId: TaskId;
    readonly leaseHolder: PeerId | undefined;
    readonly spanLeases: readonly ({ readonly leaseId: number; readonly holder: PeerId } & PieceSpan)[];
    /** Wanted of peers, and lent to nobody. */
    readonly unreadSpans: readonly PieceSpan[];
    readonly members: readonly {
      readonly peerId: PeerId;
      readonly pieceCount: number;
      readonly complete: boolean;
      readonly neighbours: readonly PeerId[];
    }[];
  }[];
}
