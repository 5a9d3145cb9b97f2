/** The swarm's tables: what this peer knows of its tasks, its links, and what moves between them. */
import { broken } from "../base/assert.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import { ALL_BUCKETS, type Buckets, type Distance, type Imports } from "../protocol/topology.ts";
import { PieceSet } from "../protocol/piece-set.ts";
import type { LinkId, Priority } from "./contract.ts";

/** One task at this peer. */
export interface Task {
  readonly taskId: TaskId;
  readonly have: PieceSet;
  readonly pieceLengthBytes: number;
  readonly priority: Priority;
  pieceCount: number | undefined;
  readonly remotes: Map<LinkId, Remote>;
  /** Copies of each piece among the neighbours, those under way from here included. */
  copies: Uint16Array;
  /** Receives agreed or running, by piece: usually one, two while a late piece is doubled. */
  readonly incoming: Map<number, Receive[]>;
  /** Of those that take up room: agreed or receiving, and not late. */
  incomingCount: number;
  readonly readers: Map<number, number>;
  /** What was last told to neighbours as wanted. */
  wanted: readonly number[];
  wantedStale: boolean;
  wantedToldMs: number;
  /** Our disk has just refused a piece: nothing is taken until then. */
  refusedUntilMs: number;
  /** Pieces whose transfer ended without a piece: others may think they are on their way, so they are wanted aloud. */
  readonly orphans: Set<number>;
  /** Pieces nobody needs to offer us: stored since the task was opened, or agreed and on their way in time. */
  readonly claims: PieceSet;
  /** The same in the order in which they became so, taken back ones left in; each neighbour has been told of a part of them. */
  readonly claimed: number[];
  /** Not all of them have been told to all. */
  claimsStale: boolean;
  /** What we may bring in from outside; empty: everything. */
  imports: readonly Imports[];
  /** Who may stand in for importers that bring nothing. */
  relief: "none" | "backup" | "anybody";
  reliefUntilMs: number;
  /** When the last piece from inside came. */
  lastInsideGainMs: number;
  sentPieces: number;
  lastGainMs: number;
  lastAskMs: number;
  /**
   * Whose links broke since neighbours were asked for, and are not back; also while the file is whole, for it may not stay so,
   * and the supernode takes them for neighbours until it is told.
   */
  readonly lostPeers: Set<PeerId>;
  /** Who gave bad pieces: they stay isolated when they leave and join again, unless they are seeds. */
  readonly liars: Set<PeerId>;
  offersSent: number;
  offersDeclined: number;
  lateCount: number;
  doubledCount: number;
}

/** The other end of a link. */
export interface Link {
  readonly linkId: LinkId;
  readonly peerId: PeerId;
  readonly remotes: Map<TaskId, Remote>;
  distance: Distance;
  /** As it last told us: transfers it receives or has agreed to, and how many it takes. */
  incoming: number;
  capacity: number;
  /** Our own load as last told to it. */
  toldLoad: number;
  /** Transfers of ours towards it, offers included. */
  outgoing: number;
  /** When payload last came over it. */
  paidMs: number;
  /** When it last said anything, or payload came of what was given up. */
  heardMs: number;
  /** It left an offer unanswered or a transfer without progress: nothing new for it until then, or its next sign of life. */
  stalledUntilMs: number;
}

/** One task at the other end of a link. */
export interface Remote {
  readonly link: Link;
  readonly task: Task;
  /** What it holds, or has on its way. */
  readonly have: PieceSet;
  readonly seed: boolean;
  isolated: boolean;
  /** On offer to it or on its way to it from here, whatever it wants meanwhile. */
  readonly underWay: PieceSet;
  /** Not to be offered for a while: just sent, or on its way to it from somebody else. */
  readonly avoided: PieceSet;
  readonly avoidances: { readonly piece: number; readonly untilMs: number }[];
  /** Sent whole but not announced yet: counted as copies, or a seed would send them twice. */
  readonly credited: PieceSet;
  /** False: it may give us pieces but has shown no ticket that is still good, so it gets none. */
  receives: boolean;
  wants: readonly number[];
  /** What it takes over this link. */
  imports: Buckets;
  /** What it was told that we take. */
  toldImports: Buckets;
  /** How many of the task's `claimed` it has been told of. */
  toldCount: number;
}

/** A piece on its way out. */
export interface Send {
  readonly remote: Remote;
  /** On offer: those the receiver may choose from, best first. Then the one it chose. */
  pieces: readonly number[];
  state: "offered" | "agreed" | "sending";
  sinceMs: number;
  progressMs: number;
  stalled: boolean;
}

/** A piece on its way in. */
export interface Receive {
  readonly link: Link;
  readonly task: Task;
  readonly piece: number;
  state: "agreed" | "receiving" | "verifying";
  sinceMs: number;
  progressMs: number;
  /** Of the piece, as far as told. */
  cameBytes: number;
  /** What had come in here, of all pieces, when this one moved last. */
  totalBytes: number;
  late: boolean;
  /** From outside of our rack, zone or region. */
  readonly far: boolean;
}

/** How long a stalled link gets nothing new before it is tried again. */
export const STALLED_MS = 1_000;

export const PRIORITY_RANK: Readonly<Record<Priority, number>> = { interactive: 0, normal: 1, preheat: 2 };

export function isComplete(task: Task): boolean {
  return task.pieceCount !== undefined && task.have.count >= task.pieceCount;
}

/** True when the other end holds the whole task, so that there is nothing to offer. */
export function holdsAll(remote: Remote): boolean {
  return remote.task.pieceCount !== undefined && remote.have.count >= remote.task.pieceCount;
}

/** True while a neighbour needs something of this task: there may be reason to offer later what cannot be now. */
export function isNeeded(task: Task): boolean {
  if (task.have.count === 0) return false;
  for (const remote of task.remotes.values()) {
    if (remote.receives && !remote.isolated && !holdsAll(remote)) return true;
  }
  return false;
}

/** The newest are remembered, as many as anybody has neighbours at most. Source: `neighbourCount` in the scheduler's contract. */
const LOST_COUNT_MAX = 64;

/** The link to it broke; who joins again over another one is not lost any more. */
export function lose({ lostPeers }: Task, peerId: PeerId): void {
  lostPeers.delete(peerId);
  lostPeers.add(peerId);
  for (const oldest of lostPeers) {
    if (lostPeers.size <= LOST_COUNT_MAX) return;
    lostPeers.delete(oldest);
  }
}

const LIAR_COUNT_MAX = 256;

/** It gave a bad piece: of this task nothing is taken from it, or given to it, any more. */
export function distrust({ liars }: Task, peerId: PeerId): void {
  liars.add(peerId);
  for (const oldest of liars) {
    if (liars.size <= LIAR_COUNT_MAX) return;
    liars.delete(oldest);
  }
}

/** Neighbours will be told that they need not offer this piece. */
export function claim(task: Task, piece: number): void {
  if (!task.claims.add(piece)) return;
  task.claimed.push(piece);
  task.claimsStale = true;
}

export function addCopies(task: Task, piece: number, delta: 1 | -1): void {
  if (piece >= task.copies.length) {
    const grown = new Uint16Array(Math.max(piece + 1, task.copies.length * 2, 64));
    grown.set(task.copies);
    task.copies = grown;
  }
  const count = (task.copies[piece] as number) + delta;
  if (count < 0) broken(`W4: ${count} copies of piece ${piece}`);
  task.copies[piece] = count;
}

/** Records that the other end holds `piece`. */
export function addHave(remote: Remote, piece: number): void {
  if (remote.have.add(piece) && !remote.credited.delete(piece)) addCopies(remote.task, piece, 1);
}

/** Records that the other end holds `piece` no longer: it may be given again at once. */
export function dropHave(remote: Remote, piece: number): void {
  remote.avoided.delete(piece);
  if (remote.have.delete(piece) || remote.credited.delete(piece)) addCopies(remote.task, piece, -1);
}

export function avoid(remote: Remote, piece: number, untilMs: number): void {
  if (remote.avoided.add(piece)) remote.avoidances.push({ piece, untilMs });
}

/** Lets expired avoidances go. They are appended with similar delays, so the oldest stand first. */
export function expireAvoidances(remote: Remote, nowMs: number): void {
  let expired = 0;
  while (expired < remote.avoidances.length) {
    const avoidance = remote.avoidances[expired] as { piece: number; untilMs: number };
    if (avoidance.untilMs > nowMs) break;
    remote.avoided.delete(avoidance.piece);
    if (remote.credited.delete(avoidance.piece)) addCopies(remote.task, avoidance.piece, -1);
    expired++;
  }
  if (expired > 0) remote.avoidances.splice(0, expired);
}

export function newTask({ taskId, have, pieceLengthBytes, priority, pieceCount }: Pick<Task, "taskId" | "have" | "pieceLengthBytes" | "priority" | "pieceCount">, nowMs: number): Task {
  return {
    taskId,
    have,
    pieceLengthBytes,
    priority,
    pieceCount,
    remotes: new Map(),
    copies: new Uint16Array(pieceCount ?? 0),
    incoming: new Map(),
    incomingCount: 0,
    readers: new Map(),
    wanted: [],
    wantedStale: false,
    wantedToldMs: Number.NEGATIVE_INFINITY,
    refusedUntilMs: 0,
    orphans: new Set(),
    claims: new PieceSet(),
    claimed: [],
    claimsStale: false,
    imports: [],
    relief: "none",
    reliefUntilMs: 0,
    lastInsideGainMs: nowMs,
    sentPieces: 0,
    lastGainMs: nowMs,
    lastAskMs: nowMs,
    lostPeers: new Set(),
    liars: new Set(),
    offersSent: 0,
    offersDeclined: 0,
    lateCount: 0,
    doubledCount: 0,
  };
}

export function newRemote(link: Link, task: Task, { have, seed, receives, wants }: Pick<Remote, "have" | "seed" | "receives" | "wants">): Remote {
  return {
    link,
    task,
    have,
    seed,
    receives,
    // A seed signs what it gives: one that gave a bad piece has a bad disk, and may be the only one there is.
    isolated: !seed && task.liars.has(link.peerId),
    underWay: new PieceSet(),
    avoided: new PieceSet(),
    avoidances: [],
    credited: new PieceSet(),
    wants,
    imports: ALL_BUCKETS,
    toldImports: ALL_BUCKETS,
    toldCount: task.claimed.length,
  };
}

/** True when `theirs` has a piece that is not in `ours`. */
export function holdsMissing(theirs: Uint32Array, ours: Uint32Array): boolean {
  for (let at = 0; at < theirs.length; at++) if (((theirs[at] as number) & ~(ours[at] ?? 0)) !== 0) return true;
  return false;
}
