import assert from "node:assert/strict";
import { test } from "node:test";
import { RateProbe } from "./rate-probe.ts";

/** Runs `ms` of a pipe whose rate depends on how many transfers share it. */
function run(probe: RateProbe, ms: number, rate: (count: number) => number, limited = true): void {
  for (let nowMs = 0; nowMs <= ms; nowMs += 100) {
    probe.moved((rate(probe.count) * 100) / 1_000);
    if (limited) probe.limited();
    probe.tick(nowMs);
  }
}

test("one transfer that fills the pipe stays alone but for short trials", () => {
  const probe = new RateProbe(1, 8);
  let alone = 0;
  for (let nowMs = 0; nowMs < 60_000; nowMs += 100) {
    probe.moved(100_000);
    probe.limited();
    probe.tick(nowMs);
    assert.ok(probe.count <= 2);
    if (probe.count === 1) alone++;
  }
  assert.ok(alone > 450, `${alone} of 600`);
});

test("transfers are added while each pays, up to the bound", () => {
  const probe = new RateProbe(1, 4);
  run(probe, 10_000, (count) => Math.min(count, 3) * 100_000);
  assert.ok(probe.count === 3 || probe.count === 4, `${probe.count}`);
  const bounded = new RateProbe(1, 4);
  run(bounded, 10_000, (count) => count * 100_000);
  assert.equal(bounded.count, 4);
});

test("a pipe that has too little to do says nothing about the count", () => {
  const probe = new RateProbe(1, 8);
  run(probe, 60_000, (count) => count * 100_000, false);
  assert.equal(probe.count, 1);
});
