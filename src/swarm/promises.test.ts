import assert from "node:assert/strict";
import { test } from "node:test";
import type { PeerId } from "../protocol/ids.ts";
import { Promises } from "./promises.ts";

const peer = "peer" as PeerId;

test("one broken promise is nothing; from the second on its maker is refused, longer each time but never for good", () => {
  const promises = new Promises();
  promises.broke(peer, 0, 1_000);
  assert.equal(promises.isRefused(peer, 1_000), false);
  const refusedMs: number[] = [];
  let nowMs = 1_000;
  for (let i = 0; i < 4; i++) {
    promises.broke(peer, nowMs, nowMs + 100);
    nowMs += 100;
    const fromMs = nowMs;
    while (promises.isRefused(peer, nowMs)) nowMs += 100;
    refusedMs.push(nowMs - fromMs);
  }
  assert.deepEqual(refusedMs, [5_000, 10_000, 20_000, 20_000]);
});

test("promises of the same time break together, and one that is kept makes up for all", () => {
  const promises = new Promises();
  for (let i = 0; i < 5; i++) promises.broke(peer, 500, 1_000);
  promises.broke(peer, 500, 1_100);
  assert.equal(promises.isRefused(peer, 1_100), false);
  promises.broke(peer, 1_200, 2_000);
  assert.equal(promises.isRefused(peer, 2_000), true);
  promises.kept(peer);
  promises.broke(peer, 3_000, 4_000);
  assert.equal(promises.isRefused(peer, 4_000), false);
});

test("many names cost no memory: the oldest are forgotten", () => {
  const promises = new Promises();
  for (const agreedMs of [0, 2_000]) promises.broke(peer, agreedMs, agreedMs + 1_000);
  for (let i = 0; i < 300; i++) promises.broke(`other-${i}` as PeerId, 3_000, 3_500);
  assert.equal(promises.isRefused(peer, 3_500), false);
});
