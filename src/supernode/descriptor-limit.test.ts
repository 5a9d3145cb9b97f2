import assert from "node:assert/strict";
import { test } from "node:test";
import { descriptorLimit, PEER_COUNT_MAX, peerCountWithin } from "./descriptor-limit.ts";

test("peers leave descriptors to links, files and origins, however few there are", () => {
  assert.equal(peerCountWithin(1024), 512);
  assert.equal(peerCountWithin(20_000), 15_000);
  assert.equal(peerCountWithin(1_048_576), PEER_COUNT_MAX);
  assert.equal(peerCountWithin(undefined), PEER_COUNT_MAX);
});

test("the system says how many descriptors this process may have", { skip: process.platform !== "linux" }, () => {
  const limit = descriptorLimit();
  assert.ok(limit !== undefined && limit >= 64, String(limit));
});
