import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { shareSources } from "./sources.ts";

void test("what came in for the answer is counted to its source, the rest to the cache", () => {
  const sources = { cacheBytes: 100, seedBytes: 20, peerBytes: 50, originBytes: 5 };
  assert.deepEqual(shareSources(sources, 200), { seedBytes: 20, peerBytes: 50, originBytes: 5, cacheBytes: 125 });
});

void test("an answer smaller than what came in takes its share of each source", () => {
  const sources = { cacheBytes: 0, seedBytes: 100, peerBytes: 300, originBytes: 0 };
  assert.deepEqual(shareSources(sources, 100), { seedBytes: 25, peerBytes: 75, originBytes: 0, cacheBytes: 0 });
});

void test("the shares are whole, not negative, and add up to what was sent", () => {
  const bytes = fc.nat(1_000_000);
  const sources = fc.record({ cacheBytes: bytes, seedBytes: bytes, peerBytes: bytes, originBytes: bytes });
  fc.assert(
    fc.property(sources, bytes, (of, sentBytes) => {
      const shares = Object.values(shareSources(of, sentBytes));
      assert.ok(shares.every((share) => Number.isInteger(share) && share >= 0));
      assert.equal(shares.reduce((sum, share) => sum + share, 0), sentBytes);
    }),
  );
});
