/**
 * What the world tells a peer's brain, and what the brain asks of the world. The door is index.ts.
 *
 * The verb is the *offer*: a sender whose uplink is about to be free chooses the neighbour and the piece, at that
 * moment (late binding); the receiver has the last word (accept or decline), so nothing is sent twice.
 */
import type { Priority } from "../base/priority.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import type { Buckets, Distance, Imports } from "../protocol/topology.ts";
import type { PieceSet } from "../protocol/piece-set.ts";
import type { DeclineReason } from "../protocol/link-frames.ts";

/** A connection to another peer, numbered by the driver; never reused. */
export type LinkId = number;

export type { Priority } from "../base/priority.ts";

/** Past tense: it has already happened. */
export type SwarmInput =
  /** A task begins here. `have` is taken over. `pieceCount` undefined while the length is unknown. */
  | {
      readonly type: "taskOpened";
      readonly taskId: TaskId;
      readonly pieceCount: number | undefined;
      readonly pieceLengthBytes: number;
      readonly have: PieceSet;
      readonly priority: Priority;
    }
  | { readonly type: "taskClosed"; readonly taskId: TaskId }
  | { readonly type: "lengthKnown"; readonly taskId: TaskId; readonly pieceCount: number }
  /** A piece is verified and on disk, from a link or from elsewhere (origin, disk check). */
  | { readonly type: "pieceStored"; readonly taskId: TaskId; readonly piece: number }
  /** What the link delivered was not the piece: its sender is isolated for this task. */
  | { readonly type: "pieceRejected"; readonly taskId: TaskId; readonly piece: number; readonly linkId: LinkId }
  /** A piece could not be stored for a reason of our own (disk, memory): not the sender's fault. */
  | { readonly type: "pieceLost"; readonly taskId: TaskId; readonly piece: number }
  /** Pieces that were held are held no longer: the disk gave back other bytes, or they were thrown away. */
  | { readonly type: "piecesLost"; readonly taskId: TaskId; readonly pieces: readonly number[] }
  | { readonly type: "linkOpened"; readonly linkId: LinkId; readonly peerId: PeerId }
  | { readonly type: "linkClosed"; readonly linkId: LinkId }
  /** The link to one broke whom the supernode gave us for this task; it may not have joined yet. After `linkClosed`. */
  | { readonly type: "neighbourLost"; readonly taskId: TaskId; readonly peerId: PeerId }
  /** How far the other end is, once it has said where it stands; before that, near. */
  | { readonly type: "remotePlaced"; readonly linkId: LinkId; readonly distance: Distance }
  /** What we may bring in from outside is now this. */
  | { readonly type: "importsAssigned"; readonly taskId: TaskId; readonly imports: readonly Imports[] }
  /** Of this task the other side takes only what is in these buckets over this link. */
  | { readonly type: "remoteImports"; readonly linkId: LinkId; readonly taskId: TaskId; readonly buckets: Buckets }
  /**
   * The other side takes part in the task and holds `have` (taken over). `receives`: it has shown a ticket, so that
   * it may be given pieces; without, it can only give. `wants` is what it wants first, before anything is offered.
   */
  | {
      readonly type: "remoteJoined";
      readonly linkId: LinkId;
      readonly taskId: TaskId;
      readonly have: PieceSet;
      readonly seed: boolean;
      readonly receives: boolean;
      readonly wants: readonly number[];
    }
  /** Its ticket has run out (`receives` false: what is on its way ends), or it has shown another. */
  | { readonly type: "remoteAdmitted"; readonly linkId: LinkId; readonly taskId: TaskId; readonly receives: boolean }
  | { readonly type: "remoteLeft"; readonly linkId: LinkId; readonly taskId: TaskId }
  | { readonly type: "remoteHas"; readonly linkId: LinkId; readonly taskId: TaskId; readonly pieces: readonly number[] }
  | { readonly type: "remoteLost"; readonly linkId: LinkId; readonly taskId: TaskId; readonly pieces: readonly number[] }
  | { readonly type: "remoteStatus"; readonly linkId: LinkId; readonly incoming: number; readonly capacity: number }
  | { readonly type: "remoteWants"; readonly linkId: LinkId; readonly taskId: TaskId; readonly pieces: readonly number[] }
  /** An offer arrived: one of these pieces, best first (taken over). At least one. */
  | { readonly type: "offered"; readonly linkId: LinkId; readonly taskId: TaskId; readonly pieces: readonly number[] }
  /** The receiver has chosen this one of the pieces of an offer. */
  | { readonly type: "offerAccepted"; readonly linkId: LinkId; readonly taskId: TaskId; readonly piece: number }
  /** It wants none of them; `piece` is the offer's first. */
  | {
      readonly type: "offerDeclined";
      readonly linkId: LinkId;
      readonly taskId: TaskId;
      readonly piece: number;
      readonly reason: DeclineReason;
    }
  /** The receiver gave up a transfer of ours, or the sender one of its own. */
  | { readonly type: "sendCancelled"; readonly linkId: LinkId; readonly taskId: TaskId; readonly piece: number }
  | { readonly type: "receiveCancelled"; readonly linkId: LinkId; readonly taskId: TaskId; readonly piece: number }
  /** What was just accepted cannot be taken after all, and its sender was told so; `busy`: for want of room, so that it waits to hear that there is some. */
  | { readonly type: "receiveRefused"; readonly linkId: LinkId; readonly taskId: TaskId; readonly piece: number; readonly busy: boolean }
  /** Bytes of a transfer went into the kernel / came off the wire since the last such input. */
  | { readonly type: "sendProgressed"; readonly linkId: LinkId; readonly taskId: TaskId; readonly piece: number; readonly bytes: number }
  | { readonly type: "receiveProgressed"; readonly linkId: LinkId; readonly taskId: TaskId; readonly piece: number; readonly bytes: number }
  /** Payload came of a transfer that was given up: it is of no use, and fills our downlink all the same. */
  | { readonly type: "strayReceived"; readonly linkId: LinkId; readonly bytes: number }
  /** The last byte has been handed to the kernel. */
  | { readonly type: "sendFinished"; readonly linkId: LinkId; readonly taskId: TaskId; readonly piece: number }
  /** What the kernel has to send, looked at now and then (about every 50 ms) while transfers end; never where it does not say. */
  | ({ readonly type: "uplinkSampled" } & UplinkSample)
  /** All bytes came; verification runs. `pieceStored`, `pieceRejected` or `pieceLost` follows. */
  | { readonly type: "receiveFinished"; readonly linkId: LinkId; readonly taskId: TaskId; readonly piece: number }
  /** A reader is blocked on `piece` (and will read on from there); undefined: it is gone or past the end. */
  | { readonly type: "readerMoved"; readonly taskId: TaskId; readonly readerId: number; readonly piece: number | undefined }
  | { readonly type: "deadlineReached" };

/** What all links' kernels have to send, at one moment. */
export interface UplinkSample {
  /** Payload handed to the kernel since the start. */
  readonly handedBytes: number;
  /** Of links that hold something. */
  readonly links: readonly LinkQueue[];
}

/** What one link's sending side has in the kernel. */
export interface LinkQueue {
  /** Written and not acknowledged: waiting, or on its way. */
  readonly heldBytes: number;
  /** TCP's round trip, of late and at least: what lies between is queues. Both 0: unknown. */
  readonly roundTripMs: number;
  readonly leastRoundTripMs: number;
}

/** Imperative: it has not happened yet. Executed in order. */
export type SwarmEffect =
  | { readonly type: "sendHave"; readonly linkId: LinkId; readonly taskId: TaskId; readonly pieces: readonly number[] }
  | { readonly type: "sendLost"; readonly linkId: LinkId; readonly taskId: TaskId; readonly pieces: readonly number[] }
  | { readonly type: "sendStatus"; readonly linkId: LinkId; readonly incoming: number; readonly capacity: number }
  | { readonly type: "sendWant"; readonly linkId: LinkId; readonly taskId: TaskId; readonly pieces: readonly number[] }
  /** Over this link we take only what is in these buckets. */
  | { readonly type: "sendImports"; readonly linkId: LinkId; readonly taskId: TaskId; readonly buckets: Buckets }
  /** One of these pieces, best first; the receiver chooses. */
  | { readonly type: "sendOffer"; readonly linkId: LinkId; readonly taskId: TaskId; readonly pieces: readonly number[] }
  | { readonly type: "sendAccept"; readonly linkId: LinkId; readonly taskId: TaskId; readonly piece: number }
  | {
      readonly type: "sendDecline";
      readonly linkId: LinkId;
      readonly taskId: TaskId;
      readonly piece: number;
      readonly reason: DeclineReason;
    }
  /** Give up receiving: tell the sender, drop what came. */
  | { readonly type: "cancelReceive"; readonly linkId: LinkId; readonly taskId: TaskId; readonly piece: number }
  /** Give up sending: stop at the next frame boundary, tell the receiver. */
  | { readonly type: "cancelSend"; readonly linkId: LinkId; readonly taskId: TaskId; readonly piece: number }
  /** Put the piece on the wire now. `sendFinished`, `sendCancelled` or `linkClosed` follows. */
  | { readonly type: "startSend"; readonly linkId: LinkId; readonly taskId: TaskId; readonly piece: number }
  /** This peer lied: no more of this task with it; tell the supernode. */
  | { readonly type: "isolate"; readonly linkId: LinkId; readonly taskId: TaskId; readonly piece: number }
  /** The mesh of this task does not feed us: ask the supernode for others than `useless`. */
  | { readonly type: "needNeighbours"; readonly taskId: TaskId; readonly useless: readonly PeerId[] };

export interface SwarmConfig {
  /**
   * Places for transfers that are sent: so many at a time, at most, of short pieces more (place-share.ts). Enough that one slow receiver does not idle the uplink, few enough that each piece is
   * soon whole and can be passed on. Source: docs/decisions.md §10.
   */
  readonly uploadCount: number;
  /** Pieces that an offer names: with one, most offers meet a receiver that is getting just that piece from another. */
  readonly candidateCount: number;
  /** Places for pieces agreed (or on offer) beyond those being sent, so that the uplink never waits for a round trip. */
  readonly lookaheadCount: number;
  /** Places for transfers received or agreed, over all tasks; a task that has none may have one more, up to twice as many. */
  readonly downloadCountMax: number;
  /** Of those, from outside of our rack, zone or region. */
  readonly farDownloadCountMax: number;
  /** Pieces whole but not yet verified and written, over all tasks; more are declined: disk and digest set the pace. */
  readonly verifyCountMax: number;
  /** An offer nobody answered, or an agreed piece that never starts, is given up after this. */
  readonly answerMs: number;
  /** A transfer that moved no byte for this long is late: the piece may come from a second source. */
  readonly silenceMs: number;
  /** A transfer is late, too, beyond this multiple of the usual time of a piece. */
  readonly lateFactor: number;
  /** Pieces after a blocked reader's position that are wanted first. */
  readonly readerWindowCount: number;
  /** An incomplete task that gained nothing for this long asks for neighbours. */
  readonly starvedMs: number;
}

export const DEFAULT_SWARM_CONFIG: SwarmConfig = {
  uploadCount: 6,
  candidateCount: 8,
  lookaheadCount: 1,
  downloadCountMax: 11,
  farDownloadCountMax: 2,
  verifyCountMax: 4,
  answerMs: 2_000,
  silenceMs: 500,
  lateFactor: 3,
  readerWindowCount: 8,
  starvedMs: 1_000,
};

/** Read-only view for `--explain`, metrics and tests. */
export interface SwarmSnapshot {
  readonly links: readonly { readonly linkId: LinkId; readonly peerId: PeerId }[];
  readonly tasks: readonly {
    readonly taskId: TaskId;
    readonly pieceLengthBytes: number;
    readonly haveCount: number;
    readonly pieceCount: number | undefined;
    readonly incoming: readonly {
      readonly linkId: LinkId;
      readonly piece: number;
      readonly state: "agreed" | "receiving" | "verifying";
      readonly late: boolean;
      readonly ageMs: number;
    }[];
    readonly outgoing: readonly { readonly linkId: LinkId; readonly piece: number; readonly state: string }[];
    readonly offersSent: number;
    readonly offersDeclined: number;
    readonly late: number;
    readonly doubled: number;
  }[];
}
