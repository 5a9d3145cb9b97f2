import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../base/prng.ts";
import { ByteSpans } from "./byte-spans.ts";

test("bytes that are added twice count once", () => {
  const spans = new ByteSpans();
  spans.add(10, 20);
  spans.add(10, 20);
  spans.add(15, 25);
  spans.add(30, 30);
  assert.equal(spans.totalBytes, 15);
});

test("spans that touch are taken as one, and only from where they begin", () => {
  const spans = new ByteSpans();
  spans.add(20, 30);
  spans.add(10, 20);
  assert.equal(spans.takeThrough(9), 9);
  assert.equal(spans.totalBytes, 20);
  assert.equal(spans.takeThrough(10), 30);
  assert.equal(spans.totalBytes, 0);
});

test("what has been passed by is gone", () => {
  const spans = new ByteSpans();
  spans.add(0, 5);
  spans.add(10, 20);
  assert.equal(spans.takeThrough(8), 8);
  assert.equal(spans.totalBytes, 10);
  assert.equal(spans.takeThrough(12), 20);
  assert.equal(spans.totalBytes, 0);
});

test("does as a plain set of bytes would", () => {
  const random = new Prng(7);
  for (let round = 0; round < 200; round++) {
    const spans = new ByteSpans();
    const bytes = new Set<number>();
    let whole = 0;
    for (let step = 0; step < 40; step++) {
      if (random.below(4) > 0) {
        const start = whole + random.below(100);
        const end = start + random.below(12);
        spans.add(start, end);
        for (let byte = start; byte < end; byte++) bytes.add(byte);
      } else {
        const from = whole + random.below(6);
        let end = from;
        while (bytes.has(end)) end++;
        whole = spans.takeThrough(from);
        assert.equal(whole, end);
        for (const byte of [...bytes]) if (byte < end) bytes.delete(byte);
      }
      assert.equal(spans.totalBytes, bytes.size);
    }
  }
});
