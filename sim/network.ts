/**
 * Bandwidth, latency and queues, in chunks.
 *
 * A host's uplink sends one chunk at a time, taking turns among its connections; a chunk then queues at its rack's
 * link to the core, at the other rack's, and at the receiver's downlink. A connection has a window: that many bytes at
 * most between the sender's uplink and the reader, so a slow reader holds its senders back, and those who share a full
 * link share it about evenly, as with TCP. With slow start a window begins small, grows by what is acknowledged, and is
 * small again after an idle while. Loss and CPU are left out. Messages go before chunks but wait for the one on the
 * wire (for more of them with `kernelQueueUs`), and take bandwidth like everything else.
 */
import type { Topology } from "../src/protocol/topology.ts";
import { SimEvent, type World } from "./world.ts";

export interface NetworkOptions {
  /** One way, both ends' stacks included. */
  readonly delayUs: number;
  readonly chunkBytes: number;
  readonly windowBytes: number;
  /** TCP's, with the window falling back after {@link IDLE_US}; false: windows are open from the start. */
  readonly slowStart: boolean;
  /** Small packets pass the receiver's queue (fq_codel); false: one queue for all (a plain token bucket, the lab). */
  readonly fairQueueing: boolean;
  /** Longest that a message waits behind its own host's payload, as it does in a kernel that has taken that already; 0: only for the chunk on the wire. */
  readonly kernelQueueUs: number;
}

/** What a connection tells one of its ends. */
export interface ConnectionEvents<Message> {
  message(message: Message): void;
  /** Bytes of a transfer reached the reader; `key` and `corrupt` as given to `startTransfer`. */
  bytes(key: number, bytes: number, last: boolean, corrupt: boolean): void;
  closed(): void;
}

export interface TransferEvents {
  /** Bytes left the process; `last` with the final ones. */
  handed(key: number, bytes: number, last: boolean): void;
}

/** Headers of a small packet: Ethernet, IP, TCP with timestamps. */
const PACKET_BYTES = 66;
/** Ten segments. Source: RFC 6928. */
const INITIAL_WINDOW_BYTES = 14_480;
/** A window falls back after this long without sending: Linux's smallest retransmission time. */
const IDLE_US = 200_000;
/** What waited for a broken path goes on this much after it is whole: a retransmission timer has backed off. */
const HEALED_US = 300_000;
/** Width of the slots in which what uplinks carried is counted. */
export const SLOT_US = 10_000;

/** Hosts behind one switch, and its link to the core; the core itself is never full. */
export class Rack {
  readonly name: string;
  readonly bytesPerSecond: number;
  upBusyUntilUs = 0;
  downBusyUntilUs = 0;
  /** Payload that came in over the link from other racks and the core. */
  inBytes = 0;

  constructor(name: string, bytesPerSecond: number) {
    this.name = name;
    this.bytesPerSecond = bytesPerSecond;
  }
}

export class Host {
  upBytesPerSecond: number;
  downBytesPerSecond: number;
  readonly rack: Rack | undefined;
  /** What it tells the supernode and its neighbours of that. */
  readonly topology: Topology;
  /** Hosts of different islands cannot reach each other. */
  island = 0;
  /** After a partition: nothing passes yet, so that what waited goes before what comes later. */
  healingUntilUs = 0;
  /** A frozen host's kernel still answers, its process does nothing. */
  frozen = false;
  crashed = false;
  /** Directions with chunks to send, in turn. */
  readonly ready: Direction[] = [];
  /** Whose chunk is on the wire, or was last. */
  onWire: Direction | undefined;
  transmitting = false;
  /** Messages waiting for the chunk on the wire. */
  readonly waiting: Packet<never>[] = [];
  /** Bytes of messages sent since the last chunk: they lengthen the next one's time on the wire. */
  debtBytes = 0;
  downBusyUntilUs = 0;
  /** When the last of its messages leaves that wait behind payload: they keep their order. */
  messagesLeaveUs = 0;
  /** What arrived for a frozen process. */
  readonly inbox: (() => void)[] = [];
  sentPayloadBytes = 0;
  receivedPayloadBytes = 0;

  constructor(upBytesPerSecond: number, downBytesPerSecond: number, rack?: Rack, topology: Topology = {}) {
    this.upBytesPerSecond = upBytesPerSecond;
    this.downBytesPerSecond = downBytesPerSecond;
    this.rack = rack;
    this.topology = topology;
  }
}

interface Transfer {
  readonly key: number;
  readonly corrupt: boolean;
  readonly events: TransferEvents;
  leftBytes: number;
}

/** One way of a connection. */
interface Direction {
  readonly from: Host;
  readonly to: Host;
  readonly transfers: Transfer[];
  inFlightBytes: number;
  windowBytes: number;
  lastSentUs: number;
  queued: boolean;
  closed: boolean;
  receive: { bytes(key: number, bytes: number, last: boolean, corrupt: boolean): void } | undefined;
}

export class Network {
  readonly world: World;
  readonly options: NetworkOptions;
  /** Of the hosts, between which the path is broken. */
  readonly #held: { readonly from: Host; readonly to: Host; readonly go: () => void }[] = [];
  /** Payload that left all uplinks, by slot. */
  readonly sentBySlot: number[] = [];

  constructor(world: World, options: NetworkOptions) {
    this.world = world;
    this.options = options;
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
    this.pump(host);
  }

  /** Runs it in the host's process: not at all when that is gone, later when it is frozen. */
  hand(host: Host, run: () => void): void {
    if (host.crashed) return;
    if (host.frozen) host.inbox.push(run);
    else run();
  }

  /** When a message of this host leaves it: behind what its kernel holds of payload that can go. */
  leavesUs(from: Host): number {
    const { nowUs } = this.world;
    const { kernelQueueUs } = this.options;
    if (kernelQueueUs === 0) return nowUs;
    let queuedBytes = 0;
    const { onWire } = from;
    const isNextOnWire = onWire !== undefined && !onWire.queued && this.#isSendable(onWire);
    for (const { transfers } of isNextOnWire ? [...from.ready, onWire] : from.ready) for (const { leftBytes } of transfers) queuedBytes += leftBytes;
    from.messagesLeaveUs = Math.max(from.messagesLeaveUs, nowUs + Math.min(kernelQueueUs, (queuedBytes * 1e6) / from.upBytesPerSecond));
    return from.messagesLeaveUs;
  }

  /** When a message sent now is read: behind what is queued for the same links, unless small packets pass. */
  arrivalUs(from: Host, to: Host): number {
    const arrivesUs = this.world.nowUs + this.options.delayUs;
    if (this.options.fairQueueing) return arrivesUs;
    const queuedUs = Math.max(arrivesUs, to.downBusyUntilUs);
    if (from.rack === to.rack) return queuedUs;
    return Math.max(queuedUs, from.rack?.upBusyUntilUs ?? 0, to.rack?.downBusyUntilUs ?? 0);
  }

  offerToUplink(direction: Direction): void {
    if (direction.queued || !this.#isSendable(direction)) return;
    direction.queued = true;
    direction.from.ready.push(direction);
    this.pump(direction.from);
  }

  pump(host: Host): void {
    if (host.transmitting || host.frozen || host.crashed) return;
    let direction = host.ready.shift();
    while (direction !== undefined && !this.#isSendable(direction)) {
      direction.queued = false;
      direction = host.ready.shift();
    }
    if (direction === undefined) return;
    direction.queued = false;
    this.#restartWindow(direction);
    const transfer = direction.transfers.shift() as Transfer;
    const bytes = Math.min(transfer.leftBytes, this.options.chunkBytes);
    transfer.leftBytes -= bytes;
    const last = transfer.leftBytes === 0;
    // Several transfers on one connection take turns.
    if (!last) direction.transfers.push(transfer);
    direction.inFlightBytes += bytes;
    host.transmitting = true;
    host.onWire = direction;
    const wireBytes = bytes + host.debtBytes;
    host.debtBytes = 0;
    const chunk = new Chunk(this, direction, transfer, bytes, last);
    this.world.schedule(chunk, this.world.nowUs + (wireBytes * 1e6) / host.upBytesPerSecond);
    // With the process's own buffers kept short, the last byte is handed over while it waits for the wire.
    transfer.events.handed(transfer.key, bytes, last);
  }

  #restartWindow(direction: Direction): void {
    const { nowUs } = this.world;
    if (this.options.slowStart && direction.inFlightBytes === 0 && nowUs - direction.lastSentUs > IDLE_US) {
      direction.windowBytes = Math.min(INITIAL_WINDOW_BYTES, this.options.windowBytes);
    }
    direction.lastSentUs = nowUs;
  }

  #isSendable(direction: Direction): boolean {
    if (direction.closed || direction.transfers.length === 0) return false;
    return direction.inFlightBytes < direction.windowBytes && !this.isCut(direction.from, direction.to);
  }
}

/** Payload on its way; one object passes all stages. */
class Chunk extends SimEvent {
  readonly #network: Network;
  readonly #direction: Direction;
  readonly #transfer: Transfer;
  readonly #bytes: number;
  readonly #last: boolean;
  #stage: "uplink" | "rackUp" | "rackDown" | "downlink" = "uplink";

  constructor(network: Network, direction: Direction, transfer: Transfer, bytes: number, last: boolean) {
    super();
    this.#network = network;
    this.#direction = direction;
    this.#transfer = transfer;
    this.#bytes = bytes;
    this.#last = last;
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
        return this.#arrive();
    }
  }

  #leftUplink(): void {
    const network = this.#network;
    const { from, to } = this.#direction;
    const { world } = network;
    from.transmitting = false;
    from.sentPayloadBytes += this.#bytes;
    const slot = Math.floor(world.nowUs / SLOT_US);
    network.sentBySlot[slot] = (network.sentBySlot[slot] ?? 0) + this.#bytes;
    if (from.waiting.length > 0) for (const packet of from.waiting.splice(0)) packet.leave();
    if (from.rack === to.rack) this.#enterDownlink(network.options.delayUs);
    else if (from.rack === undefined) this.#enterRackDown();
    else {
      this.#stage = "rackUp";
      from.rack.upBusyUntilUs = Math.max(world.nowUs, from.rack.upBusyUntilUs) + (this.#bytes * 1e6) / from.rack.bytesPerSecond;
      world.schedule(this, from.rack.upBusyUntilUs);
    }
    network.offerToUplink(this.#direction);
    network.pump(from);
  }

  #enterRackDown(): void {
    const { world, options } = this.#network;
    const { rack } = this.#direction.to;
    if (rack === undefined) return this.#enterDownlink(options.delayUs);
    this.#stage = "rackDown";
    rack.inBytes += this.#bytes;
    const readyUs = Math.max(world.nowUs + options.delayUs, rack.downBusyUntilUs);
    rack.downBusyUntilUs = readyUs + (this.#bytes * 1e6) / rack.bytesPerSecond;
    world.schedule(this, rack.downBusyUntilUs);
  }

  #enterDownlink(delayUs: number): void {
    const { to } = this.#direction;
    const { world } = this.#network;
    this.#stage = "downlink";
    to.downBusyUntilUs = Math.max(world.nowUs + delayUs, to.downBusyUntilUs) + (this.#bytes * 1e6) / to.downBytesPerSecond;
    world.schedule(this, to.downBusyUntilUs);
  }

  #arrive(): void {
    const { from, to } = this.#direction;
    const network = this.#network;
    if (network.isCut(from, to)) network.hold(from, to, () => this.#arrive());
    else if (to.frozen || to.crashed) network.hand(to, () => this.#read());
    else this.#read();
  }

  #read(): void {
    const direction = this.#direction;
    const network = this.#network;
    direction.to.receivedPayloadBytes += this.#bytes;
    if (direction.closed) return;
    if (network.options.slowStart) network.world.after(network.options.delayUs, () => this.#acknowledged());
    else {
      direction.inFlightBytes -= this.#bytes;
      network.offerToUplink(direction);
    }
    const { key, corrupt } = this.#transfer;
    direction.receive?.bytes(key, this.#bytes, this.#last, corrupt);
  }

  #acknowledged(): void {
    const direction = this.#direction;
    direction.inFlightBytes -= this.#bytes;
    direction.windowBytes = Math.min(this.#network.options.windowBytes, direction.windowBytes + this.#bytes);
    this.#network.offerToUplink(direction);
  }
}

/** A message on its way. */
class Packet<Message> extends SimEvent {
  readonly #network: Network;
  readonly #direction: Direction;
  readonly #message: Message;
  readonly #read: (message: Message) => void;
  #isOnItsWay = false;

  constructor(network: Network, direction: Direction, message: Message, read: (message: Message) => void) {
    super();
    this.#network = network;
    this.#direction = direction;
    this.#message = message;
    this.#read = read;
  }

  leave(): void {
    const { world } = this.#network;
    const leavesUs = this.#network.leavesUs(this.#direction.from);
    if (leavesUs > world.nowUs) world.schedule(this, leavesUs);
    else this.#depart();
  }

  #depart(): void {
    const { from, to } = this.#direction;
    this.#isOnItsWay = true;
    this.#network.world.schedule(this, this.#network.arrivalUs(from, to));
  }

  override run(): void {
    if (!this.#isOnItsWay) return this.#depart();
    const { from, to } = this.#direction;
    const network = this.#network;
    if (network.isCut(from, to)) network.hold(from, to, () => this.run());
    else if (to.frozen || to.crashed) network.hand(to, () => this.#deliver());
    else this.#deliver();
  }

  #deliver(): void {
    if (!this.#direction.closed) this.#read(this.#message);
  }
}

export class Connection<Message> {
  readonly #network: Network;
  readonly #directions: readonly [Direction, Direction];
  readonly #events: [ConnectionEvents<Message> | undefined, ConnectionEvents<Message> | undefined] = [undefined, undefined];
  readonly #readers: readonly [(message: Message) => void, (message: Message) => void];

  constructor(network: Network, a: Host, b: Host) {
    this.#network = network;
    const { windowBytes, slowStart } = network.options;
    const firstBytes = slowStart ? Math.min(INITIAL_WINDOW_BYTES, windowBytes) : windowBytes;
    this.#directions = [newDirection(a, b, firstBytes), newDirection(b, a, firstBytes)];
    this.#readers = [(message) => this.#events[0]?.message(message), (message) => this.#events[1]?.message(message)];
  }

  get closed(): boolean {
    return this.#directions[0].closed;
  }

  listen(end: 0 | 1, events: ConnectionEvents<Message>): void {
    this.#events[end] = events;
    this.#directions[end === 0 ? 1 : 0].receive = events;
  }

  send(end: 0 | 1, message: Message, payloadBytes: number): void {
    const direction = this.#directions[end];
    const { closed, from } = direction;
    if (closed || from.crashed) return;
    from.debtBytes += payloadBytes + PACKET_BYTES;
    const packet = new Packet(this.#network, direction, message, this.#readers[end === 0 ? 1 : 0]);
    if (from.transmitting) from.waiting.push(packet as unknown as Packet<never>);
    else packet.leave();
  }

  startTransfer(end: 0 | 1, key: number, bytes: number, corrupt: boolean, events: TransferEvents): void {
    const direction = this.#directions[end];
    if (direction.closed) return;
    direction.transfers.push({ key, corrupt, events, leftBytes: bytes });
    this.#network.offerToUplink(direction);
  }

  stopTransfer(end: 0 | 1, key: number): void {
    const { transfers } = this.#directions[end];
    const at = transfers.findIndex((candidate) => candidate.key === key);
    if (at >= 0) transfers.splice(at, 1);
  }

  /** Both ends hear of it, each after its own time; `undefined` is never. */
  close(afterUs: readonly [number | undefined, number | undefined]): void {
    if (this.closed) return;
    for (const direction of this.#directions) {
      direction.closed = true;
      direction.transfers.length = 0;
    }
    for (const end of [0, 1] as const) {
      const delayUs = afterUs[end];
      const host = this.#directions[end].from;
      if (delayUs === undefined) continue;
      this.#network.world.after(delayUs, () => this.#network.hand(host, () => this.#events[end]?.closed()));
    }
  }

  /** The path broke: what is queued goes on when it is whole again. */
  resume(): void {
    for (const direction of this.#directions) this.#network.offerToUplink(direction);
  }
}

function newDirection(from: Host, to: Host, windowBytes: number): Direction {
  return { from, to, transfers: [], inFlightBytes: 0, windowBytes, lastSentUs: 0, queued: false, closed: false, receive: undefined };
}
