/**
 * Bandwidth, latency and queues, in chunks.
 *
 * A host's uplink sends one chunk at a time, taking turns among its connections; a chunk then crosses the network and
 * queues at the receiver's downlink. A connection has a window: that many bytes at most between the sender's uplink
 * and the reader, so a slow reader holds its senders back. Nothing is lost and nothing idles while it has work, as
 * with TCP after slow start; slow start itself, loss and CPU are left out. Messages go before chunks but wait for the
 * one on the wire, and take bandwidth like everything else.
 */
import type { World } from "./world.ts";

export interface NetworkOptions {
  /** One way, both ends' stacks included. */
  readonly delayUs: number;
  readonly chunkBytes: number;
  readonly windowBytes: number;
  /** Small packets pass the receiver's queue (fq_codel); false: one queue for all (a plain token bucket, the lab). */
  readonly fairQueueing: boolean;
}

/** What a connection tells one of its ends. */
export interface ConnectionEvents<Message> {
  message(message: Message): void;
  /** Bytes of a transfer reached the reader; `piece` as given to `startTransfer`. */
  bytes(piece: number, bytes: number, last: boolean): void;
  closed(): void;
}

export interface TransferEvents {
  /** Bytes left the process; `last` with the final ones. */
  handed(bytes: number, last: boolean): void;
}

/** Headers of a small packet: Ethernet, IP, TCP with timestamps. */
const PACKET_BYTES = 66;

export class Host {
  readonly upBytesPerSecond: number;
  readonly downBytesPerSecond: number;
  /** A frozen host's kernel still answers, its process does nothing. */
  frozen = false;
  crashed = false;
  /** Directions with chunks to send, in turn. */
  readonly ready: Direction[] = [];
  transmitting = false;
  /** Messages waiting for the chunk on the wire. */
  readonly waiting: (() => void)[] = [];
  /** Bytes of messages sent since the last chunk: they lengthen the next one's time on the wire. */
  debtBytes = 0;
  downBusyUntilUs = 0;
  /** What arrived for a frozen process. */
  readonly inbox: (() => void)[] = [];
  sentPayloadBytes = 0;
  /** Of them, those sent in each hundredth of a second. */
  readonly sentByHundredth: number[] = [];
  receivedPayloadBytes = 0;

  constructor(upBytesPerSecond: number, downBytesPerSecond: number) {
    this.upBytesPerSecond = upBytesPerSecond;
    this.downBytesPerSecond = downBytesPerSecond;
  }
}

interface Transfer {
  readonly piece: number;
  readonly events: TransferEvents;
  leftBytes: number;
}

/** One way of a connection. */
interface Direction {
  readonly from: Host;
  readonly to: Host;
  readonly transfers: Transfer[];
  inFlightBytes: number;
  queued: boolean;
  closed: boolean;
  receive: { bytes(piece: number, bytes: number, last: boolean): void } | undefined;
}

export class Network {
  readonly #world: World;
  readonly #options: NetworkOptions;

  constructor(world: World, options: NetworkOptions) {
    this.#world = world;
    this.#options = options;
  }

  get roundTripUs(): number {
    return this.#options.delayUs * 2;
  }

  /** A connection between two hosts; its ends are numbered 0 and 1. */
  connect<Message>(a: Host, b: Host): Connection<Message> {
    return new Connection(this, a, b);
  }

  /** Delivers something small from one host to another: waits for the chunk on the wire, then for the delay. */
  send(from: Host, to: Host, payloadBytes: number, deliver: () => void): void {
    if (from.crashed) return;
    from.debtBytes += payloadBytes + PACKET_BYTES;
    const leave = (): void => {
      const arrivesUs = this.#world.nowUs + this.#options.delayUs;
      const readyUs = this.#options.fairQueueing ? arrivesUs : Math.max(arrivesUs, to.downBusyUntilUs);
      this.#world.at(readyUs, () => this.#hand(to, deliver));
    };
    if (from.transmitting) from.waiting.push(leave);
    else leave();
  }

  thaw(host: Host): void {
    host.frozen = false;
    for (const run of host.inbox.splice(0)) run();
    this.#pump(host);
  }

  /** @internal */
  offerToUplink(direction: Direction): void {
    if (direction.queued || direction.closed || !isSendable(direction, this.#options)) return;
    direction.queued = true;
    direction.from.ready.push(direction);
    this.#pump(direction.from);
  }

  #pump(host: Host): void {
    if (host.transmitting || host.frozen || host.crashed) return;
    let direction = host.ready.shift();
    while (direction !== undefined && (direction.closed || !isSendable(direction, this.#options))) {
      direction.queued = false;
      direction = host.ready.shift();
    }
    if (direction === undefined) return;
    const chosen = direction;
    chosen.queued = false;
    const transfer = chosen.transfers.shift() as Transfer;
    const bytes = Math.min(transfer.leftBytes, this.#options.chunkBytes);
    transfer.leftBytes -= bytes;
    const last = transfer.leftBytes === 0;
    // Several transfers on one connection take turns.
    if (!last) chosen.transfers.push(transfer);
    chosen.inFlightBytes += bytes;
    host.transmitting = true;
    const wireBytes = bytes + host.debtBytes;
    host.debtBytes = 0;
    this.#world.after((wireBytes * 1e6) / host.upBytesPerSecond, () => this.#leave(chosen, transfer.piece, bytes, last));
    // With the process's own buffers kept short, the last byte is handed over while it waits for the wire.
    transfer.events.handed(bytes, last);
  }

  #leave(direction: Direction, piece: number, bytes: number, last: boolean): void {
    const { from, to } = direction;
    from.transmitting = false;
    from.sentPayloadBytes += bytes;
    const hundredth = Math.floor(this.#world.nowUs / 1e4);
    from.sentByHundredth[hundredth] = (from.sentByHundredth[hundredth] ?? 0) + bytes;
    for (const leave of from.waiting.splice(0)) leave();
    const readyUs = Math.max(this.#world.nowUs + this.#options.delayUs, to.downBusyUntilUs);
    to.downBusyUntilUs = readyUs + (bytes * 1e6) / to.downBytesPerSecond;
    this.#world.at(to.downBusyUntilUs, () =>
      this.#hand(to, () => {
        direction.inFlightBytes -= bytes;
        to.receivedPayloadBytes += bytes;
        if (direction.closed) return;
        direction.receive?.bytes(piece, bytes, last);
        this.offerToUplink(direction);
      }),
    );
    this.offerToUplink(direction);
    this.#pump(from);
  }

  #hand(host: Host, deliver: () => void): void {
    if (host.crashed) return;
    if (host.frozen) host.inbox.push(deliver);
    else deliver();
  }
}

export class Connection<Message> {
  readonly #network: Network;
  readonly #hosts: readonly [Host, Host];
  readonly #directions: readonly [Direction, Direction];
  readonly #events: (ConnectionEvents<Message> | undefined)[] = [undefined, undefined];

  constructor(network: Network, a: Host, b: Host) {
    this.#network = network;
    this.#hosts = [a, b];
    this.#directions = [newDirection(a, b), newDirection(b, a)];
  }

  listen(end: 0 | 1, events: ConnectionEvents<Message>): void {
    this.#events[end] = events;
    this.#directions[end === 0 ? 1 : 0].receive = events;
  }

  send(end: 0 | 1, message: Message, payloadBytes: number): void {
    const { closed, from, to } = this.#directions[end];
    if (closed) return;
    this.#network.send(from, to, payloadBytes, () => {
      if (!this.#directions[end].closed) this.#events[1 - end]?.message(message);
    });
  }

  startTransfer(end: 0 | 1, piece: number, bytes: number, events: TransferEvents): void {
    const direction = this.#directions[end];
    if (direction.closed) return;
    direction.transfers.push({ piece, events, leftBytes: bytes });
    this.#network.offerToUplink(direction);
  }

  stopTransfer(end: 0 | 1, piece: number): void {
    const { transfers } = this.#directions[end];
    const at = transfers.findIndex((candidate) => candidate.piece === piece);
    if (at >= 0) transfers.splice(at, 1);
  }

  /** Both ends hear of it, each after its own time; `undefined` is never. */
  close(afterUs: readonly [number | undefined, number | undefined], world: World): void {
    if (this.#directions[0].closed) return;
    for (const direction of this.#directions) {
      direction.closed = true;
      direction.transfers.length = 0;
    }
    for (const end of [0, 1] as const) {
      const delayUs = afterUs[end];
      const host = this.#hosts[end];
      if (delayUs === undefined) continue;
      const tell = (): void => this.#events[end]?.closed();
      world.after(delayUs, () => {
        if (host.crashed) return;
        if (host.frozen) host.inbox.push(tell);
        else tell();
      });
    }
  }
}

function newDirection(from: Host, to: Host): Direction {
  return { from, to, transfers: [], inFlightBytes: 0, queued: false, closed: false, receive: undefined };
}

function isSendable(direction: Direction, options: NetworkOptions): boolean {
  return direction.transfers.length > 0 && direction.inFlightBytes < options.windowBytes;
}
