/**
 * A host with a peer process around the shipping Swarm: turns its effects into messages, transfers and stored pieces,
 * and what comes of them into inputs, the way the real driver does. Inputs that arise while effects run wait in a queue.
 * The process may die and come back: the disk stays, all else is another life. One class because one process: links,
 * payload and tasks share its queue and its life (above 500 lines for that reason; links are the part to take out first).
 */
import type { Prng } from "../src/base/prng.ts";
import type { PeerId, TaskId } from "../src/protocol/ids.ts";
import { PieceSet } from "../src/protocol/piece-set.ts";
import { distanceOf, type Imports } from "../src/protocol/topology.ts";
import type { LinkId, Swarm, SwarmEffect, SwarmInput } from "../src/swarm/index.ts";
import { type Lies, sendsNothing, sendsRubbish } from "./lies.ts";
import { keyOf, type LinkMessage, messageBytes, SimLink, type TaskPart } from "./link-model.ts";
import type { Host } from "./host.ts";
import type { Connection } from "./network.ts";
import type { OriginReach } from "./origin-model.ts";
import { type Brain, copyOf, type PeerModelDeps } from "./peer-ports.ts";
import type { TaskShape } from "./task-shape.ts";

/** How long a dial waits for the other process's handshake. As in the real link table. */
const HANDSHAKE_US = 5_000_000;

/** The brain hears of a transfer's progress this often, and of the first byte that comes in: for what is late a finer grain says nothing more. */
const PROGRESS_US = 50_000;
/** How often the kernel is asked what it has to send: as src/peer/uplink-sampler.ts does, which is not to be imported here. */
const SAMPLE_MS = 50;
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

export class PeerModel {
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
  readonly #links = new Map<LinkId, SimLink>();
  readonly #linkOf = new Map<PeerId, SimLink>();
  readonly #dialling = new Set<PeerId>();
  readonly #queue: SwarmInput[] = [];
  /** Links with something in their outbox. */
  readonly #unsent: SimLink[] = [];
  #running = false;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #timersInRow = 0;
  #timersAtMs = -1;
  #nextLinkId = 1;
  #verifyFreeUs = 0;
  #handedBytes = 0;
  #sampledMs = Number.NEGATIVE_INFINITY;
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
  /** Whether others can open links to it: it says no; or it says yes, and they cannot. */
  reach: "open" | "closed" | "walled" = "open";
  /** It has hardly any memory for what comes in. */
  isShort = false;
  readonly counters = { wastedBytes: 0, messages: 0, wakeUps: 0 };

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

  get linkedPeers(): readonly PeerId[] {
    return [...this.#linkOf.keys()];
  }

  /** Whether both take part in the task on a link between them. */
  isJoinedWith(other: PeerModel, task: TaskShape): boolean {
    const link = this.#linkOf.get(other.peerId);
    const back = other.#linkOf.get(this.peerId);
    return link !== undefined && link.connection === back?.connection && link.parts[task.index]?.joined === true && back.parts[task.index]?.joined === true;
  }

  /** Whether a neighbour holds the piece; one that cannot be reached is one as long as its link stands. */
  isHeldNearby(task: TaskShape, piece: number): boolean {
    return this.linkedPeers.some((peerId) => this.#deps.find(peerId)?.diskOf(task).has(piece) === true);
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
    if (here.open) this.#feed({ type: "importsAssigned", taskId: task.taskId, imports });
  }

  #openTask(here: TaskHere): void {
    if (here.open) return;
    here.open = true;
    const { taskId, pieceCount, pieceLengthBytes, priority } = here.shape;
    const have = PieceSet.fromBytes(here.disk.toBytes());
    this.#feed({ type: "taskOpened", taskId, pieceCount: here.knowsLength ? pieceCount : undefined, pieceLengthBytes, have, priority });
    if (here.imports.length > 0) this.#feed({ type: "importsAssigned", taskId, imports: here.imports });
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
    this.#feed({ type: "taskClosed", taskId: task.taskId });
    for (const link of this.#links.values()) {
      const part = link.parts[task.index];
      if (part === undefined) continue;
      if (part.joined) this.#send(link, { type: "leave", task });
      link.endPart(task);
    }
    this.#flush();
  }

  /** From the supernode, or a neighbour. */
  learnLength(task: TaskShape): void {
    const here = this.#at(task);
    if (here.knowsLength) return;
    here.knowsLength = true;
    if (!here.open) return;
    this.#feed({ type: "lengthKnown", taskId: task.taskId, pieceCount: task.pieceCount });
    for (const link of this.#links.values()) if (link.parts[task.index]?.joined === true) this.#send(link, { type: "length", task });
    if (!this.#running) this.#flush();
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
    this.#feed({ type: "pieceStored", taskId: task.taskId, piece });
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
    this.#feed({ type: "piecesLost", taskId: task.taskId, pieces: lost });
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
      this.#feed({ type: "readerMoved", taskId, readerId: 1, piece: after < pieceCount ? after : undefined });
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
    for (const link of this.#links.values()) link.connection.close(link.end === 0 ? [undefined, afterUs] : [afterUs, undefined]);
    this.host.crashed = true;
    this.host.frozen = false;
    this.host.inbox.length = 0;
    this.#links.clear();
    this.#linkOf.clear();
    this.#dialling.clear();
    this.#queue.length = 0;
    this.#unsent.length = 0;
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
    this.#verifyFreeUs = 0;
    this.#handedBytes = 0;
    this.#sampledMs = Number.NEGATIVE_INFINITY;
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
      const link = this.#linkOf.get(peerId);
      if (link !== undefined) this.#join(link, task);
      else if (!this.#dialling.has(peerId)) this.#dial(peerId);
    }
  }

  /** Leaves the task on the links with these peers; the links stay. */
  disconnect(task: TaskShape, peerIds: readonly PeerId[]): void {
    for (const peerId of peerIds) {
      this.#at(task).neighbours.delete(peerId);
      const link = this.#linkOf.get(peerId);
      if (link?.parts[task.index] === undefined) continue;
      this.#send(link, { type: "leave", task });
      this.#left(link, task);
    }
  }

  /** Breaks the link to a peer: both ends hear of it after `afterUs`. */
  breakLink(peerId: PeerId, afterUs: number): void {
    this.#linkOf.get(peerId)?.connection.close([afterUs, afterUs]);
  }

  /** Closes the links to those who cannot be reached: both ends have been silent for each other. */
  breakCutLinks(): void {
    for (const { peerId, connection } of this.#links.values()) {
      const other = this.#deps.find(peerId);
      if (other !== undefined && this.#deps.network.isCut(this.host, other.host)) connection.close([0, 0]);
    }
  }

  /** The path is whole again. */
  resumeLinks(): void {
    for (const link of this.#links.values()) link.connection.resume();
  }

  /** TCP, upgrade and handshake are three round trips. */
  #dial(peerId: PeerId): void {
    const { network } = this.#deps;
    this.#dialling.add(peerId);
    this.soon(network.roundTripUs * 3, () => {
      const neighbour = this.#deps.find(peerId);
      // A frozen process's kernel takes the connection, and its handshake never comes.
      const deaf = neighbour !== undefined && !neighbour.gone && (neighbour.host.frozen || neighbour.reach === "walled" || network.isCut(this.host, neighbour.host));
      if (neighbour === undefined || neighbour.gone || deaf) {
        this.soon(deaf ? HANDSHAKE_US : 0, () => this.#unreachable(peerId));
        return;
      }
      this.#dialling.delete(peerId);
      if (this.#keepsFormer(peerId, true) || neighbour.#keepsFormer(this.peerId, false)) return;
      const connection = network.connect<readonly LinkMessage[]>(this.host, neighbour.host);
      const own = this.#newLink(connection, 0, peerId);
      const other = neighbour.#newLink(connection, 1, this.peerId);
      this.#established(own);
      neighbour.#established(other);
    });
  }

  /** Both dialled: the link that the smaller id dialled stays, on both sides. A second one of the same side is newer. */
  #keepsFormer(peerId: PeerId, dialled: boolean): boolean {
    const former = this.#linkOf.get(peerId);
    return former !== undefined && (former.end === 0) !== dialled && (former.end === 0) === this.peerId < peerId;
  }

  #unreachable(peerId: PeerId): void {
    this.#dialling.delete(peerId);
    if (this.#linkOf.has(peerId)) return;
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

  #newLink(connection: Connection<readonly LinkMessage[]>, end: 0 | 1, peerId: PeerId): SimLink {
    const former = this.#linkOf.get(peerId);
    if (former !== undefined) {
      former.connection.close(former.end === 0 ? [undefined, this.#deps.network.options.delayUs] : [this.#deps.network.options.delayUs, undefined]);
      this.#closed(former);
    }
    const link = new SimLink(this.#nextLinkId++, end, peerId, connection);
    this.#links.set(link.linkId, link);
    this.#linkOf.set(peerId, link);
    return link;
  }

  #established(link: SimLink): void {
    link.connection.listen(link.end, {
      message: (messages) => {
        for (const message of messages) this.#message(link, message);
      },
      bytes: (key, bytes, last, corrupt) => this.#bytes(link, key, bytes, last, corrupt),
      closed: () => this.#closed(link),
    });
    this.#feed({ type: "linkOpened", linkId: link.linkId, peerId: link.peerId });
    const other = this.#deps.find(link.peerId);
    // Said right after the handshake, before any task is joined.
    if (other !== undefined) this.#feed({ type: "remotePlaced", linkId: link.linkId, distance: distanceOf(this.host.topology, other.host.topology) });
    for (const { shape, neighbours } of this.#here) if (neighbours.has(link.peerId)) this.#join(link, shape);
  }

  #closed(link: SimLink): void {
    if (this.#links.get(link.linkId) !== link) return;
    this.#links.delete(link.linkId);
    this.#linkOf.delete(link.peerId);
    this.#feed({ type: "linkClosed", linkId: link.linkId });
    const { peerId } = link;
    for (const { shape, open, neighbours } of this.#here) if (open && neighbours.has(peerId)) this.#feed({ type: "neighbourLost", taskId: shape.taskId, peerId });
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
    this.#send(link, { type: "join", task, have: told, seed: this.seed, wants: this.#swarm.wanted(task.taskId) });
    if (this.#deps.lateLengths && here.knowsLength) this.#send(link, { type: "length", task });
    if (!this.#running) this.#flush();
  }

  #left(link: SimLink, task: TaskShape): void {
    link.endPart(task);
    this.#feed({ type: "remoteLeft", linkId: link.linkId, taskId: task.taskId });
  }

  /** What one turn says to one neighbour goes in one packet. */
  #send(link: SimLink, message: LinkMessage): void {
    this.counters.messages++;
    link.outbox.push(message);
    if (link.outbox.length === 1) this.#unsent.push(link);
  }

  #flush(): void {
    for (const link of this.#unsent) {
      const { outbox } = link;
      link.outbox = [];
      this.counters.wakeUps++;
      let bytes = 0;
      for (const message of outbox) bytes += messageBytes(message);
      link.connection.send(link.end, outbox, bytes);
    }
    this.#unsent.length = 0;
  }

  #message(link: SimLink, message: LinkMessage): void {
    const { linkId } = link;
    if (this.#links.get(linkId) !== link) return;
    if (message.type === "status") {
      return this.#feed({ type: "remoteStatus", linkId, incoming: message.incoming, capacity: message.capacity });
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
        return this.#feed({ type: "remoteHas", linkId, taskId, pieces: message.pieces });
      case "lost":
        return this.#feed({ type: "remoteLost", linkId, taskId, pieces: message.pieces });
      case "want":
        return this.#feed({ type: "remoteWants", linkId, taskId, pieces: message.pieces });
      case "imports":
        return this.#feed({ type: "remoteImports", linkId, taskId, buckets: message.buckets });
      case "offer":
        return this.#feed({ type: "offered", linkId, taskId, pieces: message.pieces });
      case "accept":
        return this.#feed({ type: "offerAccepted", linkId, taskId, piece: message.piece });
      case "decline":
        return this.#feed({ type: "offerDeclined", linkId, taskId, piece: message.piece, reason: message.reason });
      case "cancel":
        this.#stopSend(link, part, task, message.piece);
        return this.#feed({ type: "sendCancelled", linkId, taskId, piece: message.piece });
      case "withdraw":
        part.accepted.delete(message.piece);
        return this.#feed({ type: "receiveCancelled", linkId, taskId, piece: message.piece });
    }
  }

  #remoteJoined(link: SimLink, { task, have, seed, wants }: Extract<LinkMessage, { type: "join" }>): void {
    const here = this.#at(task);
    if (here.asleep) {
      // What else comes on the link meanwhile waits for it, too: nothing is said before this join is answered.
      this.soon(OPEN_US, () => {
        if (this.#links.get(link.linkId) !== link || (!here.asleep && !here.open)) return;
        here.asleep = false;
        this.#openTask(here);
        this.#remoteJoined(link, { type: "join", task, have, seed, wants });
        this.#flush();
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
      if (since.length > 0) this.#send(link, { type: "have", task, pieces: since });
      const lost = [...told].filter((piece) => !here.disk.has(piece));
      if (lost.length > 0) this.#send(link, { type: "lost", task, pieces: lost });
    }
    part.toldHave = undefined;
    this.#feed({ type: "remoteJoined", linkId: link.linkId, taskId: task.taskId, have: PieceSet.fromBytes(have), seed, receives: true, wants });
  }

  // ── Payload ───────────────────────────────────────────────────────────────────────────────────────────────────

  #startSend(link: SimLink, part: TaskPart, task: TaskShape, piece: number): void {
    this.#deps.oracles.sending(this, task, piece);
    if (sendsNothing(this.lies, this.#prng)) return;
    const { taskId } = task;
    const { linkId } = link;
    part.sends.add(piece);
    let toldUs = this.#deps.world.nowUs;
    let untoldBytes = 0;
    link.connection.startTransfer(link.end, keyOf(task, piece), task.lengthOf(piece), sendsRubbish(this.lies, this.#prng), {
      handed: (_key, bytes, last) => {
        if (this.gone) return;
        this.#handedBytes += bytes;
        untoldBytes += bytes;
        if (last) part.sends.delete(piece);
        const { nowUs } = this.#deps.world;
        if (last || nowUs - toldUs >= PROGRESS_US) {
          toldUs = nowUs;
          this.#feed({ type: "sendProgressed", linkId, taskId, piece, bytes: untoldBytes });
          untoldBytes = 0;
        }
        if (!last) return;
        this.#sampleUplink();
        this.#feed({ type: "sendFinished", linkId, taskId, piece });
      },
    });
  }

  #sampleUplink(): void {
    const { nowMs } = this.#deps.world;
    if (this.#deps.network.options.socketBytes === 0 || nowMs - this.#sampledMs < SAMPLE_MS) return;
    this.#sampledMs = nowMs;
    const links = [...this.#links.values()].map(({ connection, end }) => connection.kernelQueue(end)).filter((queue) => queue !== undefined);
    this.#feed({ type: "uplinkSampled", handedBytes: this.#handedBytes, links: links.filter(({ heldBytes }) => heldBytes > 0) });
  }

  #stopSend(link: SimLink, part: TaskPart, task: TaskShape, piece: number): void {
    if (part.sends.delete(piece)) link.connection.stopTransfer(link.end, keyOf(task, piece));
  }

  #bytes(link: SimLink, key: number, bytes: number, last: boolean, corrupt: boolean): void {
    const task = this.#deps.tasks[Math.floor(key / 2 ** 20)] as TaskShape;
    const piece = key % 2 ** 20;
    const part = link.parts[task.index];
    if (part?.accepted.has(piece) !== true) {
      this.counters.wastedBytes += bytes;
      this.#feed({ type: "strayReceived", linkId: link.linkId, bytes });
      return;
    }
    const { taskId } = task;
    const { linkId } = link;
    const { nowUs } = this.#deps.world;
    const arrival = part.arrivals.get(piece);
    if (arrival === undefined || nowUs - arrival.toldUs >= PROGRESS_US) {
      this.#feed({ type: "receiveProgressed", linkId, taskId, piece, bytes: bytes + (arrival?.untoldBytes ?? 0) });
      if (arrival !== undefined) {
        arrival.toldUs = nowUs;
        arrival.untoldBytes = 0;
      }
    } else arrival.untoldBytes += bytes;
    if (!last) {
      if (arrival === undefined) part.arrivals.set(piece, { bytes, untoldBytes: 0, toldUs: nowUs });
      else arrival.bytes += bytes;
      return;
    }
    part.arrivals.delete(piece);
    part.accepted.delete(piece);
    this.#feed({ type: "receiveFinished", linkId, taskId, piece });
    // One piece is hashed and written at a time.
    const { world, verifyBytesPerSecond } = this.#deps;
    this.#verifyFreeUs = Math.max(this.#verifyFreeUs, world.nowUs) + (task.lengthOf(piece) * 1e6) / verifyBytesPerSecond;
    this.soon(this.#verifyFreeUs - world.nowUs, () => this.#verified(linkId, task, piece, corrupt));
  }

  #verified(linkId: LinkId, task: TaskShape, piece: number, corrupt: boolean): void {
    const { taskId } = task;
    if (!this.#at(task).open) return;
    if (this.#at(task).disk.has(piece)) this.counters.wastedBytes += task.lengthOf(piece);
    if (corrupt) this.#feed({ type: "pieceRejected", taskId, piece, linkId });
    else if (this.diskFull) this.#feed({ type: "pieceLost", taskId, piece });
    else this.store(task, piece);
  }

  // ── The brain ─────────────────────────────────────────────────────────────────────────────────────────────────

  #feed(input: SwarmInput): void {
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
    this.#flush();
    this.#arm();
  }

  #execute(effect: SwarmEffect): void {
    if (effect.type === "needNeighbours") {
      return this.#deps.control.needNeighbours(this, this.#open(effect.taskId).shape, effect.useless);
    }
    const link = this.#links.get(effect.linkId);
    if (link === undefined) return;
    if (effect.type === "sendStatus") {
      return this.#send(link, { type: "status", incoming: effect.incoming, capacity: effect.capacity });
    }
    const { shape: task } = this.#open(effect.taskId);
    const part = link.parts[task.index];
    if (part === undefined) return;
    switch (effect.type) {
      case "isolate":
        return this.#deps.control.accuse(this, link.peerId, task, effect.piece);
      case "sendHave":
        return this.#send(link, { type: "have", task, pieces: effect.pieces });
      case "sendLost":
        return this.#send(link, { type: "lost", task, pieces: effect.pieces });
      case "sendWant":
        return this.#send(link, { type: "want", task, pieces: effect.pieces });
      case "sendImports":
        return this.#send(link, { type: "imports", task, buckets: effect.buckets });
      case "sendOffer":
        for (const piece of effect.pieces) this.#deps.oracles.offered(this, task, piece);
        return this.#send(link, { type: "offer", task, pieces: effect.pieces });
      case "sendAccept":
        if (this.isShort && this.#prng.below(4) > 0) {
          this.#send(link, { type: "decline", task, piece: effect.piece, reason: "busy" });
          return this.#feed({ type: "receiveRefused", linkId: link.linkId, taskId: task.taskId, piece: effect.piece, busy: true });
        }
        part.accepted.add(effect.piece);
        part.arrivals.delete(effect.piece);
        return this.#send(link, { type: "accept", task, piece: effect.piece });
      case "sendDecline":
        this.#deps.oracles.declined(effect.reason);
        return this.#send(link, { type: "decline", task, piece: effect.piece, reason: effect.reason });
      case "cancelReceive":
        this.counters.wastedBytes += part.arrivals.get(effect.piece)?.bytes ?? 0;
        part.arrivals.delete(effect.piece);
        part.accepted.delete(effect.piece);
        return this.#send(link, { type: "cancel", task, piece: effect.piece });
      case "cancelSend":
        this.#stopSend(link, part, task, effect.piece);
        return this.#send(link, { type: "withdraw", task, piece: effect.piece });
      case "startSend":
        return this.#startSend(link, part, task, effect.piece);
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
    this.#feed({ type: "deadlineReached" });
  }
}
