/**
 * Drives the swarm's brain: frames, payload and disk become inputs; effects become frames, transfers and calls.
 * Never re-entrant: inputs that arise while effects run wait in a queue.
 */
import { PieceSet } from "../protocol/piece-set.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import type { Topology } from "../protocol/topology.ts";
import type { LinkFrame } from "../protocol/link-frames.ts";
import { DEFAULT_SWARM_CONFIG, type Priority, Swarm, type SwarmConfig, type SwarmEffect, type SwarmInput, type SwarmSnapshot, type TaskIntake } from "../swarm/index.ts";
import { toAppError } from "../base/errors.ts";
import type { Link } from "./link/link.ts";
import type { LinkTable } from "./link/link-table.ts";
import type { Logger } from "pino";
import { Admissions } from "./admissions.ts";
import { EarlyJoins } from "./early-joins.ts";
import { LinkPlaces } from "./link-places.ts";
import { PieceArrivals, type PieceCounters } from "./piece-arrivals.ts";
import type { TaskSession } from "./task-session.ts";
import { UplinkSampler } from "./uplink-sampler.ts";

export interface SwarmDriverDeps {
  readonly links: LinkTable;
  readonly nowMs: () => number;
  /** Where this host stands, to begin with. */
  readonly topology: Topology;
  readonly seed: number;
  readonly swarm?: Partial<SwarmConfig>;
  /** Finds the session of a task, opening it from disk when a neighbour asks for it. */
  readonly session: (taskId: TaskId) => TaskSession | undefined;
  readonly openFromDisk: (taskId: TaskId) => Promise<TaskSession | undefined>;
  readonly isSeed: (peerId: PeerId) => boolean;
  readonly log: Pick<Logger, "warn" | "debug">;
  readonly needNeighbours: (taskId: TaskId, useless: readonly PeerId[]) => void;
  readonly accuse: (taskId: TaskId, peerId: PeerId, piece: number) => void;
  /** A piece is verified and on disk. */
  readonly stored: (session: TaskSession, piece: number) => void;
  /** How long the file is is known now: perhaps all of it is here already. */
  readonly lengthKnown: (session: TaskSession) => void;
  /** Pieces that were on disk are not, or not as they were. */
  readonly lost: (session: TaskSession) => void;
}

export class SwarmDriver {
  readonly #deps: SwarmDriverDeps;
  readonly #swarm: Swarm;
  readonly #arrivals: PieceArrivals;
  readonly #uplink: UplinkSampler;
  /** Pieces to be sent that are being read back first. */
  readonly #checking = new Map<string, Promise<unknown>>();
  readonly #queue: SwarmInput[] = [];
  readonly #open = new Set<TaskSession>();
  #running = false;
  #timer: NodeJS.Timeout | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;
  readonly #admissions = new Admissions((linkId, taskId) => {
    this.#deps.log.debug({ taskId, peerId: this.#deps.links.byId(linkId)?.peerId }, "a neighbour's ticket has run out");
    this.feed({ type: "remoteAdmitted", linkId, taskId, receives: false });
  });
  readonly #earlyJoins = new EarlyJoins();
  readonly places: LinkPlaces;
  /** Own `have` as last told in a join, until the other side has joined too. */
  readonly #toldHave = new Map<string, PieceSet>();
  readonly counters: PieceCounters = { uploadedBytes: 0, downloadedBytes: 0, wastedBytes: 0, rejectedPieces: 0, forgedProofs: 0 };

  readonly intake = (taskId: TaskId): TaskIntake | undefined => this.#swarm.intake(taskId);

  constructor(deps: SwarmDriverDeps) {
    this.#deps = deps;
    this.#swarm = new Swarm({ ...DEFAULT_SWARM_CONFIG, ...deps.swarm }, deps.seed);
    this.#uplink = new UplinkSampler({ links: deps.links, handedBytes: () => this.counters.uploadedBytes, feed: (input) => this.feed(input), nowMs: deps.nowMs });
    this.places = new LinkPlaces(deps.topology, { links: deps.links, placed: ({ linkId }, distance) => this.feed({ type: "remotePlaced", linkId, distance }) });
    this.#arrivals = new PieceArrivals({
      nowMs: deps.nowMs,
      log: deps.log,
      counters: this.counters,
      isSeed: deps.isSeed,
      feed: (input) => this.feed(input),
      stored: (session, piece) => this.storedPiece(session, piece),
    });
  }

  /** Memory taken by pieces that are being received or verified. */
  get receivingBytes(): number {
    return this.#arrivals.usedBytes;
  }

  snapshot(): SwarmSnapshot {
    return this.#swarm.snapshot();
  }

  feed(input: SwarmInput): void {
    this.#queue.push(input);
    if (this.#running) return;
    this.#running = true;
    try {
      const nowMs = this.#deps.nowMs();
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        this.#account(next, nowMs);
        for (const effect of this.#swarm.step(next, nowMs)) this.#execute(effect);
      }
    } finally {
      // A fault costs the link or the task that met it, and never the brain.
      this.#running = false;
      this.#arm();
    }
  }

  /** What has been true till now goes into the books before it changes. */
  #account(input: SwarmInput, nowMs: number): void {
    if (input.type === "deadlineReached" || input.type === "linkClosed") for (const session of this.#open) session.account.glance(nowMs);
    else if ("taskId" in input) this.#deps.session(input.taskId)?.account.glance(nowMs);
  }

  openTask(session: TaskSession, priority: Priority): void {
    const { taskId, account } = session;
    this.#open.add(session);
    account.opened({ intake: () => this.intake(taskId), isStoringFull: () => this.#swarm.isStoringFull }, session.stored.complete);
    this.feed({
      type: "taskOpened",
      taskId: session.taskId,
      pieceCount: session.pieceCount,
      pieceLengthBytes: session.pieceLengthBytes,
      have: copyOf(session.stored.have),
      priority,
    });
    for (const { link, frames } of this.#earlyJoins.opened(taskId)) for (const frame of frames) this.frame(link, frame);
  }

  /** Ends everything about the task, on all links. Call it while the session can still be found. */
  closeTask(session: TaskSession): void {
    const { taskId } = session;
    this.#open.delete(session);
    this.feed({ type: "taskClosed", taskId });
    for (const link of this.#deps.links) this.#leave(link, taskId, true);
    this.#arrivals.taskClosed(session);
  }

  /** Takes part in the task on this link no longer: nothing more of it is sent from here. */
  #leave(link: Link, taskId: TaskId, tell: boolean): void {
    const channel = link.ownChannel(taskId);
    this.#admissions.end(link.linkId, taskId);
    this.#toldHave.delete(keyOf(link, taskId));
    if (channel === undefined) return;
    link.writer.cancelChannel(channel);
    if (tell) link.send({ type: "leave", channel });
    link.closeChannel(taskId);
    // Whoever hears it ends his own part, too, without a word.
    const remoteChannel = link.remoteChannel(taskId);
    if (remoteChannel === undefined) return;
    // From within an effect the brain hears of it later, and could not name the channel any more.
    this.#arrivals.channelClosed(link, remoteChannel);
    link.closeRemoteChannel(remoteChannel);
  }

  leave(link: Link, taskId: TaskId): void {
    this.feed({ type: "remoteLeft", linkId: link.linkId, taskId });
    this.#leave(link, taskId, true);
  }

  close(): void {
    this.#admissions.close();
    clearTimeout(this.#timer);
    this.#timerDueMs = Number.POSITIVE_INFINITY;
  }

  linkOpened(link: Link, peerId: PeerId): void {
    this.places.opened(link);
    this.feed({ type: "linkOpened", linkId: link.linkId, peerId });
  }

  linkClosed(link: Link): void {
    this.#arrivals.linkClosed(link);
    this.#admissions.endLink(link.linkId);
    this.#earlyJoins.linkClosed(link);
    for (const keyed of [this.#toldHave, this.#checking]) for (const key of keyed.keys()) if (key.startsWith(`${link.linkId}/`)) keyed.delete(key);
    this.feed({ type: "linkClosed", linkId: link.linkId });
  }

  /** Takes part in the task on this link, if not yet. */
  join(link: Link, session: TaskSession): void {
    if (link.ownChannel(session.taskId) !== undefined) return;
    const channel = link.openChannel(session.taskId);
    const have = session.stored.have.toBytes();
    this.#toldHave.set(keyOf(link, session.taskId), PieceSet.fromBytes(have));
    // Before the join, so that the other side's first offers are of what a reader waits for.
    const wanted = this.#swarm.wanted(session.taskId);
    if (wanted.length > 0) link.send({ type: "want", channel, pieces: wanted });
    link.send({ type: "join", channel, taskId: session.taskId, ticket: session.ticket, have });
    const { lengthBytes, lengthSignature } = session.stored.record;
    if (lengthBytes !== undefined && lengthSignature !== undefined) {
      link.send({ type: "length", channel, lengthBytes, signature: lengthSignature });
    }
  }

  /** Ours from now on; a new one is shown wherever we take part already. */
  showTicket(session: TaskSession, ticket: string): void {
    if (ticket === session.ticket) return;
    session.ticket = ticket;
    for (const link of this.#deps.links) {
      const channel = link.ownChannel(session.taskId);
      if (channel !== undefined) link.send({ type: "ticket", channel, ticket });
    }
  }

  frame(link: Link, frame: LinkFrame): void {
    switch (frame.type) {
      case "join":
        return this.#remoteJoined(link, frame);
      case "status":
        return this.feed({ type: "remoteStatus", linkId: link.linkId, incoming: frame.incoming, capacity: frame.capacity });
      case "accept":
      case "decline":
      case "cancel": {
        const taskId = link.taskOf(frame.channel, "own");
        if (taskId === undefined) return;
        const { linkId } = link;
        const { piece } = frame;
        if (frame.type === "accept") this.feed({ type: "offerAccepted", linkId, taskId, piece });
        else if (frame.type === "decline") {
          this.feed({ type: "offerDeclined", linkId, taskId, piece, reason: frame.reason });
        } else {
          // Also when it is still being read back.
          this.#checking.delete(`${keyOf(link, taskId)}/${piece}`);
          link.writer.cancelPiece(frame.channel, piece);
          this.feed({ type: "sendCancelled", linkId, taskId, piece });
        }
        return;
      }
      case "place":
        return this.places.heard(link, frame.topology);
      case "ping":
      case "pong":
      case "handshake":
        return;
      default: {
        const taskId = link.taskOf(frame.channel, "remote");
        if (taskId !== undefined) this.#taskFrame(link, taskId, frame);
        else this.#earlyJoins.heard(link, frame);
      }
    }
  }

  #taskFrame(
    link: Link,
    taskId: TaskId,
    frame: Extract<LinkFrame, { type: "leave" | "have" | "lost" | "want" | "imports" | "offer" | "proof" | "withdraw" | "length" | "ticket" }>,
  ): void {
    const { linkId } = link;
    switch (frame.type) {
      case "leave":
        this.feed({ type: "remoteLeft", linkId, taskId });
        link.closeRemoteChannel(frame.channel);
        // Ours goes, too: who joins again is answered anew.
        this.#leave(link, taskId, false);
        return;
      case "have":
        return this.feed({ type: "remoteHas", linkId, taskId, pieces: frame.pieces });
      case "lost":
        return this.feed({ type: "remoteLost", linkId, taskId, pieces: frame.pieces });
      case "want":
        return this.feed({ type: "remoteWants", linkId, taskId, pieces: frame.pieces.slice(0, WANT_COUNT_MAX) });
      case "imports":
        return this.feed({ type: "remoteImports", linkId, taskId, buckets: frame.buckets });
      case "withdraw":
        this.#arrivals.drop(link, taskId, frame.piece);
        return this.feed({ type: "receiveCancelled", linkId, taskId, piece: frame.piece });
      case "length": {
        const session = this.#deps.session(taskId);
        if (session === undefined || session.lengthBytes !== undefined) return;
        if (!session.verifier.verifyLength(taskId, frame.lengthBytes, frame.signature)) {
          this.counters.forgedProofs++;
          return link.close("it forged a file's length");
        }
        void this.setLength(session, frame.lengthBytes, frame.signature);
        return;
      }
      case "offer":
        this.#deps.session(taskId)?.account.offered();
        return this.feed({ type: "offered", linkId, taskId, pieces: frame.pieces });
      case "proof":
        return this.#arrivals.proven(link, frame);
      case "ticket": {
        const session = this.#deps.session(taskId);
        if (session === undefined || !this.#admits(link, session, frame.ticket)) return;
        return this.feed({ type: "remoteAdmitted", linkId, taskId, receives: true });
      }
    }
  }

  /** Whether the ticket lets the other side have pieces; if so, until it runs out. */
  #admits(link: Link, session: TaskSession, ticket: string): boolean {
    const { taskId, tickets } = session;
    const { linkId, peerId } = link;
    if (ticket === "" || peerId === undefined) return false;
    try {
      const claims = tickets.verify(ticket, taskId, peerId);
      this.#admissions.admit(linkId, taskId, claims, (of) => tickets.remainingMs(of));
      return true;
    } catch (thrown) {
      this.#deps.log.warn({ taskId, peerId, error: toAppError(thrown).message }, "a ticket is refused");
      return false;
    }
  }

  async setLength(session: TaskSession, lengthBytes: number, signature: Uint8Array): Promise<void> {
    if (session.lengthBytes !== undefined) return;
    try {
      await session.stored.setLength(lengthBytes, signature);
    } catch (thrown) {
      session.failure ??= toAppError(thrown);
    }
    const { pieceCount } = session;
    if (pieceCount !== undefined) {
      this.feed({ type: "lengthKnown", taskId: session.taskId, pieceCount });
      for (const link of this.#deps.links) {
        const channel = link.ownChannel(session.taskId);
        if (channel !== undefined) link.send({ type: "length", channel, lengthBytes, signature });
      }
    }
    if (session.stored.complete) session.account.stored(true);
    if (pieceCount !== undefined) this.#deps.lengthKnown(session);
    session.wake();
  }

  #remoteJoined(link: Link, frame: Extract<LinkFrame, { type: "join" }>): void {
    const { channel, taskId, ticket } = frame;
    const { peerId } = link;
    if (peerId === undefined) return;
    // A channel is never used again: what came on it could not be told apart.
    const named = link.taskOf(channel, "remote");
    if (named !== undefined && named !== taskId) return link.close("it named two tasks by one channel");
    const session = this.#deps.session(taskId);
    if (session === undefined) {
      // Held on disk, perhaps: a neighbour was told that we have it. Or about to be opened.
      this.#earlyJoins.joined(link, frame);
      void this.#deps.openFromDisk(taskId).catch((thrown: unknown) => this.#deps.log.warn({ taskId, error: String(thrown) }, "a task on disk cannot be opened"));
      return;
    }
    const receives = this.#admits(link, session, ticket);
    if (!receives && !session.neighbours.has(peerId)) return;
    const former = link.remoteChannel(taskId);
    if (former !== undefined && former !== channel) {
      // Without having left: what was on its way on the other channel is let go of while it can be found.
      this.feed({ type: "remoteLeft", linkId: link.linkId, taskId });
      link.closeRemoteChannel(former);
    }
    link.setRemoteChannel(channel, taskId);
    const told = this.#toldHave.get(keyOf(link, taskId));
    if (told === undefined) this.join(link, session);
    else {
      const since = [...session.stored.have].filter((piece) => !told.has(piece));
      const ownChannel = link.ownChannel(taskId);
      if (since.length > 0 && ownChannel !== undefined) link.send({ type: "have", channel: ownChannel, pieces: since });
      const lost = [...told].filter((piece) => !session.stored.have.has(piece));
      if (lost.length > 0 && ownChannel !== undefined) sendLost(link, ownChannel, lost);
    }
    this.#toldHave.delete(keyOf(link, taskId));
    const seed = this.#deps.isSeed(peerId);
    const wants = this.#earlyJoins.wantedWith(link, channel).slice(0, WANT_COUNT_MAX);
    this.feed({ type: "remoteJoined", linkId: link.linkId, taskId, have: PieceSet.fromBytes(frame.have), seed, receives, wants });
  }

  payloadTarget(link: Link, channel: number, piece: number, offset: number, length: number): Uint8Array | undefined {
    return this.#arrivals.payloadTarget(link, channel, piece, offset, length);
  }

  payload(link: Link, channel: number, piece: number, bytes: number, ended: boolean): void {
    this.#arrivals.payload(link, channel, piece, bytes, ended);
  }

  /** Tells everybody who should know that the piece is here. */
  storedPiece(session: TaskSession, piece: number): void {
    // Thrown away again before the word of it came here.
    if (!session.stored.have.has(piece)) return this.feed({ type: "pieceLost", taskId: session.taskId, piece });
    session.account.stored(session.stored.complete);
    this.feed({ type: "pieceStored", taskId: session.taskId, piece });
    this.#deps.stored(session, piece);
    session.wake();
  }

  /** Tells everybody who should know that these pieces are here no longer. */
  lostPieces(session: TaskSession, pieces: readonly number[]): void {
    session.account.lost();
    this.feed({ type: "piecesLost", taskId: session.taskId, pieces });
    this.#deps.lost(session);
    session.wake();
  }

  #execute(effect: SwarmEffect): void {
    if (effect.type === "needNeighbours") return this.#deps.needNeighbours(effect.taskId, effect.useless);
    const link = this.#deps.links.byId(effect.linkId);
    if (link === undefined) return;
    if (effect.type === "sendStatus") {
      return link.send({ type: "status", incoming: effect.incoming, capacity: effect.capacity });
    }
    const { taskId } = effect;
    if (effect.type === "isolate") {
      if (link.peerId !== undefined) this.#deps.accuse(taskId, link.peerId, effect.piece);
      return;
    }
    if (effect.type === "cancelReceive") this.#arrivals.drop(link, taskId, effect.piece);
    const session = this.#deps.session(taskId);
    const own = link.ownChannel(taskId);
    const remote = link.remoteChannel(taskId);
    if (session === undefined || own === undefined || remote === undefined) return;
    switch (effect.type) {
      case "sendHave":
        return link.send({ type: "have", channel: own, pieces: effect.pieces });
      case "sendLost":
        return sendLost(link, own, effect.pieces);
      case "sendWant":
        return link.send({ type: "want", channel: own, pieces: effect.pieces });
      case "sendImports":
        return link.send({ type: "imports", channel: own, buckets: effect.buckets });
      case "sendOffer":
        return link.send({ type: "offer", channel: own, pieces: effect.pieces });
      case "sendAccept":
        return this.#arrivals.accept(link, session, remote, effect.piece);
      case "sendDecline":
        session.account.declined();
        return link.send({ type: "decline", channel: remote, piece: effect.piece, reason: effect.reason });
      case "cancelReceive":
        return link.send({ type: "cancel", channel: remote, piece: effect.piece });
      case "cancelSend":
        this.#checking.delete(`${keyOf(link, taskId)}/${effect.piece}`);
        link.writer.cancelPiece(own, effect.piece);
        return link.send({ type: "withdraw", channel: own, piece: effect.piece });
      case "startSend":
        return this.#startSend(link, session, own, effect.piece);
    }
  }

  #startSend(link: Link, session: TaskSession, channel: number, piece: number): void {
    if (session.stored.isVerified(piece)) this.#sendNow(link, session, channel, piece);
    else void this.#checkAndSend(link, session, channel, piece);
  }

  #sendNow(link: Link, session: TaskSession, channel: number, piece: number): void {
    const { linkId } = link;
    const { taskId } = session;
    const proof = session.stored.proofOf(piece);
    const lengthBytes = session.lengthOf(piece);
    if (proof === undefined || lengthBytes === undefined) {
      link.send({ type: "withdraw", channel, piece });
      return this.feed({ type: "sendCancelled", linkId, taskId, piece });
    }
    link.send({ type: "proof", channel, piece, lengthBytes, digest: proof.digest, signature: proof.signature });
    session.pin();
    let leftBytes = lengthBytes;
    link.writer.sendPiece({
      flow: session.uploadFlow,
      channel,
      piece,
      fileFd: session.stored.dataFd,
      fileOffset: piece * session.pieceLengthBytes,
      lengthBytes,
      progressed: (bytes) => {
        this.counters.uploadedBytes += bytes;
        leftBytes -= bytes;
        // Of the last ones the end tells, in the same turn.
        if (leftBytes > 0) this.feed({ type: "sendProgressed", linkId, taskId, piece, bytes });
      },
      ended: (whole) => {
        this.#uplink.look();
        if (whole) this.feed({ type: "sendFinished", linkId, taskId, piece });
        else this.feed({ type: "sendCancelled", linkId, taskId, piece });
        // Nothing is lost on a sound disk; on another one the brain hears of it.
        if (!whole) session.stored.verify([piece], true).catch(() => undefined);
      },
      released: () => session.unpin(),
    });
  }

  /** The first use of a piece since the start: it is read back before it is sent, unless the send is called off meanwhile. */
  async #checkAndSend(link: Link, session: TaskSession, channel: number, piece: number): Promise<void> {
    const { taskId } = session;
    const key = `${keyOf(link, taskId)}/${piece}`;
    const check = session.stored.verify([piece]);
    this.#checking.set(key, check);
    session.pin();
    const failure = await check.then(() => undefined, (thrown: unknown) => toAppError(thrown));
    session.unpin();
    // A newer send of the same piece has a check of its own; a damaged piece was called off by the brain.
    if (this.#checking.get(key) !== check) return;
    this.#checking.delete(key);
    if (link.closed || link.ownChannel(taskId) !== channel) return;
    if (failure === undefined && session.stored.have.has(piece)) return this.#sendNow(link, session, channel, piece);
    this.#deps.log.warn({ taskId, piece, error: failure?.message }, "a piece cannot be sent");
    link.send({ type: "withdraw", channel, piece });
    this.feed({ type: "sendCancelled", linkId: link.linkId, taskId, piece });
  }

  #arm(): void {
    const dueMs = this.#swarm.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
    if (dueMs === this.#timerDueMs) return;
    clearTimeout(this.#timer);
    this.#timerDueMs = dueMs;
    if (dueMs === Number.POSITIVE_INFINITY) return;
    this.#timer = setTimeout(
      () => {
        this.#timerDueMs = Number.POSITIVE_INFINITY;
        this.feed({ type: "deadlineReached" });
      },
      Math.max(0, dueMs - this.#deps.nowMs()),
    );
    this.#timer.unref();
  }
}

/** In frames far below the limit, however much of a file is gone. */
function sendLost(link: Link, channel: number, pieces: readonly number[]): void {
  for (let at = 0; at < pieces.length; at += LOST_COUNT_MAX) {
    link.send({ type: "lost", channel, pieces: pieces.slice(at, at + LOST_COUNT_MAX) });
  }
}

const LOST_COUNT_MAX = 65_536;
/** More of what a neighbour wants is not listened to. */
const WANT_COUNT_MAX = 64;

function keyOf(link: Link, taskId: TaskId): string {
  return `${link.linkId}/${taskId}`;
}

function copyOf(set: PieceSet): PieceSet {
  return PieceSet.fromBytes(set.toBytes());
}
