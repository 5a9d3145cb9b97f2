import assert from "node:assert/strict";
import { test } from "node:test";
import { TokenBucket } from "./token-bucket.ts";

/** A spender that takes `chunkBytes` at a time and waits as told: what it may move in [fromMs, toMs), on a virtual clock. */
function moved(bucket: TokenBucket, chunkBytes: number, fromMs: number, toMs: number): number {
  let nowMs = fromMs;
  let bytes = 0;
  for (;;) {
    nowMs += bucket.take(chunkBytes, nowMs);
    if (nowMs >= toMs) return bytes;
    bytes += chunkBytes;
  }
}

function assertWithin(bytes: number, expected: number, share: number): void {
  assert.ok(Math.abs(bytes - expected) <= expected * share, `${bytes} instead of ${expected}`);
}

const RATES = [10_000, 100_000, 1_000_000, 6_250_000, 10_000_000, 100_000_000, 125_000_000, 1_000_000_000];

for (const rate of RATES) {
  test(`at ${rate} bytes per second a second moves that much, to 5 %, also right after an idle time`, () => {
    const chunkBytes = Math.max(1, Math.min(65_536, rate / 200));
    const bucket = new TokenBucket(rate);
    assertWithin(moved(bucket, chunkBytes, 1_000, 2_000), rate, 0.05);
    assertWithin(moved(bucket, chunkBytes, 60_000, 61_000), rate, 0.05);
  });
}

test("amounts larger than the burst keep the rate: the debt is waited for", () => {
  const bucket = new TokenBucket(1_000_000);
  assertWithin(moved(bucket, 1_048_576, 0, 100_000), 100_000_000, 0.02);
});

test("several spenders share one rate", () => {
  const bucket = new TokenBucket(1_000_000);
  const freeAtMs = [0, 0, 0, 0, 0];
  let bytes = 0;
  for (let nowMs = 0; nowMs < 1_000; nowMs++) {
    for (let i = 0; i < freeAtMs.length; i++) {
      if ((freeAtMs[i] as number) > nowMs) continue;
      const waitMs = bucket.take(4_096, nowMs);
      if (nowMs + waitMs < 1_000) bytes += 4_096;
      freeAtMs[i] = nowMs + waitMs;
    }
  }
  assertWithin(bytes, 1_000_000, 0.06);
});

test("a change of rate holds from then on, and what is owed is repaid at the new rate", () => {
  const bucket = new TokenBucket(1_000_000);
  assertWithin(moved(bucket, 1_000, 0, 1_000), 1_000_000, 0.05);
  bucket.setRate(10_000_000, 1_000);
  assertWithin(moved(bucket, 1_000, 1_000, 2_000), 10_000_000, 0.05);
  bucket.setRate(10_000, 2_000);
  assertWithin(moved(bucket, 100, 2_000, 4_000), 20_000, 0.05);
  const indebted = new TokenBucket(1_000);
  assert.equal(indebted.take(1_000, 0), 1_000);
  indebted.setRate(100_000, 0);
  assert.equal(indebted.take(0, 0), 10);
});

test("no rate is no limit, and forgets what was owed", () => {
  const bucket = new TokenBucket(undefined);
  assert.equal(bucket.take(1e12, 0), 0);
  bucket.setRate(1_000, 5_000);
  assert.equal(bucket.bytesPerSecond, 1_000);
  assert.equal(bucket.take(1_000, 5_000), 1_000);
  bucket.setRate(undefined, 5_000);
  assert.equal(bucket.take(1e12, 5_000), 0);
  bucket.setRate(1_000, 6_000);
  assert.equal(bucket.take(100, 6_000), 100);
});
