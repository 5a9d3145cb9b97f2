import assert from "node:assert/strict";
import { test } from "node:test";
import { coarseDelayMs } from "./coarse-delay.ts";

const DAY_MS = 86_400_000;

test("delays of any length share a few hundred, each a sixteenth too short at most", () => {
  const lengths = new Set<number>();
  for (let delayMs = 1_000; delayMs < 2 ** 31; delayMs = Math.ceil(delayMs * 1.0005)) {
    const coarseMs = coarseDelayMs(delayMs);
    assert.ok(coarseMs <= delayMs && coarseMs > (delayMs * 15) / 16, `${delayMs} becomes ${coarseMs}`);
    lengths.add(coarseMs);
  }
  assert.ok(lengths.size <= 16 * 22, `${lengths.size} lengths`);
});

test("below a second it is exact, beyond what Node takes it is that, and who looks again is there after a few", () => {
  assert.deepEqual([0, 1, 999, 1e12].map(coarseDelayMs), [1, 1, 999, 2 ** 31 - 1]);
  let looks = 0;
  for (let leftMs = DAY_MS - 1; leftMs > 0; looks++) leftMs -= coarseDelayMs(leftMs);
  assert.ok(looks <= 8, `${looks} looks`);
});
