import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { PieceSet } from "../../protocol/piece-set.ts";
import { lastMissing, planSpans, streamCountFor } from "./read-plan.ts";

const MIB = 1024 * 1024;

test("the spans are exactly what is missing, in order and none empty", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(299), { maxLength: 300 }), fc.integer({ min: 1, max: 300 }), fc.boolean(), (held, pieceCount, asksEarly) => {
      const have = new PieceSet();
      for (const piece of held) have.add(piece);
      const missing: number[] = [];
      for (const { firstPiece, endPiece } of planSpans(have, pieceCount * MIB, MIB, asksEarly)) {
        assert.ok(endPiece > firstPiece);
        for (let piece = firstPiece; piece < endPiece; piece++) missing.push(piece);
      }
      const expected = Array.from({ length: pieceCount }, (_, piece) => piece).filter((piece) => !have.has(piece));
      assert.deepEqual(missing, expected);
      assert.equal(lastMissing(have, pieceCount), expected.at(-1));
    }),
  );
});

test("a small file is one request, a large one spans of 16 MiB and more", () => {
  const none = new PieceSet();
  assert.equal(planSpans(none, 63 * MIB, 65536, false).length, 1);
  assert.equal(planSpans(none, 64 * MIB, 65536, false).length, 4);
  assert.equal(planSpans(none, 1024 * MIB, MIB, false).length, 64);
  assert.equal(planSpans(none, 64 * 1024 * MIB, 8 * MIB, false).length, 64);
});

test("where all has to be asked for in the beginning there are no more spans than streams", () => {
  const none = new PieceSet();
  assert.equal(planSpans(none, 63 * MIB, 65536, true).length, 1);
  for (const mebibytes of [64, 66, 1000, 65_536]) {
    const { length } = planSpans(none, mebibytes * MIB, 8 * MIB, true);
    assert.ok(length > 1 && length <= streamCountFor(mebibytes * MIB), `${length} spans`);
  }
});
