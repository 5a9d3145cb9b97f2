import assert from "node:assert/strict";
import { test } from "node:test";
import { UploadPace } from "./upload-pace.ts";

/** Bytes per ms, and a piece that comes in within 100 ms where four do at a time. */
const IN = 40_000;
const PIECE_BYTES = 1_000_000;

/** Transfers that end one after the other, each after so many ms. @returns the counts after each */
function counts(pace: UploadPace, outMs: readonly number[], inBytesPerMs: number): readonly number[] {
  return outMs.map((ms) => {
    pace.ended(ms, PIECE_BYTES, inBytesPerMs);
    return pace.count;
  });
}

const repeated = (count: number, outMs: number): readonly number[] => Array.from({ length: count }, () => outMs);

test("an uplink as fast as the downlink sends as many at a time as are allowed", () => {
  assert.deepEqual(new Set(counts(new UploadPace(4), repeated(40, 100), IN)), new Set([4]));
});

test("one whose pieces take longer than as many take to come in sends fewer", () => {
  assert.equal(counts(new UploadPace(4), repeated(4, 110), IN).at(-1), 3);
});

test("one with a fifth of the speed comes down at once to where its pieces are no longer late, and stays there", () => {
  const pace = new UploadPace(4);
  // A piece alone takes 125 ms here, and so many times as long as run at a time.
  for (let i = 0; i < 4; i++) pace.ended(125 * pace.count, PIECE_BYTES, IN);
  assert.equal(pace.count, 1);
  for (let i = 0; i < 40; i++) {
    pace.ended(125 * pace.count, PIECE_BYTES, IN);
    assert.equal(pace.count, 1);
  }
});

test("one with half the speed sends two at a time", () => {
  const pace = new UploadPace(4);
  for (let i = 0; i < 40; i++) pace.ended(50 * pace.count, PIECE_BYTES, IN);
  assert.equal(pace.count, 2);
});

test("it begins more again once its transfers are quick, up to what is allowed", () => {
  const pace = new UploadPace(4);
  for (let i = 0; i < 20; i++) pace.ended(900, PIECE_BYTES, IN);
  assert.equal(pace.count, 1);
  for (let i = 0; i < 40; i++) pace.ended(1, PIECE_BYTES, IN);
  assert.equal(pace.count, 4);
});

test("slow receivers among quick ones do not slow the uplink down", () => {
  assert.deepEqual(new Set(counts(new UploadPace(4), Array.from({ length: 40 }, (_, i) => (i % 4 === 0 ? 100 : 2_000)), IN)), new Set([4]));
});

test("milliseconds are the process's own, and say nothing of the uplink", () => {
  assert.deepEqual(new Set(counts(new UploadPace(4), repeated(40, 40), IN * 100)), new Set([4]));
});

test("who receives nothing has nothing to compare with", () => {
  assert.deepEqual(new Set(counts(new UploadPace(4), repeated(40, 5_000), 0)), new Set([4]));
});
