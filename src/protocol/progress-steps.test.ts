import assert from "node:assert/strict";
import { test } from "node:test";
import { progressStep } from "./progress-steps.ts";

test("a peer tells twice how far it is, whatever the file's size: that it has begun, and that all is here", () => {
  for (const totalCount of [8, 200, 1_024, 100_000]) {
    const told = new Set(Array.from({ length: totalCount + 1 }, (_, held) => progressStep(held, totalCount)));
    assert.deepEqual([...told], [0, 1, 2]);
    assert.equal(progressStep(totalCount - 1, totalCount), 1);
    assert.equal(progressStep(totalCount / 4 - 1, totalCount), 0);
  }
  assert.equal(progressStep(1, 1), 2);
});
