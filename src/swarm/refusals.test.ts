/** Whom a peer refuses, for how long, and how they hear that it is over. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { PeerId } from "../protocol/ids.ts";
import type { SwarmEffect } from "./index.ts";
import { declines, named, of, OTHER_TASK, setOf, TASK, TestSwarm } from "./swarm-fixture.test.ts";

test("who gave a bad piece stays isolated when it leaves and joins again", () => {
  const swarm = new TestSwarm({ downloadCountMax: 11 });
  swarm.open(10, []);
  swarm.neighbour(1, { have: [3, 4] });
  swarm.tell("offered", 1, 3);
  swarm.tell("receiveFinished", 1, 3);
  assert.equal(named(swarm.tell("pieceRejected", 1, 3), "isolate").length, 1);
  swarm.feed({ type: "remoteLeft", linkId: 1, taskId: TASK });
  swarm.join(1, { have: [3, 4] });
  assert.deepEqual(declines(swarm.tell("offered", 1, 3)), ["unwanted"]);
});

test("who gave a bad piece stays isolated when it comes over another link", () => {
  const swarm = new TestSwarm({ downloadCountMax: 11 });
  swarm.open(10, []);
  swarm.neighbour(1, { have: [3, 4] });
  swarm.tell("offered", 1, 3);
  swarm.tell("receiveFinished", 1, 3);
  swarm.tell("pieceRejected", 1, 3);
  swarm.feed({ type: "linkClosed", linkId: 1 });
  swarm.feed({ type: "linkOpened", linkId: 2, peerId: "peer-1" as PeerId });
  swarm.join(2, { have: [3, 4] });
  assert.deepEqual(declines(swarm.tell("offered", 2, 3)), ["unwanted"]);
});

test("a seed that gave a bad piece, which a disk does to it, is listened to again when it joins again", () => {
  const swarm = new TestSwarm({ downloadCountMax: 11 });
  swarm.open(10, []);
  swarm.neighbour(1, { have: [] });
  const join = (): unknown => swarm.feed({ type: "remoteJoined", linkId: 1, taskId: TASK, have: setOf([3, 4]), seed: true, receives: true, wants: [] });
  join();
  swarm.tell("offered", 1, 3);
  swarm.tell("receiveFinished", 1, 3);
  swarm.tell("pieceRejected", 1, 3);
  swarm.feed({ type: "remoteLeft", linkId: 1, taskId: TASK });
  join();
  assert.deepEqual(declines(swarm.tell("offered", 1, 4)), []);
});

test("who was told that there is no memory hears of it when there is, though others keep us busy", () => {
  const swarm = new TestSwarm({ downloadCountMax: 11 });
  swarm.open(10, []);
  swarm.open(1_000, [], { taskId: OTHER_TASK });
  swarm.neighbour(1, { have: [0, 1, 2, 3] }); // the only one with TASK
  swarm.neighbour(2, { taskId: OTHER_TASK, have: [] });
  // The other task keeps something coming all the time: load is "receiving", neither idle nor full.
  let piece = 0;
  const busy = (): readonly SwarmEffect[] => [
    ...swarm.offered(2, [piece], OTHER_TASK),
    ...swarm.feed({ type: "receiveProgressed", linkId: 2, taskId: OTHER_TASK, piece, bytes: 1_000 }),
  ];
  busy();
  // The brain accepts; the driver has no memory, says so to the sender, and to the brain.
  assert.equal(named(swarm.tell("offered", 1, 0), "sendAccept").length, 1);
  const effects: SwarmEffect[] = [...swarm.feed({ type: "receiveRefused", linkId: 1, taskId: TASK, piece: 0, busy: true })];
  for (let i = 0; i < 600; i++) {
    effects.push(...swarm.wait(100));
    // The next one begins before this one ends.
    const ending = piece;
    piece++;
    effects.push(...busy());
    effects.push(...swarm.tell("receiveFinished", 2, ending, OTHER_TASK), ...swarm.stored(ending, OTHER_TASK));
  }
  const statuses = of(effects, "sendStatus").filter(({ linkId }) => linkId === 1);
  assert.ok(statuses.length > 0, "for a minute the sender, who thinks us full since the decline, has not been told otherwise");
});

test("what there was no memory for, or no disk, may come from another at once, and takes up no room meanwhile", () => {
  for (const busy of [true, false]) {
    const swarm = new TestSwarm({ downloadCountMax: 1 });
    swarm.open(10, []);
    swarm.neighbour(1, { have: [0] });
    swarm.neighbour(2, { have: [0, 1] });
    assert.equal(named(swarm.tell("offered", 1, 0), "sendAccept").length, 1);
    const told = swarm.feed({ type: "receiveRefused", linkId: 1, taskId: TASK, piece: 0, busy });
    assert.deepEqual(of(told, "sendLost").map(({ linkId, pieces }) => [linkId, ...pieces]), [[1, 0], [2, 0]], "who was told that it comes may offer it");
    assert.deepEqual(swarm.task().incoming, []);
    assert.deepEqual(named(swarm.offered(2, [0]), "sendAccept"), [[2, 0]]);
  }
});
