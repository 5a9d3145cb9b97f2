import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../base/errors.ts";
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

const PIECE_BYTES = 64 * 1024;

/** Arrivals of one task on one link, with its books. */
function rig(outcome: "stored" | "mismatch" | "forged" | Error = "stored", nowMs: () => number = () => 0) {
  const fed: SwarmInput[] = [];
  const sent: { readonly type: string; readonly reason?: string }[] = [];
  const books = { wastedBytes: 0, rejected: 0, storing: 0, declined: 0 };
  const counters = { uploadedBytes: 0, downloadedBytes: 0, wastedBytes: 0, rejectedPieces: 0, forgedProofs: 0 };
  const session = {
    taskId: "a".repeat(64),
    account: {
      storing: (delta: number) => void (books.storing += delta), kept: () => undefined, rejected: () => void books.rejected++,
      wasted: (bytes: number) => void (books.wastedBytes += bytes), declined: () => void books.declined++,
    },
    refusesUntilMs: 0,
    fits: (_piece: number, lengthBytes: number) => lengthBytes === PIECE_BYTES,
    count: () => undefined,
    handOn: () => undefined,
    wake: () => undefined,
    stored: { have: new PieceSet(), storeVerified: () => (outcome instanceof Error ? Promise.reject(outcome) : Promise.resolve(outcome)) },
  } as unknown as TaskSession;
  const arrivals = new PieceArrivals({ nowMs, log: { warn: () => undefined }, counters, isSeed: () => false, feed: (input) => void fed.push(input), stored: () => undefined });
  const link = { linkId: 1, peerId: "p", send: (frame: { type: string }) => void sent.push(frame), remoteChannel: () => 1 } as unknown as Link;
  const prove = (piece: number, lengthBytes = PIECE_BYTES): void =>
    arrivals.proven(link, { type: "proof", channel: 1, piece, lengthBytes, digest: new Uint8Array(32), signature: new Uint8Array(64) });
  /** Agreed, and so much of it has come. */
  const receive = (piece: number, bytes: number): void => {
    arrivals.accept(link, session, 1, piece);
    prove(piece);
    assert.ok(arrivals.payloadTarget(link, 1, piece, 0, bytes) !== undefined);
    arrivals.payload(link, 1, piece, bytes, true);
  };
  return { arrivals, link, session, fed, sent, books, counters, prove, receive };
}

test("of a piece that is broken off the memory is given back, and what came of it is wasted, however it ends", () => {
  const ends: readonly ((of: ReturnType<typeof rig>) => void)[] = [
    ({ arrivals, link }) => arrivals.linkClosed(link),
    ({ arrivals, session }) => arrivals.taskClosed(session),
    ({ arrivals, link }) => arrivals.channelClosed(link, 1),
    ({ arrivals, link, session }) => arrivals.drop(link, session.taskId, 7),
    // Agreed to anew, as if it had never begun.
    ({ arrivals, link, session }) => arrivals.accept(link, session, 1, 7),
  ];
  for (const end of ends) {
    const made = rig();
    made.receive(7, 1_000);
    assert.equal(made.arrivals.usedBytes, PIECE_BYTES);
    end(made);
    assert.deepEqual([made.arrivals.usedBytes, made.counters.wastedBytes, made.books.wastedBytes], [0, 1_000, 1_000]);
  }
});

test("the end of one channel is none of another's", () => {
  const { arrivals, link, receive } = rig();
  receive(7, 1_000);
  arrivals.channelClosed(link, 2);
  assert.equal(arrivals.usedBytes, PIECE_BYTES);
});

test("bytes have their place behind those that came before, and within the piece", () => {
  const { arrivals, link, receive } = rig();
  receive(7, 1_000);
  for (const [offset, length] of [[0, 100], [2_000, 100], [1_000, PIECE_BYTES - 999]] as const) assert.equal(arrivals.payloadTarget(link, 1, 7, offset, length), undefined);
  assert.equal(arrivals.payloadTarget(link, 1, 7, 1_000, PIECE_BYTES - 1_000)?.length, PIECE_BYTES - 1_000);
});

test("a proof of a piece of another length is forged, and the place that was kept for it is free", () => {
  const { arrivals, link, session, fed, books, counters, prove } = rig();
  arrivals.accept(link, session, 1, 7);
  prove(7, PIECE_BYTES - 1);
  prove(7);
  assert.deepEqual([counters.forgedProofs, books.rejected, arrivals.usedBytes], [1, 1, 0]);
  assert.deepEqual(fed.map(({ type }) => type), ["pieceRejected"]);
});

test("a piece that the disk refuses is lost, and no other is agreed to for five seconds", async () => {
  let nowMs = 1_000;
  const { arrivals, link, session, fed, sent, books, receive } = rig(new AppError("DISK_FAILED", "full"), () => nowMs);
  receive(7, PIECE_BYTES);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(fed.at(-1), { type: "pieceLost", taskId: session.taskId, piece: 7 });
  assert.deepEqual([session.failure?.code, books.storing, arrivals.usedBytes], ["DISK_FAILED", 0, 0]);
  nowMs = 5_999;
  arrivals.accept(link, session, 1, 8);
  assert.deepEqual([sent.at(-1), books.declined], [{ type: "decline", channel: 1, piece: 8, reason: "unwanted" }, 1]);
  nowMs = 6_000;
  arrivals.accept(link, session, 1, 8);
  assert.deepEqual(sent.at(-1), { type: "accept", channel: 1, piece: 8 });
});
