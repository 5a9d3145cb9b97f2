import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../../src/base/prng.ts";
import { isFlat, trendOf } from "./flatness.ts";

const series = (value: (minute: number) => number) => Array.from({ length: 121 }, (_, i) => ({ atMs: i * 5000, value: value(i / 12) }));

test("a leak of 2 MiB a minute is found under saw teeth of 40 MiB and a peak", () => {
  const trend = trendOf(series((minute) => 150 + 2 * minute + 40 * ((minute * 1.7) % 1) + (minute === 5 ? 500 : 0)));
  assert.ok(Math.abs(trend.perMinute - 2) < 0.7, `${trend.perMinute}`);
  assert.equal(isFlat(trend, 12), false);
});

test("saw teeth alone, a peak, and a value that falls are flat", () => {
  assert.equal(isFlat(trendOf(series((minute) => 150 + 40 * ((minute * 1.7) % 1) + (minute === 5 ? 500 : 0))), 10), true);
  assert.equal(isFlat(trendOf(series((minute) => 150 - minute)), 1), true);
});

test("descriptors that stay away one by one are found", () => {
  assert.equal(isFlat(trendOf(series((minute) => 40 + Math.floor(minute / 2))), 3), false);
  assert.equal(isFlat(trendOf(series((minute) => 40 + (Math.floor(minute * 12) % 3))), 3), true);
});

test("of a process that wanders by 15 MiB single ends say nothing, and 2 MiB a minute are found in it", () => {
  const random = new Prng(3);
  for (let run = 0; run < 100; run++) {
    const wandering = Array.from({ length: 121 }, () => 15 * (random.below(1000) / 1000));
    assert.equal(isFlat(trendOf(series((minute) => 180 + (wandering[Math.round(minute * 12)] ?? 0))), 12), true);
    assert.equal(isFlat(trendOf(series((minute) => 180 + (wandering[Math.round(minute * 12)] ?? 0) + 2 * minute)), 12), false);
  }
});

test("what is lost in the last third only is found", () => {
  assert.equal(isFlat(trendOf(series((minute) => 60 + (minute > 7 ? 3 : 0))), 1.5), false);
});
