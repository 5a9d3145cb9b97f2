/**
 * The frame of all append-only files of the store, little-endian:
 *
 *     payload length u32, CRC-32 of the payload u32, payload: kind u8, then what that kind says
 *
 * A frame that is cut or damaged ends its file: whatever follows was never acknowledged.
 */
import { crc32 } from "node:zlib";

const HEAD_LENGTH_BYTES = 8;
/** No payload comes near it; a larger length is a torn or foreign frame. */
const PAYLOAD_LENGTH_BYTES_MAX = 1024 * 1024;

/** Length of a frame around a body (what follows the kind) of so many bytes. */
export function frameLengthOf(bodyLengthBytes: number): number {
  return HEAD_LENGTH_BYTES + 1 + bodyLengthBytes;
}

export function encodeFrame(kind: number, ...parts: readonly Uint8Array[]): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(HEAD_LENGTH_BYTES), Buffer.of(kind), ...parts]);
  const payload = bytes.subarray(HEAD_LENGTH_BYTES);
  bytes.writeUInt32LE(payload.length, 0);
  bytes.writeUInt32LE(crc32(payload), 4);
  return bytes;
}

/** Length of the frame whose head starts at `at`, head included; undefined when the head is cut or impossible. */
export function frameLengthAt(bytes: Buffer, at: number): number | undefined {
  if (at + HEAD_LENGTH_BYTES > bytes.length) return undefined;
  const payloadLength = bytes.readUInt32LE(at);
  return payloadLength === 0 || payloadLength > PAYLOAD_LENGTH_BYTES_MAX ? undefined : HEAD_LENGTH_BYTES + payloadLength;
}

/** The payload of the frame at `at`, not copied; undefined when it is cut or damaged. */
export function payloadAt(bytes: Buffer, at: number): Buffer | undefined {
  const length = frameLengthAt(bytes, at);
  if (length === undefined || at + length > bytes.length) return undefined;
  const payload = bytes.subarray(at + HEAD_LENGTH_BYTES, at + length);
  return crc32(payload) === bytes.readUInt32LE(at + 4) ? payload : undefined;
}
