/**
 * Frames of a control connection: [length u32, big endian][JSON], over a socket that has been upgraded from HTTP.
 *
 * An empty frame is a heartbeat. Whatever is malformed, too long, or too slow ends the connection, and nothing else.
 */
import type { Duplex } from "node:stream";
import type { z } from "zod";
import { AppError } from "../../base/errors.ts";
import { CONTROL_LENGTH_BYTES_MAX } from "../../protocol/control-messages.ts";

export interface ControlChannelOptions {
  /** Called once per frame, in order, with its parsed JSON. What it throws ends the connection. */
  readonly onFrame: (value: unknown) => void;
  /** Called once, when the connection is over; undefined: one of the two sides closed it in good order. */
  readonly onEnd: (error: AppError | undefined) => void;
  /** Longest frame in bytes; default {@link CONTROL_LENGTH_BYTES_MAX}. Small until the other side is known. */
  readonly frameLengthBytesMax?: number;
  /** Unsent bytes at which the other side counts as dead. Default 16 MiB: four of the longest messages. */
  readonly queueBytesMax?: number;
  /** Between heartbeats. Default 5,000. */
  readonly heartbeatMs?: number;
  /** Without a byte, or with a frame begun and not finished, for this long: the connection is dead. Default 15,000. */
  readonly silenceMs?: number;
  /** Monotonic milliseconds. */
  readonly nowMs?: () => number;
}

/** One end of a control connection. Owns the socket from the constructor on. */
export class ControlChannel {
  readonly #socket: Duplex;
  readonly #options: ControlChannelOptions;
  readonly #nowMs: () => number;
  readonly #silenceMs: number;
  readonly #heartbeat: NodeJS.Timeout;
  #frameLengthBytesMax: number;
  #chunks: Buffer[] = [];
  #chunkBytes = 0;
  #heardMs: number;
  /** When the frame that is arriving began; undefined between frames. */
  #frameBegunMs: number | undefined;
  #ended = false;

  /** @param head bytes that came with the upgrade */
  constructor(socket: Duplex, head: Buffer, options: ControlChannelOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#silenceMs = options.silenceMs ?? 15_000;
    this.#frameLengthBytesMax = options.frameLengthBytesMax ?? CONTROL_LENGTH_BYTES_MAX;
    this.#heardMs = this.#nowMs();
    socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    socket.on("error", (cause) => this.#end(new AppError("SUPERNODE_UNREACHABLE", `connection lost: ${cause.message}`, { cause })));
    socket.on("end", () => this.close());
    socket.on("close", () => this.#end(undefined));
    const heartbeatMs = options.heartbeatMs ?? 5_000;
    this.#heartbeat = setInterval(() => this.#onHeartbeat(), heartbeatMs);
    this.#heartbeat.unref();
    // Not at once: the owner must be able to keep the channel before its first frame arrives.
    if (head.length > 0) queueMicrotask(() => this.#onData(head));
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** The other side is known now: messages may be longer. */
  allowFrames(frameLengthBytesMax: number): void {
    this.#frameLengthBytesMax = frameLengthBytesMax;
  }

  /**
   * Queues one message. Does nothing when the connection has ended; ends it when the other side does not keep up.
   * @throws AppError MESSAGE_TOO_LARGE (not retriable) above {@link CONTROL_LENGTH_BYTES_MAX}
   */
  send(value: unknown): void {
    if (this.#ended) return;
    const json = Buffer.from(JSON.stringify(value));
    if (json.length > CONTROL_LENGTH_BYTES_MAX) {
      throw new AppError("MESSAGE_TOO_LARGE", `a control message of ${json.length} bytes exceeds ${CONTROL_LENGTH_BYTES_MAX}`);
    }
    const frame = Buffer.allocUnsafe(4 + json.length);
    frame.writeUInt32BE(json.length, 0);
    json.copy(frame, 4);
    this.#socket.write(frame);
    const queueBytesMax = this.#options.queueBytesMax ?? 4 * CONTROL_LENGTH_BYTES_MAX;
    if (this.#socket.writableLength > queueBytesMax) {
      this.fail(new AppError("TIMEOUT", `the other side has left ${this.#socket.writableLength} bytes unread`));
    }
  }

  /** Ends in good order: what is queued is still sent, for at most a second. */
  close(): void {
    if (this.#ended) return;
    this.#socket.end();
    setTimeout(() => this.#socket.destroy(), 1_000).unref();
    this.#end(undefined);
  }

  /** Ends at once, for a reason that `onEnd` is told. */
  fail(error: AppError): void {
    this.#socket.destroy();
    this.#end(error);
  }

  #onData(chunk: Buffer): void {
    if (this.#ended) return;
    this.#heardMs = this.#nowMs();
    this.#frameBegunMs ??= this.#heardMs;
    this.#chunks.push(chunk);
    this.#chunkBytes += chunk.length;
    try {
      for (let frame = this.#takeFrame(); frame !== undefined; frame = this.#takeFrame()) {
        if (frame.length > 0) this.#options.onFrame(parseJson(frame));
        if (this.#ended) return;
      }
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      this.fail(error);
    }
  }

  /** The next whole frame, or undefined; without copying chunks again and again while a long frame trickles in. */
  #takeFrame(): Buffer | undefined {
    if (this.#chunkBytes < 4) return undefined;
    if ((this.#chunks[0] as Buffer).length < 4) this.#chunks = [Buffer.concat(this.#chunks)];
    const lengthBytes = (this.#chunks[0] as Buffer).readUInt32BE(0);
    if (lengthBytes > this.#frameLengthBytesMax) {
      const max = this.#frameLengthBytesMax;
      throw new AppError("MESSAGE_TOO_LARGE", `a control frame of ${lengthBytes} bytes exceeds ${max}`);
    }
    if (this.#chunkBytes < 4 + lengthBytes) return undefined;
    const all = this.#chunks.length === 1 ? (this.#chunks[0] as Buffer) : Buffer.concat(this.#chunks);
    const rest = all.subarray(4 + lengthBytes);
    this.#chunks = rest.length === 0 ? [] : [rest];
    this.#chunkBytes = rest.length;
    this.#frameBegunMs = rest.length === 0 ? undefined : this.#heardMs;
    return all.subarray(4, 4 + lengthBytes);
  }

  #onHeartbeat(): void {
    const sinceMs = Math.min(this.#heardMs, this.#frameBegunMs ?? this.#heardMs);
    if (this.#nowMs() - sinceMs >= this.#silenceMs) {
      this.fail(new AppError("TIMEOUT", `no whole message for ${this.#silenceMs} ms`));
    } else {
      this.#socket.write(HEARTBEAT);
    }
  }

  #end(error: AppError | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#heartbeat);
    this.#chunks = [];
    this.#options.onEnd(error);
  }
}

/** A message of the wire. @throws AppError PROTOCOL_VIOLATION naming the first field that is wrong */
export function parseMessage<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue === undefined ? "" : `: ${issue.path.map(String).join(".")} ${issue.message}`;
  throw new AppError("PROTOCOL_VIOLATION", `a control message is malformed${where}`);
}

function parseJson(frame: Buffer): unknown {
  try {
    return JSON.parse(frame.toString("utf8")) as unknown;
  } catch {
    throw new AppError("PROTOCOL_VIOLATION", "a control frame is not JSON");
  }
}

const HEARTBEAT = Buffer.alloc(4);
