/**
 * What dfdaemon and the programs of its host say to each other after the upgrade of `GET /v1/content` on the local
 * socket: frames of [length u32][type u8][body], big endian, `length` counting type and body. JSON but for `bytes`, whose
 * body is [start byte u64] and then content, raw, and `held`, whose body is [start byte u64][end byte u64]: what lies in
 * the file that `info` named, each byte at its own place. Any dfget meets the dfdaemon of its own package only, but may be
 * older or newer: unknown types are skipped, and another protocol has another name.
 */
import { AppError } from "../base/errors.ts";

export const LOCAL_CONTENT_PROTOCOL = "dragonfly-content/1";

/**
 * `request` goes to the daemon, and `place` where `info` named a file: whether the caller has it open. Of the others `info`
 * comes once and first, and `end` once and last.
 */
export const LOCAL_FRAME_TYPES = { request: 1, info: 2, bytes: 3, status: 4, end: 5, held: 6, place: 7 } as const;
export type LocalFrameType = keyof typeof LOCAL_FRAME_TYPES;
export type LocalJsonType = Exclude<LocalFrameType, "bytes" | "held">;

/** A request carries the caller's headers for the origin. */
export const LOCAL_JSON_LENGTH_BYTES_MAX: number = 1024 * 1024;
/** Content of one `bytes` frame: a piece of the largest length. */
const LOCAL_CONTENT_LENGTH_BYTES_MAX = 8 * 1024 * 1024;
const HEADER_BYTES = 5;
const START_BYTES = 8;
const HELD_BYTES = 16;

/** @param json UTF-8 */
export function encodeLocalFrame(type: LocalJsonType, json: Uint8Array): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + json.length);
  const view = new DataView(frame.buffer);
  view.setUint32(0, 1 + json.length);
  view.setUint8(4, LOCAL_FRAME_TYPES[type]);
  frame.set(json, HEADER_BYTES);
  return frame;
}

/** What stands before `lengthBytes` bytes of content that belong at `startByte` of the file. */
export function encodeLocalBytesHeader(startByte: number, lengthBytes: number): Uint8Array {
  const header = new Uint8Array(HEADER_BYTES + START_BYTES);
  const view = new DataView(header.buffer);
  view.setUint32(0, 1 + START_BYTES + lengthBytes);
  view.setUint8(4, LOCAL_FRAME_TYPES.bytes);
  view.setBigUint64(5, BigInt(startByte));
  return header;
}

/** Bytes [startByte, endByte) lie in the file. */
export function encodeLocalHeld(startByte: number, endByte: number): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + HELD_BYTES);
  const view = new DataView(frame.buffer);
  view.setUint32(0, 1 + HELD_BYTES);
  view.setUint8(4, LOCAL_FRAME_TYPES.held);
  view.setBigUint64(5, BigInt(startByte));
  view.setBigUint64(13, BigInt(endByte));
  return frame;
}

export interface LocalFrameHandlers {
  /** A whole frame of one of the JSON types. `json` is the handler's. */
  json(type: LocalJsonType, json: Uint8Array): void;
  /** Content as it comes, in parts of any length. `bytes` is a view of what was pushed. */
  bytes(startByte: number, bytes: Uint8Array): void;
  /** Content that lies in the file. */
  held(startByte: number, endByte: number): void;
}

/** Takes the byte stream apart. */
export class LocalFrameReader {
  readonly #handlers: LocalFrameHandlers;
  /** Header, or a JSON frame's body, as far as it has come. */
  #part: Uint8Array = new Uint8Array(HEADER_BYTES);
  #partFill = 0;
  #state: "header" | "json" | "skipped" | "start" | "bytes" | "held" = "header";
  #typeCode = 0;
  #leftBytes = 0;
  #startByte = 0;

  constructor(handlers: LocalFrameHandlers) {
    this.#handlers = handlers;
  }

  /**
   * Takes the next bytes of the stream; keeps no reference to `chunk`.
   * @throws AppError MESSAGE_TOO_LARGE, PROTOCOL_VIOLATION: the connection is of no more use
   */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#state === "bytes" || this.#state === "skipped") at = this.#takeRaw(chunk, at);
      else at = this.#takePart(chunk, at);
    }
  }

  #takeRaw(chunk: Uint8Array, at: number): number {
    const count = Math.min(this.#leftBytes, chunk.length - at);
    const { startByte, bytes } = { startByte: this.#startByte, bytes: chunk.subarray(at, at + count) };
    const isContent = this.#state === "bytes";
    this.#startByte += count;
    this.#leftBytes -= count;
    if (this.#leftBytes === 0) this.#expect("header", HEADER_BYTES);
    if (isContent) this.#handlers.bytes(startByte, bytes);
    return at + count;
  }

  #takePart(chunk: Uint8Array, at: number): number {
    const count = Math.min(this.#part.length - this.#partFill, chunk.length - at);
    this.#part.set(chunk.subarray(at, at + count), this.#partFill);
    this.#partFill += count;
    if (this.#partFill === this.#part.length) this.#partDone(this.#part);
    return at + count;
  }

  #partDone(part: Uint8Array): void {
    const view = new DataView(part.buffer);
    switch (this.#state) {
      case "header":
        return this.#begin(view.getUint8(4), view.getUint32(0) - 1);
      case "held": {
        const [startByte, endByte] = [byteAt(view, 0), byteAt(view, 8)];
        if (startByte > endByte) throw new AppError("PROTOCOL_VIOLATION", "a local frame's range ends before it starts");
        this.#expect("header", HEADER_BYTES);
        this.#handlers.held(startByte, endByte);
        return;
      }
      case "start": {
        this.#startByte = byteAt(view, 0);
        this.#state = "bytes";
        if (this.#leftBytes === 0) this.#expect("header", HEADER_BYTES);
        return;
      }
      default: {
        const type = nameOf(this.#typeCode);
        this.#expect("header", HEADER_BYTES);
        if (type !== undefined && type !== "bytes" && type !== "held") this.#handlers.json(type, part);
      }
    }
  }

  #begin(typeCode: number, lengthBytes: number): void {
    const type = nameOf(typeCode);
    const isContent = type === "bytes";
    const maxBytes = isContent ? START_BYTES + LOCAL_CONTENT_LENGTH_BYTES_MAX : LOCAL_JSON_LENGTH_BYTES_MAX;
    if (lengthBytes < (isContent ? START_BYTES : 0) || lengthBytes > maxBytes) {
      throw new AppError("MESSAGE_TOO_LARGE", `a local frame of type ${typeCode} claims ${lengthBytes} bytes`);
    }
    this.#typeCode = typeCode;
    if (type === "held" && lengthBytes !== HELD_BYTES) throw new AppError("PROTOCOL_VIOLATION", `a local frame's range has ${lengthBytes} bytes`);
    this.#leftBytes = isContent ? lengthBytes - START_BYTES : lengthBytes;
    if (type === "held") this.#expect("held", HELD_BYTES);
    else if (isContent) this.#expect("start", START_BYTES);
    else if (lengthBytes === 0) this.#expect("header", HEADER_BYTES);
    else if (type === undefined) this.#state = "skipped";
    else this.#expect("json", lengthBytes);
  }

  #expect(state: "header" | "json" | "start" | "held", bytes: number): void {
    this.#state = state;
    this.#part = new Uint8Array(bytes);
    this.#partFill = 0;
  }
}

/** @throws AppError PROTOCOL_VIOLATION */
function byteAt(view: DataView, offset: number): number {
  const byte = Number(view.getBigUint64(offset));
  if (!Number.isSafeInteger(byte)) throw new AppError("PROTOCOL_VIOLATION", "a local frame's place in the file is impossible");
  return byte;
}

function nameOf(typeCode: number): LocalFrameType | undefined {
  switch (typeCode) {
    case LOCAL_FRAME_TYPES.request:
      return "request";
    case LOCAL_FRAME_TYPES.info:
      return "info";
    case LOCAL_FRAME_TYPES.bytes:
      return "bytes";
    case LOCAL_FRAME_TYPES.status:
      return "status";
    case LOCAL_FRAME_TYPES.end:
      return "end";
    case LOCAL_FRAME_TYPES.held:
      return "held";
    case LOCAL_FRAME_TYPES.place:
      return "place";
    default:
      return undefined;
  }
}
