/** One link: an upgraded connection to another peer, its handshake done. Tasks are named by channels. */
import { Socket } from "node:net";
import type { PeerId, TaskId } from "../../protocol/ids.ts";
import type { LinkFrame } from "../../protocol/link-frames.ts";
import type { LinkId } from "../../swarm/index.ts";
import { toAppError } from "../../base/errors.ts";
import { LinkReader } from "./link-reader.ts";
import { fdOf, LinkWriter, type UploadLimit } from "./link-writer.ts";
import { nativeSocket } from "./native-socket.ts";

/** One buffer for all sockets of the thread: what is read is consumed before the callback returns. */
const RECEIVE_BUFFER = Buffer.allocUnsafeSlow(256 * 1024);

/**
 * Payload worth waiting for in one piece: never less than the first; the second, and while it comes quickly up to the third,
 * so that a fast link wakes us a few times per MiB and a slow one before its neighbours think it silent.
 */
const WAKE_BYTES_MIN = 16 * 1024;
const WAKE_BYTES_USUAL = 128 * 1024;
const WAKE_BYTES_MAX = 512 * 1024;
const WAKE_QUICK_MS = 5;
/** Less than this of a payload left: what follows it is read along with it. */
const PLACED_BYTES_MIN = 32 * 1024;
/** Between long payloads: room for a proof, a header and a few small frames, so that what follows is read into its place. */
const BETWEEN_BYTES = 4 * 1024;
/** Most that one read takes: 0.2 ms of copying. */
const READ_BYTES_MAX = 1024 * 1024;
/** Reads further apart than this: the link is slow, or we are; every byte is progress then. */
const CRAWL_MS = 250;

export interface LinkEvents {
  frame(link: Link, frame: LinkFrame): void;
  payloadTarget(link: Link, channel: number, piece: number, offset: number, length: number): Uint8Array | undefined;
  payload(link: Link, channel: number, piece: number, bytes: number, ended: boolean): void;
  /** Once, whoever closed it. */
  closed(link: Link, why: string): void;
}

export interface LinkDeps {
  readonly events: LinkEvents;
  readonly nowMs: () => number;
  readonly uploadLimit: UploadLimit;
  readonly downloadLimit: DownloadLimit;
}

/** What is read is paid for afterwards; until then nothing more is read, so that the sender is held back and not buffered. */
export interface DownloadLimit {
  /** Most bytes worth reading at a time from this link. */
  readBytes(link: Link): number;
  /** Pays for `bytes` with payload of the link's current task. @returns false when more may be read only after `go` */
  pay(link: Link, bytes: number, go: () => void): boolean;
  /** Counts bytes without payload, which hold nobody up. */
  count(bytes: number): void;
}

export class Link {
  readonly linkId: LinkId;
  readonly dialled: boolean;
  /** Set by the handshake. */
  peerId: PeerId | undefined;
  readonly #deps: LinkDeps;
  readonly #reader: LinkReader;
  #socket: Socket | undefined;
  #writer: LinkWriter | undefined;
  #closed = false;
  #heardMs: number;
  readonly #ownChannels = new Map<TaskId, number>();
  readonly #ownTasks = new Map<number, TaskId>();
  readonly #remoteTasks = new Map<number, TaskId>();
  readonly #remoteChannels = new Map<TaskId, number>();
  #nextChannel = 1;
  #wakeAtBytes = 1;
  #wakeBytesMax = WAKE_BYTES_USUAL;
  /** As much as the next read may take. */
  #readBytesMax = READ_BYTES_MAX;
  /** Whose payload came last, by the other side's channel; and whether any did since it was last asked. */
  #payloadChannel: number | undefined;
  #hasPayload = false;
  /** The download limit holds it back: it is not read. */
  #isHeld = false;

  constructor(linkId: LinkId, dialled: boolean, deps: LinkDeps) {
    this.linkId = linkId;
    this.dialled = dialled;
    this.#deps = deps;
    this.#heardMs = deps.nowMs();
    const { events } = deps;
    this.#reader = new LinkReader({
      // A frame may have ended the link with others behind it in the same chunk: nobody listens to those.
      frame: (frame) => (this.#closed ? undefined : events.frame(this, frame)),
      payloadTarget: (channel, piece, offset, length) => (this.#closed ? undefined : events.payloadTarget(this, channel, piece, offset, length)),
      payload: (channel, piece, bytes, ended) => {
        if (this.#closed) return;
        this.#payloadChannel = channel;
        this.#hasPayload = true;
        events.payload(this, channel, piece, bytes, ended);
      },
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** When the other side was last heard. */
  get heardMs(): number {
    return this.#heardMs;
  }

  /** Not read for now, because the download limit says so: silence means nothing then. */
  get isHeld(): boolean {
    return this.#isHeld;
  }

  /** The task whose payload came last. */
  get payloadTask(): TaskId | undefined {
    return this.#payloadChannel === undefined ? undefined : this.#remoteTasks.get(this.#payloadChannel);
  }

  get writer(): LinkWriter {
    if (this.#writer === undefined) throw new Error("link has no socket yet");
    return this.#writer;
  }

  /** Our own end's address. */
  get localAddress(): string | undefined {
    return this.#socket?.localAddress;
  }

  get remoteAddress(): string {
    return this.#socket?.remoteAddress ?? "?";
  }

  /**
   * Options for `net.connect`/`new Socket` that read into the shared buffer and feed `received`; in the middle of payload
   * into the piece's own memory, which saves a copy.
   */
  onread(received: (chunk: Uint8Array) => void): { buffer: () => Uint8Array; callback: (bytes: number) => boolean } {
    let isPlaced = false;
    return {
      // Asked before the first read and after each one: where to, and how much the next one takes.
      buffer: () => {
        const place = this.#reader.payloadPlace;
        isPlaced = place !== undefined && place.length >= PLACED_BYTES_MIN;
        if (isPlaced) return (place as Uint8Array).subarray(0, this.#readBytesMax);
        return RECEIVE_BUFFER.subarray(0, Math.min(this.#readBytesMax, this.#reader.isInBulk ? this.#reader.payloadLeft + BETWEEN_BYTES : RECEIVE_BUFFER.length));
      },
      callback: (bytes) => {
        if (isPlaced) this.#took(bytes, () => this.#reader.placed(bytes));
        else received(RECEIVE_BUFFER.subarray(0, bytes));
        return true;
      },
    };
  }

  /** Takes over a connected socket whose bytes come to {@link received}. */
  attach(socket: Socket): void {
    this.#socket = socket;
    socket.setNoDelay(true);
    this.#writer = new LinkWriter(socket, {
      limit: this.#deps.uploadLimit,
      nowMs: this.#deps.nowMs,
      failed: (why) => this.close(why),
    });
    socket.on("error", (error) => this.close(error.message));
    socket.on("end", () => this.close("the other side closed it"));
    socket.on("close", () => this.close("it broke"));
  }

  /**
   * Takes an accepted socket over from the HTTP server, so that it too reads into the shared buffer: its handle moves
   * to a new Socket. Sockets without a plain handle (TLS) are read the ordinary way.
   */
  adopt(accepted: Socket, head: Uint8Array): void {
    const received = (chunk: Uint8Array): void => this.received(chunk);
    const holder = accepted as unknown as { _handle: { readStop(): number; reading: boolean } | null };
    const handle = holder._handle;
    if (handle === null || handle.constructor.name !== "TCP") {
      accepted.on("data", received);
      this.attach(accepted);
    } else {
      handle.readStop();
      handle.reading = false;
      holder._handle = null;
      accepted.removeAllListeners();
      accepted.on("error", () => undefined);
      accepted.destroy();
      // `handle` is an undocumented option of Socket; present in Node 20–26, used by every accepted link in test/integration/swarm.test.ts.
      const socket = new Socket({ handle, onread: this.onread(received) } as object);
      this.attach(socket);
      socket.read(0);
    }
    if (head.length > 0) this.received(head);
  }

  received(chunk: Uint8Array): void {
    this.#took(chunk.length, () => this.#reader.push(chunk));
  }

  #took(bytes: number, read: () => void): void {
    if (this.#closed) return;
    const nowMs = this.#deps.nowMs();
    const sinceLastMs = nowMs - this.#heardMs;
    this.#heardMs = nowMs;
    try {
      read();
    } catch (thrown) {
      this.close(toAppError(thrown).message);
      return;
    }
    this.#pay(bytes);
    this.#setWakeUp(sinceLastMs);
  }

  #pay(bytes: number): void {
    const { downloadLimit } = this.#deps;
    this.#readBytesMax = Math.min(READ_BYTES_MAX, downloadLimit.readBytes(this));
    if (!this.#hasPayload) return downloadLimit.count(bytes);
    this.#hasPayload = false;
    this.#isHeld = !downloadLimit.pay(this, bytes, () => {
      this.#isHeld = false;
      this.#heardMs = this.#deps.nowMs();
      if (!this.#closed) this.#socket?.resume();
    });
    if (this.#isHeld) this.#socket?.pause();
  }

  /** In the middle of payload there is nothing to do before a good part of it is here; but a crawl must be seen to move. */
  #setWakeUp(sinceLastMs: number): void {
    this.#wakeBytesMax = sinceLastMs > WAKE_QUICK_MS ? WAKE_BYTES_USUAL : Math.min(WAKE_BYTES_MAX, this.#wakeBytesMax * 2);
    const bytes = sinceLastMs > CRAWL_MS ? 1 : Math.min(this.#wakeBytesMax, this.#readBytesMax, Math.max(1, this.#reader.payloadLeft));
    const wanted = bytes >= WAKE_BYTES_MIN ? bytes : 1;
    if (wanted === this.#wakeAtBytes || this.#socket === undefined) return;
    const fd = fdOf(this.#socket);
    if (fd === undefined) return;
    this.#wakeAtBytes = wanted;
    nativeSocket()?.wakeAt(fd, wanted);
  }

  send(frame: LinkFrame): void {
    this.#writer?.send(frame);
  }

  /** The channel under which we name a task to the other side. */
  ownChannel(taskId: TaskId): number | undefined {
    return this.#ownChannels.get(taskId);
  }

  /** The task that our own channel names, or the other side's. */
  taskOf(channel: number, side: "own" | "remote"): TaskId | undefined {
    return (side === "own" ? this.#ownTasks : this.#remoteTasks).get(channel);
  }

  openChannel(taskId: TaskId): number {
    const channel = this.#nextChannel++;
    this.#ownChannels.set(taskId, channel);
    this.#ownTasks.set(channel, taskId);
    return channel;
  }

  closeChannel(taskId: TaskId): void {
    const channel = this.#ownChannels.get(taskId);
    if (channel === undefined) return;
    this.#ownChannels.delete(taskId);
    this.#ownTasks.delete(channel);
  }

  setRemoteChannel(channel: number, taskId: TaskId): void {
    // A peer has a handful of tasks with us at a time; a flood of joins is an attack on our memory.
    if (this.#remoteTasks.size >= 4096) {
      this.close("it joined too many tasks");
      return;
    }
    this.#remoteTasks.set(channel, taskId);
    this.#remoteChannels.set(taskId, channel);
  }

  /** The channel under which the other side names a task to us. */
  remoteChannel(taskId: TaskId): number | undefined {
    return this.#remoteChannels.get(taskId);
  }

  closeRemoteChannel(channel: number): void {
    const taskId = this.#remoteTasks.get(channel);
    this.#remoteTasks.delete(channel);
    if (taskId !== undefined && this.#remoteChannels.get(taskId) === channel) this.#remoteChannels.delete(taskId);
  }

  get taskIds(): Iterable<TaskId> {
    return this.#ownChannels.keys();
  }

  close(why: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#writer?.close();
    this.#socket?.destroy();
    this.#deps.events.closed(this, why);
  }
}
