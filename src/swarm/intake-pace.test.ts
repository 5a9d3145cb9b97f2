import assert from "node:assert/strict";
import { test } from "node:test";
import { IntakePace } from "./intake-pace.ts";

test("pieces take as long to come in as from their first byte to their last", () => {
  const pace = new IntakePace();
  for (let nowMs = 0; nowMs < 4_000; nowMs += 40) pace.ended(160, 4, nowMs);
  assert.ok(Math.abs(pace.usualMs - 160) < 1, `${pace.usualMs}`);
});

test("what was read at once because it had waited took as long as others that come in at a time need, one after the other", () => {
  const pace = new IntakePace();
  for (let nowMs = 0; nowMs < 4_000; nowMs += 40) pace.ended(0, 4, nowMs);
  assert.ok(Math.abs(pace.usualMs - 160) < 1, `${pace.usualMs}`);
});

test("one piece says nothing yet, and a pause is no pace", () => {
  const pace = new IntakePace();
  pace.ended(10, 1, 0);
  assert.equal(pace.usualMs, 0);
  pace.ended(10, 1, 3_600_000);
  assert.ok(pace.usualMs <= 1_000);
});
