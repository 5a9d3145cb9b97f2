import { assert, assertNever, broken } from "../base/assert.ts";
import { Prng } from "../base/prng.ts";
import type { TaskId } from "../protocol/ids.ts";
import type { LinkId, SwarmConfig, SwarmEffect, SwarmInput, SwarmSnapshot } from "./contract.ts";
import { importable, reconsiderRelief } from "./importing.ts";
import { intakeOf, type TaskIntake } from "./intake.ts";
import { IntakeRate } from "./intake-rate.ts";
import { Receiving } from "./receiving.ts";
import { Room } from "./room.ts";
import { Sending } from "./sending.ts";
import { snapshotOf } from "./snapshot.ts";
import { addCopies, addHave, claim, distrust, dropHave, isComplete, isNeeded, lose, newRemote, newTask, type Link, type Remote, type Task } from "./tables.ts";

/** Inputs after which there may be somebody to offer to who was not there before. */
const STIRRING: ReadonlySet<SwarmInput["type"]> = new Set([
  "taskOpened",
  "taskClosed",
  "remoteLeft",
  "pieceRejected",
  "pieceStored",
  "piecesLost",
  "remoteLost",
  "linkClosed",
  "remoteJoined",
  "remoteAdmitted",
  "remoteStatus",
  "remoteWants",
  "remoteImports",
  "offerAccepted",
  "offerDeclined",
  "sendCancelled",
  "sendFinished",
  "deadlineReached",
] satisfies SwarmInput["type"][]);

/** While anything moves or is owed, time is looked at this often. */
const CHECK_MS = 100;
/** Room and wants, for which others wait, are gathered for half a piece's time at most, so that one write carries many. */
const GATHER_MS_MIN = 1;
const NEWS_MS_MAX = 50;
/** What is claimed rides on what is said anyway, and is told by itself only so late. Source: docs/policy.md, "Fewer wake-ups". */
const CLAIMS_MS = 10_000;
/** Neighbours that are well but have nothing for us: after this many times starvedMs, others are asked for, too. */
const BARREN_FACTOR = 10;
/** Who has stalled and sent nothing for so long, not even what was given up here, is gone and not slow. */
const HANGING_MS = 3_000;

/**
 * A peer's brain: what to offer to whom, what to accept, what is late, what readers wait for.
 *
 * Deterministic: the same config, seed and inputs give the same effects. The loop that drives it is in README.md.
 */
export class Swarm {
  readonly #config: SwarmConfig;
  readonly #tasks = new Map<TaskId, Task>();
  readonly #links = new Map<LinkId, Link>();
  readonly #sending: Sending;
  readonly #receiving: Receiving;
  readonly #room: Room;
  #effects: SwarmEffect[] = [];
  #nowMs = 0;
  #newsAtMs: number | undefined;
  #claimsAtMs: number | undefined;
  #checkAtMs: number | undefined;

  /** @param seed any 32-bit integer; breaks ties */
  constructor(config: SwarmConfig, seed: number) {
    this.#config = config;
    const emit = (effect: SwarmEffect): void => this.#emit(effect);
    this.#sending = new Sending(config, new Prng(seed), this.#links, emit);
    const rate = new IntakeRate();
    this.#room = new Room(config, this.#links, rate, emit);
    this.#receiving = new Receiving(config, this.#room, rate, emit);
  }

  /**
   * Applies one input. `nowMs` is monotonic. The effects are to be executed in order; the array is the caller's.
   * Inputs about links, tasks or transfers that are gone are ignored: the world is late, not wrong.
   */
  step(input: SwarmInput, nowMs: number): readonly SwarmEffect[] {
    if (nowMs < this.#nowMs) broken(`time went back from ${this.#nowMs} to ${nowMs}`);
    this.#nowMs = nowMs;
    this.#apply(input, nowMs);
    if (STIRRING.has(input.type)) this.#sending.stir();
    this.#sending.fill(nowMs);
    this.#room.tell();
    this.#schedule(nowMs);
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  /** When `deadlineReached` is owed, or undefined while there is nothing to wait for. */
  nextDeadlineMs(): number | undefined {
    const dueMs = Math.min(this.#newsAtMs ?? Infinity, this.#claimsAtMs ?? Infinity, this.#checkAtMs ?? Infinity, this.#sending.dueMs(this.#nowMs));
    return dueMs === Infinity ? undefined : dueMs;
  }

  #apply(input: SwarmInput, nowMs: number): void {
    switch (input.type) {
      case "taskOpened":
        return this.#openTask(input, nowMs);
      case "taskClosed":
        return this.#closeTask(input.taskId);
      case "lengthKnown": {
        const task = this.#tasks.get(input.taskId);
        if (task !== undefined) task.pieceCount = input.pieceCount;
        return;
      }
      case "pieceStored": {
        const task = this.#tasks.get(input.taskId);
        if (task === undefined) return;
        this.#receiving.stored(task, input.piece, nowMs);
        if (task.have.add(input.piece)) {
          claim(task, input.piece);
          task.lastGainMs = nowMs;
        }
        return;
      }
      case "pieceRejected": {
        const remote = this.#remote(input.linkId, input.taskId);
        const task = this.#tasks.get(input.taskId);
        // Its link may have closed meanwhile: then the transfer knows whose it was.
        const liar = task === undefined ? undefined : (this.#receiving.gone(task, input.piece, input.linkId) ?? this.#links.get(input.linkId));
        if (task !== undefined && liar !== undefined) distrust(task, liar.peerId);
        if (remote === undefined) return;
        remote.isolated = true;
        this.#sending.dropRemote(remote, true);
        this.#receiving.dropRemote(remote, true);
        this.#effects.push({ type: "isolate", linkId: input.linkId, taskId: input.taskId, piece: input.piece });
        return;
      }
      case "pieceLost": {
        const task = this.#tasks.get(input.taskId);
        if (task !== undefined) this.#receiving.lost(task, input.piece, nowMs);
        return;
      }
      case "piecesLost":
        return this.#losePieces(input, nowMs);
      case "linkOpened": {
        this.#links.set(input.linkId, {
          linkId: input.linkId,
          peerId: input.peerId,
          remotes: new Map(),
          distance: 0,
          incoming: 0,
          capacity: 1,
          toldLoad: 0,
          outgoing: 0,
          paidMs: Number.NEGATIVE_INFINITY,
          heardMs: nowMs,
          stalledUntilMs: 0,
        });
        return;
      }
      case "linkClosed": {
        const link = this.#links.get(input.linkId);
        if (link === undefined) return;
        for (const remote of link.remotes.values()) this.#forgetRemote(remote, true);
        this.#room.forget(link);
        this.#links.delete(input.linkId);
        return;
      }
      case "neighbourLost": {
        const task = this.#tasks.get(input.taskId);
        if (task !== undefined) lose(task, input.peerId);
        return;
      }
      case "remotePlaced": {
        const link = this.#links.get(input.linkId);
        if (link === undefined) return;
        link.distance = input.distance;
        for (const remote of link.remotes.values()) this.#tellImports(remote);
        return;
      }
      case "importsAssigned": {
        const task = this.#tasks.get(input.taskId);
        if (task === undefined) return;
        task.imports = input.imports;
        for (const remote of task.remotes.values()) this.#tellImports(remote);
        return;
      }
      case "remoteImports": {
        const remote = this.#heard(input.linkId, input.taskId);
        if (remote !== undefined) remote.imports = input.buckets;
        return;
      }
      case "remoteJoined":
        return this.#joinRemote(input);
      case "remoteAdmitted": {
        const remote = this.#remote(input.linkId, input.taskId);
        if (remote === undefined) return;
        remote.receives = input.receives;
        if (!input.receives) this.#sending.dropRemote(remote, true);
        return;
      }
      case "remoteLeft": {
        const remote = this.#remote(input.linkId, input.taskId);
        if (remote !== undefined) this.#forgetRemote(remote, false);
        return;
      }
      case "remoteHas": {
        const remote = this.#heard(input.linkId, input.taskId);
        if (remote === undefined) return;
        for (const piece of input.pieces) {
          addHave(remote, piece);
        }
        return;
      }
      case "remoteLost": {
        const remote = this.#heard(input.linkId, input.taskId);
        for (const piece of input.pieces) if (remote !== undefined) dropHave(remote, piece);
        return;
      }
      case "remoteStatus": {
        const link = this.#links.get(input.linkId);
        if (link === undefined) return;
        link.heardMs = nowMs;
        link.stalledUntilMs = 0;
        link.incoming = input.incoming;
        link.capacity = input.capacity;
        return;
      }
      case "remoteWants": {
        const remote = this.#heard(input.linkId, input.taskId);
        if (remote === undefined) return;
        remote.wants = input.pieces;
        // Whoever asks for a piece is not getting it from elsewhere after all.
        for (const piece of input.pieces) remote.avoided.delete(piece);
        return;
      }
      case "offered": {
        const remote = this.#heard(input.linkId, input.taskId);
        return this.#receiving.offered(remote, input.linkId, input.taskId, input.pieces, nowMs);
      }
      case "offerAccepted": {
        const remote = this.#heard(input.linkId, input.taskId);
        if (remote !== undefined) this.#sending.accepted(remote, input.piece, nowMs);
        return;
      }
      case "offerDeclined": {
        const remote = this.#heard(input.linkId, input.taskId);
        if (remote !== undefined) this.#sending.declined(remote, input.piece, input.reason, nowMs);
        return;
      }
      case "sendCancelled": {
        const remote = this.#remote(input.linkId, input.taskId);
        if (remote !== undefined) this.#sending.cancelled(remote, input.piece, nowMs);
        return;
      }
      case "receiveCancelled": {
        const task = this.#tasks.get(input.taskId);
        if (task !== undefined) this.#receiving.withdrawn(task, input.piece, input.linkId, nowMs);
        return;
      }
      case "receiveRefused": {
        const task = this.#tasks.get(input.taskId);
        const link = this.#links.get(input.linkId);
        if (task !== undefined) this.#receiving.gone(task, input.piece, input.linkId);
        if (link !== undefined && input.busy) this.#room.shut(link);
        return;
      }
      case "sendProgressed": {
        const remote = this.#remote(input.linkId, input.taskId);
        if (remote !== undefined) this.#sending.progressed(remote, input.piece, input.bytes, nowMs);
        return;
      }
      case "receiveProgressed": {
        const task = this.#tasks.get(input.taskId);
        if (task !== undefined) this.#receiving.progressed(task, input.piece, input.linkId, input.bytes, nowMs);
        return;
      }
      case "strayReceived": {
        const link = this.#links.get(input.linkId);
        if (link !== undefined) link.heardMs = nowMs;
        return this.#receiving.stray(input.bytes, nowMs);
      }
      case "sendFinished": {
        const remote = this.#remote(input.linkId, input.taskId);
        if (remote !== undefined) this.#sending.finished(remote, input.piece, this.#receiving.bestBytesPerMs, nowMs);
        return;
      }
      case "uplinkSampled":
        return this.#sending.uplinkSampled(input, nowMs);
      case "receiveFinished": {
        const task = this.#tasks.get(input.taskId);
        if (task !== undefined) this.#receiving.finished(task, input.piece, input.linkId, nowMs);
        return;
      }
      case "readerMoved": {
        const task = this.#tasks.get(input.taskId);
        if (task === undefined) return;
        if (input.piece === undefined) task.readers.delete(input.readerId);
        else task.readers.set(input.readerId, input.piece);
        task.wantedStale = true;
        return;
      }
      case "deadlineReached":
        return this.#look(nowMs);
      default:
        return assertNever(input);
    }
  }

  #openTask(input: Extract<SwarmInput, { type: "taskOpened" }>, nowMs: number): void {
    assert(!this.#tasks.has(input.taskId), `task ${input.taskId} is open already`);
    this.#tasks.set(input.taskId, newTask(input, nowMs));
  }

  /** From here on the pieces are missing like any other: neighbours may offer them, and get nothing of them from us. */
  #losePieces({ taskId, pieces }: Extract<SwarmInput, { type: "piecesLost" }>, nowMs: number): void {
    const task = this.#tasks.get(taskId);
    const lost = pieces.filter((piece) => task?.have.delete(piece));
    if (task === undefined || lost.length === 0) return;
    this.#sending.dropPieces(task, new Set(lost));
    for (const piece of lost) task.claims.delete(piece);
    task.wantedStale = true;
    task.lastGainMs = nowMs;
    for (const { isolated, link } of task.remotes.values()) {
      if (!isolated) this.#effects.push({ type: "sendLost", linkId: link.linkId, taskId, pieces: lost });
    }
  }

  #closeTask(taskId: TaskId): void {
    const task = this.#tasks.get(taskId);
    if (task === undefined) return;
    for (const remote of task.remotes.values()) {
      this.#sending.dropRemote(remote, true);
      this.#receiving.dropRemote(remote, true);
      remote.link.remotes.delete(taskId);
    }
    this.#receiving.dropTask(task);
    this.#tasks.delete(taskId);
  }

  #joinRemote(input: Extract<SwarmInput, { type: "remoteJoined" }>): void {
    const { linkId, taskId } = input;
    const link = this.#links.get(linkId);
    const task = this.#tasks.get(taskId);
    if (link === undefined || task === undefined) return;
    const former = link.remotes.get(taskId);
    if (former !== undefined) this.#forgetRemote(former, false);
    const remote = newRemote(link, task, input);
    link.remotes.set(taskId, remote);
    task.remotes.set(linkId, remote);
    task.lostPeers.delete(link.peerId);
    link.stalledUntilMs = 0;
    for (const piece of input.have) addCopies(task, piece, 1);
    if (remote.isolated) return;
    this.#room.tellStatus(link);
    this.#tellImports(remote);
    // What is held it knows from the join.
    const coming = [...task.claims].filter((piece) => !task.have.has(piece));
    if (coming.length > 0) this.#effects.push({ type: "sendHave", linkId, taskId, pieces: coming });
    if (task.wanted.length > 0) this.#effects.push({ type: "sendWant", linkId, taskId, pieces: task.wanted });
  }

  #tellImports(remote: Remote): void {
    const { task, link } = remote;
    const buckets = importable(task, link.distance);
    if (buckets === remote.toldImports) return;
    remote.toldImports = buckets;
    this.#effects.push({ type: "sendImports", linkId: link.linkId, taskId: task.taskId, buckets });
  }

  #forgetRemote(remote: Remote, linkGone: boolean): void {
    const { task, link } = remote;
    this.#sending.dropRemote(remote, !linkGone);
    this.#receiving.dropRemote(remote, !linkGone, this.#nowMs);
    for (const piece of remote.have) addCopies(task, piece, -1);
    for (const piece of remote.credited) addCopies(task, piece, -1);
    task.remotes.delete(link.linkId);
    link.remotes.delete(task.taskId);
    if (linkGone) lose(task, link.peerId);
  }

  #remote(linkId: LinkId, taskId: TaskId): Remote | undefined {
    return this.#links.get(linkId)?.remotes.get(taskId);
  }

  /** As {@link #remote}, for inputs that are a sign of life. */
  #heard(linkId: LinkId, taskId: TaskId): Remote | undefined {
    const link = this.#links.get(linkId);
    if (link !== undefined) link.heardMs = this.#nowMs;
    if (link !== undefined && link.stalledUntilMs > 0) {
      link.stalledUntilMs = 0;
      this.#sending.stir();
    }
    return link?.remotes.get(taskId);
  }

  #look(nowMs: number): void {
    if (this.#newsAtMs !== undefined && nowMs >= this.#newsAtMs) this.#tellNews();
    if (this.#claimsAtMs !== undefined && nowMs >= this.#claimsAtMs) this.#tellAllClaims();
    if (this.#checkAtMs === undefined || nowMs < this.#checkAtMs) return;
    this.#sending.check(nowMs);
    for (const task of this.#tasks.values()) {
      this.#receiving.check(task, nowMs);
      if (reconsiderRelief(task, nowMs)) for (const remote of task.remotes.values()) this.#tellImports(remote);
      this.#askForNeighbours(task, nowMs);
    }
    // What became late is wanted from others at once.
    this.#tellNews();
  }

  /** What a neighbour has not been told yet rides on what is said to it anyway: a frame of its own would wake it. */
  #emit(effect: SwarmEffect): void {
    if (effect.type === "sendOffer" || effect.type === "sendAccept" || effect.type === "sendDecline" || effect.type === "sendWant") {
      const remote = this.#remote(effect.linkId, effect.taskId);
      if (remote !== undefined) {
        this.#tellClaims(remote);
        if (!isComplete(remote.task) && remote.link.toldLoad !== this.#room.loadFor(remote.link)) this.#room.tellStatus(remote.link);
      }
    }
    this.#effects.push(effect);
  }

  #tellClaims(remote: Remote): void {
    const { task, link } = remote;
    if (remote.toldCount === task.claimed.length || remote.isolated) return;
    // Some have been taken back since, and claimed anew perhaps.
    const pieces = [...new Set(task.claimed.slice(remote.toldCount))].filter((piece) => task.claims.has(piece));
    remote.toldCount = task.claimed.length;
    if (pieces.length === 0) return;
    this.#effects.push({ type: "sendHave", linkId: link.linkId, taskId: task.taskId, pieces });
  }

  /** What others wait for: that there is room, and what is wanted. */
  #tellNews(): void {
    this.#newsAtMs = undefined;
    for (const task of this.#tasks.values()) if (task.wantedStale) this.#receiving.tellWanted(task, this.#nowMs);
    this.#room.inviteOthers();
  }

  #tellAllClaims(): void {
    this.#claimsAtMs = undefined;
    for (const task of this.#tasks.values()) {
      if (!task.claimsStale) continue;
      task.claimsStale = false;
      for (const remote of task.remotes.values()) this.#tellClaims(remote);
    }
  }

  #askForNeighbours(task: Task, nowMs: number): void {
    if (isComplete(task) || nowMs - task.lastAskMs < this.#config.starvedMs) return;
    const useless = new Set(task.lostPeers);
    const barren = nowMs - Math.max(task.lastGainMs, task.lastAskMs) >= this.#config.starvedMs * BARREN_FACTOR;
    if (nowMs - task.lastGainMs >= this.#config.starvedMs) {
      for (const remote of task.remotes.values()) {
        // Whoever speaks or sends, however slowly, may be the only one that has what is missing here: the supernode may know
        // nobody else, and what is half here would begin anew.
        const { paidMs, heardMs, stalledUntilMs, peerId } = remote.link;
        const hangs = stalledUntilMs > 0 && nowMs - Math.max(paidMs, heardMs) >= HANGING_MS;
        if (remote.isolated || hangs) useless.add(peerId);
      }
    }
    if (useless.size === 0 && task.remotes.size > 0 && !barren) return;
    task.lastAskMs = nowMs;
    task.lostPeers.clear();
    this.#effects.push({ type: "needNeighbours", taskId: task.taskId, useless: [...useless] });
  }

  #schedule(nowMs: number): void {
    const { transferMs } = this.#receiving;
    const gatherMs = clamp(Math.floor(transferMs / 2), GATHER_MS_MIN, NEWS_MS_MAX);
    let newsAtMs = this.#room.hasNews ? nowMs + gatherMs : Infinity;
    let claimsAtMs = Infinity;
    let waiting = this.#sending.active;
    for (const task of this.#tasks.values()) {
      if (task.claimsStale) claimsAtMs = nowMs + CLAIMS_MS;
      if (task.wantedStale) newsAtMs = Math.min(newsAtMs, Math.max(nowMs + gatherMs, this.#receiving.wantDueMs(task)));
      if (!isComplete(task) || (!waiting && isNeeded(task))) waiting = true;
    }
    if (newsAtMs < (this.#newsAtMs ?? Infinity)) this.#newsAtMs = newsAtMs;
    if (claimsAtMs < (this.#claimsAtMs ?? Infinity)) this.#claimsAtMs = claimsAtMs;
    if (!waiting) this.#checkAtMs = undefined;
    else if (this.#checkAtMs === undefined || this.#checkAtMs <= nowMs) this.#checkAtMs = nowMs + CHECK_MS;
  }

  /** Pieces whole but not on disk keep anything more from being taken in. */
  get isStoringFull(): boolean {
    return this.#room.isStoringFull;
  }

  /** What is wanted first, for who tells a neighbour together with the join; none where there is no such task. */
  wanted(taskId: TaskId): readonly number[] {
    const task = this.#tasks.get(taskId);
    return task === undefined ? [] : this.#receiving.wanted(task);
  }

  /** Undefined: no such task. */
  intake(taskId: TaskId): TaskIntake | undefined {
    const task = this.#tasks.get(taskId);
    return task === undefined ? undefined : intakeOf(task);
  }

  snapshot(): SwarmSnapshot {
    return snapshotOf(this.#links.values(), this.#tasks.values(), this.#sending, this.#nowMs);
  }
}

function clamp(value: number, min: number, max: number): number {
  return Math.min(max, Math.max(min, value));
}
