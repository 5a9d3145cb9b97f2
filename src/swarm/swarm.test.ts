import assert from "node:assert/strict";
import { test } from "node:test";
import type { PeerId } from "../protocol/ids.ts";
import type { SwarmEffect } from "./index.ts";
import { named, of, TASK, TestSwarm, type Transfer } from "./swarm-fixture.test.ts";

test("a reader's piece goes first among those that others hold too", () => {
  const bench = new TestSwarm({ lookaheadCount: 0 });
  const all = Array.from({ length: 100 }, (_, piece) => piece);
  bench.open(100, []);
  bench.neighbour(1, { have: all, receives: false });
  bench.neighbour(2, { incoming: 3 });
  for (const piece of all) bench.stored(piece);
  bench.wants(2, 61, 62);
  assert.deepEqual(named(bench.status(2, 0), "sendOffer"), [[2, 61]]);
});

test("a reader's piece goes first among those that nobody else holds", () => {
  const bench = new TestSwarm({ lookaheadCount: 0 });
  bench.open(100);
  bench.neighbour(1, { incoming: 3 });
  bench.wants(1, 61);
  assert.deepEqual(named(bench.status(1, 0), "sendOffer"), [[1, 61]]);
});

test("announcements ride on what is said to a neighbour anyway; the rest waits for one flush", () => {
  const bench = new TestSwarm({ answerMs: 60_000 });
  bench.open(20, []);
  bench.neighbour(1, { have: [0, 1, 2, 3] });
  // It can give, but not be given anything: nothing is said to it but announcements.
  bench.neighbour(2, { receives: false });
  bench.wait(50);
  bench.receive(1, 0);
  const effects = [...bench.tell("offered", 1, 1), ...bench.stored(9)];
  const told = (all: readonly SwarmEffect[]): unknown => of(all, "sendHave").map(({ linkId, pieces }) => [linkId, pieces]);
  assert.deepEqual(told(effects), [[1, [1]], [1, [9]]], "with the answer to its offer, and with an offer to it");
  assert.deepEqual(told(bench.wait(9_000)), [], "alone it would wake the other side for nothing");
  assert.deepEqual(told(bench.wait(1_000)), [[2, [0, 1, 9]]]);
  bench.feed({ type: "readerMoved", taskId: TASK, readerId: 1, piece: 2 });
  assert.equal(of(bench.wait(50), "sendWant").length, 2);
  assert.deepEqual(told(bench.wait(10_000)), [], "once");
});

test("a piece is claimed when it is agreed, so that nobody else offers it; when it is late or does not come, that is taken back", () => {
  const bench = new TestSwarm({ silenceMs: 500, answerMs: 60_000 });
  bench.open(20, []);
  for (const linkId of [1, 2, 3]) bench.neighbour(linkId, { have: [0, 1, 2] });
  const links = (all: readonly SwarmEffect[], type: "sendHave" | "sendLost", piece: number): readonly number[] =>
    of(all, type).filter(({ pieces }) => pieces.includes(piece)).map(({ linkId }) => linkId).toSorted((a, b) => a - b);

  assert.deepEqual(links([...bench.tell("offered", 1, 0), ...bench.wait(10_000)], "sendHave", 0), [1, 2, 3], "before a byte of it is here");
  assert.deepEqual(links(bench.tell("receiveCancelled", 1, 0), "sendLost", 0), [1, 2, 3], "it will not come");

  bench.tell("offered", 1, 1);
  bench.progressed("receive", 1, 1);
  assert.deepEqual(links(bench.wait(700), "sendLost", 1), [1, 2, 3], "it is late");
  assert.deepEqual(links([...bench.tell("offered", 2, 1), ...bench.wait(10_000)], "sendHave", 1), [1, 2, 3], "it comes from another");
  bench.progressed("receive", 2, 1);
  assert.deepEqual(links(bench.tell("receiveCancelled", 1, 1), "sendLost", 1), [], "the late one is not needed any more");
  bench.tell("receiveFinished", 2, 1);
  assert.deepEqual(links([...bench.stored(1), ...bench.wait(10_000)], "sendHave", 1), [], "known already");
});

test("one who joins is told what is on its way here", () => {
  const bench = new TestSwarm();
  bench.open(20, []);
  bench.neighbour(1, { have: [0, 1, 2] });
  bench.receive(1, 0);
  bench.tell("offered", 1, 1);
  assert.deepEqual(of(bench.neighbour(2), "sendHave").map(({ linkId, pieces }) => [linkId, pieces]), [[2, [1]]]);
});

test("one who joins is told the status and what is wanted", () => {
  const bench = new TestSwarm({ readerWindowCount: 2 });
  bench.open(20, []);
  bench.feed({ type: "readerMoved", taskId: TASK, readerId: 1, piece: 3 });
  bench.wait(2);
  const effects = bench.neighbour(1);
  assert.deepEqual(of(effects, "sendStatus").map(({ incoming, capacity }) => [incoming, capacity]), [[0, 3]]);
  assert.deepEqual(of(effects, "sendWant").map(({ pieces }) => pieces), [[3, 4]]);
});

test("without any neighbour, neighbours are asked for once in starvedMs", () => {
  const bench = new TestSwarm({ starvedMs: 1_000 });
  bench.open(20, []);
  assert.equal(of(bench.wait(900), "needNeighbours").length, 0);
  assert.equal(of(bench.wait(200), "needNeighbours").length, 1);
  const count = of(bench.wait(10_000), "needNeighbours").length;
  assert.ok(count >= 9 && count <= 10, `${count}`);
});

test("lost and isolated neighbours are named when others are asked for", () => {
  const bench = new TestSwarm();
  bench.open(20, []);
  for (const linkId of [1, 2, 3]) bench.neighbour(linkId, { have: [0, 1, 2] });
  bench.feed({ type: "linkClosed", linkId: 1 });
  bench.tell("pieceRejected", 2, 0);
  const [asked] = of(bench.wait(1_200), "needNeighbours");
  assert.deepEqual(asked?.useless, ["peer-1", "peer-2"]);
});

test("a neighbour whose link breaks before it has joined is named, unless it is back in time", () => {
  for (const isBack of [false, true]) {
    const bench = new TestSwarm();
    bench.open(20, []);
    bench.feed({ type: "linkOpened", linkId: 1, peerId: "peer-1" as PeerId });
    bench.feed({ type: "linkClosed", linkId: 1 });
    bench.feed({ type: "neighbourLost", taskId: TASK, peerId: "peer-1" as PeerId });
    if (isBack) bench.feed({ type: "linkOpened", linkId: 2, peerId: "peer-1" as PeerId });
    if (isBack) bench.join(2);
    assert.deepEqual(of(bench.wait(1_200), "needNeighbours").map(({ useless }) => useless), isBack ? [] : [["peer-1"]]);
  }
});

test("a neighbour that hangs is named when it has said nothing for three seconds: until then it may be slow, and the only one that has it", () => {
  for (const speaks of [true, false]) {
    const bench = new TestSwarm({ starvedMs: 1_000, silenceMs: 500 });
    bench.open(20, []);
    bench.neighbour(1, { have: [0, 1, 2] });
    bench.tell("offered", 1, 0);
    bench.progressed("receive", 1, 0);
    const named = (ms: number): boolean => of(bench.wait(ms), "needNeighbours").some(({ useless }) => useless.includes("peer-1" as PeerId));
    for (let i = 0; i < 4; i++) {
      assert.equal(named(700), false);
      // A word comes, though none of the piece: its uplink may be crowded.
      if (speaks) bench.has(1, 3 + i);
    }
    assert.equal(named(700), !speaks);
  }
});

test("links that break while a task is complete are named when pieces vanish later, but for those that are back", () => {
  const bench = new TestSwarm();
  bench.open(20);
  for (const linkId of [1, 2, 3]) bench.neighbour(linkId);
  for (const linkId of [1, 2]) bench.feed({ type: "linkClosed", linkId });
  bench.feed({ type: "linkOpened", linkId: 4, peerId: "peer-2" as PeerId });
  bench.join(4);
  bench.wait(60_000);
  bench.feed({ type: "piecesLost", taskId: TASK, pieces: [3] });
  const [asked] = of(bench.wait(1_200), "needNeighbours");
  assert.deepEqual(asked?.useless, ["peer-1"]);
});

test("a task that is complete asks for nobody", () => {
  const bench = new TestSwarm();
  bench.open(20);
  bench.neighbour(1);
  bench.feed({ type: "linkClosed", linkId: 1 });
  assert.deepEqual(of(bench.wait(60_000), "needNeighbours"), []);
});

test("a length that becomes known later ends the task at its last piece", () => {
  const bench = new TestSwarm();
  bench.open(undefined, []);
  bench.neighbour(1, { have: [0, 1] });
  bench.receive(1, 0);
  bench.receive(1, 1);
  assert.notEqual(bench.swarm.nextDeadlineMs(), undefined);
  bench.feed({ type: "lengthKnown", taskId: TASK, pieceCount: 2 });
  bench.wait(60_000);
  assert.equal(bench.swarm.nextDeadlineMs(), undefined);
});

test("inputs about what is gone are ignored", () => {
  const bench = new TestSwarm();
  const types = ["offerAccepted", "sendCancelled", "receiveCancelled", "sendFinished", "receiveFinished", "pieceRejected"] as const;
  for (const type of types) assert.deepEqual(bench.tell(type, 4, 2), []);
  assert.deepEqual(bench.feed({ type: "linkClosed", linkId: 4 }), []);
  assert.deepEqual(bench.feed({ type: "taskClosed", taskId: TASK }), []);
  assert.equal(bench.swarm.nextDeadlineMs(), undefined);
});

test("a peer that joins again is counted anew", () => {
  const bench = new TestSwarm();
  bench.open(4);
  bench.neighbour(1, { have: [0, 1, 2, 3] });
  assert.deepEqual(bench.task().outgoing, []);
  bench.join(1, { have: [0, 1, 2] });
  assert.deepEqual(bench.task().outgoing.map(({ piece }) => piece), [3]);
});

test("the snapshot shows who is linked and what moves", () => {
  const bench = new TestSwarm({ lookaheadCount: 0 });
  bench.open(4, [3]);
  bench.neighbour(1, { have: [0] });
  bench.tell("offered", 1, 0);
  bench.nowMs += 40;
  bench.status(1, 0);
  const { links, tasks } = bench.swarm.snapshot();
  assert.deepEqual(links, [{ linkId: 1, peerId: "peer-1" as PeerId }]);
  assert.deepEqual(tasks[0]?.incoming, [{ linkId: 1, piece: 0, state: "agreed", late: false, ageMs: 40 }]);
  assert.deepEqual(tasks[0]?.outgoing, [{ linkId: 1, piece: 3, state: "offered" }]);
});

test("time does not go back", () => {
  const bench = new TestSwarm();
  bench.nowMs = 10;
  bench.open(4);
  bench.nowMs = 9;
  assert.throws(() => bench.neighbour(1), /time went back/);
});

test("pieces that vanish are told to all, taken back from the wire, not offered again, and missing from then on", () => {
  const bench = new TestSwarm({ uploadCount: 2, lookaheadCount: 0 });
  bench.open(3);
  bench.neighbour(1);
  bench.neighbour(2);
  const [[sendingTo, sending], [offeredTo, offered]] = bench.task().outgoing.map(({ linkId, piece }): Transfer => [linkId, piece]) as readonly Transfer[] as readonly [Transfer, Transfer];
  bench.tell("offerAccepted", sendingTo, sending);
  const effects = bench.feed({ type: "piecesLost", taskId: TASK, pieces: [sending, offered] });
  assert.deepEqual(named(effects, "cancelSend"), [[sendingTo, sending]]);
  assert.deepEqual(of(effects, "sendLost").map(({ linkId, pieces }) => [linkId, pieces]), [[1, [sending, offered]], [2, [sending, offered]]]);
  const [left] = [0, 1, 2].filter((piece) => piece !== sending && piece !== offered);
  assert.deepEqual(named(effects, "sendOffer").map(([, piece]) => piece), [left], "only what is left is offered");
  assert.equal(bench.task().haveCount, 1);
  assert.deepEqual(named(bench.tell("offerAccepted", offeredTo, offered), "cancelSend"), [[offeredTo, offered]], "an answer that comes too late");
  assert.deepEqual(named(bench.tell("offered", 2, sending), "sendAccept"), [[2, sending]], "and it may come back");
});

test("a reader's piece that vanishes is wanted again", () => {
  const bench = new TestSwarm();
  bench.open(4);
  bench.neighbour(1, { have: [0, 1, 2, 3] });
  bench.feed({ type: "readerMoved", taskId: TASK, readerId: 1, piece: 2 });
  bench.wait(100);
  const effects = [...bench.feed({ type: "piecesLost", taskId: TASK, pieces: [2] }), ...bench.wait(100)];
  assert.deepEqual(of(effects, "sendWant").map(({ pieces }) => pieces), [[2]]);
});

test("what a neighbour lost is offered to it at once, though it was sent a moment ago", () => {
  const bench = new TestSwarm();
  bench.open(1);
  bench.neighbour(1);
  bench.tell("offerAccepted", 1, 0);
  bench.tell("sendFinished", 1, 0);
  assert.deepEqual(named(bench.has(1, 0), "sendOffer"), []);
  assert.deepEqual(named(bench.feed({ type: "remoteLost", linkId: 1, taskId: TASK, pieces: [0] }), "sendOffer"), [[1, 0]]);
});
