import assert from "node:assert/strict";
import { test } from "node:test";
import { emptyShares } from "../base/bounds.ts";
import type { PeerId } from "../protocol/ids.ts";
import { explanationText } from "./explanation-text.ts";

test("the main cause stands first, the others by size; who gave what, and what became of offers", () => {
  const text = explanationText({
    boundBy: "seed", tookMs: 4000, openedMs: 12, firstByteMs: 40.5, spentMs: { ...emptyShares(), seed: 3000, waiting: 12, neighbours: 988 },
    bytes: { seedBytes: 3 * 1024 ** 2, peerBytes: 1024 ** 2, originBytes: 0, cacheBytes: 0 },
    neighbours: [{ peerId: "a-1" as PeerId, seed: true, bytes: 3 * 1024 ** 2 }],
    pieces: { offered: 9, declined: 3, late: 2, doubled: 1, rejected: 0 }, wastedBytes: 0,
  });
  assert.match(text, /^bound by: the seed's uplink \(75% of 4/);
  assert.match(text, /\ntime: seed 3\.0s, neighbours 988 ms, waiting 12 ms\n/);
  assert.match(text, /\nfirst byte: after 40\.5 ms/);
  assert.match(text, /\n {2}a-1 \(seed\): 3/);
  assert.match(text, /\npieces: 9 offered, 3 declined, 2 late, 1 doubled, 0 rejected\n$/);
});
