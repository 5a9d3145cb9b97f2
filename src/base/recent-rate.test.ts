import assert from "node:assert/strict";
import { test } from "node:test";
import { RecentRate } from "./recent-rate.ts";

test("a steady stream shows its rate within a tenth of a second, and nothing a second after its end", () => {
  const rate = new RecentRate();
  for (let ms = 5_000; ms < 7_000; ms++) rate.add(10, ms);
  assert.equal(rate.bytesPerSecond(7_000), 10_000);
  assert.equal(rate.bytesPerSecond(7_500), 5_000);
  assert.equal(rate.bytesPerSecond(8_100), 0);
});

test("after a long silence only what came since counts", () => {
  const rate = new RecentRate();
  rate.add(1_000_000, 0);
  rate.add(70, 1_000_000);
  assert.equal(rate.bytesPerSecond(1_000_000), 0, "the current tenth is not over");
  assert.equal(rate.bytesPerSecond(1_000_100), 70);
});
