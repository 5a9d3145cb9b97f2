import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { AssertionError } from "../base/assert.ts";
import { PieceSet } from "./piece-set.ts";

const index = fc.oneof(fc.nat({ max: 70 }), fc.nat({ max: 5_000 }));

function setOf(pieces: Iterable<number>): PieceSet {
  const set = new PieceSet();
  for (const piece of pieces) set.add(piece);
  return set;
}

function assertSame(set: PieceSet, twin: ReadonlySet<number>): void {
  const sorted = [...twin].toSorted((a, b) => a - b);
  assert.deepEqual([...set], sorted);
  assert.equal(set.count, twin.size);
  assert.equal(set.last, sorted.at(-1) ?? -1);
}

test("it does what a Set does, ordered", () => {
  const operations = fc.array(fc.record({ verb: fc.constantFrom("add", "add", "delete", "has", "firstMissing"), piece: index }));
  fc.assert(
    fc.property(operations, fc.nat({ max: 200 }), (steps, capacity) => {
      const set = new PieceSet(capacity);
      const twin = new Set<number>();
      for (const { verb, piece } of steps) {
        switch (verb) {
          case "add":
            assert.equal(set.add(piece), !twin.has(piece));
            twin.add(piece);
            break;
          case "delete":
            assert.equal(set.delete(piece), twin.delete(piece));
            break;
          case "firstMissing": {
            let expected = piece;
            while (twin.has(expected)) expected++;
            assert.equal(set.firstMissing(piece), expected);
            break;
          }
          default:
            assert.equal(set.has(piece), twin.has(piece));
        }
        assert.equal(set.count, twin.size);
      }
      assertSame(set, twin);
    }),
  );
});

test("the wire form comes back the same, without trailing zeros, piece 0 in the lowest bit", () => {
  assert.deepEqual([...setOf([0, 9]).toBytes()], [1, 2]);
  assert.deepEqual([...new PieceSet(1_000).toBytes()], []);
  fc.assert(
    fc.property(fc.uniqueArray(index), (pieces) => {
      const bytes = setOf(pieces).toBytes();
      assert.notEqual(bytes.at(-1), 0);
      assertSame(PieceSet.fromBytes(bytes), new Set(pieces));
    }),
  );
});

test("any bytes are a set, and give themselves back but for trailing zeros", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      const set = PieceSet.fromBytes(bytes);
      assert.equal([...set].length, set.count);
      const end = bytes.findLastIndex((byte) => byte !== 0) + 1;
      assert.deepEqual([...set.toBytes()], [...bytes.subarray(0, end)]);
    }),
  );
});

test("the set keeps no part of the bytes it was read from", () => {
  const bytes = Uint8Array.of(3);
  const set = PieceSet.fromBytes(bytes);
  bytes[0] = 0;
  assert.deepEqual([...set], [0, 1]);
});

test("a full set holds exactly [0, count), at every edge of a word", () => {
  for (const count of [0, 1, 31, 32, 33, 63, 64, 65, 1_000]) {
    const set = PieceSet.full(count);
    assertSame(set, new Set(Array.from({ length: count }, (_, piece) => piece)));
    assert.equal(set.firstMissing(), count);
  }
});

test("a negative index is a bug of ours", () => {
  assert.throws(() => new PieceSet().add(-1), AssertionError);
});
