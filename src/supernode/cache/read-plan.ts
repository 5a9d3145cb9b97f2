/** What is to be read of an origin, and in which portions. */
import { pieceCountOf } from "../../protocol/geometry.ts";
import type { PieceSet } from "../../protocol/piece-set.ts";

/** Contiguous missing pieces [firstPiece, endPiece): one ranged request. */
export interface Span {
  readonly firstPiece: number;
  readonly endPiece: number;
}

/** Below this length one stream is as good: the others would only be warm when it is over. */
const PARALLEL_LENGTH_BYTES_MIN = 64 * 1024 * 1024;
/** A span is worth its round trip. Both: bench of the data plane will say better; brief values until then. */
const SPAN_LENGTH_BYTES_MIN = 16 * 1024 * 1024;
/** Keeps the number of requests for huge files near this. */
const SPAN_COUNT_WANTED = 64;
const STREAM_COUNT_MAX = 4;

/**
 * The missing pieces, lowest first, in spans that several streams can share.
 *
 * @param asksEarly true: as few as there are streams, so that all are asked for in the beginning. For rights that may end
 *   before the read does
 */
export function planSpans(have: PieceSet, lengthBytes: number, pieceLengthBytes: number, asksEarly: boolean): readonly Span[] {
  const pieceCount = pieceCountOf(lengthBytes, pieceLengthBytes);
  const spanCountWanted = asksEarly ? STREAM_COUNT_MAX : SPAN_COUNT_WANTED;
  const wantedBytes = Math.max(SPAN_LENGTH_BYTES_MIN, Math.ceil(lengthBytes / spanCountWanted));
  const spanPieces =
    lengthBytes < PARALLEL_LENGTH_BYTES_MIN ? pieceCount : Math.max(1, Math.ceil(wantedBytes / pieceLengthBytes));
  const spans: Span[] = [];
  let piece = have.firstMissing();
  while (piece < pieceCount) {
    let endPiece = piece + 1;
    while (endPiece < pieceCount && endPiece - piece < spanPieces && !have.has(endPiece)) endPiece++;
    spans.push({ firstPiece: piece, endPiece });
    piece = have.firstMissing(endPiece);
  }
  return spans;
}

/** How many streams may read at a time. */
export function streamCountFor(lengthBytes: number): number {
  return lengthBytes < PARALLEL_LENGTH_BYTES_MIN ? 1 : STREAM_COUNT_MAX;
}

/** The highest piece below `pieceCount` that is not in `have`; undefined when all are. */
export function lastMissing(have: PieceSet, pieceCount: number): number | undefined {
  for (let piece = pieceCount - 1; piece >= 0; piece--) if (!have.has(piece)) return piece;
  return undefined;
}
