import assert from "node:assert/strict";
import { test } from "node:test";
import { watchForSlowness } from "./slow-read.ts";

test("a read that brings less than wanted is noticed once; one that our own limits hold back, and one that ended, is not", (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  let bytes = 0;
  let isHeldBack = false;
  let slow = 0;
  const watch = (): (() => void) =>
    watchForSlowness({ bytesPerSecondMin: 100, bytes: () => bytes, isHeldBack: () => isHeldBack, onSlow: () => slow++, windowMs: 1000 });
  const pass = (count: number): number => {
    bytes += count;
    t.mock.timers.tick(1000);
    return slow;
  };
  watch();
  assert.equal(pass(100), 0);
  isHeldBack = true;
  assert.equal(pass(10), 0);
  isHeldBack = false;
  assert.equal(pass(99), 1);
  assert.equal(pass(0), 1);
  watch()();
  assert.equal(pass(0), 1);
});
