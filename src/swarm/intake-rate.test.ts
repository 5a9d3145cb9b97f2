import assert from "node:assert/strict";
import { test } from "node:test";
import { IntakeRate } from "./intake-rate.ts";

/** So many bytes each 50 ms. @returns when the last of them came */
function come(rate: IntakeRate, bytes: number, fromMs: number, forMs: number): number {
  for (let nowMs = fromMs; nowMs < fromMs + forMs; nowMs += 50) rate.came(bytes, nowMs);
  return fromMs + forMs;
}

test("the best is what came at the fullest, not what comes now", () => {
  const rate = new IntakeRate();
  const endMs = come(rate, 50_000, 0, 3_000);
  assert.ok(Math.abs(rate.bestBytesPerMs - 1_000) < 50, `${rate.bestBytesPerMs}`);
  come(rate, 5_000, endMs, 3_000);
  assert.ok(rate.bestBytesPerMs > 900, `${rate.bestBytesPerMs}`);
  assert.equal(rate.totalBytes, 60 * 55_000);
});

test("the best of minutes ago counts no more", () => {
  const rate = new IntakeRate();
  come(rate, 5_000, come(rate, 50_000, 0, 3_000), 300_000);
  assert.ok(Math.abs(rate.bestBytesPerMs - 100) < 10, `${rate.bestBytesPerMs}`);
});

test("the first bytes are no rate, and what comes at once after a pause is none either", () => {
  const rate = new IntakeRate();
  come(rate, 50_000, 0, 200);
  assert.equal(rate.bestBytesPerMs, 0);
  const best = come(rate, 50_000, 200, 2_000);
  const before = rate.bestBytesPerMs;
  rate.came(10 ** 9, best + 5_000);
  assert.ok(rate.bestBytesPerMs <= before, `${rate.bestBytesPerMs}`);
});
