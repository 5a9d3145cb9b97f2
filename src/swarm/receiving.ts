/** The receiving half: what to accept, what is late, and what neighbours are told to send first. */
import type { DeclineReason } from "../protocol/link-frames.ts";
import type { TaskId } from "../protocol/ids.ts";
import type { LinkId, SwarmConfig, SwarmEffect } from "./contract.ts";
import { mayImport } from "./importing.ts";
import type { IntakeRate } from "./intake-rate.ts";
import { Promises } from "./promises.ts";
import type { Room } from "./room.ts";
import { claim, isComplete, type Link, type Receive, type Remote, STALLED_MS, type Task } from "./tables.ts";

/** At most this many sources of one piece at a time. Source: swarm.md §4 (endgame). */
const COPIES_IN_FLIGHT_MAX = 2;
/** Between two tellings of what is wanted, unless all of it has come. */
const WANT_MS_MIN = 50;
const WANT_MS_MAX = 5_000;
/** An agreed piece that has not started after this many usual transfers is late. */
const AGREED_FACTOR = 6;
/** However long the usual one takes: one slow neighbour is no measure of the others. */
const AGREED_MS_MAX = 30_000;
const REFUSE_MS = 1_000;
/** A late transfer that still moves nothing is ended: its piece must be free for a third source. */
const GIVE_UP_MS = 5_000;
/** Of two late transfers of a piece the slower is ended when it would take so much longer still: a third source may be quick. */
const HOPELESS_MS = 30_000;
/**
 * Of each other sender so many bytes may come first where they wait for the same downlink: what a window lets it have on the
 * way, and as much again; or half a piece, for a large one that is given up has cost much.
 */
const TURN_BYTES_MIN = 512 * 1024;

export class Receiving {
  readonly #config: SwarmConfig;
  readonly #emit: (effect: SwarmEffect) => void;
  readonly #room: Room;
  readonly #rate: IntakeRate;
  /** Have begun and are not whole. */
  #moving = 0;
  #transferMs = 0;
  readonly #promises = new Promises();
  /** The same by sender and piece: who withdraws what it has agreed to, or lets it trickle, and offers it again. */
  readonly #spurned = new Promises();
  constructor(config: SwarmConfig, room: Room, rate: IntakeRate, emit: (effect: SwarmEffect) => void) {
    this.#config = config;
    this.#room = room;
    this.#rate = rate;
    this.#emit = emit;
  }

  /** Usual time from the first byte of a piece to its last, in ms; 0 while unknown. */
  get transferMs(): number {
    return this.#transferMs;
  }

  /** As much as has come in at best, for comparison with what goes out; 0 while unknown. */
  get bestBytesPerMs(): number {
    return this.#rate.bestBytesPerMs;
  }

  offered(remote: Remote | undefined, linkId: LinkId, taskId: TaskId, pieces: readonly number[], nowMs: number): void {
    const choice = this.#choose(remote, pieces, nowMs);
    if (typeof choice === "string") {
      if (choice === "busy") this.#room.refused((remote as Remote).link);
      this.#emit({ type: "sendDecline", linkId, taskId, piece: pieces[0] as number, reason: choice });
      return;
    }
    const piece = choice;
    const { task, link } = remote as Remote;
    const receives = task.incoming.get(piece) ?? [];
    if (receives.length > 0) task.doubledCount++;
    receives.push({ link, task, piece, state: "agreed", sinceMs: nowMs, progressMs: nowMs, late: false, far: link.distance > 0, cameBytes: 0, totalBytes: this.#rate.totalBytes });
    task.incoming.set(piece, receives);
    this.#room.agreed(receives.at(-1) as Receive);
    claim(task, piece);
    this.#emit({ type: "sendAccept", linkId, taskId, piece });
  }

  progressed(task: Task, piece: number, linkId: LinkId, bytes: number, nowMs: number): void {
    const receive = find(task, piece, linkId);
    if (receive === undefined) return;
    this.#rate.came(bytes, nowMs);
    receive.cameBytes += bytes;
    receive.totalBytes = this.#rate.totalBytes;
    receive.progressMs = nowMs;
    receive.link.stalledUntilMs = 0;
    receive.link.paidMs = nowMs;
    if (receive.state === "agreed") {
      receive.state = "receiving";
      this.#moving++;
      receive.sinceMs = nowMs;
      this.#promises.kept(receive.link.peerId);
    }
  }

  /** Others wait for their turn behind it. */
  stray(bytes: number, nowMs: number): void {
    this.#rate.came(bytes, nowMs);
  }

  finished(task: Task, piece: number, linkId: LinkId, nowMs: number): void {
    const receive = find(task, piece, linkId);
    if (receive === undefined || receive.state === "verifying") return;
    const tookMs = nowMs - receive.sinceMs;
    this.#transferMs = this.#transferMs === 0 ? tookMs : this.#transferMs * 0.8 + tookMs * 0.2;
    // Of its end nothing was told. A file's last piece is shorter, which matters to nobody.
    this.#rate.came(Math.max(0, task.pieceLengthBytes - receive.cameBytes), nowMs);
    if (receive.state === "receiving") this.#moving--;
    receive.state = "verifying";
    this.#room.verifying(1);
    if (!receive.late) this.#room.released(receive);
    // Its slower twin is of no more use, unless verification fails; then it will be offered anew.
    for (const other of task.incoming.get(piece) ?? []) {
      if (other !== receive && other.state !== "verifying") this.#cancel(other);
    }
  }

  /** The piece is here, from whatever source. */
  stored(task: Task, piece: number, nowMs: number): void {
    for (const receive of task.incoming.get(piece) ?? []) {
      if (receive.state === "verifying") {
        if (!receive.far) task.lastInsideGainMs = nowMs;
        this.#remove(receive);
      } else this.#cancel(receive);
    }
    task.orphans.delete(piece);
    if (task.wanted.includes(piece)) task.wantedStale = true;
  }

  /** The disk refused a piece: nothing more is taken for a moment, or it would be sent again and again in vain. */
  lost(task: Task, piece: number, nowMs: number): void {
    task.refusedUntilMs = nowMs + REFUSE_MS;
    for (const receive of task.incoming.get(piece) ?? []) {
      if (receive.state === "verifying") this.#remove(receive);
    }
    this.#orphan(task, piece);
  }

  /** This transfer ended without a piece. @returns its sender, if there was such a transfer */
  gone(task: Task, piece: number, linkId: LinkId): Link | undefined {
    const receive = find(task, piece, linkId);
    if (receive === undefined) return undefined;
    this.#remove(receive);
    if (!task.have.has(piece)) this.#orphan(task, piece);
    return receive.link;
  }

  /** Its sender has given it up. Who does so again and again, and offers it anew at once, would keep it from all others. */
  withdrawn(task: Task, piece: number, linkId: LinkId, nowMs: number): void {
    const receive = find(task, piece, linkId);
    if (receive === undefined) return;
    if (receive.state !== "verifying") {
      this.#brokePromise(receive, nowMs);
      this.#spurn(receive, nowMs);
    }
    this.gone(task, piece, linkId);
  }

  /** @param leftMs when the other side ended it; undefined when we did */
  dropRemote(remote: Remote, tell: boolean, leftMs?: number): void {
    const { task, link } = remote;
    for (const receives of [...task.incoming.values()]) {
      for (const receive of [...receives]) {
        if (receive.link !== link || receive.state === "verifying") continue;
        if (leftMs !== undefined) this.#brokePromise(receive, leftMs);
        if (tell) this.#cancel(receive);
        else this.#remove(receive);
        this.#orphan(task, receive.piece);
      }
    }
  }

  /** What is still being verified no longer counts: its outcome is told to nobody. */
  dropTask(task: Task): void {
    for (const receives of [...task.incoming.values()]) for (const receive of receives) this.#remove(receive);
  }

  /** Marks what is late, so that it is wanted and accepted from a second source. */
  check(task: Task, nowMs: number): void {
    for (const [piece, receives] of [...task.incoming]) {
      for (const receive of receives) {
        if (receive.late && receive.state !== "verifying" && nowMs - receive.progressMs >= GIVE_UP_MS) {
          this.#brokePromise(receive, nowMs);
          this.#cancel(receive);
          this.#orphan(task, receive.piece);
        }
        if (receive.late || receive.state === "verifying" || !this.#isLate(receive, nowMs)) continue;
        receive.late = true;
        if (nowMs - receive.progressMs >= this.#config.silenceMs && receive.state === "receiving") {
          receive.link.stalledUntilMs = nowMs + STALLED_MS;
        }
        task.lateCount++;
        task.wantedStale = true;
        this.#room.released(receive);
        this.#disclaim(task, receive.piece);
      }
      this.#endHopeless(task, task.incoming.get(piece) ?? [], nowMs);
    }
  }

  /** Two that trickle would keep the piece from all others. */
  #endHopeless(task: Task, receives: readonly Receive[], nowMs: number): void {
    if (receives.length < COPIES_IN_FLIGHT_MAX || !receives.every((receive) => receive.state === "receiving" && receive.late)) return;
    const leftMs = ({ sinceMs, cameBytes }: Receive): number => ((nowMs - sinceMs) * (task.pieceLengthBytes - cameBytes)) / cameBytes;
    const slowest = receives.reduce((a, b) => (leftMs(b) > leftMs(a) ? b : a));
    if (nowMs - slowest.sinceMs < GIVE_UP_MS || leftMs(slowest) < Math.max(HOPELESS_MS, this.#transferMs * AGREED_FACTOR)) return;
    this.#spurn(slowest, nowMs);
    this.#cancel(slowest);
    this.#orphan(task, slowest.piece);
  }

  /**
   * Tells all neighbours of the task what is wanted first: what readers wait for, and what is late. A reader that moves
   * on is followed by windows, not piece by piece: each telling goes to every neighbour.
   */
  tellWanted(task: Task, nowMs: number): void {
    if (nowMs < this.wantDueMs(task)) return;
    task.wantedStale = false;
    const wanted = this.wanted(task);
    if (wanted.length === task.wanted.length && wanted.every((piece, i) => piece === task.wanted[i])) return;
    task.wanted = wanted;
    task.wantedToldMs = nowMs;
    for (const remote of task.remotes.values()) {
      if (remote.isolated) continue;
      this.#emit({ type: "sendWant", linkId: remote.link.linkId, taskId: task.taskId, pieces: wanted });
    }
  }

  /** When what is wanted may be told again. */
  wantDueMs(task: Task): number {
    if (task.wanted.every((piece) => task.have.has(piece))) return Number.NEGATIVE_INFINITY;
    return task.wantedToldMs + Math.max(WANT_MS_MIN, Math.min(WANT_MS_MAX, Math.floor(this.#transferMs * 2)));
  }

  /** @returns the piece to accept, or why none */
  #choose(remote: Remote | undefined, pieces: readonly number[], nowMs: number): number | DeclineReason {
    if (remote === undefined || remote.isolated) return "unwanted";
    const { task } = remote;
    if (nowMs < task.refusedUntilMs || this.#promises.isRefused(remote.link.peerId, nowMs)) return "unwanted";
    this.#room.heard(remote.link);
    const refusal = (piece: number): DeclineReason | undefined =>
      refusalOf(remote, piece) ?? (this.#spurned.isRefused(nameOf(remote.link, task, piece), nowMs) ? "unwanted" : undefined);
    const acceptable = pieces.filter((piece) => refusal(piece) === undefined);
    if (acceptable.length === 0) return pieces.map(refusal).find((reason) => reason !== "have") ?? "have";
    // What a reader waits for comes first, even if the sender has not heard of it yet.
    const chosen = task.wanted.find((piece) => acceptable.includes(piece)) ?? rarestOf(task, acceptable);
    return this.#room.isFor(remote.link, task) ? chosen : "busy";
  }

  /** What readers wait for and nobody sends yet, what got lost on its way, and what is late. */
  wanted(task: Task): readonly number[] {
    if (isComplete(task)) return [];
    const wanted = new Set<number>();
    for (const start of task.readers.values()) {
      let piece = task.have.firstMissing(start);
      for (let i = 0; i < this.#config.readerWindowCount; i++) {
        if (task.pieceCount !== undefined && piece >= task.pieceCount) break;
        // What is on its way needs no second sender; should it be late, it is added below.
        if (!task.incoming.has(piece)) wanted.add(piece);
        piece = task.have.firstMissing(piece + 1);
      }
    }
    for (const piece of task.orphans) if (!task.incoming.has(piece)) wanted.add(piece);
    for (const [piece, receives] of task.incoming) {
      if (receives.length < COPIES_IN_FLIGHT_MAX && receives.some((receive) => receive.late)) wanted.add(piece);
    }
    return [...wanted];
  }

  #orphan(task: Task, piece: number): void {
    task.orphans.add(piece);
    task.wantedStale = true;
    this.#disclaim(task, piece);
  }

  /** Unless it is coming from elsewhere, others may offer it again. */
  #disclaim(task: Task, piece: number): void {
    if (task.have.has(piece) || task.incoming.get(piece)?.some(({ late, state }) => !late || state === "verifying") === true) return;
    if (!task.claims.delete(piece)) return;
    for (const { isolated, link } of task.remotes.values()) {
      if (!isolated) this.#emit({ type: "sendLost", linkId: link.linkId, taskId: task.taskId, pieces: [piece] });
    }
  }

  #isLate(receive: Receive, nowMs: number): boolean {
    if (receive.state === "agreed") {
      // It waits behind what its sender has on the wire: large pieces on a slow uplink take their time.
      const patienceMs = isEndgame(receive.task) ? this.#config.silenceMs : this.#config.answerMs;
      return nowMs - receive.sinceMs >= Math.max(patienceMs, Math.min(AGREED_MS_MAX, this.#transferMs * AGREED_FACTOR)) && !this.#awaitsTurn(receive, nowMs);
    }
    if (nowMs - receive.progressMs >= this.#config.silenceMs && !this.#awaitsTurn(receive, nowMs)) return true;
    if (this.#transferMs === 0) return false;
    return nowMs - receive.sinceMs >= Math.max(this.#config.silenceMs / 2, this.#transferMs * this.#config.lateFactor);
  }

  /**
   * Others' bytes come meanwhile, and not more of them than fit into the queue before our own downlink: it is that which is
   * slow. For a few seconds only; and where nothing comes at all it is not the downlink.
   */
  #awaitsTurn({ task, state, progressMs, totalBytes }: Receive, nowMs: number): boolean {
    const otherBytes = this.#rate.totalBytes - totalBytes;
    const otherCount = Math.max(1, this.#moving - (state === "receiving" ? 1 : 0));
    const turnBytes = Math.max(TURN_BYTES_MIN, task.pieceLengthBytes / 2);
    return otherBytes > 0 && otherBytes < otherCount * turnBytes && nowMs - progressMs < GIVE_UP_MS;
  }

  /** Not begun is nothing to hold against one who sends other pieces meanwhile: its uplink may be crowded. */
  #brokePromise({ link, state, sinceMs }: Receive, nowMs: number): void {
    if (state === "agreed" && nowMs - link.paidMs >= GIVE_UP_MS) this.#promises.broke(link.peerId, sinceMs, nowMs);
  }

  #spurn({ link, task, piece, sinceMs }: Receive, nowMs: number): void {
    this.#spurned.broke(nameOf(link, task, piece), sinceMs, nowMs);
  }

  #cancel(receive: Receive): void {
    this.#remove(receive);
    this.#emit({
      type: "cancelReceive",
      linkId: receive.link.linkId,
      taskId: receive.task.taskId,
      piece: receive.piece,
    });
  }

  #remove(receive: Receive): void {
    const { incoming } = receive.task;
    const left = (incoming.get(receive.piece) ?? []).filter((other) => other !== receive);
    if (left.length === 0) incoming.delete(receive.piece);
    else incoming.set(receive.piece, left);
    if (receive.state === "receiving") this.#moving--;
    if (receive.state === "verifying") this.#room.verifying(-1);
    else if (!receive.late) this.#room.released(receive);
  }
}

/** All that is missing is under way: nothing comes sooner by waiting for who has not begun. */
function isEndgame(task: Task): boolean {
  return task.pieceCount !== undefined && task.pieceCount - task.have.count <= task.incoming.size;
}

/** @returns why this neighbour's offer of the piece is declined; undefined when it is welcome */
function refusalOf(remote: Remote, piece: number): DeclineReason | undefined {
  const { task, link } = remote;
  if (task.have.has(piece)) return "have";
  if (task.pieceCount !== undefined && piece >= task.pieceCount) return "unwanted";
  const receives = task.incoming.get(piece) ?? [];
  if (!mayImport(remote, piece)) return "unwanted";
  const taking = receives.some((receive) => !receive.late || receive.link === link);
  return taking || receives.length >= COPIES_IN_FLIGHT_MAX ? "taking" : undefined;
}

/** What fewest around here hold is most worth passing on; of equals the sender's order counts. @param pieces at least one */
function rarestOf({ copies }: Task, pieces: readonly number[]): number {
  return pieces.reduce((rarest, piece) => ((copies[piece] ?? 0) < (copies[rarest] ?? 0) ? piece : rarest));
}

function nameOf({ peerId }: Link, { taskId }: Task, piece: number): string {
  return `${peerId} ${taskId} ${piece}`;
}

function find(task: Task, piece: number, linkId: LinkId): Receive | undefined {
  return task.incoming.get(piece)?.find((receive) => receive.link.linkId === linkId);
}
