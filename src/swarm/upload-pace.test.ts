import assert from "node:assert/strict";
import { test } from "node:test";
import { UploadPace } from "./upload-pace.ts";

/** Transfers that end one after the other, each after so many ms. @returns the counts after each */
function counts(pace: UploadPace, outMs: readonly number[], usualInMs: number): readonly number[] {
  return outMs.map((ms) => {
    pace.ended(ms, usualInMs);
    return pace.count;
  });
}

test("an uplink as fast as those that feed it sends as many at a time as are allowed", () => {
  assert.deepEqual(new Set(counts(new UploadPace(4), Array.from({ length: 40 }, () => 140), 100)), new Set([4]));
});

test("one with a fifth of the speed comes down to where its pieces are no longer late, and no further than one", () => {
  const pace = new UploadPace(4);
  // A piece alone takes 210 ms here, and so many times as long as run at a time.
  for (let i = 0; i < 12; i++) pace.ended(210 * pace.count, 170);
  assert.ok(pace.count <= 2, `${pace.count} at a time`);
  for (let i = 0; i < 12; i++) pace.ended(900, 170);
  assert.equal(pace.count, 1);
});

test("it begins more again once its transfers are quick, up to what is allowed", () => {
  const pace = new UploadPace(4);
  for (let i = 0; i < 20; i++) pace.ended(900, 100);
  assert.equal(pace.count, 1);
  for (let i = 0; i < 40; i++) pace.ended(1, 100);
  assert.equal(pace.count, 4);
});

test("slow receivers among quick ones do not slow the uplink down", () => {
  const pace = new UploadPace(4);
  assert.deepEqual(new Set(counts(pace, Array.from({ length: 40 }, (_, i) => (i % 4 === 0 ? 100 : 2_000)), 100)), new Set([4]));
});

test("milliseconds are the process's own, and say nothing of the uplink", () => {
  assert.deepEqual(new Set(counts(new UploadPace(4), Array.from({ length: 40 }, () => 40), 1)), new Set([4]));
});

test("who receives nothing has nothing to compare with", () => {
  assert.deepEqual(new Set(counts(new UploadPace(4), Array.from({ length: 40 }, () => 5_000), 0)), new Set([4]));
});
