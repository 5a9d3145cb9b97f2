/** Takes a link's byte stream apart: control frames whole, payload straight to where the piece will be. */
import { AppError } from "../../base/errors.ts";
import {
  DATA_HEADER_BYTES,
  DATA_LENGTH_BYTES_MAX,
  DATA_TYPE_CODE,
  decodeFrame,
  FRAME_HEADER_BYTES,
  FRAME_LENGTH_BYTES_MAX,
  type LinkFrame,
  uint32At,
} from "../../protocol/link-frames.ts";

export interface LinkReaderHandlers {
  frame(frame: LinkFrame): void;
  /** @returns where these payload bytes belong (exactly `length` long), or undefined to drop them */
  payloadTarget(channel: number, piece: number, offset: number, length: number): Uint8Array | undefined;
  /** `bytes` more of this payload are in place; `ended` with its last ones. */
  payload(channel: number, piece: number, bytes: number, ended: boolean): void;
}

/** From here on a payload frame's bytes are worth a read of their own, which puts them where they belong without a copy. */
const BULK_BYTES = 256 * 1024;

interface Payload {
  readonly channel: number;
  readonly piece: number;
  left: number;
  readonly target: Uint8Array | undefined;
  fill: number;
}

export class LinkReader {
  readonly #handlers: LinkReaderHandlers;
  readonly #header = new Uint8Array(FRAME_HEADER_BYTES + DATA_HEADER_BYTES);
  #headerFill = 0;
  #typeCode = 0;
  #body: Uint8Array | undefined;
  #bodyFill = 0;
  #payload: Payload | undefined;
  #isInBulk = false;

  constructor(handlers: LinkReaderHandlers) {
    this.#handlers = handlers;
  }

  /** Payload bytes still to come before anything else can; 0 between frames. */
  get payloadLeft(): number {
    return this.#payload?.left ?? 0;
  }

  /** The last frame was payload of some length, and the next one may well be. */
  get isInBulk(): boolean {
    return this.#isInBulk;
  }

  /**
   * Where the payload that comes next belongs, to be read straight into, and told by {@link placed}. Undefined between
   * frames, and for payload that is dropped.
   */
  get payloadPlace(): Uint8Array | undefined {
    const payload = this.#payload;
    return payload?.target?.subarray(payload.fill);
  }

  /** So many of the stream's next bytes are in {@link payloadPlace} already. */
  placed(bytes: number): void {
    this.#advance(this.#payload as Payload, bytes);
  }

  /**
   * Takes the next bytes of the stream; keeps no reference to `chunk`.
   * @throws AppError PROTOCOL_VIOLATION, MESSAGE_TOO_LARGE: the link is of no more use
   */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#payload !== undefined) at = this.#takePayload(chunk, at);
      else if (this.#body !== undefined) at = this.#takeBody(chunk, at);
      else at = this.#takeHeader(chunk, at);
    }
  }

  #takeHeader(chunk: Uint8Array, start: number): number {
    const isData = this.#headerFill >= FRAME_HEADER_BYTES && this.#header[4] === DATA_TYPE_CODE;
    const wanted = isData ? FRAME_HEADER_BYTES + DATA_HEADER_BYTES : FRAME_HEADER_BYTES;
    const taken = Math.min(wanted - this.#headerFill, chunk.length - start);
    this.#header.set(chunk.subarray(start, start + taken), this.#headerFill);
    this.#headerFill += taken;
    if (this.#headerFill < wanted) return start + taken;
    const length = uint32At(this.#header, 0) - 1;
    this.#typeCode = this.#header[4] as number;
    if (this.#typeCode === DATA_TYPE_CODE) {
      if (length < DATA_HEADER_BYTES || length > DATA_HEADER_BYTES + DATA_LENGTH_BYTES_MAX) {
        throw new AppError("MESSAGE_TOO_LARGE", `a link payload frame claims ${length} bytes`);
      }
      if (this.#headerFill === FRAME_HEADER_BYTES) return start + taken;
      this.#headerFill = 0;
      const channel = uint32At(this.#header, 5);
      const piece = uint32At(this.#header, 9);
      const offset = uint32At(this.#header, 13);
      const left = length - DATA_HEADER_BYTES;
      this.#isInBulk = left >= BULK_BYTES;
      if (left > 0) {
        const target = this.#handlers.payloadTarget(channel, piece, offset, left);
        this.#payload = { channel, piece, left, target, fill: 0 };
      }
      return start + taken;
    }
    if (length < 0 || length > FRAME_LENGTH_BYTES_MAX) {
      throw new AppError("MESSAGE_TOO_LARGE", `a link frame claims ${length} bytes`);
    }
    this.#headerFill = 0;
    const after = start + taken;
    if (chunk.length - after >= length) {
      this.#deliver(chunk.subarray(after, after + length));
      return after + length;
    }
    this.#body = new Uint8Array(length);
    this.#bodyFill = 0;
    return after;
  }

  #takeBody(chunk: Uint8Array, start: number): number {
    const body = this.#body as Uint8Array;
    const taken = Math.min(body.length - this.#bodyFill, chunk.length - start);
    body.set(chunk.subarray(start, start + taken), this.#bodyFill);
    this.#bodyFill += taken;
    if (this.#bodyFill === body.length) {
      this.#body = undefined;
      this.#deliver(body);
    }
    return start + taken;
  }

  #takePayload(chunk: Uint8Array, start: number): number {
    const payload = this.#payload as Payload;
    const taken = Math.min(payload.left, chunk.length - start);
    payload.target?.set(chunk.subarray(start, start + taken), payload.fill);
    this.#advance(payload, taken);
    return start + taken;
  }

  #advance(payload: Payload, bytes: number): void {
    payload.fill += bytes;
    payload.left -= bytes;
    const ended = payload.left === 0;
    if (ended) this.#payload = undefined;
    this.#handlers.payload(payload.channel, payload.piece, bytes, ended);
  }

  #deliver(body: Uint8Array): void {
    const frame = decodeFrame(this.#typeCode, body);
    if (frame !== undefined) this.#handlers.frame(frame);
  }
}
