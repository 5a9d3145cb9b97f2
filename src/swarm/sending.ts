/** The sending half: offers, agreed pieces, transfers on the wire, and how many of them. */
import type { Prng } from "../base/prng.ts";
import type { DeclineReason } from "../protocol/link-frames.ts";
import { chooseSend } from "./choose-send.ts";
import type { LinkId, SwarmConfig, SwarmEffect, UplinkSample } from "./contract.ts";
import { placeShareOf } from "./place-share.ts";
import { addCopies, addHave, avoid, type Link, type Remote, type Send, STALLED_MS, type Task } from "./tables.ts";
import { Uplink } from "./uplink.ts";
import { UploadPace } from "./upload-pace.ts";

/** A piece just sent, or said to be on its way, is not offered again for this long; `want` and `have` end it sooner. */
const AVOID_MS = 3_000;
/**
 * What the kernel holds is waited for so long at most: its speed is an estimate, a neighbour that hangs keeps what it was
 * sent, and who has agreed takes a piece for late that does not begin within `silenceMs`, when it is the last one.
 */
const DRAIN_MS_MAX = 400;
/** What lies in the kernel before a piece may take so much of the time in which the piece is to be out. Source: docs/policy.md, "What the kernels hold". */
const AHEAD_SHARE = 0.8;
const PATIENCE_MS_MIN = 100;
/** An uplink that had nothing to send says nothing of how fast it is. */
const INTERVAL_MS_MAX = 1_000;
/** Most places for pieces agreed ahead, however slow the answers are. Source: docs/policy.md, "Little lookahead". */
const LOOKAHEAD_COUNT_MAX = 3;
/** As above, of pieces that nobody around holds, where nothing is left to send: all wait for those, and they are hardly ever declined. */
const UNIQUE_LOOKAHEAD_COUNT_MAX = 12;
/** A transfer that takes so many times as long as the quickest of late has a slow receiver: it takes none of the uplink's places from quick ones. */
const SLOW_FACTOR = 8;
/** So many times `uploadCount` may be under way for that at most. */
const SLOW_COUNT_FACTOR = 4;
/** The quickest of long ago counts less, by this for each that ends. */
const QUICKEST_GROWTH = 1.05;

export class Sending {
  readonly #config: SwarmConfig;
  readonly #prng: Prng;
  readonly #links: ReadonlyMap<LinkId, Link>;
  readonly #emit: (effect: SwarmEffect) => void;
  readonly #pace: UploadPace;
  readonly #uplink = new Uplink();
  /** In the order of their offers; agreed ones start in this order. */
  readonly #sends = new Set<Send>();
  /** There was nobody to offer to, and nothing has changed since that could matter. */
  #dry = false;
  /** The uplink has what it can have, and nothing has changed since that could matter. */
  #settled = false;
  /** What was offered last nobody around held. */
  #isUnique = false;
  /** Moving averages in ms: offer to answer, and end of a transfer to the end of the next. */
  #answerMs = 0;
  #intervalMs = 0;
  /** Until then the kernel has more to send than may wait before an answer of ours. */
  #drainedMs = Number.NEGATIVE_INFINITY;
  /** When it was looked last, it was not yet then. */
  #isDraining = false;
  /** How long the quickest of late took, by the length of pieces: a kernel takes a short one at once, and a slow uplink shows in long ones only. */
  readonly #quickMs = new Map<number, number>();
  /** When the last transfer ended. */
  #endedMs: number | undefined;

  constructor(
    config: SwarmConfig,
    prng: Prng,
    links: ReadonlyMap<LinkId, Link>,
    emit: (effect: SwarmEffect) => void,
  ) {
    this.#config = config;
    this.#prng = prng;
    this.#links = links;
    this.#emit = emit;
    this.#pace = new UploadPace(config.uploadCount);
  }

  /** True while a transfer or an offer is under way. */
  get active(): boolean {
    return this.#sends.size > 0;
  }

  of(task: Task): readonly Send[] {
    return [...this.#sends].filter((send) => send.remote.task === task);
  }

  /** Something has happened that may give us a neighbour to offer to. */
  stir(): void {
    this.#dry = false;
    this.#settled = false;
  }

  /** When agreed pieces can be begun that wait for what the kernel holds; infinite when none do. */
  dueMs(nowMs: number): number {
    if (nowMs >= this.#drainedMs) return Number.POSITIVE_INFINITY;
    for (const { state } of this.#sends) if (state === "agreed") return this.#drainedMs;
    return Number.POSITIVE_INFINITY;
  }

  /** Starts agreed pieces and makes offers until the uplink has enough to do, now and next. */
  fill(nowMs: number): void {
    if (this.#settled && !(this.#isDraining && nowMs >= this.#drainedMs)) return;
    this.#settled = true;
    this.#isDraining = nowMs < this.#drainedMs;
    let sending = 0;
    let pending = 0;
    let agreed = 0;
    let slow = 0;
    for (const send of this.#sends) {
      if (send.stalled) continue;
      if (send.state === "sending" && this.#isSlow(send, nowMs) && ++slow <= this.#config.uploadCount * SLOW_COUNT_FACTOR) continue;
      if (send.state === "sending") sending += shareOf(send);
      else pending += shareOf(send);
      if (send.state === "agreed") agreed++;
    }
    for (const send of this.#sends) {
      if (send.state !== "agreed") continue;
      // No part of a place is left over for one more: on a slow uplink that has one place it would be two at a time.
      if (sending + shareOf(send) > this.#pace.count || this.#isDraining) break;
      send.state = "sending";
      send.sinceMs = nowMs;
      send.progressMs = nowMs;
      sending += shareOf(send);
      pending -= shareOf(send);
      this.#emit({
        type: "startSend",
        linkId: send.remote.link.linkId,
        taskId: send.remote.task.taskId,
        piece: firstOf(send),
      });
    }
    const target = this.#pace.count + this.#lookaheadCount(LOOKAHEAD_COUNT_MAX);
    const hasNothingToSend = sending === 0 && agreed === 0 && !this.#isDraining;
    const uniqueTarget = hasNothingToSend ? this.#pace.count + this.#lookaheadCount(UNIQUE_LOOKAHEAD_COUNT_MAX) : target;
    while (sending + pending < (this.#isUnique ? uniqueTarget : target)) {
      const choice = this.#dry ? undefined : chooseSend(this.#links.values(), this.#sends, this.#config.candidateCount, this.#prng, nowMs);
      if (choice === undefined) {
        this.#dry = true;
        return;
      }
      this.#isUnique = choice.isUnique;
      if (!this.#isUnique && sending + pending >= target) return;
      this.#offer(choice.remote, choice.pieces, nowMs);
      pending += placeShareOf(choice.remote.task.pieceLengthBytes);
    }
  }

  accepted(remote: Remote, piece: number, nowMs: number): void {
    const send = this.#find(remote, piece);
    if (send === undefined) {
      // The offer was given up meanwhile: the receiver must not wait for it.
      this.#emit({ type: "cancelSend", linkId: remote.link.linkId, taskId: remote.task.taskId, piece });
      return;
    }
    if (send.state !== "offered") return;
    this.#answerMs = average(this.#answerMs, nowMs - send.sinceMs);
    this.#narrow(send, [piece]);
    send.state = "agreed";
    send.sinceMs = nowMs;
    this.#revive(send);
  }

  declined(remote: Remote, piece: number, reason: DeclineReason, nowMs: number): void {
    const send = this.#find(remote, piece);
    if (send === undefined || send.state !== "offered") return;
    this.#answerMs = average(this.#answerMs, nowMs - send.sinceMs);
    remote.task.offersDeclined++;
    const { pieces } = send;
    this.#remove(send);
    switch (reason) {
      case "have":
        for (const held of pieces) addHave(remote, held);
        return;
      case "taking":
      case "unwanted":
        for (const refused of pieces) if (!remote.have.has(refused)) avoid(remote, refused, nowMs + AVOID_MS);
        return;
      case "busy":
        // Its status message says when that ends.
        remote.link.incoming = Math.max(remote.link.incoming, remote.link.capacity);
        return;
    }
  }

  cancelled(remote: Remote, piece: number, nowMs: number): void {
    const send = this.#find(remote, piece);
    if (send === undefined) return;
    this.#remove(send);
    avoid(remote, piece, nowMs + AVOID_MS);
  }

  progressed(remote: Remote, piece: number, bytes: number, nowMs: number): void {
    const send = this.#find(remote, piece);
    if (send === undefined) return;
    send.progressMs = nowMs;
    this.#revive(send);
    remote.link.stalledUntilMs = 0;
  }

  uplinkSampled(sample: UplinkSample, nowMs: number): void {
    this.#uplink.sampled(sample, nowMs);
  }

  /** @param inBytesPerMs the most that has come in here; 0 while unknown */
  finished(remote: Remote, piece: number, inBytesPerMs: number, nowMs: number): void {
    const send = this.#find(remote, piece);
    if (send === undefined) return;
    if (this.#endedMs !== undefined) this.#intervalMs = average(this.#intervalMs, Math.min(nowMs - this.#endedMs, INTERVAL_MS_MAX));
    this.#endedMs = nowMs;
    // A file's last piece is shorter than that.
    if (piece + 1 !== remote.task.pieceCount) this.#took(remote.task.pieceLengthBytes, nowMs - send.sinceMs);
    const { leavesInMs, isFree } = this.#uplink;
    // Windows on a long way make a transfer long as well, and fewer at a time would not make it shorter.
    this.#pace.ended(isFree ? 0 : nowMs - send.sinceMs + leavesInMs, remote.task.pieceLengthBytes, inBytesPerMs);
    this.#drainedMs = nowMs + Math.ceil(Math.min(DRAIN_MS_MAX, leavesInMs - this.#pace.limitMs * AHEAD_SHARE));
    remote.link.stalledUntilMs = 0;
    remote.task.sentPieces++;
    this.#remove(send);
    if (remote.have.has(piece)) return;
    avoid(remote, piece, nowMs + AVOID_MS);
    if (remote.credited.add(piece)) addCopies(remote.task, piece, 1);
  }

  /** Ends all transfers to this neighbour; with `tell`, it is told. */
  dropRemote(remote: Remote, tell: boolean): void {
    for (const send of this.#sends) {
      if (send.remote !== remote) continue;
      const piece = firstOf(send);
      this.#remove(send);
      if (tell && send.state !== "offered") {
        this.#emit({
          type: "cancelSend",
          linkId: remote.link.linkId,
          taskId: remote.task.taskId,
          piece,
        });
      }
    }
  }

  /** Ends all transfers of pieces that are no longer here; whoever had agreed to one is told. */
  dropPieces(task: Task, lost: ReadonlySet<number>): void {
    for (const send of this.#sends) {
      const { remote, pieces, state } = send;
      if (remote.task !== task || !pieces.some((piece) => lost.has(piece))) continue;
      const piece = firstOf(send);
      this.#remove(send);
      if (state !== "offered") this.#emit({ type: "cancelSend", linkId: remote.link.linkId, taskId: task.taskId, piece });
    }
  }

  check(nowMs: number): void {
    for (const send of this.#sends) {
      const { link } = send.remote;
      if (send.state === "offered" && nowMs - send.sinceMs >= this.#config.answerMs) {
        link.stalledUntilMs = nowMs + STALLED_MS;
        const { pieces } = send;
        this.#remove(send);
        for (const piece of pieces) avoid(send.remote, piece, nowMs + AVOID_MS);
      } else if (send.state === "offered" && nowMs - send.sinceMs >= this.#patienceMs) {
        this.#stall(send, nowMs);
      } else if (send.state === "sending" && nowMs - send.progressMs >= this.#config.silenceMs) {
        this.#stall(send, nowMs);
      }
    }
  }

  #offer(remote: Remote, pieces: readonly number[], nowMs: number): void {
    const { task, link } = remote;
    this.#sends.add({ remote, pieces, state: "offered", sinceMs: nowMs, progressMs: nowMs, stalled: false });
    link.outgoing++;
    task.offersSent++;
    for (const piece of pieces) {
      addCopies(task, piece, 1);
      remote.underWay.add(piece);
    }
    this.#emit({ type: "sendOffer", linkId: link.linkId, taskId: task.taskId, pieces });
  }

  /** Of the pieces on offer only these stay so. */
  #narrow(send: Send, left: readonly number[]): void {
    for (const piece of send.pieces) {
      if (left.includes(piece)) continue;
      send.remote.underWay.delete(piece);
      addCopies(send.remote.task, piece, -1);
    }
    send.pieces = left;
  }

  /** It keeps its place on the link, but no longer one of the uplink's, or of the task's. */
  #stall(send: Send, nowMs: number): void {
    send.remote.link.stalledUntilMs = nowMs + STALLED_MS;
    send.stalled = true;
  }

  #took(pieceBytes: number, ms: number): void {
    const quickMs = this.#quickMs.get(pieceBytes) ?? Number.POSITIVE_INFINITY;
    this.#quickMs.set(pieceBytes, Math.min(Math.max(1, ms), quickMs * QUICKEST_GROWTH));
  }

  /** Its receiver is slow, and not our uplink: others of the same time are much quicker. */
  #isSlow({ remote, sinceMs }: Send, nowMs: number): boolean {
    const quickMs = this.#quickMs.get(remote.task.pieceLengthBytes);
    if (quickMs === undefined || this.#pace.count < this.#config.uploadCount) return false;
    return nowMs - sinceMs > Math.max(this.#config.silenceMs, quickMs * SLOW_FACTOR);
  }

  #revive(send: Send): void {
    if (!send.stalled) return;
    send.stalled = false;
    this.#settled = false;
  }

  #remove(send: Send): void {
    this.#sends.delete(send);
    this.#settled = false;
    send.remote.link.outgoing--;
    this.#narrow(send, []);
  }

  /** No piece is on offer or on its way twice over one link (W5), so one piece tells which. */
  #find(remote: Remote, piece: number): Send | undefined {
    for (const send of this.#sends) {
      if (send.remote === remote && send.pieces.includes(piece)) return send;
    }
    return undefined;
  }

  /** An offer unanswered for several times the usual no longer counts: the uplink must not wait for a dead neighbour. */
  get #patienceMs(): number {
    const { silenceMs } = this.#config;
    return this.#answerMs === 0 ? silenceMs : Math.min(silenceMs, Math.max(PATIENCE_MS_MIN, this.#answerMs * 4));
  }

  /**
   * Pieces to have agreed beyond those on the wire: as many as leave while an answer takes its time. Counted by how they
   * end one after the other: for how long each is under way says little, as a socket may take a whole piece at once.
   */
  #lookaheadCount(countMax: number): number {
    if (this.#intervalMs === 0) return this.#config.lookaheadCount;
    const covering = Math.ceil(this.#answerMs / this.#intervalMs);
    return Math.min(countMax, Math.max(this.#config.lookaheadCount, covering));
  }
}

/** The piece agreed on; of an offer, the one that names it. */
export function firstOf(send: Send): number {
  return send.pieces[0] as number;
}

function shareOf(send: Send): number {
  return placeShareOf(send.remote.task.pieceLengthBytes);
}

function average(formerMs: number, sampleMs: number): number {
  return formerMs === 0 ? sampleMs : formerMs * 0.8 + sampleMs * 0.2;
}
