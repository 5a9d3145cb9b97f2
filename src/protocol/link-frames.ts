/**
 * The link between two peers, after the HTTP upgrade: frames of [length u32][type u8][body], big endian, `length`
 * counting type and body. Payload follows its header raw. Unknown types are skipped; a body longer than its known
 * fields is accepted (later versions append). docs/protocol.md is the prose form.
 *
 * A task is named on a link by a channel: a number its sender chose in `join`. Each side numbers its own.
 */
import { AppError } from "../base/errors.ts";
import { PIECE_COUNT_MAX } from "./geometry.ts";
import { isTaskId, type TaskId } from "./ids.ts";
import { type Buckets, type Topology, topologyOf } from "./topology.ts";

export const LINK_PROTOCOL = "dragonfly-link/3";
/** The longest frame body but for payload frames: a have-set of 2²⁴ pieces and a ticket. */
export const FRAME_LENGTH_BYTES_MAX: number = 2 * 1024 * 1024 + 4096;
/** The longest payload of one `data` frame. Control frames wait behind at most one of these on the same link. */
export const DATA_LENGTH_BYTES_MAX: number = 1024 * 1024;
export const FRAME_HEADER_BYTES = 5;
/** Body bytes of a `data` frame before its payload: channel, piece, offset. */
export const DATA_HEADER_BYTES = 12;

/** BLAKE3-256 digest of a piece, and an Ed25519 signature of the supernode. */
export const PIECE_DIGEST_BYTES = 32;
export const SIGNATURE_BYTES = 64;
/** Of pieces signed together each signature has a path beside it. Source: docs/protocol.md, "Signatures". */
export const PIECE_SIGNATURE_BYTES_MAX: number = SIGNATURE_BYTES + 2 + 4 * 32;

/** In a `proof`'s body: behind the digest stands how long the signature is. */
const SIGNATURE_OFFSET = 12 + PIECE_DIGEST_BYTES + 1;

/** Most pieces that one offer may name. */
export const OFFER_PIECES_MAX = 16;

/** Why an offer is declined; the number is on the wire. */
export const DECLINE_REASONS = ["have", "taking", "busy", "unwanted"] as const;
export type DeclineReason = (typeof DECLINE_REASONS)[number];

export type LinkFrame =
  /** Handshake step: UTF-8 JSON of a `HandshakeStep` (handshake.ts). */
  | { readonly type: "handshake"; readonly json: Uint8Array }
  /** I take part in this task on this link. `have` is PieceSet's wire form; `lengthBytes` undefined = unknown yet. */
  | {
      readonly type: "join";
      readonly channel: number;
      readonly taskId: TaskId;
      readonly ticket: string;
      readonly have: Uint8Array;
    }
  | { readonly type: "leave"; readonly channel: number }
  /** I hold these pieces, or have agreed to take them: they need not be offered to me. */
  | { readonly type: "have"; readonly channel: number; readonly pieces: readonly number[] }
  /** I hold these pieces no longer, or they come late or not at all: they may be offered to me. */
  | { readonly type: "lost"; readonly channel: number; readonly pieces: readonly number[] }
  /** How many transfers I am receiving or have agreed to, and how many I can take, over all tasks and links. */
  | { readonly type: "status"; readonly incoming: number; readonly capacity: number }
  /** My reader is blocked on these pieces, most urgent first; replaces the former list. */
  | { readonly type: "want"; readonly channel: number; readonly pieces: readonly number[] }
  /** I would send one of these now, best first. */
  | { readonly type: "offer"; readonly channel: number; readonly pieces: readonly number[] }
  /** This one of the offer that names it. */
  | { readonly type: "accept"; readonly channel: number; readonly piece: number }
  /** Goes before a piece's payload: what the supernode signed of it. */
  | {
      readonly type: "proof";
      readonly channel: number;
      readonly piece: number;
      readonly lengthBytes: number;
      readonly digest: Uint8Array;
      readonly signature: Uint8Array;
    }
  /** None of the offer whose first piece this is. */
  | { readonly type: "decline"; readonly channel: number; readonly piece: number; readonly reason: DeclineReason }
  /** The receiver gives this transfer up. */
  | { readonly type: "cancel"; readonly channel: number; readonly piece: number }
  /** The sender gives it up; no more of its payload follows. */
  | { readonly type: "withdraw"; readonly channel: number; readonly piece: number }
  /** The file's length, signed by the supernode (see `lengthStatement`). */
  | { readonly type: "length"; readonly channel: number; readonly lengthBytes: number; readonly signature: Uint8Array }
  /** A newer ticket than the one shown at `join`; its sender's channel. */
  | { readonly type: "ticket"; readonly channel: number; readonly ticket: string }
  /** Where I stand: before any join, and again when that changes. */
  | { readonly type: "place"; readonly topology: Topology }
  /** Of this task I take over this link only what is in these buckets; before I say so, everything. */
  | { readonly type: "imports"; readonly channel: number; readonly buckets: Buckets }
  | { readonly type: "ping" }
  | { readonly type: "pong" };

/** `accept`, `decline` and `cancel` name the offering side's channel; every other frame its sender's. */
const TYPE_CODES = {
  handshake: 1,
  join: 2,
  leave: 3,
  have: 4,
  status: 5,
  want: 6,
  offer: 7,
  accept: 8,
  decline: 9,
  data: 10,
  cancel: 11,
  length: 12,
  ping: 13,
  pong: 14,
  withdraw: 15,
  proof: 16,
  lost: 17,
  ticket: 18,
  place: 19,
  imports: 20,
} as const;

/** Frames whose body is a channel and pieces. */
const PIECES_TYPES = {
  [TYPE_CODES.have]: "have",
  [TYPE_CODES.lost]: "lost",
  [TYPE_CODES.want]: "want",
  [TYPE_CODES.offer]: "offer",
} as const;

export const DATA_TYPE_CODE: number = TYPE_CODES.data;

export function encodeFrame(frame: LinkFrame): Uint8Array {
  switch (frame.type) {
    case "handshake": {
      const out = start(TYPE_CODES.handshake, frame.json.length);
      out.set(frame.json, FRAME_HEADER_BYTES);
      return out;
    }
    case "join": {
      const ticket = encodeAscii(frame.ticket);
      const out = start(TYPE_CODES.join, 4 + 32 + 2 + ticket.length + frame.have.length);
      setUint32(out, 5, frame.channel);
      out.set(hexToBytes(frame.taskId), 9);
      setUint16(out, 41, ticket.length);
      out.set(ticket, 43);
      out.set(frame.have, 43 + ticket.length);
      return out;
    }
    case "have":
    case "lost":
    case "want":
    case "offer": {
      const out = start(TYPE_CODES[frame.type], 4 + frame.pieces.length * 4);
      setUint32(out, 5, frame.channel);
      frame.pieces.forEach((piece, i) => setUint32(out, 9 + i * 4, piece));
      return out;
    }
    case "status": {
      const out = start(TYPE_CODES.status, 4);
      setUint16(out, 5, frame.incoming);
      setUint16(out, 7, frame.capacity);
      return out;
    }
    case "proof": {
      const out = start(TYPE_CODES.proof, SIGNATURE_OFFSET + frame.signature.length);
      setUint32(out, 5, frame.channel);
      setUint32(out, 9, frame.piece);
      setUint32(out, 13, frame.lengthBytes);
      out.set(frame.digest, 17);
      out[17 + PIECE_DIGEST_BYTES] = frame.signature.length;
      out.set(frame.signature, 5 + SIGNATURE_OFFSET);
      return out;
    }
    case "accept":
    case "cancel":
    case "withdraw": {
      const out = start(TYPE_CODES[frame.type], 8);
      setUint32(out, 5, frame.channel);
      setUint32(out, 9, frame.piece);
      return out;
    }
    case "decline": {
      const out = start(TYPE_CODES.decline, 9);
      setUint32(out, 5, frame.channel);
      setUint32(out, 9, frame.piece);
      out[13] = DECLINE_REASONS.indexOf(frame.reason);
      return out;
    }
    case "length": {
      const out = start(TYPE_CODES.length, 12 + SIGNATURE_BYTES);
      setUint32(out, 5, frame.channel);
      setUint64(out, 9, frame.lengthBytes);
      out.set(frame.signature, 17);
      return out;
    }
    case "leave": {
      const out = start(TYPE_CODES.leave, 4);
      setUint32(out, 5, frame.channel);
      return out;
    }
    case "ticket": {
      const ticket = encodeAscii(frame.ticket);
      const out = start(TYPE_CODES.ticket, 4 + 2 + ticket.length);
      setUint32(out, 5, frame.channel);
      setUint16(out, 9, ticket.length);
      out.set(ticket, 11);
      return out;
    }
    case "place": {
      const json = encodeAscii(JSON.stringify(frame.topology).replace(/[\u0080-\uffff]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`));
      const out = start(TYPE_CODES.place, 2 + json.length);
      setUint16(out, 5, json.length);
      out.set(json, 7);
      return out;
    }
    case "imports": {
      const out = start(TYPE_CODES.imports, 8);
      setUint32(out, 5, frame.channel);
      setUint32(out, 9, frame.buckets);
      return out;
    }
    case "ping":
    case "pong":
      return start(TYPE_CODES[frame.type], 0);
  }
}

/** Frame and body header of a `data` frame whose `payloadBytes` follow raw. */
export function encodeDataHeader(channel: number, piece: number, offset: number, payloadBytes: number): Uint8Array {
  const out = new Uint8Array(FRAME_HEADER_BYTES + DATA_HEADER_BYTES);
  setUint32(out, 0, 1 + DATA_HEADER_BYTES + payloadBytes);
  out[4] = TYPE_CODES.data;
  setUint32(out, 5, channel);
  setUint32(out, 9, piece);
  setUint32(out, 13, offset);
  return out;
}

/**
 * Decodes a frame's type and body (`data` frames are taken apart by the receiver as they arrive).
 *
 * The result may refer to `body`: copy what outlives the call.
 * @returns undefined for a type this version does not know
 * @throws AppError PROTOCOL_VIOLATION for a body that is too short or holds impossible values
 */
export function decodeFrame(typeCode: number, body: Uint8Array): LinkFrame | undefined {
  const need = (bytes: number): void => {
    if (body.length < bytes) {
      throw new AppError("PROTOCOL_VIOLATION", `link frame of type ${typeCode} has ${body.length} bytes, needs ${bytes}`);
    }
  };
  switch (typeCode) {
    case TYPE_CODES.handshake:
      return { type: "handshake", json: body };
    case TYPE_CODES.join: {
      need(38);
      const taskId = bytesToHex(body.subarray(4, 36));
      const ticketBytes = uint16At(body, 36);
      need(38 + ticketBytes);
      if (!isTaskId(taskId)) throw new AppError("PROTOCOL_VIOLATION", "link frame join carries no task id");
      return {
        type: "join",
        channel: uint32At(body, 0),
        taskId,
        ticket: decodeAscii(body.subarray(38, 38 + ticketBytes)),
        have: body.subarray(38 + ticketBytes),
      };
    }
    case TYPE_CODES.leave:
      need(4);
      return { type: "leave", channel: uint32At(body, 0) };
    case TYPE_CODES.have:
    case TYPE_CODES.lost:
    case TYPE_CODES.want:
    case TYPE_CODES.offer: {
      need(typeCode === TYPE_CODES.offer ? 8 : 4);
      const pieces: number[] = [];
      const endByte = typeCode === TYPE_CODES.offer ? Math.min(body.length, 4 + OFFER_PIECES_MAX * 4) : body.length;
      for (let at = 4; at + 4 <= endByte; at += 4) pieces.push(checkedPiece(uint32At(body, at)));
      const type = PIECES_TYPES[typeCode];
      return { type, channel: uint32At(body, 0), pieces };
    }
    case TYPE_CODES.status:
      need(4);
      return { type: "status", incoming: uint16At(body, 0), capacity: uint16At(body, 2) };
    case TYPE_CODES.proof: {
      need(SIGNATURE_OFFSET + SIGNATURE_BYTES);
      const signatureBytes = (body[SIGNATURE_OFFSET - 1] as number);
      if (signatureBytes < SIGNATURE_BYTES || signatureBytes > PIECE_SIGNATURE_BYTES_MAX) {
        throw new AppError("PROTOCOL_VIOLATION", `link frame proof has a signature of ${signatureBytes} bytes`);
      }
      const signatureEndByte = SIGNATURE_OFFSET + signatureBytes;
      need(signatureEndByte);
      return {
        type: "proof",
        channel: uint32At(body, 0),
        piece: checkedPiece(uint32At(body, 4)),
        lengthBytes: uint32At(body, 8),
        digest: copyOf(body, 12, 12 + PIECE_DIGEST_BYTES),
        signature: copyOf(body, SIGNATURE_OFFSET, signatureEndByte),
      };
    }
    case TYPE_CODES.accept:
    case TYPE_CODES.cancel:
    case TYPE_CODES.withdraw:
      need(8);
      return {
        type: typeCode === TYPE_CODES.accept ? "accept" : typeCode === TYPE_CODES.cancel ? "cancel" : "withdraw",
        channel: uint32At(body, 0),
        piece: checkedPiece(uint32At(body, 4)),
      };
    case TYPE_CODES.decline:
      need(9);
      return {
        type: "decline",
        channel: uint32At(body, 0),
        piece: checkedPiece(uint32At(body, 4)),
        // A reason of a later version is as good as "unwanted".
        reason: DECLINE_REASONS[(body[8] as number)] ?? "unwanted",
      };
    case TYPE_CODES.length: {
      need(12 + SIGNATURE_BYTES);
      const lengthBytes = uint64At(body, 4);
      if (!Number.isSafeInteger(lengthBytes)) throw new AppError("PROTOCOL_VIOLATION", "link frame length is impossible");
      return { type: "length", channel: uint32At(body, 0), lengthBytes, signature: copyOf(body, 12, 12 + SIGNATURE_BYTES) };
    }
    case TYPE_CODES.ticket: {
      need(6);
      const ticketBytes = uint16At(body, 4);
      need(6 + ticketBytes);
      return { type: "ticket", channel: uint32At(body, 0), ticket: decodeAscii(body.subarray(6, 6 + ticketBytes)) };
    }
    case TYPE_CODES.place: {
      need(2);
      const jsonBytes = uint16At(body, 0);
      need(2 + jsonBytes);
      return { type: "place", topology: topologyIn(body.subarray(2, 2 + jsonBytes)) };
    }
    case TYPE_CODES.imports:
      need(8);
      return { type: "imports", channel: uint32At(body, 0), buckets: uint32At(body, 4) | 0 };
    case TYPE_CODES.ping:
      return { type: "ping" };
    case TYPE_CODES.pong:
      return { type: "pong" };
    default:
      return undefined;
  }
}

/** What the supernode signs for a piece: the bytes both sides build alike. */
export function pieceStatement(taskId: TaskId, piece: number, lengthBytes: number, digest: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(16 + 32 + 8 + digest.length);
  bytes.set(PIECE_STATEMENT, 0);
  bytes.set(hexToBytes(taskId), 16);
  setUint32(bytes, 48, piece);
  setUint32(bytes, 52, lengthBytes);
  bytes.set(digest, 56);
  return bytes;
}

/** What the supernode signs for several pieces of a task: the root of the tree over their statements. */
export function treeStatement(count: number, root: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(16 + 4 + root.length);
  bytes.set(TREE_STATEMENT, 0);
  setUint32(bytes, 16, count);
  bytes.set(root, 20);
  return bytes;
}

/** What the supernode signs for a file's length. */
export function lengthStatement(taskId: TaskId, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(16 + 32 + 8);
  bytes.set(LENGTH_STATEMENT, 0);
  bytes.set(hexToBytes(taskId), 16);
  setUint64(bytes, 48, lengthBytes);
  return bytes;
}

function start(typeCode: number, bodyBytes: number): Uint8Array {
  const out = new Uint8Array(FRAME_HEADER_BYTES + bodyBytes);
  setUint32(out, 0, 1 + bodyBytes);
  out[4] = typeCode;
  return out;
}

// By hand: a DataView takes V8's short arrays off its heap, which costs more than all else about a frame.

function setUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

function setUint16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

function setUint64(bytes: Uint8Array, at: number, value: number): void {
  setUint32(bytes, at, Math.floor(value / 2 ** 32));
  setUint32(bytes, at + 4, value % 2 ** 32);
}

/** Callers have seen to it that so many bytes are there. */
export function uint32At(bytes: Uint8Array, at: number): number {
  return (((bytes[at] as number) << 24) | ((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number)) >>> 0;
}

function uint16At(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
}

function uint64At(bytes: Uint8Array, at: number): number {
  return uint32At(bytes, at) * 2 ** 32 + uint32At(bytes, at + 4);
}

// Not `slice`: on a Node Buffer that is a view, and the buffer is reused for the next read.
function copyOf(bytes: Uint8Array, start: number, end: number): Uint8Array {
  return new Uint8Array(bytes.subarray(start, end));
}

/** A label that is no short text is left out, as one of a later version. */
function topologyIn(json: Uint8Array): Topology {
  let value: unknown;
  try {
    value = JSON.parse(decodeAscii(json));
  } catch {
    throw new AppError("PROTOCOL_VIOLATION", "link frame place carries no JSON");
  }
  const labels = Object.entries(value ?? {}).filter(([, label]) => typeof label === "string" && label.length <= LABEL_LENGTH_MAX);
  return topologyOf(Object.fromEntries(labels) as Record<string, string>);
}

/** As in `register`. */
const LABEL_LENGTH_MAX = 256;

function checkedPiece(index: number): number {
  if (index >= PIECE_COUNT_MAX) throw new AppError("PROTOCOL_VIOLATION", `piece index ${index} is beyond the largest file`);
  return index;
}

export function hexToBytes(hex: string): Uint8Array {
  const bytes = new Uint8Array(hex.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = (nibbleAt(hex, i * 2) << 4) | nibbleAt(hex, i * 2 + 1);
  return bytes;
}

function nibbleAt(hex: string, at: number): number {
  const code = hex.charCodeAt(at);
  // Digits below, letters above; of letters the low four bits are 1 … 6.
  return code < 0x40 ? code & 15 : (code & 15) + 9;
}

export function bytesToHex(bytes: Uint8Array): string {
  let hex = "";
  for (const byte of bytes) hex += byte.toString(16).padStart(2, "0");
  return hex;
}

// Tickets and labels are ASCII; the pure folders see no TextEncoder (it belongs to the DOM library).
function encodeAscii(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i) & 0x7f;
  return bytes;
}

function decodeAscii(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte & 0x7f);
  return text;
}

const PIECE_STATEMENT = encodeAscii("dragonfly/piece1");
const TREE_STATEMENT = encodeAscii("dragonfly/ptree1");
const LENGTH_STATEMENT = encodeAscii("dragonfly/lengt1");
