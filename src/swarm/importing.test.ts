import assert from "node:assert/strict";
import { test } from "node:test";
import type { Imports } from "../protocol/topology.ts";
import { declines, named, of, TASK, TestSwarm } from "./swarm-fixture.test.ts";

const EVEN = 0x55555555;
/** Even pieces are ours to bring into the rack, odd ones if their importer does not. */
const IMPORTS: readonly Imports[] = [{ distance: 2, own: EVEN, backup: ~EVEN }];

/** A peer without pieces, beside link 1 in its rack and links 2 and 3 outside. */
function inRack(config = {}, pieceLengthBytes?: number): TestSwarm {
  const swarm = new TestSwarm({ downloadCountMax: 8, ...config });
  swarm.open(40, [], pieceLengthBytes === undefined ? {} : { pieceLengthBytes });
  swarm.feed({ type: "importsAssigned", taskId: TASK, imports: IMPORTS });
  for (const linkId of [1, 2, 3]) {
    swarm.neighbour(linkId, { have: linkId === 1 ? [] : [0, 1, 2, 3, 4, 5, 6, 7] });
    swarm.feed({ type: "remotePlaced", linkId, distance: linkId === 1 ? 0 : 2 });
  }
  return swarm;
}

test("a neighbour outside is told what we bring in, one inside nothing, and so is a joiner", () => {
  const swarm = new TestSwarm();
  swarm.open(40, []);
  swarm.feed({ type: "importsAssigned", taskId: TASK, imports: IMPORTS });
  swarm.neighbour(1);
  assert.deepEqual(of(swarm.feed({ type: "remotePlaced", linkId: 1, distance: 2 }), "sendImports").map(({ buckets }) => buckets), [EVEN]);
  swarm.feed({ type: "linkOpened", linkId: 2, peerId: "peer-2" as never });
  swarm.feed({ type: "remotePlaced", linkId: 2, distance: 2 });
  assert.deepEqual(of(swarm.join(2), "sendImports").map(({ linkId }) => linkId), [2]);
  swarm.neighbour(3);
  assert.deepEqual(of(swarm.feed({ type: "remotePlaced", linkId: 3, distance: 0 }), "sendImports"), []);
});

test("from outside only our share is taken, and not what somebody inside has; from inside everything", () => {
  const swarm = inRack();
  assert.deepEqual(declines(swarm.offered(2, [1])), ["unwanted"]);
  assert.deepEqual(named(swarm.offered(2, [1, 2]), "sendAccept"), [[2, 2]]);
  swarm.has(1, 1, 4);
  assert.deepEqual(declines(swarm.offered(2, [4])), ["unwanted"]);
  assert.deepEqual(named(swarm.offered(1, [1]), "sendAccept"), [[1, 1]]);
});

test("transfers from outside have a bound of their own; who was refused is invited when there is room", () => {
  const swarm = inRack({ farDownloadCountMax: 1 });
  assert.deepEqual(named(swarm.offered(2, [0]), "sendAccept"), [[2, 0]]);
  assert.deepEqual(declines(swarm.offered(3, [2])), ["busy"]);
  swarm.has(1, 3);
  assert.deepEqual(named(swarm.offered(1, [3]), "sendAccept"), [[1, 3]]);
  swarm.progressed("receive", 2, 0);
  const effects = [...swarm.tell("receiveFinished", 2, 0), ...swarm.stored(0), ...swarm.wait(60)];
  assert.ok(of(effects, "sendStatus").some(({ linkId, incoming, capacity }) => linkId === 3 && incoming < capacity));
});

test("what a neighbour outside does not take is not offered to it", () => {
  const swarm = new TestSwarm();
  swarm.open(4);
  swarm.feed({ type: "linkOpened", linkId: 1, peerId: "peer-1" as never });
  swarm.status(1, 3);
  swarm.join(1);
  swarm.feed({ type: "remoteImports", linkId: 1, taskId: TASK, buckets: 1 << 2 });
  swarm.wants(1, 3);
  assert.deepEqual(named(swarm.status(1, 0), "sendOffer"), [[1, 2]]);
});

test("when inside nobody has anything new for a second, the backup stands in, after two anybody, for a moment", () => {
  const swarm = inRack();
  const told = (ms: number): readonly number[] =>
    of(swarm.wait(ms), "sendImports").filter(({ linkId }) => linkId === 2).map(({ buckets }) => buckets);
  assert.deepEqual(told(900), []);
  assert.deepEqual(told(300), [-1]);
  assert.deepEqual(named(swarm.offered(2, [1]), "sendAccept"), [[2, 1]]);
  swarm.progressed("receive", 2, 1);
  swarm.tell("receiveFinished", 2, 1);
  swarm.stored(1);
  assert.deepEqual(told(900), [EVEN], "something came: back to our share");
});

test("the worse importers fail, the fewer pieces come in from outside at a time: others bring in the same", () => {
  const taken = [0, 1_200, 2_200].map((waitedMs) => {
    const swarm = inRack({}, 64 * 1024);
    swarm.wait(waitedMs);
    return [0, 1, 2, 3, 4, 5, 6, 7].flatMap((piece) => named(swarm.offered(2, [piece]), "sendAccept")).length;
  });
  assert.deepEqual(taken, [3, 2, 1], "our share, the backup's, anybody's");
});

test("who is refused because importers fail is not told that there is room, and asked again, until there is", () => {
  const swarm = inRack({}, 64 * 1024);
  swarm.wait(2_200);
  assert.deepEqual(named(swarm.offered(2, [0]), "sendAccept"), [[2, 0]]);
  const told = [...swarm.offered(3, [2]), ...swarm.wait(60), ...swarm.offered(3, [4]), ...swarm.wait(60)];
  assert.deepEqual(declines(told), ["busy", "busy"]);
  assert.deepEqual(of(told, "sendStatus").filter(({ linkId, incoming, capacity }) => linkId === 3 && incoming < capacity), []);
  swarm.progressed("receive", 2, 0);
  const effects = [...swarm.tell("receiveFinished", 2, 0), ...swarm.stored(0), ...swarm.wait(60)];
  assert.ok(of(effects, "sendStatus").some(({ linkId, incoming, capacity }) => linkId === 3 && incoming < capacity));
});

test("while inside somebody has what we lack, nobody stands in at once; but what they claim may be a lie", () => {
  const swarm = inRack();
  swarm.has(1, 0, 1, 2, 3, 4, 5, 6, 7);
  assert.deepEqual(of(swarm.wait(1_900), "sendImports"), []);
  assert.ok(of(swarm.wait(300), "sendImports").length > 0);
  assert.deepEqual(named(swarm.offered(2, [1]), "sendAccept"), [[2, 1]]);
});

test("who has all of its share, or has it on its way, helps with the one it is the backup for; who has none does not", () => {
  const told = (swarm: TestSwarm): readonly number[] => of(swarm.wait(150), "sendImports").filter(({ linkId }) => linkId === 2).map(({ buckets }) => buckets);
  const start = (imports: readonly Imports[]): TestSwarm => {
    const swarm = new TestSwarm({ downloadCountMax: 8 });
    swarm.open(40, Array.from({ length: 19 }, (_, at) => 2 * at));
    swarm.feed({ type: "importsAssigned", taskId: TASK, imports });
    for (const linkId of [1, 2]) {
      swarm.neighbour(linkId, { have: linkId === 1 ? [] : [1, 3, 38] });
      swarm.feed({ type: "remotePlaced", linkId, distance: linkId === 1 ? 0 : 2 });
    }
    return swarm;
  };
  const swarm = start(IMPORTS);
  assert.deepEqual(told(swarm), []);
  assert.deepEqual(named(swarm.offered(2, [38]), "sendAccept"), [[2, 38]]);
  assert.deepEqual(told(swarm), [-1]);
  swarm.has(1, 1);
  assert.deepEqual(declines(swarm.offered(2, [1])), ["unwanted"], "somebody inside has it");
  assert.deepEqual(named(swarm.offered(2, [3]), "sendAccept"), [[2, 3]]);
  assert.deepEqual(told(start([{ distance: 2, own: 0, backup: 0 }])), []);
});
