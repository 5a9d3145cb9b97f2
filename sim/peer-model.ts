/**
 * A peer process around the shipping Swarm: turns its effects into messages, transfers and stored pieces, and what
 * comes of them into inputs, the way the real driver does. Inputs that arise while effects run wait in a queue.
 */
import { PieceSet } from "../src/protocol/piece-set.ts";
import type { DeclineReason } from "../src/protocol/link-frames.ts";
import type { PeerId, TaskId } from "../src/protocol/ids.ts";
import { Swarm, type LinkId, type SwarmConfig, type SwarmEffect, type SwarmInput } from "../src/swarm/index.ts";
import type { Connection, Host, Network } from "./network.ts";
import type { Oracles } from "./oracles.ts";
import type { World } from "./world.ts";

export interface TaskShape {
  readonly taskId: TaskId;
  readonly lengthBytes: number;
  readonly pieceLengthBytes: number;
  readonly pieceCount: number;
}

export type LinkMessage =
  | { readonly type: "join"; readonly have: Uint8Array; readonly seed: boolean }
  | { readonly type: "leave" }
  | { readonly type: "have" | "want"; readonly pieces: readonly number[] }
  | { readonly type: "status"; readonly incoming: number; readonly capacity: number }
  | { readonly type: "offer"; readonly pieces: readonly number[] }
  | { readonly type: "accept" | "cancel" | "withdraw"; readonly piece: number }
  | { readonly type: "decline"; readonly piece: number; readonly reason: DeclineReason };

/** One end of a link. */
interface Link {
  readonly linkId: LinkId;
  readonly end: 0 | 1;
  readonly peerId: PeerId;
  readonly connection: Connection<LinkMessage>;
  /** What our join told the other side, until it has joined too; undefined before we joined and after. */
  toldHave: PieceSet | undefined;
  joined: boolean;
  /** False while it is being dialled. */
  opened: boolean;
  /** Pieces of ours on the wire. */
  readonly sends: Set<number>;
  lastSendUs: number;
  /** Bytes of accepted pieces that have come. */
  readonly arrivals: Map<number, number>;
  /** Pieces accepted and not given up: bytes of others are dropped. */
  readonly accepted: Set<number>;
}

export interface PeerModelDeps {
  readonly world: World;
  readonly network: Network;
  readonly oracles: Oracles;
  readonly task: TaskShape;
  readonly swarm: SwarmConfig;
  /** Time to verify and store one piece. */
  readonly verifyUs: (bytes: number) => number;
  readonly needNeighbours: (peer: PeerModel, useless: readonly PeerId[]) => void;
  readonly accuse: (peer: PeerModel, accused: PeerId, piece: number) => void;
  readonly stored: (peer: PeerModel) => void;
  /** Sees every input before the brain does; what it keeps it must copy. */
  readonly record: ((peer: PeerModel, input: SwarmInput, nowMs: number, effects: readonly SwarmEffect[]) => void) | undefined;
}

export class PeerModel {
  readonly peerId: PeerId;
  readonly host: Host;
  readonly seed: boolean;
  readonly have: PieceSet;
  readonly swarmSeed: number;
  readonly #deps: PeerModelDeps;
  readonly #swarm: Swarm;
  readonly #links = new Map<LinkId, Link>();
  readonly #linkOf = new Map<PeerId, Link>();
  readonly #queue: SwarmInput[] = [];
  #running = false;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #timersInRow = 0;
  #timersAtMs = -1;
  #nextLinkId = 1;
  /** When it began to want the file; undefined before. */
  startedUs: number | undefined;
  finishedUs: number | undefined;
  /** It was stopped for a while, so that its own time says nothing. */
  wasFrozen = false;
  readonly counters = { wastedBytes: 0, messages: 0, wakeUps: 0, verified: 0 };

  constructor(deps: PeerModelDeps, options: { peerId: PeerId; host: Host; seed: boolean; have: PieceSet; swarmSeed: number }) {
    this.#deps = deps;
    this.peerId = options.peerId;
    this.host = options.host;
    this.seed = options.seed;
    this.have = options.have;
    this.swarmSeed = options.swarmSeed;
    this.#swarm = new Swarm(deps.swarm, options.swarmSeed);
  }

  get complete(): boolean {
    return this.have.count >= this.#deps.task.pieceCount;
  }

  get gone(): boolean {
    return this.host.crashed;
  }

  snapshot(): ReturnType<Swarm["snapshot"]> {
    return this.#swarm.snapshot();
  }

  get linkedPeers(): readonly PeerId[] {
    return [...this.#linkOf.keys()];
  }

  start(): void {
    const { taskId, pieceCount, pieceLengthBytes } = this.#deps.task;
    this.startedUs = this.#deps.world.nowUs;
    this.#feed({
      type: "taskOpened",
      taskId,
      pieceCount,
      pieceLengthBytes,
      have: PieceSet.fromBytes(this.have.toBytes()),
      priority: "normal",
    });
  }

  /** The piece is here and verified, from the origin or from a link. */
  store(piece: number): void {
    this.#deps.oracles.stored(this, piece, this.have.has(piece));
    this.have.add(piece);
    this.#feed({ type: "pieceStored", taskId: this.#deps.task.taskId, piece });
    if (this.complete) this.finishedUs ??= this.#deps.world.nowUs;
    this.#deps.stored(this);
  }

  /** Takes part in the task with these peers: over the link that is there, or over a new one. */
  connect(neighbours: readonly PeerModel[]): void {
    for (const neighbour of neighbours) {
      if (neighbour === this) continue;
      const link = this.#linkOf.get(neighbour.peerId);
      if (link?.opened === true) this.#join(link);
      else if (link === undefined) this.#dial(neighbour);
    }
  }

  /** Leaves the task on the links with these peers; the links stay. */
  disconnect(peerIds: readonly PeerId[]): void {
    for (const peerId of peerIds) {
      const link = this.#linkOf.get(peerId);
      if (link?.opened === false) this.#forget(link);
      if (link === undefined || !link.joined) continue;
      link.joined = false;
      this.#send(link, { type: "leave" });
      this.#left(link);
    }
  }

  /** Breaks the link to a peer: both ends hear of it after `afterUs`. */
  breakLink(peerId: PeerId, afterUs: number): void {
    this.#linkOf.get(peerId)?.connection.close([afterUs, afterUs], this.#deps.world);
  }

  /** The process is gone: the others hear of it after `afterUs`. */
  crash(afterUs: number): void {
    this.host.crashed = true;
    for (const link of this.#links.values()) link.connection.close([afterUs, afterUs], this.#deps.world);
  }

  // ── Links ─────────────────────────────────────────────────────────────────────────────────────────────────────

  #dial(neighbour: PeerModel): void {
    const { world, network } = this.#deps;
    const connection = network.connect<LinkMessage>(this.host, neighbour.host);
    // One link per pair: the entry keeps a second dial from starting. TCP, upgrade and handshake are three round trips.
    const link = this.#newLink(connection, 0, neighbour.peerId);
    const established = (): void => {
      if (this.gone || !this.#links.has(link.linkId)) return;
      if (neighbour.gone || neighbour.host.frozen) {
        // A frozen process's kernel takes the connection, and its handshake never comes.
        world.after(neighbour.gone ? 0 : HANDSHAKE_US, () => this.#unreachable(link));
        return;
      }
      if (neighbour.#linkOf.has(this.peerId)) {
        this.#forget(link);
        return;
      }
      const other = neighbour.#newLink(connection, 1, this.peerId);
      this.#open(link);
      neighbour.#open(other);
      this.#join(link);
    };
    world.after(network.roundTripUs * 3, () => {
      if (this.host.frozen) this.host.inbox.push(established);
      else established();
    });
  }

  #unreachable(link: Link): void {
    if (this.gone || !this.#links.has(link.linkId)) return;
    this.#forget(link);
    this.#deps.needNeighbours(this, [link.peerId]);
  }

  #newLink(connection: Connection<LinkMessage>, end: 0 | 1, peerId: PeerId): Link {
    const link: Link = {
      linkId: this.#nextLinkId++,
      end,
      peerId,
      connection,
      toldHave: undefined,
      joined: false,
      opened: false,
      sends: new Set(),
      lastSendUs: -1,
      arrivals: new Map(),
      accepted: new Set(),
    };
    this.#links.set(link.linkId, link);
    this.#linkOf.set(peerId, link);
    return link;
  }

  #open(link: Link): void {
    link.opened = true;
    link.connection.listen(link.end, {
      message: (message) => this.#message(link, message),
      bytes: (piece, bytes, last) => this.#bytes(link, piece, bytes, last),
      closed: () => {
        if (!this.#links.has(link.linkId)) return;
        this.#forget(link);
        this.#feed({ type: "linkClosed", linkId: link.linkId });
      },
    });
    this.#feed({ type: "linkOpened", linkId: link.linkId, peerId: link.peerId });
  }

  #forget(link: Link): void {
    this.#links.delete(link.linkId);
    if (this.#linkOf.get(link.peerId) === link) this.#linkOf.delete(link.peerId);
  }

  #join(link: Link): void {
    if (link.joined) return;
    link.joined = true;
    const have = this.have.toBytes();
    link.toldHave = PieceSet.fromBytes(have);
    this.#send(link, { type: "join", have, seed: this.seed });
  }

  #left(link: Link): void {
    link.toldHave = undefined;
    link.accepted.clear();
    for (const piece of link.sends) link.connection.stopTransfer(link.end, piece);
    link.sends.clear();
    this.#feed({ type: "remoteLeft", linkId: link.linkId, taskId: this.#deps.task.taskId });
  }

  #send(link: Link, message: LinkMessage): void {
    this.counters.messages++;
    // Frames of one moment travel in one write, and wake the other side once.
    if (link.lastSendUs !== this.#deps.world.nowUs) this.counters.wakeUps++;
    link.lastSendUs = this.#deps.world.nowUs;
    link.connection.send(link.end, message, messageBytes(message));
  }

  #message(link: Link, message: LinkMessage): void {
    if (!this.#links.has(link.linkId)) return;
    const { taskId } = this.#deps.task;
    const { linkId } = link;
    switch (message.type) {
      case "join":
        return this.#remoteJoined(link, PieceSet.fromBytes(message.have), message.seed);
      case "leave":
        // Our own part ends with theirs, so that a later join starts afresh on both sides.
        link.joined = false;
        return this.#left(link);
      case "have":
        return this.#feed({ type: "remoteHas", linkId, taskId, pieces: message.pieces });
      case "want":
        return this.#feed({ type: "remoteWants", linkId, taskId, pieces: message.pieces });
      case "status":
        return this.#feed({ type: "remoteStatus", linkId, incoming: message.incoming, capacity: message.capacity });
      case "offer":
        return this.#feed({ type: "offered", linkId, taskId, pieces: message.pieces });
      case "accept":
        return this.#feed({ type: "offerAccepted", linkId, taskId, piece: message.piece });
      case "decline":
        return this.#feed({ type: "offerDeclined", linkId, taskId, piece: message.piece, reason: message.reason });
      case "cancel":
        this.#stopSend(link, message.piece);
        return this.#feed({ type: "sendCancelled", linkId, taskId, piece: message.piece });
      case "withdraw":
        link.accepted.delete(message.piece);
        return this.#feed({ type: "receiveCancelled", linkId, taskId, piece: message.piece });
    }
  }

  #remoteJoined(link: Link, have: PieceSet, seed: boolean): void {
    if (!link.joined) this.#join(link);
    else if (link.toldHave !== undefined) {
      // Pieces stored since our join were announced to nobody on this link: the brain did not know of it yet.
      const told = link.toldHave;
      const since = [...this.have].filter((piece) => !told.has(piece));
      if (since.length > 0) this.#send(link, { type: "have", pieces: since });
    }
    link.toldHave = undefined;
    const { taskId } = this.#deps.task;
    this.#feed({ type: "remoteJoined", linkId: link.linkId, taskId, have, seed, receives: true });
  }

  // ── Payload ───────────────────────────────────────────────────────────────────────────────────────────────────

  #startSend(link: Link, piece: number): void {
    const { taskId } = this.#deps.task;
    const { linkId } = link;
    this.#deps.oracles.sending(this, piece);
    link.sends.add(piece);
    link.connection.startTransfer(link.end, piece, this.#lengthOf(piece), {
      handed: (bytes, last) => {
        if (this.gone) return;
        if (last) link.sends.delete(piece);
        this.#feed({ type: "sendProgressed", linkId, taskId, piece, bytes });
        if (last) this.#feed({ type: "sendFinished", linkId, taskId, piece });
      },
    });
  }

  #stopSend(link: Link, piece: number): void {
    if (link.sends.delete(piece)) link.connection.stopTransfer(link.end, piece);
  }

  #bytes(link: Link, piece: number, bytes: number, last: boolean): void {
    if (!link.accepted.has(piece)) {
      this.counters.wastedBytes += bytes;
      return;
    }
    const { taskId } = this.#deps.task;
    const { linkId } = link;
    link.arrivals.set(piece, (link.arrivals.get(piece) ?? 0) + bytes);
    this.#feed({ type: "receiveProgressed", linkId, taskId, piece, bytes });
    if (!last) return;
    link.arrivals.delete(piece);
    link.accepted.delete(piece);
    this.#feed({ type: "receiveFinished", linkId, taskId, piece });
    this.counters.verified++;
    this.#deps.world.after(this.#deps.verifyUs(this.#lengthOf(piece)), () => {
      if (this.gone) return;
      if (this.host.frozen) this.host.inbox.push(() => this.store(piece));
      else this.store(piece);
    });
  }

  #lengthOf(piece: number): number {
    const { lengthBytes, pieceLengthBytes } = this.#deps.task;
    return Math.min(pieceLengthBytes, lengthBytes - piece * pieceLengthBytes);
  }

  // ── The brain ─────────────────────────────────────────────────────────────────────────────────────────────────

  #feed(input: SwarmInput): void {
    if (this.gone) return;
    this.#queue.push(input);
    if (this.#running) return;
    this.#running = true;
    const { nowMs } = this.#deps.world;
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      const recorded = this.#deps.record === undefined ? next : copyOf(next);
      const effects = this.#swarm.step(next, nowMs);
      this.#deps.record?.(this, recorded, nowMs, effects);
      for (const effect of effects) this.#execute(effect);
    }
    this.#running = false;
    this.#arm();
  }

  #execute(effect: SwarmEffect): void {
    if (effect.type === "needNeighbours") return this.#deps.needNeighbours(this, effect.useless);
    const link = this.#links.get(effect.linkId);
    if (link === undefined) return;
    switch (effect.type) {
      case "sendStatus":
        return this.#send(link, { type: "status", incoming: effect.incoming, capacity: effect.capacity });
      case "isolate":
        return this.#deps.accuse(this, link.peerId, effect.piece);
      case "sendHave":
        return this.#send(link, { type: "have", pieces: effect.pieces });
      case "sendWant":
        return this.#send(link, { type: "want", pieces: effect.pieces });
      case "sendOffer":
        for (const piece of effect.pieces) this.#deps.oracles.offered(this, piece);
        return this.#send(link, { type: "offer", pieces: effect.pieces });
      case "sendAccept":
        link.accepted.add(effect.piece);
        link.arrivals.delete(effect.piece);
        return this.#send(link, { type: "accept", piece: effect.piece });
      case "sendDecline":
        this.#deps.oracles.declined(effect.reason);
        return this.#send(link, { type: "decline", piece: effect.piece, reason: effect.reason });
      case "cancelReceive":
        this.counters.wastedBytes += link.arrivals.get(effect.piece) ?? 0;
        link.arrivals.delete(effect.piece);
        link.accepted.delete(effect.piece);
        return this.#send(link, { type: "cancel", piece: effect.piece });
      case "cancelSend":
        this.#stopSend(link, effect.piece);
        return this.#send(link, { type: "withdraw", piece: effect.piece });
      case "startSend":
        return this.#startSend(link, effect.piece);
    }
  }

  #arm(): void {
    const { world } = this.#deps;
    const dueMs = this.#swarm.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
    if (dueMs === this.#timerDueMs) return;
    this.#timerDueMs = dueMs;
    if (dueMs === Number.POSITIVE_INFINITY) return;
    world.at(dueMs * 1000, () => {
      if (this.#timerDueMs === dueMs) this.#timerRan();
    });
  }

  #timerRan(): void {
    this.#timerDueMs = Number.POSITIVE_INFINITY;
    if (this.gone) return;
    if (this.host.frozen) {
      this.host.inbox.push(() => this.#timerRan());
      return;
    }
    const { nowMs } = this.#deps.world;
    this.#timersInRow = nowMs === this.#timersAtMs ? this.#timersInRow + 1 : 0;
    this.#timersAtMs = nowMs;
    if (this.#timersInRow > 100) throw new Error(`${this.peerId} owes itself a deadline again and again at ${nowMs} ms`);
    this.#feed({ type: "deadlineReached" });
  }
}

/** How long a dial waits for the other process's handshake. As in the real link table. */
const HANDSHAKE_US = 5_000_000;

/** Bytes of the frame on the wire, as in src/protocol/link-frames.ts. */
function messageBytes(message: LinkMessage): number {
  switch (message.type) {
    case "join":
      return 300 + message.have.length;
    case "have":
    case "want":
    case "offer":
      return 9 + message.pieces.length * 4;
    default:
      return 14;
  }
}

/** Inputs give some of what they carry away; a log keeps copies. */
export function copyOf(input: SwarmInput): SwarmInput {
  if (input.type !== "taskOpened" && input.type !== "remoteJoined") return input;
  return { ...input, have: PieceSet.fromBytes(input.have.toBytes()) };
}
