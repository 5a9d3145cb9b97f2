import assert from "node:assert/strict";
import { test } from "node:test";
import type { SwarmInput } from "../swarm/index.ts";
import type { Link } from "./link/link.ts";
import { PieceArrivals } from "./piece-arrivals.ts";

test("payload of a transfer that nobody waits for is wasted, and the brain hears how much came", () => {
  const fed: SwarmInput[] = [];
  const counters = { uploadedBytes: 0, downloadedBytes: 0, wastedBytes: 0, rejectedPieces: 0, forgedProofs: 0 };
  const arrivals = new PieceArrivals({
    nowMs: () => 0,
    log: { warn: () => undefined },
    counters,
    isSeed: () => false,
    feed: (input) => void fed.push(input),
    stored: () => assert.fail("nothing is stored"),
  });
  const link = { linkId: 1 } as Link;
  assert.equal(arrivals.payloadTarget(link, 1, 7, 0, 4_096), undefined);
  arrivals.payload(link, 1, 7, 4_096, true);
  assert.deepEqual(fed, [{ type: "strayReceived", linkId: 1, bytes: 4_096 }]);
  assert.deepEqual([counters.downloadedBytes, counters.wastedBytes], [4_096, 4_096]);
});
