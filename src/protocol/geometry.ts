import { assert } from "../base/assert.ts";

const KIB = 1024;

/** Content up to this length travels inline in the join's answer. Source: swarm.md §4 (one round trip beats a mesh). */
export const INLINE_LENGTH_BYTES_MAX: number = 64 * KIB;
/** Bounds of a piece. The upper one also bounds what a receiver must buffer before it can verify. */
export const PIECE_LENGTH_BYTES_MIN: number = 64 * KIB;
export const PIECE_LENGTH_BYTES_MAX: number = 8192 * KIB;
/** Piece length while the file's length is unknown: a guess that suits 100 MiB to 4 GiB. */
export const PIECE_LENGTH_BYTES_UNKNOWN: number = 1024 * KIB;
/** Keeps a have-set within 2 MiB. */
export const PIECE_COUNT_MAX: number = 2 ** 24;
/** The longest file. */
export const FILE_LENGTH_BYTES_MAX: number = PIECE_LENGTH_BYTES_MAX * PIECE_COUNT_MAX;

/**
 * Piece length in bytes for a file: the power of two near length ÷ 1024 within 1 … 8 MiB, near length ÷ 2048 within
 * 128 … 256 KiB, because a swarm needs pieces to trade and each piece costs CPU; 64 KiB for files that would have fewer than some
 * 700 pieces so. (Of 512 KiB no file is: 717 MiB is where 256 KiB are too many pieces and 1 MiB are enough.) Source: docs/policy.md, "Piece length".
 *
 * @param lengthBytes the file's length, or undefined while unknown
 */
export function pieceLengthFor(lengthBytes: number | undefined): number {
  if (lengthBytes === undefined) return PIECE_LENGTH_BYTES_UNKNOWN;
  let pieceLengthBytes = PIECE_LENGTH_BYTES_MIN;
  while (pieceLengthBytes < PIECE_LENGTH_BYTES_MAX) {
    // The nearest power of two, by ratio: up to 1/√2 of what is wanted.
    if (lengthBytes / (pieceLengthBytes * 2) < wantedCountOf(pieceLengthBytes) * 0.7) break;
    pieceLengthBytes *= 2;
  }
  return pieceLengthBytes;
}

/** How many pieces of twice this length a file should have before its pieces become so long. */
function wantedCountOf(pieceLengthBytes: number): number {
  return pieceLengthBytes >= 128 * KIB && pieceLengthBytes < 512 * KIB ? 2048 : 1024;
}

/** True when a peer may use `pieceLengthBytes` from the wire: a power of two within the bounds. */
export function isPieceLength(pieceLengthBytes: number): boolean {
  return (
    Number.isInteger(pieceLengthBytes) &&
    pieceLengthBytes >= PIECE_LENGTH_BYTES_MIN &&
    pieceLengthBytes <= PIECE_LENGTH_BYTES_MAX &&
    (pieceLengthBytes & (pieceLengthBytes - 1)) === 0
  );
}

export function isFileLength(lengthBytes: number): boolean {
  return Number.isSafeInteger(lengthBytes) && lengthBytes >= 0 && lengthBytes <= FILE_LENGTH_BYTES_MAX;
}

export function pieceCountOf(lengthBytes: number, pieceLengthBytes: number): number {
  return Math.ceil(lengthBytes / pieceLengthBytes);
}

/** Length in bytes of piece `index`; all have `pieceLengthBytes` but the last. */
export function pieceLengthAt(index: number, lengthBytes: number, pieceLengthBytes: number): number {
  const startByte = index * pieceLengthBytes;
  assert(index >= 0 && startByte < lengthBytes, `piece ${index} outside a file of ${lengthBytes} bytes`);
  return Math.min(pieceLengthBytes, lengthBytes - startByte);
}
