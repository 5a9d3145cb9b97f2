/** What bandwidth belongs to, and what wants it: hosts, the racks they stand in, and the ways of connections between them. */
import type { Topology } from "../src/protocol/topology.ts";

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
  /** Ways on which something waits for this host, in turn. */
  readonly ready: Way[] = [];
  transmitting = false;
  /** What goes onto its wire next, in order. */
  readonly queue: Outgoing[] = [];
  /** Payload of that. */
  queuedBytes = 0;
  /** Bytes of messages sent since the last chunk: they lengthen the next one's time on the wire. */
  debtBytes = 0;
  downBusyUntilUs = 0;
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

/** A message (`bytes` 0) or a chunk of payload, before it leaves its host. */
export interface Outgoing {
  /** Of payload. */
  readonly bytes: number;
  /** When it went into its host's queue; undefined before, and once a broken path has held it up. */
  queuedUs: number | undefined;
  /** Onto the wire, unless there is nobody any more to whom it goes. */
  leave(): void;
}

export interface OutgoingChunk extends Outgoing {
  /** The process is told that it is out of its hands. */
  handed(): void;
}

export interface TransferEvents {
  /** Bytes are out of the process's hands; `last` with the final ones. */
  handed(key: number, bytes: number, last: boolean): void;
}

export interface Transfer {
  readonly key: number;
  readonly corrupt: boolean;
  readonly events: TransferEvents;
  leftBytes: number;
}

/** What has left its host and is not with the other's kernel yet. */
export interface Parcel {
  readonly isHere: boolean;
  /** All that left before it over the same way is, too. */
  received(): void;
}

/** One way of a connection. */
export interface Way {
  readonly from: Host;
  readonly to: Host;
  /** What the process has still to hand over. */
  readonly transfers: Transfer[];
  /** In the socket, before the host's queue. */
  readonly unsent: Outgoing[];
  /** In the order in which it left, which is that in which it is received. */
  readonly onItsWay: Parcel[];
  /** Payload in the socket: unsent, or not acknowledged. */
  heldBytes: number;
  /** Moving average, and the least so far, from the host's queue to the acknowledgement; that of the connection's first packet, to begin with. */
  roundTripUs: number;
  leastRoundTripUs: number;
  inFlightBytes: number;
  windowBytes: number;
  lastSentUs: number;
  /** It is among its host's ready ones. */
  isReady: boolean;
  closed: boolean;
  receive: { bytes(key: number, bytes: number, last: boolean, corrupt: boolean): void } | undefined;
}

export function newWay(from: Host, to: Host, windowBytes: number, roundTripUs: number): Way {
  return {
    from, to, windowBytes, roundTripUs,
    leastRoundTripUs: roundTripUs, transfers: [], unsent: [], onItsWay: [], heldBytes: 0, inFlightBytes: 0, lastSentUs: 0, isReady: false, closed: false, receive: undefined,
  };
}
