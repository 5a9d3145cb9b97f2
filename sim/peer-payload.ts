/** The payload of one process: what it sends piece by piece, and what comes in until it is verified. */
import type { LinkId, SwarmInput } from "../src/swarm/index.ts";
import { type Lies, sendsNothing, sendsRubbish } from "./lies.ts";
import { keyOf, type SimLink, type TaskPart } from "./link-model.ts";
import type { PeerLinks } from "./peer-links.ts";
import type { PeerModelDeps } from "./peer-ports.ts";
import type { Prng } from "../src/base/prng.ts";
import type { TaskShape } from "./task-shape.ts";

/** The brain hears of a transfer's progress this often, and of the first byte that comes in: for what is late a finer grain says nothing more. */
const PROGRESS_US = 50_000;
/** How often the kernel is asked what it has to send: as src/peer/uplink-sampler.ts does, which is not to be imported here. */
const SAMPLE_MS = 50;

/** The process whose payload it is. */
export interface PayloadOwner {
  readonly gone: boolean;
  readonly lies: Lies | undefined;
  readonly links: PeerLinks;
  feed(input: SwarmInput): void;
  soon(delayUs: number, act: () => void): void;
  /** A piece is whole and was looked at. */
  verified(linkId: LinkId, task: TaskShape, piece: number, corrupt: boolean): void;
}

export class PeerPayload {
  readonly #owner: PayloadOwner;
  readonly #deps: PeerModelDeps;
  readonly #prng: Prng;
  #verifyFreeUs = 0;
  #handedBytes = 0;
  #sampledMs = Number.NEGATIVE_INFINITY;
  wastedBytes = 0;

  constructor(owner: PayloadOwner, deps: PeerModelDeps, prng: Prng) {
    this.#owner = owner;
    this.#deps = deps;
    this.#prng = prng;
  }

  /** Another process begins. */
  reset(): void {
    this.#verifyFreeUs = 0;
    this.#handedBytes = 0;
    this.#sampledMs = Number.NEGATIVE_INFINITY;
  }

  startSend(link: SimLink, part: TaskPart, task: TaskShape, piece: number): void {
    if (sendsNothing(this.#owner.lies, this.#prng)) return;
    const { taskId } = task;
    const { linkId } = link;
    const { world } = this.#deps;
    part.sends.add(piece);
    let toldUs = world.nowUs;
    let untoldBytes = 0;
    link.connection.startTransfer(link.end, keyOf(task, piece), task.lengthOf(piece), sendsRubbish(this.#owner.lies, this.#prng), {
      handed: (_key, bytes, last) => {
        if (this.#owner.gone) return;
        this.#handedBytes += bytes;
        untoldBytes += bytes;
        if (last) part.sends.delete(piece);
        const { nowUs } = world;
        if (last || nowUs - toldUs >= PROGRESS_US) {
          toldUs = nowUs;
          this.#owner.feed({ type: "sendProgressed", linkId, taskId, piece, bytes: untoldBytes });
          untoldBytes = 0;
        }
        if (!last) return;
        this.#sampleUplink();
        this.#owner.feed({ type: "sendFinished", linkId, taskId, piece });
      },
    });
  }

  stopSend(link: SimLink, part: TaskPart, task: TaskShape, piece: number): void {
    if (part.sends.delete(piece)) link.connection.stopTransfer(link.end, keyOf(task, piece));
  }

  accept(part: TaskPart, piece: number): void {
    part.accepted.add(piece);
    part.arrivals.delete(piece);
  }

  /** What has come of the piece is for nothing. */
  cancel(part: TaskPart, piece: number): void {
    this.wastedBytes += part.arrivals.get(piece)?.bytes ?? 0;
    part.arrivals.delete(piece);
    part.accepted.delete(piece);
  }

  came(link: SimLink, key: number, bytes: number, last: boolean, corrupt: boolean): void {
    const task = this.#deps.tasks[Math.floor(key / 2 ** 20)] as TaskShape;
    const piece = key % 2 ** 20;
    const { linkId } = link;
    const part = link.parts[task.index];
    if (part?.accepted.has(piece) !== true) {
      this.wastedBytes += bytes;
      this.#owner.feed({ type: "strayReceived", linkId, bytes });
      return;
    }
    const { taskId } = task;
    const { world, verifyBytesPerSecond } = this.#deps;
    const { nowUs } = world;
    const arrival = part.arrivals.get(piece);
    if (arrival === undefined || nowUs - arrival.toldUs >= PROGRESS_US) {
      this.#owner.feed({ type: "receiveProgressed", linkId, taskId, piece, bytes: bytes + (arrival?.untoldBytes ?? 0) });
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
    this.#owner.feed({ type: "receiveFinished", linkId, taskId, piece });
    // One piece is hashed and written at a time.
    this.#verifyFreeUs = Math.max(this.#verifyFreeUs, nowUs) + (task.lengthOf(piece) * 1e6) / verifyBytesPerSecond;
    this.#owner.soon(this.#verifyFreeUs - nowUs, () => this.#owner.verified(linkId, task, piece, corrupt));
  }

  #sampleUplink(): void {
    const { nowMs } = this.#deps.world;
    if (this.#deps.network.options.socketBytes === 0 || nowMs - this.#sampledMs < SAMPLE_MS) return;
    this.#sampledMs = nowMs;
    const links = [...this.#owner.links.all].map(({ connection, end }) => connection.kernelQueue(end)).filter((queue) => queue !== undefined);
    this.#owner.feed({ type: "uplinkSampled", handedBytes: this.#handedBytes, links: links.filter(({ heldBytes }) => heldBytes > 0) });
  }
}
