import { randomBytes } from "node:crypto";
import { connect, createServer, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

import { generatePeerId } from "../../../src/peer/membership/credentials.ts";
import { DialerHandshake, parseHandshakeStep } from "../../../src/peer/membership/handshake.ts";
import type { PeerId } from "../../../src/protocol/ids.ts";
import { LINK_PROTOCOL } from "../../../src/protocol/link-frames.ts";
import type { Lab } from "./processes.ts";

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** For one answer; who waits in vain has failed. */
const ANSWER_MS = 30_000;
const HEAD_END = "\r\n\r\n";
const LINK_HEADER_BYTES = 5;
const HANDSHAKE_TYPE = 1;
const DATA_TYPE = 10;
/** Channel, piece and offset, before the payload. */
const DATA_HEADER_BYTES = 12;

/** A raw connection to a port under test. */
export class Wire {
  readonly #socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #closed = false;
  #wake: () => void = () => undefined;

  constructor(address: Address) {
    this.#socket = connect(address);
    this.#socket.on("error", () => undefined);
    this.#socket.on("data", (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake();
    });
    this.#socket.on("close", () => {
      this.#closed = true;
      this.#wake();
    });
  }

  /** Arrived, and not taken yet. */
  get received(): Buffer {
    return this.#received;
  }

  write(bytes: Uint8Array | string): void {
    if (!this.#closed) this.#socket.write(bytes);
  }

  /** @returns the next `count` bytes; fewer when the other side hung up before, or `limitMs` were over */
  async take(count: number, limitMs = ANSWER_MS): Promise<Buffer> {
    await this.#until(() => this.#received.length >= count, limitMs);
    const taken = this.#received.subarray(0, count);
    this.#received = this.#received.subarray(taken.length);
    return taken;
  }

  /** @returns the head of an HTTP answer, without its empty line */
  async takeHead(): Promise<string> {
    await this.#until(() => this.#received.includes(HEAD_END), ANSWER_MS);
    const end = this.#received.indexOf(HEAD_END);
    if (end < 0) throw new Error(`no HTTP answer: ${this.#received.toString("latin1", 0, 200)}`);
    return (await this.take(end + HEAD_END.length)).toString("latin1", 0, end);
  }

  /** True when the other side hangs up within `limitMs`. */
  async isClosedWithin(limitMs: number): Promise<boolean> {
    await this.#until(() => false, limitMs);
    return this.#closed;
  }

  destroy(): void {
    this.#socket.destroy();
  }

  async #until(isTrue: () => boolean, limitMs: number): Promise<void> {
    const untilMs = performance.now() + limitMs;
    while (!isTrue() && !this.#closed && performance.now() < untilMs) {
      const woken = new Promise<void>((resolve) => (this.#wake = resolve));
      await Promise.race([woken, delay(Math.max(1, untilMs - performance.now()))]);
    }
  }
}

/** A link or a control connection whose other side knows the token and has said so: from here on anything goes. */
export async function openAsInsider(kind: "link" | "control", address: Address, token: string): Promise<Wire> {
  const { wire, answer } = await shakeHands(kind, address, token, generatePeerId("insider"));
  if (answer["type"] !== "welcome") throw new Error(`the ${kind} port said ${JSON.stringify(answer)}`);
  return wire;
}

/** Dials as a peer does. @returns what the port said to the proof of `token` */
export async function shakeHands(
  kind: "link" | "control",
  address: Address,
  token: string,
  peerId: PeerId,
): Promise<{ readonly wire: Wire; readonly answer: Readonly<Record<string, unknown>> }> {
  const wire = new Wire(address);
  wire.write(upgradeRequest(kind));
  const head = await wire.takeHead();
  if (!head.startsWith("HTTP/1.1 101 ")) throw new Error(`the ${kind} port answered ${head}`);
  const handshake = new DialerHandshake({ token, ownPeerId: peerId, randomBytes, binding: "" });
  const hello = handshake.onChallenge(parseHandshakeStep(await takeStep(kind, wire)));
  wire.write(kind === "link" ? linkFrame(HANDSHAKE_TYPE, json(hello)) : controlFrame(json(hello)));
  return { wire, answer: (await takeStep(kind, wire)) as Record<string, unknown> };
}

export function upgradeRequest(kind: "link" | "control"): string {
  return `GET /v1/${kind} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ${kind === "link" ? LINK_PROTOCOL : "dragonfly-control/1"}\r\n\r\n`;
}

/** @param claimedBytes what the frame says of its length, when that is not the truth */
export function linkFrame(type: number, body: Uint8Array, claimedBytes = 1 + body.length): Buffer {
  const frame = Buffer.alloc(LINK_HEADER_BYTES + body.length);
  frame.writeUInt32BE(claimedBytes);
  frame.writeUInt8(type, 4);
  frame.set(body, LINK_HEADER_BYTES);
  return frame;
}

/** @param claimedBytes what the frame says of its length, when that is not the truth */
export function controlFrame(body: Uint8Array, claimedBytes = body.length): Buffer {
  const frame = Buffer.alloc(4 + body.length);
  frame.writeUInt32BE(claimedBytes);
  frame.set(body, 4);
  return frame;
}

export function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

async function takeStep(kind: "link" | "control", wire: Wire): Promise<unknown> {
  const headerBytes = kind === "link" ? LINK_HEADER_BYTES : 4;
  const header = await wire.take(headerBytes);
  const bodyBytes = header.readUInt32BE() - (headerBytes - 4);
  return JSON.parse((await wire.take(bodyBytes)).toString());
}

/** What a {@link startFlippingProxy} did so far. */
export interface Flips {
  /** Payload frames in which a bit was turned. */
  count: number;
}

/**
 * Stands before a peer's port, on another address, and turns one bit in every payload that the peer sends over a link.
 * Its offers, signed by the supernode, pass as they are: what comes does not have the digest that was promised.
 */
export async function startFlippingProxy(lab: Lab, own: Address, target: Address): Promise<Flips> {
  const flips: Flips = { count: 0 };
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const peer = connect(target);
    for (const socket of [client, peer]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        sockets.delete(socket);
        client.destroy();
        peer.destroy();
      });
    }
    const flipper = new Flipper(flips);
    client.pipe(peer);
    peer.on("data", (chunk: Buffer) => {
      flipper.turn(chunk);
      if (!client.write(chunk)) peer.pause();
    });
    client.on("drain", () => peer.resume());
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(own.port, own.host, resolve);
  });
  lab.onClose(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return flips;
}

/** Follows the frames of one direction of a link, and turns a bit in each payload's first byte, in place. */
class Flipper {
  readonly #flips: Flips;
  #head = "";
  /** Of the frame that arrives: its header until whole, then what is left of it. */
  #header: number[] = [];
  #leftBytes = 0;
  #bytesToPayload = 0;
  #isLink: boolean | undefined;

  constructor(flips: Flips) {
    this.#flips = flips;
  }

  turn(chunk: Buffer): void {
    let at = this.#isLink === undefined ? this.#takeHead(chunk) : 0;
    while (this.#isLink === true && at < chunk.length) {
      if (this.#leftBytes === 0) {
        this.#header.push(chunk[at] as number);
        at += 1;
        if (this.#header.length < LINK_HEADER_BYTES) continue;
        const header = Buffer.from(this.#header);
        this.#header = [];
        this.#leftBytes = header.readUInt32BE() - 1;
        this.#bytesToPayload = header[4] === DATA_TYPE ? DATA_HEADER_BYTES : Number.POSITIVE_INFINITY;
        continue;
      }
      const taken = Math.min(this.#leftBytes, chunk.length - at);
      if (this.#bytesToPayload < taken) {
        const victim = at + this.#bytesToPayload;
        chunk[victim] = (chunk[victim] as number) ^ 0x10;
        this.#flips.count += 1;
        this.#bytesToPayload = Number.POSITIVE_INFINITY;
      } else {
        this.#bytesToPayload -= taken;
      }
      this.#leftBytes -= taken;
      at += taken;
    }
  }

  /** @returns where the frames begin in this chunk, behind the answer to the upgrade */
  #takeHead(chunk: Buffer): number {
    const before = this.#head.length;
    this.#head += chunk.toString("latin1");
    const end = this.#head.indexOf(HEAD_END);
    if (end < 0) return chunk.length;
    this.#isLink = this.#head.startsWith("HTTP/1.1 101 ");
    this.#head = "";
    return end + HEAD_END.length - before;
  }
}
