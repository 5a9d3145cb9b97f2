import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { BufferPool } from "./buffer-pool.ts";
import { type CutOptions, cutPieces } from "./piece-cutter.ts";

const PIECE = 64;
const pool = new BufferPool(PIECE * 2);

async function cut(chunks: readonly Uint8Array[], options: Partial<CutOptions>): Promise<{ piece: number; bytes: Buffer }[]> {
  const pieces: { piece: number; bytes: Buffer }[] = [];
  const given: CutOptions = {
    body: (async function* () {
      yield* chunks;
    })(),
    firstPiece: 0,
    endPiece: undefined,
    pieceLengthBytes: PIECE,
    fileLengthBytes: undefined,
    buffers: pool.share(),
    signal: new AbortController().signal,
    onBytes: () => Promise.resolve(),
    ...options,
  };
  for await (const { piece, bytes, buffer } of cutPieces(given)) {
    pieces.push({ piece, bytes: Buffer.from(bytes) });
    buffer.release();
  }
  return pieces;
}

test("pieces are the stream, whatever its chunks, with and without a length", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 12 }), fc.boolean(), async (chunks, isKnown) => {
      const content = Buffer.concat(chunks);
      const pieces = await cut(chunks, { fileLengthBytes: isKnown ? content.length : undefined });
      assert.ok(Buffer.concat(pieces.map(({ bytes }) => bytes)).equals(content));
      assert.deepEqual(pieces.map(({ piece }) => piece), Array.from({ length: Math.ceil(content.length / PIECE) }, (_, piece) => piece));
      assert.ok(pieces.slice(0, -1).every(({ bytes }) => bytes.length === PIECE));
    }),
  );
  assert.equal(pool.usedBytes, 0);
});

test("a span in the middle of a file", async () => {
  const content = randomBytes(2 * PIECE);
  const pieces = await cut([content], { firstPiece: 3, endPiece: 5, fileLengthBytes: 10 * PIECE });
  assert.deepEqual(pieces.map(({ piece }) => piece), [3, 4]);
});

test("too little is a cut, too much a wrong length, and buffers come back", async () => {
  await assert.rejects(cut([randomBytes(PIECE + 1)], { fileLengthBytes: 2 * PIECE }), { code: "ORIGIN_CUT" });
  await assert.rejects(cut([randomBytes(2 * PIECE + 1)], { fileLengthBytes: 2 * PIECE }), { code: "ORIGIN_LENGTH_WRONG" });
  await assert.rejects(cut([randomBytes(3 * PIECE)], { endPiece: 2, fileLengthBytes: 9 * PIECE }), { code: "ORIGIN_LENGTH_WRONG" });
  assert.equal(pool.usedBytes, 0);
});
