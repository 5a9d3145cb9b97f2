import assert from "node:assert/strict";
import { test } from "node:test";
import { placeShareOf } from "./place-share.ts";
import { declines, named, OTHER_TASK, TASK, TestSwarm } from "./swarm-fixture.test.ts";

const SHORT_BYTES = 64 * 1024;
const LONG_BYTES = 1024 * 1024;

test("pieces of up to 256 KiB take three quarters of a place, longer ones a whole one", () => {
  assert.deepEqual([64, 128, 256, 512, 1024, 8192].map((kib) => placeShareOf(kib * 1024)), [0.75, 0.75, 0.75, 1, 1, 1]);
});

/** One that has a whole file, with more neighbours than uploads: all accept what they are offered. @returns how many transfers begin */
function uploadsOf(pieceLengthBytes: number, uploadCount = 6): number {
  const bench = new TestSwarm({ uploadCount });
  bench.open(40, "all", { pieceLengthBytes });
  const queue = Array.from({ length: 12 }, (_, i) => bench.neighbour(i + 1)).flat();
  let begun = 0;
  for (let effect = queue.shift(); effect !== undefined; effect = queue.shift()) {
    if (effect.type === "startSend") begun++;
    if (effect.type === "sendOffer") queue.push(...bench.tell("offerAccepted", effect.linkId, effect.pieces[0] as number));
  }
  return begun;
}

test("six places are six long pieces sent at a time, or eight short ones", () => {
  assert.deepEqual([uploadsOf(LONG_BYTES), uploadsOf(SHORT_BYTES)], [6, 8]);
});

/** @returns how many of forty offers are taken */
function takenOf(bench: TestSwarm, linkId: number): number {
  let taken = 0;
  for (let piece = 0; piece < 40; piece++) taken += named(bench.tell("offered", linkId, piece), "sendAccept").length;
  return taken;
}

test("one place is one piece sent at a time, short or long", () => {
  assert.deepEqual([uploadsOf(LONG_BYTES, 1), uploadsOf(SHORT_BYTES, 1)], [1, 1]);
});

test("eleven places are eleven long pieces taken at a time, or fifteen short ones; from outside two, or three", () => {
  const taken = [LONG_BYTES, SHORT_BYTES].flatMap((pieceLengthBytes) =>
    [0, 2].map((distance) => {
      const bench = new TestSwarm({ downloadCountMax: 11, farDownloadCountMax: 2 });
      bench.open(40, [], { pieceLengthBytes });
      bench.neighbour(1);
      bench.feed({ type: "remotePlaced", linkId: 1, distance: distance as 0 | 2 });
      return takenOf(bench, 1);
    }),
  );
  assert.deepEqual(taken, [11, 2, 15, 3]);
});

test("short and long pieces share the places, and who ends gives back what it took", () => {
  const bench = new TestSwarm({ downloadCountMax: 2 });
  bench.open(40, [], { pieceLengthBytes: LONG_BYTES });
  bench.open(40, [], { taskId: OTHER_TASK, pieceLengthBytes: SHORT_BYTES });
  bench.neighbour(1);
  bench.join(1, { taskId: OTHER_TASK });
  for (const [piece, taskId] of [[0, TASK], [0, OTHER_TASK], [1, OTHER_TASK]] as const) {
    assert.deepEqual(named(bench.tell("offered", 1, piece, taskId), "sendAccept"), [[1, piece]]);
  }
  assert.deepEqual(declines(bench.tell("offered", 1, 2, OTHER_TASK)), ["busy"], "two and a half places");
  bench.tell("receiveCancelled", 1, 0, OTHER_TASK);
  assert.deepEqual(named(bench.tell("offered", 1, 2, OTHER_TASK), "sendAccept"), [[1, 2]]);
  for (const [piece, taskId] of [[0, TASK], [1, OTHER_TASK], [2, OTHER_TASK]] as const) bench.tell("receiveCancelled", 1, piece, taskId);
  bench.neighbour(2);
  assert.equal(takenOf(bench, 2), 2, "nothing is left over");
});
