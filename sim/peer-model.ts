/**
 * A host with a peer process around the shipping Swarm: turns its effects into messages, transfers and stored pieces,
 * and what comes of them into inputs, the way the real driver does. Inputs that arise while effects run wait in a queue.
 * The process may die and come back: the disk stays, all else is another life. Its links and its payload have files of their own.
 */
import type { Prng } from "../src/base/prng.ts";
import type { PeerId, TaskId } from "../src/protocol/ids.ts";
import { PieceSet } from "../src/protocol/piece-set.ts";
import { distanceOf, type Imports } from "../src/protocol/topology.ts";
import type { LinkId, Swarm, SwarmEffect, SwarmInput } from "../src/swarm/index.ts";
import type { Host } from "./host.ts";
import type { Lies } from "./lies.ts";
import type { LinkMessage, SimLink } from "./link-model.ts";
import type { OriginReach } from "./origin-model.ts";
import { type LinkOwner, PeerLinks, type Reach } from "./peer-links.ts";
import { type PayloadOwner, PeerPayload } from "./peer-payload.ts";
import { type Brain, copyOf, type PeerModelDeps } from "./peer-ports.ts";
import type { TaskShape } from "./task-shape.ts";

/** The supernode is told of neighbours that cannot be reached once in so long. As in the real peer. */
const TELL_GONE_US_MIN = 1_000_000;
/** From the supernode's answer until the files are open and the brain takes part. */
const OPEN_US = 2_000;

interface TaskHere {
  readonly shape: TaskShape;
  /** Somebody here wants it: the supernode is asked for it, and it is open once that has answered. */
  wanted: boolean;
  /** What is verified and on disk: the truth that the oracles go by. */
  readonly disk: PieceSet;
  /** How long the file is: on disk, too. */
  knowsLength: boolean;
  /** The brain takes part. */
  open: boolean;
  /** All of it is here and nobody here reads it: it is closed, and opened when a neighbour asks. */
  asleep: boolean;
  /** It has less than its last join said: it joins again once it is open, as the real one does whenever it has something. */
  saidTooMuch: boolean;
  /** Whom the supernode gave: the task is joined on the link to each of them once it is there. */
  readonly neighbours: Set<PeerId>;
  /** Neighbours that could not be reached, of which the supernode is told next, and when it was last. */
  readonly gone: PeerId[];
  goneToldUs: number;
  imports: readonly Imports[];
  startedUs: number | undefined;
  finishedUs: number | undefined;
  /** Pieces an in-order reader has had; undefined: nobody reads. */
  readCount: number | undefined;
}

export class PeerModel implements LinkOwner, PayloadOwner {
  readonly #name: string;
  readonly host: Host;
  readonly seed: boolean;
  readonly lies: Lies | undefined;
  readonly #deps: PeerModelDeps;
  readonly #prng: Prng;
  readonly #here: readonly TaskHere[];
  #swarm: Brain;
  /** Counts processes: what belongs to a former one is lost. */
  life = 0;
  swarmSeed: number;
  readonly links: PeerLinks;
  readonly payload: PeerPayload;
  readonly #queue: SwarmInput[] = [];
  #running = false;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #timersInRow = 0;
  #timersAtMs = -1;
  /** The disk takes nothing. */
  diskFull = false;
  /** It was stopped, killed or slowed for a while, so that its own time says nothing. */
  disturbed = false;
  /** How it gets on with the origin, should it be asked to read. */
  originReach: OriginReach = "good";
  /** It left for good, in good order. */
  left = false;
  /** It wants nothing itself, and takes what others take. */
  readonly keeper: boolean;
  reach: Reach = "open";
  /** It has hardly any memory for what comes in. */
  isShort = false;

  constructor(
    deps: PeerModelDeps,
    options: { readonly name: string; readonly host: Host; readonly seed: boolean; readonly full: boolean; readonly prng: Prng; readonly lies?: Lies | undefined; readonly keeper?: boolean },
  ) {
    this.#deps = deps;
    this.#name = options.name;
    this.host = options.host;
    this.seed = options.seed;
    this.lies = options.lies;
    this.keeper = options.keeper === true;
    this.#prng = options.prng;
    this.swarmSeed = options.prng.nextUint32() | 0;
    this.#swarm = deps.newBrain(deps.swarm, this.swarmSeed);
    this.links = new PeerLinks(this, deps.network, deps.find);
    this.payload = new PeerPayload(this, deps, options.prng);
    this.#here = deps.tasks.map((shape) => ({
      shape,
      disk: options.full ? PieceSet.full(shape.pieceCount) : new PieceSet(shape.pieceCount),
      wanted: false,
      knowsLength: !deps.lateLengths || options.full,
      open: false,
      asleep: false,
      saidTooMuch: false,
      gone: [],
      goneToldUs: Number.NEGATIVE_INFINITY,
      neighbours: new Set<PeerId>(),
      imports: [],
      startedUs: undefined,
      finishedUs: undefined,
      readCount: undefined,
    }));
  }

  /** Each process has its own. */
  get peerId(): PeerId {
    return (this.life === 0 ? this.#name : `${this.#name}.${this.life}`) as PeerId;
  }

  /** The process is dead. */
  get gone(): boolean {
    return this.host.crashed;
  }

  /** It wants files, means it, and is there to get them. */
  get owed(): boolean {
    return !this.seed && !this.keeper && !this.gone && !this.left && this.lies === undefined;
  }

  get complete(): boolean {
    return this.#here.every(({ shape, disk, knowsLength }) => disk.count >= shape.pieceCount && knowsLength);
  }

  get startedUs(): number | undefined {
    return this.#here[0]?.startedUs;
  }

  /** When the last of its tasks was whole. */
  get finishedUs(): number | undefined {
    return this.complete ? Math.max(...this.#here.map(({ finishedUs }) => finishedUs ?? 0)) : undefined;
  }

  finishedTaskUs(task: TaskShape): number | undefined {
    return this.#at(task).finishedUs;
  }

  isWanted(task: TaskShape): boolean {
    return this.#at(task).wanted;
  }

  knowsLength(task: TaskShape): boolean {
    return this.#at(task).knowsLength;
  }

  isAsleep(task: TaskShape): boolean {
    return this.#at(task).asleep;
  }

  diskOf(task: TaskShape): PieceSet {
    return this.#at(task).disk;
  }

  snapshot(): ReturnType<Swarm["snapshot"]> {
    return this.#swarm.snapshot();
  }

  nextDeadlineMs(): number | undefined {
    return this.#swarm.nextDeadlineMs();
  }

  /** Whether both take part in the task on a link between them. */
  isJoinedWith(other: PeerModel, task: TaskShape): boolean {
    const link = this.links.to(other.peerId);
    const back = other.links.to(this.peerId);
    return link !== undefined && link.connection === back?.connection && link.parts[task.index]?.joined === true && back.parts[task.index]?.joined === true;
  }

  /** Whether a neighbour holds the piece; one that cannot be reached is one as long as its link stands. */
  isHeldNearby(task: TaskShape, piece: number): boolean {
    return this.links.peerIds.some((peerId) => this.#deps.find(peerId)?.diskOf(task).has(piece) === true);
  }

  // ── Tasks ─────────────────────────────────────────────────────────────────────────────────────────────────────

  want(task: TaskShape): void {
    const here = this.#at(task);
    here.wanted = true;
    here.asleep = false;
    here.startedUs ??= this.#deps.world.nowUs;
    // A seed's files are open before anybody is told of it.
    if (this.seed) this.#openTask(here);
  }

  /** The supernode's answer to a join. */
  assigned(task: TaskShape, neighbours: readonly PeerId[], imports: readonly Imports[]): void {
    const here = this.#at(task);
    if (here.asleep) return;
    this.assignImports(task, imports);
    if (here.open) return this.connect(task, neighbours);
    this.soon(OPEN_US, () => {
      if (!here.wanted || here.asleep) return;
      this.#openTask(here);
      this.connect(task, neighbours);
      if (!here.saidTooMuch) return;
      here.saidTooMuch = false;
      this.#deps.control.join(this, task);
    });
  }

  assignImports(task: TaskShape, imports: readonly Imports[]): void {
    const here = this.#at(task);
    here.imports = imports;
    if (here.open) this.feed({ type: "importsAssigned", taskId: task.taskId, imports });
  }

  #openTask(here: TaskHere): void {
    if (here.open) return;
    here.open = true;
    const { taskId, pieceCount, pieceLengthBytes, priority } = here.shape;
    const have = PieceSet.fromBytes(here.disk.toBytes());
    this.feed({ type: "taskOpened", taskId, pieceCount: here.knowsLength ? pieceCount : undefined, pieceLengthBytes, have, priority });
    if (here.imports.length > 0) this.feed({ type: "importsAssigned", taskId, imports: here.imports });
    if (!this.#deps.readers || this.seed) return;
    here.readCount = 0;
    this.#read(here);
  }

  closeTask(task: TaskShape): void {
    const here = this.#at(task);
    here.wanted = false;
    here.asleep = false;
    this.#shutTask(here);
  }

  /** Nobody here reads what is whole: the supernode is told nothing. */
  sleep(task: TaskShape): void {
    const here = this.#at(task);
    if (!here.open || here.disk.count < task.pieceCount || !here.knowsLength) return;
    this.#shutTask(here);
    here.asleep = true;
  }

  #shutTask(here: TaskHere): void {
    if (!here.open) return;
    const { shape: task } = here;
    here.open = false;
    here.readCount = undefined;
    here.neighbours.clear();
    this.feed({ type: "taskClosed", taskId: task.taskId });
    for (const link of this.links.all) {
      const part = link.parts[task.index];
      if (part === undefined) continue;
      if (part.joined) this.links.send(link, { type: "leave", task });
      link.endPart(task);
    }
    this.links.flush();
  }

  /** From the supernode, or a neighbour. */
  learnLength(task: TaskShape): void {
    const here = this.#at(task);
    if (here.knowsLength) return;
    here.knowsLength = true;
    if (!here.open) return;
    this.feed({ type: "lengthKnown", taskId: task.taskId, pieceCount: task.pieceCount });
    for (const link of this.links.all) if (link.parts[task.index]?.joined === true) this.links.send(link, { type: "length", task });
    if (!this.#running) this.links.flush();
    this.#deps.control.stored(this, task);
  }

  /** The piece is here and verified, from the origin or from a link. */
  store(task: TaskShape, piece: number): void {
    const here = this.#at(task);
    if (here.disk.has(piece)) this.#deps.oracles.storedTwiceCount++;
    else {
      here.disk.add(piece);
      if (here.disk.count >= task.pieceCount) here.finishedUs = this.#deps.world.nowUs;
    }
    this.feed({ type: "pieceStored", taskId: task.taskId, piece });
    if (here.readCount !== undefined) this.#read(here);
    this.#deps.control.stored(this, task);
  }

  /** These pieces are on its disk no longer. */
  lose(task: TaskShape, pieces: readonly number[]): void {
    const here = this.#at(task);
    const lost = pieces.filter((piece) => here.disk.delete(piece));
    if (lost.length === 0) return;
    if (!here.open && !here.asleep) {
      here.saidTooMuch = true;
      return;
    }
    if (here.asleep) {
      // Somebody reads it again, or nobody would have looked at it.
      here.asleep = false;
      return this.#deps.control.join(this, task);
    }
    this.feed({ type: "piecesLost", taskId: task.taskId, pieces: lost });
    this.#deps.control.lost(this, task);
    // Where all had everything no seed takes part any more: who joins again brings it back.
    if (!this.seed) this.#deps.control.join(this, task);
  }

  /** The reader takes all that is there in order, then waits for the next. */
  #read(here: TaskHere): void {
    const { taskId, pieceCount } = here.shape;
    const before = here.readCount as number;
    const after = here.disk.firstMissing(before);
    for (let piece = before; piece < Math.min(after, pieceCount); piece++) this.#deps.oracles.delivered(this, here.shape, piece);
    here.readCount = Math.min(after, pieceCount);
    if (after > before || before === 0) {
      this.feed({ type: "readerMoved", taskId, readerId: 1, piece: after < pieceCount ? after : undefined });
    }
  }

  #at(task: TaskShape): TaskHere {
    return this.#here[task.index] as TaskHere;
  }

  #open(taskId: TaskId): TaskHere {
    for (const here of this.#here) if (here.shape.taskId === taskId) return here;
    throw new Error(`${this.peerId}'s brain speaks of task ${taskId}, which nobody told it of`);
  }

  // ── Life and death ────────────────────────────────────────────────────────────────────────────────────────────

  /** The process is gone: the others hear of it after `afterUs`. */
  crash(afterUs: number): void {
    this.links.die(afterUs);
    this.host.crashed = true;
    this.host.frozen = false;
    this.host.inbox.length = 0;
    this.#queue.length = 0;
    this.life++;
    for (const here of this.#here) {
      here.wanted = false;
      here.open = false;
      here.asleep = false;
      here.saidTooMuch = false;
      here.gone.length = 0;
      here.neighbours.clear();
      here.readCount = undefined;
    }
  }

  /** Another process on the same disk; its tasks are to be opened. */
  revive(): void {
    this.host.crashed = false;
    this.swarmSeed = this.#prng.nextUint32() | 0;
    this.#swarm = this.#deps.newBrain(this.#deps.swarm, this.swarmSeed);
    this.#timerDueMs = Number.POSITIVE_INFINITY;
    this.payload.reset();
  }

  /** Runs `act` after `delayUs` in this process: never if it is gone by then, later if it is frozen. */
  soon(delayUs: number, act: () => void): void {
    const { life } = this;
    this.#deps.world.after(delayUs, () => {
      if (life !== this.life) return;
      this.#deps.network.hand(this.host, () => {
        if (life === this.life) act();
      });
    });
  }

  // ── Links ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Takes part in the task with these peers: over the link that is there, or over a new one. */
  connect(task: TaskShape, neighbours: readonly PeerId[]): void {
    const here = this.#at(task);
    if (!here.open) return;
    for (const peerId of neighbours) {
      if (peerId === this.peerId) continue;
      here.neighbours.add(peerId);
      const link = this.links.to(peerId);
      if (link === undefined) this.links.dial(peerId);
      else this.#join(link, task);
    }
  }

  /** Leaves the task on the links with these peers; the links stay. */
  disconnect(task: TaskShape, peerIds: readonly PeerId[]): void {
    for (const peerId of peerIds) {
      this.#at(task).neighbours.delete(peerId);
      const link = this.links.to(peerId);
      if (link?.parts[task.index] === undefined) continue;
      this.links.send(link, { type: "leave", task });
      this.#left(link, task);
    }
  }

  unreachable(peerId: PeerId): void {
    for (const here of this.#here) {
      if (!here.neighbours.delete(peerId)) continue;
      const { nowUs } = this.#deps.world;
      here.gone.push(peerId);
      if (here.gone.length === 1) this.soon(Math.max(0, here.goneToldUs + TELL_GONE_US_MIN - nowUs), () => this.#tellGone(here));
    }
  }

  #tellGone(here: TaskHere): void {
    here.goneToldUs = this.#deps.world.nowUs;
    this.#deps.control.needNeighbours(this, here.shape, here.gone.splice(0));
  }

  linkOpened(link: SimLink): void {
    this.feed({ type: "linkOpened", linkId: link.linkId, peerId: link.peerId });
    const other = this.#deps.find(link.peerId);
    // Said right after the handshake, before any task is joined.
    if (other !== undefined) this.feed({ type: "remotePlaced", linkId: link.linkId, distance: distanceOf(this.host.topology, other.host.topology) });
    for (const { shape, neighbours } of this.#here) if (neighbours.has(link.peerId)) this.#join(link, shape);
  }

  linkClosed(link: SimLink): void {
    this.feed({ type: "linkClosed", linkId: link.linkId });
    const { peerId } = link;
    for (const { shape, open, neighbours } of this.#here) if (open && neighbours.has(peerId)) this.feed({ type: "neighbourLost", taskId: shape.taskId, peerId });
  }

  #join(link: SimLink, task: TaskShape): void {
    const here = this.#at(task);
    if (!here.open) return;
    const part = link.part(task);
    if (part.joined) return;
    part.joined = true;
    const have = here.disk.toBytes();
    part.toldHave = PieceSet.fromBytes(have);
    const told = this.lies?.boasts === true ? PieceSet.full(task.pieceCount).toBytes() : have;
    this.links.send(link, { type: "join", task, have: told, seed: this.seed, wants: this.#swarm.wanted(task.taskId) });
    if (this.#deps.lateLengths && here.knowsLength) this.links.send(link, { type: "length", task });
    if (!this.#running) this.links.flush();
  }

  #left(link: SimLink, task: TaskShape): void {
    link.endPart(task);
    this.feed({ type: "remoteLeft", linkId: link.linkId, taskId: task.taskId });
  }

  messageCame(link: SimLink, message: LinkMessage): void {
    const { linkId } = link;
    if (message.type === "status") {
      return this.feed({ type: "remoteStatus", linkId, incoming: message.incoming, capacity: message.capacity });
    }
    const { task } = message;
    const { taskId } = task;
    const part = link.parts[task.index];
    if (message.type === "join") return this.#remoteJoined(link, message);
    if (part === undefined) return;
    switch (message.type) {
      case "leave":
        // Our own part ends with theirs, so that a later join starts afresh on both sides.
        return this.#left(link, task);
      case "length":
        return this.learnLength(task);
      case "have":
        return this.feed({ type: "remoteHas", linkId, taskId, pieces: message.pieces });
      case "lost":
        return this.feed({ type: "remoteLost", linkId, taskId, pieces: message.pieces });
      case "want":
        return this.feed({ type: "remoteWants", linkId, taskId, pieces: message.pieces });
      case "imports":
        return this.feed({ type: "remoteImports", linkId, taskId, buckets: message.buckets });
      case "offer":
        return this.feed({ type: "offered", linkId, taskId, pieces: message.pieces });
      case "accept":
        return this.feed({ type: "offerAccepted", linkId, taskId, piece: message.piece });
      case "decline":
        return this.feed({ type: "offerDeclined", linkId, taskId, piece: message.piece, reason: message.reason });
      case "cancel":
        this.payload.stopSend(link, part, task, message.piece);
        return this.feed({ type: "sendCancelled", linkId, taskId, piece: message.piece });
      case "withdraw":
        part.accepted.delete(message.piece);
        return this.feed({ type: "receiveCancelled", linkId, taskId, piece: message.piece });
    }
  }

  #remoteJoined(link: SimLink, { task, have, seed, wants }: Extract<LinkMessage, { type: "join" }>): void {
    const here = this.#at(task);
    if (here.asleep) {
      // What else comes on the link meanwhile waits for it, too: nothing is said before this join is answered.
      this.soon(OPEN_US, () => {
        if (this.links.get(link.linkId) !== link || (!here.asleep && !here.open)) return;
        here.asleep = false;
        this.#openTask(here);
        this.#remoteJoined(link, { type: "join", task, have, seed, wants });
        this.links.flush();
      });
      return;
    }
    if (!here.open) return;
    const part = link.part(task);
    if (!part.joined) this.#join(link, task);
    else if (part.toldHave !== undefined) {
      // Pieces stored since our join were announced to nobody on this link: the brain did not know of it yet.
      const told = part.toldHave;
      const since = [...here.disk].filter((piece) => !told.has(piece));
      if (since.length > 0) this.links.send(link, { type: "have", task, pieces: since });
      const lost = [...told].filter((piece) => !here.disk.has(piece));
      if (lost.length > 0) this.links.send(link, { type: "lost", task, pieces: lost });
    }
    part.toldHave = undefined;
    this.feed({ type: "remoteJoined", linkId: link.linkId, taskId: task.taskId, have: PieceSet.fromBytes(have), seed, receives: true, wants });
  }

  // ── Payload ───────────────────────────────────────────────────────────────────────────────────────────────────

  bytesCame(link: SimLink, key: number, bytes: number, last: boolean, corrupt: boolean): void {
    this.payload.came(link, key, bytes, last, corrupt);
  }

  verified(linkId: LinkId, task: TaskShape, piece: number, corrupt: boolean): void {
    const { taskId } = task;
    if (!this.#at(task).open) return;
    if (this.#at(task).disk.has(piece)) this.payload.wastedBytes += task.lengthOf(piece);
    if (corrupt) this.feed({ type: "pieceRejected", taskId, piece, linkId });
    else if (this.diskFull) this.feed({ type: "pieceLost", taskId, piece });
    else this.store(task, piece);
  }

  // ── The brain ─────────────────────────────────────────────────────────────────────────────────────────────────

  feed(input: SwarmInput): void {
    if (this.gone) return;
    this.#queue.push(input);
    if (this.#running) return;
    this.#running = true;
    const { nowMs } = this.#deps.world;
    for (let at = 0; at < this.#queue.length; at++) {
      const next = this.#queue[at] as SwarmInput;
      const recorded = this.#deps.record === undefined ? next : copyOf(next);
      const effects = this.#swarm.step(next, nowMs);
      this.#deps.record?.(this, recorded, nowMs, effects);
      for (const effect of effects) this.#execute(effect);
    }
    this.#queue.length = 0;
    this.#running = false;
    this.links.flush();
    this.#arm();
  }

  #execute(effect: SwarmEffect): void {
    if (effect.type === "needNeighbours") {
      return this.#deps.control.needNeighbours(this, this.#open(effect.taskId).shape, effect.useless);
    }
    const link = this.links.get(effect.linkId);
    if (link === undefined) return;
    if (effect.type === "sendStatus") {
      return this.links.send(link, { type: "status", incoming: effect.incoming, capacity: effect.capacity });
    }
    const { shape: task } = this.#open(effect.taskId);
    const part = link.parts[task.index];
    if (part === undefined) return;
    switch (effect.type) {
      case "isolate":
        return this.#deps.control.accuse(this, link.peerId, task, effect.piece);
      case "sendHave":
        return this.links.send(link, { type: "have", task, pieces: effect.pieces });
      case "sendLost":
        return this.links.send(link, { type: "lost", task, pieces: effect.pieces });
      case "sendWant":
        return this.links.send(link, { type: "want", task, pieces: effect.pieces });
      case "sendImports":
        return this.links.send(link, { type: "imports", task, buckets: effect.buckets });
      case "sendOffer":
        for (const piece of effect.pieces) this.#deps.oracles.offered(this, task, piece);
        return this.links.send(link, { type: "offer", task, pieces: effect.pieces });
      case "sendAccept":
        if (this.isShort && this.#prng.below(4) > 0) {
          this.links.send(link, { type: "decline", task, piece: effect.piece, reason: "busy" });
          return this.feed({ type: "receiveRefused", linkId: link.linkId, taskId: task.taskId, piece: effect.piece, busy: true });
        }
        this.payload.accept(part, effect.piece);
        return this.links.send(link, { type: "accept", task, piece: effect.piece });
      case "sendDecline":
        this.#deps.oracles.declined(effect.reason);
        return this.links.send(link, { type: "decline", task, piece: effect.piece, reason: effect.reason });
      case "cancelReceive":
        this.payload.cancel(part, effect.piece);
        return this.links.send(link, { type: "cancel", task, piece: effect.piece });
      case "cancelSend":
        this.payload.stopSend(link, part, task, effect.piece);
        return this.links.send(link, { type: "withdraw", task, piece: effect.piece });
      case "startSend":
        this.#deps.oracles.sending(this, task, effect.piece);
        return this.payload.startSend(link, part, task, effect.piece);
    }
  }

  /** One timer, at the earliest deadline asked for; what turns out later is waited for anew when it runs. */
  #arm(): void {
    const dueMs = this.#swarm.nextDeadlineMs();
    if (dueMs === undefined || dueMs >= this.#timerDueMs) return;
    this.#timerDueMs = dueMs;
    const { life } = this;
    this.#deps.world.at(dueMs * 1000, () => {
      if (life === this.life && this.#timerDueMs === dueMs) this.#timerRan();
    });
  }

  #timerRan(): void {
    if (this.gone) return;
    if (this.host.frozen) {
      const { life } = this;
      this.host.inbox.push(() => {
        if (life === this.life) this.#timerRan();
      });
      return;
    }
    this.#timerDueMs = Number.POSITIVE_INFINITY;
    const { nowMs } = this.#deps.world;
    if ((this.#swarm.nextDeadlineMs() ?? Number.POSITIVE_INFINITY) > nowMs) return this.#arm();
    this.#timersInRow = nowMs === this.#timersAtMs ? this.#timersInRow + 1 : 0;
    this.#timersAtMs = nowMs;
    if (this.#timersInRow > 100) throw new Error(`${this.peerId} owes itself a deadline again and again at ${nowMs} ms`);
    this.feed({ type: "deadlineReached" });
  }
}
