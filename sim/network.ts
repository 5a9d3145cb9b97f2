/**
 * Bandwidth, latency and queues, in chunks.
 *
 * A host's uplink (uplinks.ts) sends one chunk at a time; a chunk then queues at its rack's link to the core, at the other
 * rack's, and at the receiver's downlink. A connection has a window: that many bytes at most between the sender's uplink and
 * the reader, so a slow reader holds its senders back, and those who share a full link share it about evenly, as with TCP.
 * With slow start a window begins small, grows by what is acknowledged, and is small again after an idle while. Loss and
 * CPU are left out. Messages take bandwidth like everything else.
 */
import type { LinkQueue } from "../src/swarm/index.ts";
import { type Host, newWay, type Outgoing, type OutgoingChunk, type Parcel, type Transfer, type TransferEvents, type Way } from "./host.ts";
import { BareUplinks, SocketUplinks, type UplinkDeps, type UplinkOptions, type Uplinks } from "./uplinks.ts";
import { SimEvent, type World } from "./world.ts";

export interface NetworkOptions extends UplinkOptions {
  /** One way, both ends' stacks included. */
  readonly delayUs: number;
  /** Small packets pass the receiver's queue (fq_codel); false: one queue for all (a plain token bucket, the lab). */
  readonly fairQueueing: boolean;
}

/** What a connection tells one of its ends. */
export interface ConnectionEvents<Message> {
  message(message: Message): void;
  /** Bytes of a transfer reached the reader; `key` and `corrupt` as given to `startTransfer`. */
  bytes(key: number, bytes: number, last: boolean, corrupt: boolean): void;
  closed(): void;
}

/** Headers of a small packet: Ethernet, IP, TCP with timestamps. */
const PACKET_BYTES = 66;
/** What waited for a broken path goes on this much after it is whole: a retransmission timer has backed off. */
const HEALED_US = 300_000;
/** Width of the slots in which what uplinks carried is counted. */
export const SLOT_US = 10_000;

export class Network {
  readonly world: World;
  readonly options: NetworkOptions;
  readonly uplinks: Uplinks;
  /** Of the hosts, between which the path is broken. */
  readonly #held: { readonly from: Host; readonly to: Host; readonly go: () => void }[] = [];
  /** Payload that left all uplinks, by slot. */
  readonly sentBySlot: number[] = [];

  constructor(world: World, options: NetworkOptions) {
    this.world = world;
    this.options = options;
    const deps: UplinkDeps = {
      options,
      delayUs: options.delayUs,
      nowUs: () => world.nowUs,
      after: (delayUs, run) => world.after(delayUs, run),
      isCut: (a, b) => this.isCut(a, b),
      newChunk: (way, transfer, bytes, last) => new Chunk(this, way, transfer, bytes, last),
    };
    this.uplinks = options.socketBytes > 0 ? new SocketUplinks(deps) : new BareUplinks(deps);
  }

  get roundTripUs(): number {
    return this.options.delayUs * 2;
  }

  /** A connection between two hosts; its ends are numbered 0 and 1. */
  connect<Message>(a: Host, b: Host): Connection<Message> {
    return new Connection(this, a, b);
  }

  isCut(a: Host, b: Host): boolean {
    return a.island !== b.island || this.world.nowUs < Math.max(a.healingUntilUs, b.healingUntilUs);
  }

  /** Waits until the path between the two is whole again. */
  hold(from: Host, to: Host, go: () => void): void {
    this.#held.push({ from, to, go });
  }

  /** These hosts are on the mainland again; what waited goes on a moment later, then `done`. */
  heal(hosts: readonly Host[], done: () => void): void {
    for (const host of hosts) {
      host.island = 0;
      host.healingUntilUs = this.world.nowUs + HEALED_US;
    }
    this.world.after(HEALED_US, () => {
      for (const held of this.#held.splice(0)) {
        if (this.isCut(held.from, held.to)) this.#held.push(held);
        else held.go();
      }
      done();
    });
  }

  thaw(host: Host): void {
    host.frozen = false;
    for (const run of host.inbox.splice(0)) run();
    this.uplinks.thawed(host);
  }

  /** Runs it in the host's process: not at all when that is gone, later when it is frozen. */
  hand(host: Host, run: () => void): void {
    if (host.crashed) return;
    if (host.frozen) host.inbox.push(run);
    else run();
  }

  /** When a message sent now is read: behind what is queued for the same links, unless small packets pass. */
  arrivalUs(from: Host, to: Host): number {
    const arrivesUs = this.world.nowUs + this.options.delayUs;
    if (this.options.fairQueueing) return arrivesUs;
    const queuedUs = Math.max(arrivesUs, to.downBusyUntilUs);
    if (from.rack === to.rack) return queuedUs;
    return Math.max(queuedUs, from.rack?.upBusyUntilUs ?? 0, to.rack?.downBusyUntilUs ?? 0);
  }
}

/** Anything on its way. */
abstract class Sent extends SimEvent implements Outgoing, Parcel {
  protected readonly network: Network;
  protected readonly way: Way;
  abstract readonly bytes: number;
  queuedUs: number | undefined;
  #isHere = false;

  constructor(network: Network, way: Way) {
    super();
    this.network = network;
    this.way = way;
  }

  get isHere(): boolean {
    return this.#isHere;
  }

  leave(): void {
    if (this.way.closed) return;
    this.way.onItsWay.push(this);
    this.depart();
  }

  protected abstract depart(): void;

  /** The process at the other end has it. */
  protected abstract read(): void;

  protected arrive(): void {
    const { from, to, onItsWay } = this.way;
    if (this.network.isCut(from, to)) {
      // Of what was sent again TCP measures nothing.
      this.queuedUs = undefined;
      return this.network.hold(from, to, () => this.arrive());
    }
    this.#isHere = true;
    for (let first = onItsWay[0]; first?.isHere === true; first = onItsWay[0]) {
      onItsWay.shift();
      first.received();
    }
  }

  received(): void {
    const { network, way } = this;
    network.uplinks.arrived(way, this);
    network.hand(way.to, () => this.read());
  }
}

/** Payload on its way; one object passes all stages. */
class Chunk extends Sent implements OutgoingChunk {
  readonly #transfer: Transfer;
  readonly bytes: number;
  readonly #last: boolean;
  #stage: "uplink" | "rackUp" | "rackDown" | "downlink" = "uplink";

  constructor(network: Network, way: Way, transfer: Transfer, bytes: number, last: boolean) {
    super(network, way);
    this.#transfer = transfer;
    this.bytes = bytes;
    this.#last = last;
  }

  handed(): void {
    const { key, events } = this.#transfer;
    events.handed(key, this.bytes, this.#last);
  }

  protected depart(): void {
    const { from } = this.way;
    from.transmitting = true;
    const wireBytes = this.bytes + from.debtBytes;
    from.debtBytes = 0;
    const { world } = this.network;
    world.schedule(this, world.nowUs + (wireBytes * 1e6) / from.upBytesPerSecond);
  }

  override run(): void {
    switch (this.#stage) {
      case "uplink":
        return this.#leftUplink();
      case "rackUp":
        return this.#enterRackDown();
      case "rackDown":
        return this.#enterDownlink(0);
      case "downlink":
        return this.arrive();
    }
  }

  #leftUplink(): void {
    const network = this.network;
    const { from, to } = this.way;
    const { world } = network;
    from.sentPayloadBytes += this.bytes;
    const slot = Math.floor(world.nowUs / SLOT_US);
    network.sentBySlot[slot] = (network.sentBySlot[slot] ?? 0) + this.bytes;
    if (from.rack === to.rack) this.#enterDownlink(network.options.delayUs);
    else if (from.rack === undefined) this.#enterRackDown();
    else {
      this.#stage = "rackUp";
      from.rack.upBusyUntilUs = Math.max(world.nowUs, from.rack.upBusyUntilUs) + (this.bytes * 1e6) / from.rack.bytesPerSecond;
      world.schedule(this, from.rack.upBusyUntilUs);
    }
    network.uplinks.left(this.way);
  }

  #enterRackDown(): void {
    const { world, options } = this.network;
    const { rack } = this.way.to;
    if (rack === undefined) return this.#enterDownlink(options.delayUs);
    this.#stage = "rackDown";
    rack.inBytes += this.bytes;
    const readyUs = Math.max(world.nowUs + options.delayUs, rack.downBusyUntilUs);
    rack.downBusyUntilUs = readyUs + (this.bytes * 1e6) / rack.bytesPerSecond;
    world.schedule(this, rack.downBusyUntilUs);
  }

  #enterDownlink(delayUs: number): void {
    const { to } = this.way;
    const { world } = this.network;
    this.#stage = "downlink";
    to.downBusyUntilUs = Math.max(world.nowUs + delayUs, to.downBusyUntilUs) + (this.bytes * 1e6) / to.downBytesPerSecond;
    world.schedule(this, to.downBusyUntilUs);
  }

  protected read(): void {
    const { network, way } = this;
    way.to.receivedPayloadBytes += this.bytes;
    if (way.closed) return;
    network.uplinks.read(way, this.bytes);
    const { key, corrupt } = this.#transfer;
    way.receive?.bytes(key, this.bytes, this.#last, corrupt);
  }
}

/** A message on its way. */
class Packet<Message> extends Sent {
  readonly bytes = 0;
  readonly #message: Message;
  readonly #heard: (message: Message) => void;

  constructor(network: Network, way: Way, message: Message, heard: (message: Message) => void) {
    super(network, way);
    this.#message = message;
    this.#heard = heard;
  }

  protected depart(): void {
    const { from, to } = this.way;
    this.network.world.schedule(this, this.network.arrivalUs(from, to));
  }

  override run(): void {
    this.arrive();
  }

  protected read(): void {
    if (!this.way.closed) this.#heard(this.#message);
  }
}

export class Connection<Message> {
  readonly #network: Network;
  readonly #ways: readonly [Way, Way];
  readonly #events: [ConnectionEvents<Message> | undefined, ConnectionEvents<Message> | undefined] = [undefined, undefined];
  readonly #readers: readonly [(message: Message) => void, (message: Message) => void];

  constructor(network: Network, a: Host, b: Host) {
    this.#network = network;
    const { roundTripUs } = network;
    const firstBytes = network.uplinks.firstWindowBytes();
    this.#ways = [newWay(a, b, firstBytes, roundTripUs), newWay(b, a, firstBytes, roundTripUs)];
    this.#readers = [(message) => this.#events[0]?.message(message), (message) => this.#events[1]?.message(message)];
  }

  get closed(): boolean {
    return this.#ways[0].closed;
  }

  listen(end: 0 | 1, events: ConnectionEvents<Message>): void {
    this.#events[end] = events;
    this.#ways[end === 0 ? 1 : 0].receive = events;
  }

  send(end: 0 | 1, message: Message, payloadBytes: number): void {
    const way = this.#ways[end];
    const { closed, from } = way;
    if (closed || from.crashed) return;
    from.debtBytes += payloadBytes + PACKET_BYTES;
    this.#network.uplinks.say(way, new Packet(this.#network, way, message, this.#readers[end === 0 ? 1 : 0]));
  }

  startTransfer(end: 0 | 1, key: number, bytes: number, corrupt: boolean, events: TransferEvents): void {
    const way = this.#ways[end];
    if (way.closed) return;
    way.transfers.push({ key, corrupt, events, leftBytes: bytes });
    this.#network.uplinks.advance(way);
  }

  stopTransfer(end: 0 | 1, key: number): void {
    const { transfers } = this.#ways[end];
    const at = transfers.findIndex((candidate) => candidate.key === key);
    if (at >= 0) transfers.splice(at, 1);
  }

  /** What this end's kernel has to send; undefined once the connection is closed. */
  kernelQueue(end: 0 | 1): LinkQueue | undefined {
    if (this.closed) return undefined;
    const { heldBytes, roundTripUs, leastRoundTripUs } = this.#ways[end];
    return { heldBytes, roundTripMs: roundTripUs / 1_000, leastRoundTripMs: leastRoundTripUs / 1_000 };
  }

  /** Both ends hear of it, each after its own time; `undefined` is never. */
  close(afterUs: readonly [number | undefined, number | undefined]): void {
    if (this.closed) return;
    for (const way of this.#ways) {
      way.closed = true;
      way.transfers.length = 0;
      way.unsent.length = 0;
    }
    for (const end of [0, 1] as const) {
      const delayUs = afterUs[end];
      const host = this.#ways[end].from;
      if (delayUs === undefined) continue;
      this.#network.world.after(delayUs, () => this.#network.hand(host, () => this.#events[end]?.closed()));
    }
  }

  /** The path broke: what is queued goes on when it is whole again. */
  resume(): void {
    for (const way of this.#ways) this.#network.uplinks.advance(way);
  }
}
