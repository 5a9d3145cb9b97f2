/**
 * The sending side of a link: control frames first, then payload in blocks small enough that control never waits long.
 *
 * Payload goes by sendfile(2) where the socket is plain and the platform has it, else by pooled reads; both are the
 * same to the receiver. The descriptor's number is used only on this thread, synchronously, right after checking that
 * the socket is alive: no byte can go to a socket that took the number over.
 */
import { read, readSync } from "node:fs";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { PRIORITIES } from "../../base/priority.ts";
import type { RateFlow, RateRequest } from "../../base/rate-budget.ts";
import {
  DATA_HEADER_BYTES,
  DATA_LENGTH_BYTES_MAX,
  encodeDataHeader,
  encodeFrame,
  FRAME_HEADER_BYTES,
  type LinkFrame,
} from "../../protocol/link-frames.ts";
import type { RateGate } from "../rate-gate.ts";
import type { LinkQueue } from "../../swarm/index.ts";
import { type NativeSocket, nativeSocket } from "./native-socket.ts";

const DATA_FRAME_HEADER_BYTES = FRAME_HEADER_BYTES + DATA_HEADER_BYTES;

/**
 * Blocks grow while they leave within FAST_MS and shrink when they take longer than SLOW_MS; the kernel may hold half a block
 * unsent. So on slow links answers wait behind 32 KiB, and on fast ones a wake-up moves a MiB. A frame has at most
 * DATA_LENGTH_BYTES_MAX of a block.
 */
const BLOCK_BYTES_MIN = 64 * 1024;
const BLOCK_BYTES_MAX = 4 * 1024 * 1024;
const BLOCK_FAST_MS = 2;
const BLOCK_SLOW_MS = 40;
const SENDFILE_STEP_BYTES = 1024 * 1024;
const POOLED_READ_BYTES = 256 * 1024;
/** A neighbour that does not read its control frames is of no use, and must not cost memory. */
export const CONTROL_QUEUE_BYTES_MAX: number = 8 * 1024 * 1024;

/** Least payload worth a frame header of 17 bytes, where a limit wants small blocks. */
const BLOCK_BYTES_LIMITED_MIN = 400;

/** A piece on its way out. */
export interface PieceSend {
  /** Its task's place at the upload limit. */
  readonly flow: RateFlow;
  readonly channel: number;
  readonly piece: number;
  readonly fileFd: number;
  readonly fileOffset: number;
  readonly lengthBytes: number;
  progressed(bytes: number): void;
  /** The last byte is with the kernel (`true`), or the piece could not be read (`false`). Not called after cancel. */
  ended(whole: boolean): void;
  /** Once, at the very end, whatever happened: the descriptor is not used any more. */
  released(): void;
}

/** The host's upload limit, as RateGate. */
export type UploadLimit = Pick<RateGate, "pass" | "cancel" | "chunkBytes">;

export interface LinkWriterDeps {
  readonly limit: UploadLimit;
  readonly nowMs: () => number;
  /** The link has failed, or its control queue has run full. */
  readonly failed: (why: string) => void;
}

interface QueuedSend {
  readonly send: PieceSend;
  sent: number;
  cancelled: boolean;
}

export class LinkWriter {
  readonly #socket: Socket;
  readonly #deps: LinkWriterDeps;
  #native: NativeSocket | undefined;
  readonly #sends: QueuedSend[] = [];
  #frames: Uint8Array[] = [];
  #frameBytes = 0;
  #flushScheduled = false;
  /** A block is being written: control frames wait for its end. */
  #inBlock = false;
  /** The next block waits for the upload limit, and whose it is. */
  #waiting: { readonly entry: QueuedSend; readonly request: RateRequest } | undefined;
  /** The piece whose bytes a read from the file is fetching right now. */
  #reading: QueuedSend | undefined;
  #blockBytes = 128 * 1024;
  /** The stream has written something of ours, and whatever there was before. */
  #isDrained = false;
  #pooled: Buffer | undefined;
  #closed = false;

  constructor(socket: Socket, deps: LinkWriterDeps, native: NativeSocket | undefined = nativeSocket()) {
    this.#socket = socket;
    this.#deps = deps;
    if (socket.connecting) socket.once("connect", () => this.#useDescriptor(native));
    else this.#useDescriptor(native);
    socket.once("close", () => this.close());
  }

  /** A socket that is still connecting has no descriptor yet; and a TLS socket's carries ciphertext. */
  #useDescriptor(native: NativeSocket | undefined): void {
    const fd = fdOf(this.#socket);
    if (fd === undefined) return;
    this.#native = native;
    native?.limitUnsent(fd, this.#blockBytes / 2);
  }

  /** Which way payload takes. */
  get payloadPath(): "sendfile" | "pooled" {
    return this.#native === undefined ? "pooled" : "sendfile";
  }

  /** What the kernel has of what was written here; undefined where it does not say (TLS, no koffi). */
  get queue(): LinkQueue | undefined {
    const fd = this.#native === undefined || this.#closed ? undefined : fdOf(this.#socket);
    if (fd === undefined) return undefined;
    const heldBytes = (this.#native as NativeSocket).heldBytes(fd);
    const roundTrip = heldBytes === 0 ? undefined : (this.#native as NativeSocket).roundTrip(fd);
    return { heldBytes, ...(roundTrip ?? { roundTripMs: 0, leastRoundTripMs: 0 }) };
  }

  send(frame: LinkFrame): void {
    if (this.#closed) return;
    const bytes = encodeFrame(frame);
    this.#frames.push(bytes);
    this.#frameBytes += bytes.length;
    if (this.#frameBytes + this.#socket.writableLength > CONTROL_QUEUE_BYTES_MAX) {
      this.#deps.failed("it does not read what it is told");
      return;
    }
    if (this.#flushScheduled || this.#inBlock) return;
    this.#flushScheduled = true;
    // One write for all frames of this turn.
    queueMicrotask(() => {
      this.#flushScheduled = false;
      if (!this.#inBlock) this.#flushFrames();
    });
  }

  sendPiece(send: PieceSend): void {
    if (this.#closed) return send.released();
    this.#sends.push({ send, sent: 0, cancelled: false });
    if (this.#waiting !== undefined && isMoreUrgent(send, this.#waiting.entry.send)) this.#stopWaiting();
    if (!this.#inBlock && this.#waiting === undefined) this.#nextBlock();
  }

  /** Stops the piece at the next block boundary. @returns false when it is not being sent */
  cancelPiece(channel: number, piece: number): boolean {
    // One that was called off before may still have a block on its way.
    const entry = this.#sends.find(({ send, cancelled }) => !cancelled && send.channel === channel && send.piece === piece);
    if (entry === undefined) return false;
    entry.cancelled = true;
    this.#dropCancelledWaiting();
    return true;
  }

  /** As {@link cancelPiece}, for all pieces of a channel. */
  cancelChannel(channel: number): void {
    for (const entry of this.#sends) if (entry.send.channel === channel) entry.cancelled = true;
    this.#dropCancelledWaiting();
    if (!this.#inBlock && this.#waiting === undefined) this.#dropCancelled();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopWaiting();
    this.#frames = [];
    for (const entry of this.#sends.splice(0)) {
      // A read from the file that is under way ends later, and releases it then.
      if (entry !== this.#reading) entry.send.released();
    }
  }

  #stopWaiting(): void {
    if (this.#waiting !== undefined) this.#deps.limit.cancel(this.#waiting.request);
    this.#waiting = undefined;
  }

  #dropCancelledWaiting(): void {
    if (this.#waiting?.entry.cancelled !== true) return;
    this.#stopWaiting();
    this.#nextBlock();
  }

  #dropCancelled(): void {
    for (let at = this.#sends.length - 1; at >= 0; at--) {
      const entry = this.#sends[at] as QueuedSend;
      if (!entry.cancelled) continue;
      this.#sends.splice(at, 1);
      entry.send.released();
    }
  }

  /** @param written payload follows, and is handed over by this; not called when the socket has failed */
  #flushFrames(written?: () => void): void {
    if (this.#closed || this.#frames.length === 0) return;
    const frames = this.#frames;
    this.#frames = [];
    this.#frameBytes = 0;
    const bytes = joined(frames);
    const sentBytes = this.#sendAtOnce(bytes, written !== undefined);
    // Later, as from a stream: who sends a piece learns that it has gone when it has finished saying so.
    if (sentBytes === bytes.length) return written === undefined ? undefined : queueMicrotask(written);
    // A copy: the stream keeps what it is given until it has gone.
    this.#socket.write(Uint8Array.from(bytes.subarray(sentBytes)), (error) => {
      if (error) return;
      this.#isDrained = true;
      written?.();
    });
  }

  /**
   * Past the stream, where nothing waits in it: that saves the stream's own books, and a header leaves with its payload (source:
   * docs/decisions.md, 60). What the stream was given before the first write of ours, the upgrade's answer, has gone with that.
   */
  #sendAtOnce(bytes: Uint8Array, isMoreToCome: boolean): number {
    const fd = this.#native === undefined || !this.#isDrained || this.#socket.writableLength > 0 || this.#socket.destroyed ? undefined : fdOf(this.#socket);
    // A socket that has failed takes nothing: the stream finds out, and says so.
    return fd === undefined ? 0 : (this.#native as NativeSocket).send(fd, bytes, isMoreToCome);
  }

  #nextBlock(): void {
    this.#inBlock = false;
    this.#dropCancelled();
    const entry = this.#mostUrgent();
    if (entry === undefined || this.#closed) return this.#flushFrames();
    const { limit } = this.#deps;
    const { flow } = entry.send;
    const bytes = Math.min(this.#blockBytes, DATA_LENGTH_BYTES_MAX, limit.chunkBytes(flow, BLOCK_BYTES_LIMITED_MIN), entry.send.lengthBytes - entry.sent);
    // Control frames need not wait for the limit, and are not counted.
    const request = limit.pass(flow, DATA_FRAME_HEADER_BYTES + bytes, () => this.#startBlock(entry, bytes));
    if (request === undefined) return this.#startBlock(entry, bytes);
    this.#waiting = { entry, request };
    this.#flushFrames();
  }

  /** The first of those with the highest priority. */
  #mostUrgent(): QueuedSend | undefined {
    let first = this.#sends[0];
    for (const entry of this.#sends) if (first !== undefined && isMoreUrgent(entry.send, first.send)) first = entry;
    return first;
  }

  #startBlock(entry: QueuedSend, bytes: number): void {
    this.#waiting = undefined;
    this.#inBlock = true;
    const { send } = entry;
    const startMs = this.#deps.nowMs();
    const header = encodeDataHeader(send.channel, send.piece, entry.sent, bytes);
    const done = (whole: boolean): void => {
      if (this.#closed) return;
      if (!whole) {
        // The promised bytes cannot be delivered: only a new connection gets both sides back in step.
        send.ended(false);
        this.#deps.failed("a piece could not be read from disk while it was being sent");
        return;
      }
      this.#adaptBlock(bytes, this.#deps.nowMs() - startMs);
      entry.sent += bytes;
      send.progressed(bytes);
      this.#sends.splice(this.#sends.indexOf(entry), 1);
      if (entry.sent === send.lengthBytes) {
        if (!entry.cancelled) send.ended(true);
        send.released();
      } else {
        // Several pieces on one link take turns.
        this.#sends.push(entry);
      }
      this.#nextBlock();
    };
    const offset = send.fileOffset + entry.sent;
    // What is to be said goes with the header, in one write.
    this.#frames.push(header);
    if (this.#native === undefined) {
      this.#flushFrames();
      this.#writePooled(entry, offset, bytes, done);
    } else {
      this.#flushFrames(() => this.#writeSendfile(send, offset, bytes, done));
    }
  }

  #writeSendfile(send: PieceSend, offset: number, bytes: number, done: (whole: boolean) => void): void {
    const { fileFd } = send;
    let at = offset;
    const end = offset + bytes;
    const step = (error?: Error | null): void => {
      if (error || this.#closed) return;
      while (at < end) {
        const socketFd = fdOf(this.#socket);
        if (socketFd === undefined || this.#socket.destroyed) return;
        const sent = (this.#native as NativeSocket).sendfile(
          socketFd,
          fileFd,
          at,
          Math.min(end - at, SENDFILE_STEP_BYTES),
        );
        if (sent < 0) {
          // The socket or the disk: which, a look at the piece will tell.
          send.ended(false);
          return this.#deps.failed("sendfile failed");
        }
        if (sent === 0) break;
        at += sent;
      }
      if (at === end) return done(true);
      // The socket is full, or the file ended early. One byte through the stream's own queue tells when there is room.
      // Read on this thread: its page has just been in use, and a trip to the thread pool costs more than the wait.
      const byte = Buffer.allocUnsafe(1);
      if (readByte(fileFd, byte, at) !== 1) return done(false);
      at++;
      this.#socket.write(byte, step);
    };
    step();
  }

  #writePooled(
    entry: QueuedSend,
    offset: number,
    bytes: number,
    done: (whole: boolean) => void,
  ): void {
    this.#pooled ??= Buffer.allocUnsafeSlow(POOLED_READ_BYTES);
    const pooled = this.#pooled;
    let at = offset;
    const end = offset + bytes;
    const step = (error?: Error | null): void => {
      if (error || this.#closed) return;
      if (at === end) return done(true);
      this.#reading = entry;
      read(entry.send.fileFd, pooled, 0, Math.min(end - at, pooled.length), at, (readError, count) => {
        this.#reading = undefined;
        if (this.#closed) return entry.send.released();
        if (readError !== null || count === 0) return done(false);
        at += count;
        this.#socket.write(pooled.subarray(0, count), step);
      });
    };
    step();
  }

  #adaptBlock(bytes: number, tookMs: number): void {
    const before = this.#blockBytes;
    // Beyond a frame's length only a whole frame says that the link is so quick; a piece of 64 KiB finds room in the kernel on any.
    const isTelling = before < DATA_LENGTH_BYTES_MAX || bytes === DATA_LENGTH_BYTES_MAX;
    if (tookMs <= BLOCK_FAST_MS && isTelling) this.#blockBytes = Math.min(BLOCK_BYTES_MAX, before * 2);
    else if (tookMs >= BLOCK_SLOW_MS) this.#blockBytes = Math.max(BLOCK_BYTES_MIN, Math.min(before, DATA_LENGTH_BYTES_MAX) / 2);
    const fd = this.#blockBytes === before ? undefined : fdOf(this.#socket);
    if (fd !== undefined) this.#native?.limitUnsent(fd, this.#blockBytes / 2);
  }
}

/** What is sent at once, of all links in turn. V8 keeps short arrays in its own heap, and a system call has each moved out first. */
const JOINED = new Uint8Array(16 * 1024);

/** @returns good until the next call */
function joined(frames: readonly Uint8Array[]): Uint8Array {
  let endByte = 0;
  for (const frame of frames) {
    if (endByte + frame.length > JOINED.length) return Buffer.concat(frames);
    JOINED.set(frame, endByte);
    endByte += frame.length;
  }
  return JOINED.subarray(0, endByte);
}

function isMoreUrgent(one: PieceSend, other: PieceSend): boolean {
  return PRIORITIES.indexOf(one.flow.priority) < PRIORITIES.indexOf(other.flow.priority);
}

function readByte(fileFd: number, byte: Buffer, at: number): number {
  try {
    return readSync(fileFd, byte, 0, 1, at);
  } catch {
    return -1;
  }
}

/** The descriptor of a plain TCP socket; undocumented, present in Node 20–26. Undefined once it is closed, and with TLS. */
export function fdOf(socket: Socket): number | undefined {
  if (socket instanceof TLSSocket) return undefined;
  const fd = (socket as unknown as { _handle?: { fd?: number } | null })._handle?.fd;
  return fd !== undefined && fd >= 0 ? fd : undefined;
}
