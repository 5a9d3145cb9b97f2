import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { AssertionError } from "../base/assert.ts";
import {
  FILE_LENGTH_BYTES_MAX,
  isFileLength,
  isPieceLength,
  PIECE_LENGTH_BYTES_MAX,
  PIECE_LENGTH_BYTES_MIN,
  pieceCountOf,
  pieceLengthAt,
  pieceLengthFor,
} from "./geometry.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

const TABLE: readonly (readonly [lengthBytes: number, pieceLengthBytes: number, pieceCount: number])[] = [
  [0, 64 * KIB, 0],
  [1, 64 * KIB, 1],
  [64 * KIB, 64 * KIB, 1],
  [64 * KIB + 1, 64 * KIB, 2],
  [1 * MIB, 64 * KIB, 16],
  [8 * MIB, 64 * KIB, 128],
  [16 * MIB, 64 * KIB, 256],
  [32 * MIB - 1, 64 * KIB, 512],
  [50 * MIB, 64 * KIB, 800],
  [89 * MIB, 64 * KIB, 1424],
  [90 * MIB, 128 * KIB, 720],
  [100 * MIB, 128 * KIB, 800],
  [200 * MIB, 128 * KIB, 1600],
  [358 * MIB, 128 * KIB, 2864],
  [359 * MIB, 256 * KIB, 1436],
  [512 * MIB, 256 * KIB, 2048],
  [716 * MIB, 256 * KIB, 2864],
  [717 * MIB, 1 * MIB, 717],
  [1 * GIB, 1 * MIB, 1024],
  [4 * GIB, 4 * MIB, 1024],
  [8 * GIB, 8 * MIB, 1024],
  [100 * GIB, 8 * MIB, 12_800],
  [FILE_LENGTH_BYTES_MAX, 8 * MIB, 2 ** 24],
];

for (const [lengthBytes, pieceLengthBytes, pieceCount] of TABLE) {
  test(`${lengthBytes} bytes are cut into ${pieceCount} pieces of ${pieceLengthBytes / KIB} KiB`, () => {
    assert.equal(pieceLengthFor(lengthBytes), pieceLengthBytes);
    assert.equal(pieceCountOf(lengthBytes, pieceLengthBytes), pieceCount);
  });
}

test("any file gets pieces within the bounds: about a hundred and more once it is large enough", () => {
  fc.assert(
    fc.property(fc.oneof(fc.nat({ max: 64 * MIB }), fc.maxSafeNat().map((n) => n % FILE_LENGTH_BYTES_MAX)), (lengthBytes) => {
      const pieceLengthBytes = pieceLengthFor(lengthBytes);
      assert.ok(isPieceLength(pieceLengthBytes));
      const count = pieceCountOf(lengthBytes, pieceLengthBytes);
      assert.ok(count <= 2 ** 24);
      if (lengthBytes >= 8 * MIB) assert.ok(count >= 85, `${count}`);
      if (lengthBytes < 8 * GIB) assert.ok(count <= 2_870, `${count}`);
    }),
  );
});

test("a longer file never gets shorter pieces", () => {
  fc.assert(
    fc.property(fc.nat({ max: 2 ** 40 }), fc.nat({ max: 2 ** 30 }), (lengthBytes, more) => {
      assert.ok(pieceLengthFor(lengthBytes + more) >= pieceLengthFor(lengthBytes));
    }),
  );
});

test("pieces cover the file once: all alike but the last", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 * MIB }), (lengthBytes) => {
      const pieceLengthBytes = pieceLengthFor(lengthBytes);
      const count = pieceCountOf(lengthBytes, pieceLengthBytes);
      let sum = 0;
      for (let piece = 0; piece < count; piece++) {
        const bytes = pieceLengthAt(piece, lengthBytes, pieceLengthBytes);
        assert.ok(piece === count - 1 ? bytes >= 1 && bytes <= pieceLengthBytes : bytes === pieceLengthBytes);
        sum += bytes;
      }
      assert.equal(sum, lengthBytes);
      assert.throws(() => pieceLengthAt(count, lengthBytes, pieceLengthBytes), AssertionError);
      assert.throws(() => pieceLengthAt(-1, lengthBytes, pieceLengthBytes), AssertionError);
    }),
  );
});

test("from the wire only powers of two within the bounds are piece lengths", () => {
  for (let bytes = PIECE_LENGTH_BYTES_MIN; bytes <= PIECE_LENGTH_BYTES_MAX; bytes *= 2) assert.ok(isPieceLength(bytes));
  for (const bytes of [0, -1, 1, 32 * KIB, 65_537, 96 * KIB, 16 * MIB, 2 ** 32 + 65_536, 2 ** 53, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.ok(!isPieceLength(bytes), `${bytes}`);
  }
});

test("file lengths are whole, not negative, and within what a piece index can name", () => {
  for (const bytes of [0, 1, FILE_LENGTH_BYTES_MAX]) assert.ok(isFileLength(bytes));
  for (const bytes of [-1, 0.5, FILE_LENGTH_BYTES_MAX + 1, 2 ** 60, Number.NaN, Number.POSITIVE_INFINITY]) assert.ok(!isFileLength(bytes), `${bytes}`);
});
