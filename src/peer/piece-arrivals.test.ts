import assert from "node:assert/strict";
import { test } from "node:test";
import { PieceSet } from "../protocol/piece-set.ts";
import type { SwarmInput } from "../swarm/index.ts";
import type { Link } from "./link/link.ts";
import { PieceArrivals } from "./piece-arrivals.ts";
import type { TaskSession } from "./task-session.ts";

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

test("bytes of a piece are handed on once it is verified and stored, before anybody is told; never those of another", async () => {
  for (const outcome of ["stored", "mismatch", "forged"] as const) {
    const said: string[] = [];
    const account = { storing: () => undefined, kept: () => undefined, rejected: () => undefined };
    const session = {
      taskId: "a".repeat(64),
      account,
      refusesUntilMs: 0,
      fits: () => true,
      count: () => undefined,
      stored: {
        have: new PieceSet(),
        storeVerified: (piece: number) => {
          said.push(`stores ${piece}`);
          return Promise.resolve(outcome);
        },
      },
      handOn: (piece: number, bytes: Uint8Array) => said.push(`hands on ${bytes.length} bytes of ${piece}`),
    } as unknown as TaskSession;
    const { promise, resolve } = Promise.withResolvers<void>();
    const arrivals = new PieceArrivals({
      nowMs: () => 0,
      log: { warn: () => undefined },
      counters: { uploadedBytes: 0, downloadedBytes: 0, wastedBytes: 0, rejectedPieces: 0, forgedProofs: 0 },
      isSeed: () => false,
      feed: (input) => {
        if (input.type === "pieceRejected") resolve();
      },
      stored: (_session, piece) => {
        said.push(`tells of ${piece}`);
        resolve();
      },
    });
    const link = { linkId: 1, peerId: "p", send: () => undefined } as unknown as Link;
    arrivals.accept(link, session, 1, 7);
    arrivals.proven(link, { type: "proof", channel: 1, piece: 7, lengthBytes: 4_096, digest: new Uint8Array(32), signature: new Uint8Array(64) });
    arrivals.payloadTarget(link, 1, 7, 0, 4_096);
    arrivals.payload(link, 1, 7, 4_096, true);
    // oxlint-disable-next-line no-await-in-loop -- one outcome after the other
    await promise;
    assert.deepEqual(said, outcome === "stored" ? ["stores 7", "hands on 4096 bytes of 7", "tells of 7"] : ["stores 7"]);
  }
});
