/** How what a host sends gets onto its wire: what its kernel takes of its process beforehand decides what messages wait for. */
import type { Host, Outgoing, OutgoingChunk, Transfer, Way } from "./host.ts";

export interface UplinkOptions {
  readonly chunkBytes: number;
  readonly windowBytes: number;
  /** TCP's, with the window falling back after {@link IDLE_US}; false: windows are open from the start. */
  readonly slowStart: boolean;
  /** What a socket takes of payload before it is acknowledged; 0: nothing before the wire is free. */
  readonly socketBytes: number;
}

export interface UplinkDeps {
  readonly options: UplinkOptions;
  /** One way, as an acknowledgement takes. */
  readonly delayUs: number;
  readonly nowUs: () => number;
  readonly after: (delayUs: number, run: () => void) => void;
  readonly isCut: (a: Host, b: Host) => boolean;
  readonly newChunk: (way: Way, transfer: Transfer, bytes: number, last: boolean) => OutgoingChunk;
}

/** Ten segments. Source: RFC 6928. */
const INITIAL_WINDOW_BYTES = 14_480;
/** A window falls back after this long without sending: Linux's smallest retransmission time. */
const IDLE_US = 200_000;
/** A host's queue takes what leaves within that long, as the lab's token buckets do; the rest stays in the sockets. */
const HOST_QUEUE_US = 50_000;

export abstract class Uplinks {
  protected readonly deps: UplinkDeps;

  constructor(deps: UplinkDeps) {
    this.deps = deps;
  }

  /** The process says something: at once as far as it is concerned, however long the message then waits. */
  abstract say(way: Way, message: Outgoing): void;

  /** There is something new to send, or a reason to send gone: what can go on goes on. */
  abstract advance(way: Way): void;

  /** A chunk of this way has left, and the wire is free. */
  abstract left(way: Way): void;

  /** Its process goes on. */
  abstract thawed(host: Host): void;

  /** Straight to the kernel at the other end, whatever its process is at. */
  abstract arrived(way: Way, arrived: Outgoing): void;

  /** Payload was read, which lets more into flight: at once, or where windows grow by what is acknowledged, when that is heard. */
  read(way: Way, bytes: number): void {
    if (this.deps.options.slowStart) this.deps.after(this.deps.delayUs, () => this.#leaveFlight(way, bytes));
    else this.#leaveFlight(way, bytes);
  }

  firstWindowBytes(): number {
    const { slowStart, windowBytes } = this.deps.options;
    return slowStart ? Math.min(INITIAL_WINDOW_BYTES, windowBytes) : windowBytes;
  }

  protected takeChunk(way: Way): OutgoingChunk {
    const transfer = way.transfers.shift() as Transfer;
    const bytes = Math.min(transfer.leftBytes, this.deps.options.chunkBytes);
    transfer.leftBytes -= bytes;
    const last = transfer.leftBytes === 0;
    // Several transfers on one connection take turns.
    if (!last) way.transfers.push(transfer);
    return this.deps.newChunk(way, transfer, bytes, last);
  }

  protected mayLeave(way: Way): boolean {
    return !way.closed && way.inFlightBytes < way.windowBytes && !this.deps.isCut(way.from, way.to);
  }

  protected enterFlight(way: Way, bytes: number): void {
    const nowUs = this.deps.nowUs();
    if (this.deps.options.slowStart && way.inFlightBytes === 0 && nowUs - way.lastSentUs > IDLE_US) way.windowBytes = this.firstWindowBytes();
    way.lastSentUs = nowUs;
    way.inFlightBytes += bytes;
  }

  #leaveFlight(way: Way, bytes: number): void {
    way.inFlightBytes -= bytes;
    way.windowBytes = Math.min(this.deps.options.windowBytes, way.windowBytes + bytes);
    this.advance(way);
  }
}

/** Without buffers: connections take turns at the wire, and messages go before chunks but wait for the one on it. */
export class BareUplinks extends Uplinks {
  say(way: Way, message: Outgoing): void {
    way.from.queue.push(message);
    this.#pump(way.from);
  }

  advance(way: Way): void {
    if (!way.isReady && way.transfers.length > 0 && this.mayLeave(way)) {
      way.isReady = true;
      way.from.ready.push(way);
    }
    this.#pump(way.from);
  }

  left(way: Way): void {
    // In its turn again, before the next one is chosen.
    this.advance(way);
    way.from.transmitting = false;
    this.#pump(way.from);
  }

  thawed(host: Host): void {
    this.#pump(host);
  }

  arrived(): void {}

  #pump(host: Host): void {
    while (!host.transmitting && !host.crashed) {
      const message = host.queue.shift();
      if (message !== undefined) message.leave();
      else if (host.frozen || !this.#sendInTurn(host)) return;
    }
  }

  #sendInTurn(host: Host): boolean {
    for (let way = host.ready.shift(); way !== undefined; way = host.ready.shift()) {
      way.isReady = false;
      if (way.transfers.length === 0 || !this.mayLeave(way)) continue;
      const chunk = this.takeChunk(way);
      this.enterFlight(way, chunk.bytes);
      chunk.leave();
      // With the process's own buffers kept short, the last byte is handed over while it waits for the wire.
      chunk.handed();
      return true;
    }
    return false;
  }
}

/**
 * With sockets' buffers: a transfer has ended for its process once the socket holds its end, and what the socket holds goes out though the
 * process is frozen. All that is let out by windows waits in one queue of the host; messages wait for what is in that, and for what is
 * before them on their own connection.
 */
export class SocketUplinks extends Uplinks {
  say(way: Way, message: Outgoing): void {
    if (way.unsent.length > 0) way.unsent.push(message);
    else this.#enqueue(way, message);
    this.#pump(way.from);
  }

  advance(way: Way): void {
    this.#fillSocket(way);
    this.#pump(way.from);
  }

  left({ from }: Way): void {
    from.transmitting = false;
    this.#pump(from);
  }

  thawed(host: Host): void {
    this.#goOn(host);
    this.#pump(host);
  }

  arrived(way: Way, { bytes, queuedUs }: Outgoing): void {
    this.deps.after(this.deps.delayUs, () => {
      if (queuedUs !== undefined) this.#measured(way, this.deps.nowUs() - queuedUs - serializationUs(way, bytes));
      way.heldBytes -= bytes;
      if (bytes > 0) this.advance(way);
    });
  }

  /** As TCP's smoothed round trip. Source: RFC 6298. */
  #measured(way: Way, tookUs: number): void {
    way.roundTripUs = way.roundTripUs * 0.875 + tookUs * 0.125;
    way.leastRoundTripUs = Math.min(way.leastRoundTripUs, tookUs);
  }

  /** Those that waited for the process, or for room in the host's queue: in turn, until there is none. */
  #goOn(host: Host): void {
    for (let left = host.ready.length; left > 0 && this.#hasRoom(host); left--) {
      const way = host.ready.shift();
      // What one hears when its bytes are taken may have let the others go on meanwhile.
      if (way === undefined) return;
      way.isReady = false;
      this.#fillSocket(way);
    }
  }

  #hasRoom(host: Host): boolean {
    return host.queuedBytes * 1e6 < HOST_QUEUE_US * host.upBytesPerSecond;
  }

  #wait(way: Way): void {
    if (way.isReady) return;
    way.isReady = true;
    way.from.ready.push(way);
  }

  #fillSocket(way: Way): void {
    this.#release(way);
    while (way.transfers.length > 0 && way.heldBytes < this.deps.options.socketBytes && !way.closed) {
      if (way.from.frozen) return this.#wait(way);
      const chunk = this.takeChunk(way);
      way.heldBytes += chunk.bytes;
      way.unsent.push(chunk);
      this.#release(way);
      chunk.handed();
    }
  }

  /** Into the host's queue: as much as the window lets out, and as there is room for. */
  #release(way: Way): void {
    const { from } = way;
    for (let next = way.unsent[0]; next !== undefined; next = way.unsent[0]) {
      if (next.bytes > 0) {
        if (!this.mayLeave(way)) return;
        if (!this.#hasRoom(from)) return this.#wait(way);
        this.enterFlight(way, next.bytes);
      }
      way.unsent.shift();
      this.#enqueue(way, next);
    }
  }

  #enqueue({ from }: Way, next: Outgoing): void {
    next.queuedUs = this.deps.nowUs();
    from.queuedBytes += next.bytes;
    from.queue.push(next);
  }

  #pump(host: Host): void {
    while (!host.transmitting && !host.crashed) {
      const next = host.queue.shift();
      if (next === undefined) return;
      host.queuedBytes -= next.bytes;
      next.leave();
      if (next.bytes > 0) this.#goOn(host);
    }
  }
}

/** A chunk stands for many packets, each of which takes no time to speak of to get onto a wire. */
function serializationUs({ from, to }: Way, bytes: number): number {
  const racks = from.rack === to.rack ? [] : [from.rack, to.rack].filter((rack) => rack !== undefined);
  return [from.upBytesPerSecond, to.downBytesPerSecond, ...racks.map(({ bytesPerSecond }) => bytesPerSecond)].reduce((sum, rate) => sum + (bytes * 1e6) / rate, 0);
}
