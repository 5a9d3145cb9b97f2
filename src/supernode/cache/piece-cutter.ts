/** Cuts an origin's stream into pieces. */
import { AppError } from "../../base/errors.ts";
import { pieceLengthAt } from "../../protocol/geometry.ts";
import type { BufferShare, PieceBuffer } from "./buffer-pool.ts";

export interface CutPiece {
  readonly piece: number;
  /** The piece's bytes, at the start of `buffer`. */
  readonly bytes: Uint8Array;
  /** The taker's from here on. */
  readonly buffer: PieceBuffer;
}

export interface CutOptions {
  /** Starts at the first byte of `firstPiece`. Destroyed when the cutting ends early. */
  readonly body: AsyncIterable<Uint8Array>;
  readonly firstPiece: number;
  /** Exclusive; undefined: to the end of the file. */
  readonly endPiece: number | undefined;
  readonly pieceLengthBytes: number;
  /** Undefined: as long as the stream. */
  readonly fileLengthBytes: number | undefined;
  readonly buffers: BufferShare;
  readonly signal: AbortSignal;
  /** Called for each chunk that arrived; the next one waits for it. */
  readonly onBytes: (count: number) => Promise<void>;
}

/**
 * Yields each piece as soon as it is whole; the last may be short.
 *
 * With a known length the stream must hold exactly what was asked for.
 * @throws AppError ORIGIN_CUT, ORIGIN_LENGTH_WRONG (retriable), ABORTED, or what the stream throws
 */
export async function* cutPieces(options: CutOptions): AsyncGenerator<CutPiece, void, undefined> {
  const { pieceLengthBytes, fileLengthBytes, buffers, signal } = options;
  let piece = options.firstPiece;
  let buffer: PieceBuffer | undefined;
  let filledBytes = 0;
  const lastPiece = fileLengthBytes === undefined ? undefined : Math.ceil(fileLengthBytes / pieceLengthBytes);
  const endPiece = options.endPiece ?? lastPiece ?? Number.POSITIVE_INFINITY;
  try {
    for await (const chunk of options.body) {
      await options.onBytes(chunk.length);
      for (let at = 0; at < chunk.length; ) {
        if (piece >= endPiece) throw tooLong(fileLengthBytes);
        const wantedBytes =
          fileLengthBytes === undefined ? pieceLengthBytes : pieceLengthAt(piece, fileLengthBytes, pieceLengthBytes);
        buffer ??= await buffers.acquire(pieceLengthBytes, signal);
        const count = Math.min(wantedBytes - filledBytes, chunk.length - at);
        buffer.bytes.set(chunk.subarray(at, at + count), filledBytes);
        filledBytes += count;
        at += count;
        if (filledBytes === wantedBytes) {
          const whole = buffer;
          buffer = undefined;
          filledBytes = 0;
          yield { piece: piece++, bytes: whole.bytes.subarray(0, wantedBytes), buffer: whole };
        }
      }
    }
    if (fileLengthBytes !== undefined && piece < endPiece) {
      throw new AppError("ORIGIN_CUT", `the origin's answer ended in piece ${piece}, before its end; try again`);
    }
    if (buffer !== undefined && filledBytes > 0) {
      const rest = buffer;
      buffer = undefined;
      yield { piece, bytes: rest.bytes.subarray(0, filledBytes), buffer: rest };
    }
  } finally {
    buffer?.release();
  }
}

function tooLong(fileLengthBytes: number | undefined): AppError {
  const promised = fileLengthBytes === undefined ? "asked for" : `the ${fileLengthBytes} bytes it promised`;
  return new AppError("ORIGIN_LENGTH_WRONG", `the origin sent more than ${promised}; check the origin, or a proxy before it`);
}
