/** Pieces on their way in: a place for each once its proof has come, then digest and disk. */
import type { Logger } from "pino";
import { AppError, toAppError } from "../base/errors.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import type { LinkFrame } from "../protocol/link-frames.ts";
import type { SwarmInput } from "../swarm/index.ts";
import type { Link } from "./link/link.ts";
import { ReceiveBuffers } from "./link/receive-buffers.ts";
import type { PieceProof } from "./store/piece-store.ts";
import type { TaskSession } from "./task-session.ts";

/** A piece on its way in: where its bytes go. */
interface Arrival {
  readonly session: TaskSession;
  /** Both undefined until the proof has come: an agreed piece that waits its turn takes no memory. */
  bytes: Uint8Array | undefined;
  proof: PieceProof | undefined;
  filled: number;
  /** Received, but not told to the brain yet. */
  untoldBytes: number;
  toldMs: number;
  /** A payload frame is being copied in right now. */
  writing: boolean;
}

/** The brain hears that a piece has begun, and then as often as it matters to know that it moves; not of every read. */
const PROGRESS_MS = 100;

/** What a full disk cannot take is not sent to it again and again. */
const REFUSE_MS = 5_000;

/** What moved, and what was worth nothing, since the start. */
export interface PieceCounters {
  uploadedBytes: number;
  downloadedBytes: number;
  wastedBytes: number;
  rejectedPieces: number;
  forgedProofs: number;
}

export interface PieceArrivalsDeps {
  readonly nowMs: () => number;
  readonly log: Pick<Logger, "warn">;
  /** The owner's; counted up here. */
  readonly counters: PieceCounters;
  readonly isSeed: (peerId: PeerId) => boolean;
  readonly feed: (input: SwarmInput) => void;
  /** A piece is verified and on disk. */
  readonly stored: (session: TaskSession, piece: number) => void;
}

export class PieceArrivals {
  readonly #deps: PieceArrivalsDeps;
  readonly #buffers = new ReceiveBuffers();
  /** By link, then by the sender's channel and the piece. */
  readonly #arrivals = new Map<Link, Map<number, Arrival>>();

  constructor(deps: PieceArrivalsDeps) {
    this.#deps = deps;
  }

  /** Memory taken by pieces that are being received or verified. */
  get usedBytes(): number {
    return this.#buffers.usedBytes;
  }

  linkClosed(link: Link): void {
    for (const arrival of this.#arrivals.get(link)?.values() ?? []) {
      arrival.writing = false;
      this.#breakOff(arrival);
    }
    this.#arrivals.delete(link);
  }

  taskClosed(session: TaskSession): void {
    for (const arrivals of this.#arrivals.values()) {
      for (const [key, arrival] of arrivals) {
        if (arrival.session !== session) continue;
        arrivals.delete(key);
        this.#breakOff(arrival);
      }
    }
  }

  /** Nothing that comes on it is of use any more. */
  channelClosed(link: Link, channel: number): void {
    const arrivals = this.#arrivals.get(link);
    if (arrivals === undefined) return;
    for (const [key, arrival] of arrivals) {
      if (Math.floor(key / 2 ** 24) !== channel) continue;
      arrivals.delete(key);
      this.#breakOff(arrival);
    }
  }

  accept(link: Link, session: TaskSession, channel: number, piece: number): void {
    const isFull = session.refusesUntilMs > this.#deps.nowMs();
    if (isFull || !this.#buffers.hasRoom) {
      session.account.declined();
      link.send({ type: "decline", channel, piece, reason: isFull ? "unwanted" : "busy" });
      return this.#deps.feed({ type: "receiveRefused", linkId: link.linkId, taskId: session.taskId, piece, busy: !isFull });
    }
    const arrivals = this.#arrivals.get(link) ?? new Map<number, Arrival>();
    this.#arrivals.set(link, arrivals);
    const toldMs = this.#deps.nowMs();
    const former = arrivals.get(arrivalKey(channel, piece));
    if (former !== undefined) this.#breakOff(former);
    arrivals.set(arrivalKey(channel, piece), { session, bytes: undefined, proof: undefined, filled: 0, untoldBytes: 0, toldMs, writing: false });
    link.send({ type: "accept", channel, piece });
  }

  /**
   * What the supernode signed of a piece that was accepted; only then is there a place for its bytes. Its signature is verified
   * along with them: that takes as long as digest or disk, and this thread is for all links.
   */
  proven(link: Link, proof: Extract<LinkFrame, { type: "proof" }>): void {
    const { channel, piece, lengthBytes, digest, signature } = proof;
    const arrivals = this.#arrivals.get(link);
    const arrival = arrivals?.get(arrivalKey(channel, piece));
    if (arrivals === undefined || arrival === undefined || arrival.bytes !== undefined) return;
    if (arrival.session.fits(piece, lengthBytes)) {
      arrival.bytes = this.#buffers.take(lengthBytes);
      arrival.proof = { digest, signature };
      return;
    }
    arrivals.delete(arrivalKey(channel, piece));
    this.#rejected(link, arrival.session, piece, "forged");
  }

  /** Its sender lied, about the piece or about what is signed of it. */
  #rejected(link: Link, session: TaskSession, piece: number, how: "forged" | "mismatch"): void {
    const { taskId } = session;
    this.#deps.counters[how === "forged" ? "forgedProofs" : "rejectedPieces"]++;
    session.account.rejected();
    this.#deps.log.warn({ taskId, peerId: link.peerId, piece }, how === "forged" ? "a piece's proof is forged" : "a piece is not what its digest says");
    this.#deps.feed({ type: "pieceRejected", taskId, piece, linkId: link.linkId });
  }

  /** It ends before it is whole: what came of it is worth nothing. */
  #breakOff({ session, bytes, filled, writing }: Arrival): void {
    this.#deps.counters.wastedBytes += filled;
    session.account.wasted(filled);
    if (bytes !== undefined) this.#buffers.release(bytes, !writing);
  }

  payloadTarget(link: Link, channel: number, piece: number, offset: number, length: number): Uint8Array | undefined {
    const arrival = this.#arrivals.get(link)?.get(arrivalKey(channel, piece));
    if (arrival?.bytes === undefined || arrival.filled !== offset || offset + length > arrival.bytes.length) return undefined;
    arrival.writing = true;
    return arrival.bytes.subarray(offset, offset + length);
  }

  payload(link: Link, channel: number, piece: number, bytes: number, ended: boolean): void {
    this.#deps.counters.downloadedBytes += bytes;
    const arrivals = this.#arrivals.get(link);
    const key = arrivalKey(channel, piece);
    const arrival = arrivals?.get(key);
    if (arrivals === undefined || arrival === undefined || !arrival.writing) {
      this.#deps.counters.wastedBytes += bytes;
      arrival?.session.account.wasted(bytes);
      this.#deps.feed({ type: "strayReceived", linkId: link.linkId, bytes });
      return;
    }
    arrival.filled += bytes;
    arrival.untoldBytes += bytes;
    if (ended) arrival.writing = false;
    const { linkId } = link;
    const { taskId } = arrival.session;
    const nowMs = this.#deps.nowMs();
    if (arrival.filled === bytes || nowMs - arrival.toldMs >= PROGRESS_MS) {
      this.#deps.feed({ type: "receiveProgressed", linkId, taskId, piece, bytes: arrival.untoldBytes });
      arrival.toldMs = nowMs;
      arrival.untoldBytes = 0;
    }
    if (ended && arrival.filled === arrival.bytes?.length && arrivals.delete(key)) {
      this.#deps.feed({ type: "receiveFinished", linkId, taskId, piece });
      void this.#store(link, arrival.session, arrival.bytes, piece, arrival.proof as PieceProof);
    }
  }

  async #store(link: Link, session: TaskSession, bytes: Uint8Array, piece: number, proof: PieceProof): Promise<void> {
    const { taskId } = session;
    session.account.storing(1);
    try {
      if (session.stored.have.has(piece)) {
        // Its twin was faster.
        this.#deps.counters.wastedBytes += bytes.length;
        session.account.wasted(bytes.length);
        this.#deps.feed({ type: "pieceStored", taskId, piece });
        return;
      }
      const outcome = await session.stored.storeVerified(piece, bytes, proof);
      if (outcome === "stored") {
        const seed = link.peerId !== undefined && this.#deps.isSeed(link.peerId);
        session.count(seed ? "seedBytes" : "peerBytes", bytes.length);
        if (link.peerId !== undefined) session.account.kept(link.peerId, seed, bytes.length);
        session.handOn(piece, bytes);
        this.#deps.stored(session, piece);
      } else {
        this.#rejected(link, session, piece, outcome);
      }
    } catch (thrown) {
      const error = toAppError(thrown, "DISK_FAILED");
      session.failure ??= new AppError(error.code, error.message, { cause: thrown });
      session.refusesUntilMs = this.#deps.nowMs() + REFUSE_MS;
      this.#deps.log.warn({ taskId, piece, error: error.message }, "a piece cannot be stored");
      this.#deps.feed({ type: "pieceLost", taskId, piece });
      session.wake();
    } finally {
      session.account.storing(-1);
      this.#buffers.release(bytes, true);
    }
  }

  /** The transfer was given up. */
  drop(link: Link, taskId: TaskId, piece: number): void {
    const channel = link.remoteChannel(taskId);
    const arrivals = this.#arrivals.get(link);
    if (channel === undefined || arrivals === undefined) return;
    const key = arrivalKey(channel, piece);
    const arrival = arrivals.get(key);
    if (arrival === undefined) return;
    arrivals.delete(key);
    this.#breakOff(arrival);
  }
}

/** Channel and piece in one number: a piece index has 24 bits, a channel 32; safe below 2⁵³ for channels below 2²⁹. */
function arrivalKey(channel: number, piece: number): number {
  return channel * 2 ** 24 + piece;
}
