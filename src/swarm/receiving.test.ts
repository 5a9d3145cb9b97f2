import assert from "node:assert/strict";
import { test } from "node:test";
import type { SwarmEffect } from "./index.ts";
import { declines, named, of, OTHER_TASK, PIECE_BYTES, TASK, TestSwarm, type Transfer } from "./swarm-fixture.test.ts";

/** A peer that has nothing yet, with neighbours 1…count that hold everything. */
function hungry(count: number, config: ConstructorParameters<typeof TestSwarm>[0] = {}): TestSwarm {
  const bench = new TestSwarm(config);
  bench.open(20, []);
  const all = Array.from({ length: 20 }, (_, piece) => piece);
  for (let linkId = 1; linkId <= count; linkId++) bench.neighbour(linkId, { have: all });
  return bench;
}

test("what is missing is accepted", () => {
  const bench = hungry(1);
  assert.deepEqual(named(bench.tell("offered", 1, 7), "sendAccept"), [[1, 7]]);
});

test("of an offer the piece is taken that fewest neighbours hold; of equals the sender's first", () => {
  const bench = hungry(1);
  bench.neighbour(2, { have: [5, 6, 7] });
  assert.deepEqual(named(bench.offered(1, [5, 9, 8, 7]), "sendAccept"), [[1, 9]]);
  assert.deepEqual(named(bench.offered(1, [7, 5, 6]), "sendAccept"), [[1, 7]]);
});

test("nothing that is here, under way or beyond the end is accepted", () => {
  const bench = hungry(2);
  bench.receive(1, 7);
  assert.deepEqual(declines(bench.tell("offered", 2, 7)), ["have"]);
  bench.tell("offered", 1, 8);
  assert.deepEqual(declines(bench.tell("offered", 2, 8)), ["taking"]);
  assert.deepEqual(declines(bench.tell("offered", 1, 8)), ["taking"]);
  assert.deepEqual(declines(bench.tell("offered", 1, 20)), ["unwanted"]);
  assert.deepEqual(declines(bench.tell("offered", 9, 3)), ["unwanted"], "of a link that is not of the task");
});

test("a busy receiver declines, and tells those who know it as busy when it no longer is, as many as it has room for", () => {
  const bench = hungry(4);
  for (const piece of [0, 1, 2]) bench.tell("offered", 1, piece);
  bench.wait(2);
  assert.deepEqual(declines(bench.tell("offered", 2, 3)), ["busy"]);
  const told = (effects: readonly SwarmEffect[]): unknown => of(effects, "sendStatus").map(({ linkId, incoming }) => [linkId, incoming]);
  assert.deepEqual(told(bench.tell("receiveFinished", 1, 0)), [[1, 1]], "one place, one invitation");
  assert.deepEqual(told(bench.stored(0)), [], "it may still come");
  assert.deepEqual(told(bench.wait(2)), [[2, 1]], "it did not come: the next one");
  assert.deepEqual(named(bench.tell("offered", 2, 3), "sendAccept"), [[2, 3]]);
});

test("a task that gets nothing is let in although others have all the room, one piece at a time", () => {
  const bench = hungry(1);
  bench.wait(2);
  for (const piece of [0, 1, 2]) bench.tell("offered", 1, piece);
  bench.open(4, [], { taskId: OTHER_TASK });
  assert.deepEqual(of(bench.neighbour(2, { taskId: OTHER_TASK, have: [0, 1, 2, 3] }), "sendStatus").map(({ incoming }) => incoming), [1], "room for it");
  assert.deepEqual(named(bench.tell("offered", 2, 0, OTHER_TASK), "sendAccept"), [[2, 0]]);
  assert.deepEqual(declines(bench.tell("offered", 2, 1, OTHER_TASK)), ["busy"]);
  assert.deepEqual(declines(bench.tell("offered", 1, 3)), ["busy"]);
  // Its piece has come; the other task has all the room still.
  const told = of(bench.tell("receiveFinished", 2, 0, OTHER_TASK), "sendStatus");
  assert.deepEqual(told.map(({ linkId, incoming }) => [linkId, incoming]), [[2, 1]]);
  assert.deepEqual(named(bench.tell("offered", 2, 1, OTHER_TASK), "sendAccept"), [[2, 1]]);
});

test("over one link, too, room for the task that gets nothing is told, and not again at once when another one is offered", () => {
  const bench = hungry(1);
  bench.wait(2);
  for (const piece of [0, 1, 2]) bench.tell("offered", 1, piece);
  assert.deepEqual(declines(bench.tell("offered", 1, 3)), ["busy"]);
  bench.open(4, [], { taskId: OTHER_TASK });
  assert.deepEqual(of(bench.join(1, { taskId: OTHER_TASK, have: [0, 1] }), "sendStatus").map(({ incoming }) => incoming), [1]);
  const again = bench.tell("offered", 1, 3);
  assert.deepEqual(declines(again), ["busy"]);
  assert.ok(of(bench.wait(1_000), "sendStatus").length < 25);
  assert.deepEqual(named(bench.tell("offered", 1, 0, OTHER_TASK), "sendAccept"), [[1, 0]]);
});

test("when nothing comes in any more, all who think otherwise hear it at once", () => {
  const bench = hungry(3, { downloadCountMax: 1 });
  bench.wait(2);
  bench.tell("offered", 1, 0);
  bench.tell("offered", 2, 1);
  const told = of(bench.tell("receiveCancelled", 1, 0), "sendStatus");
  assert.deepEqual(told.map(({ linkId, incoming }) => [linkId, incoming]), [[1, 0], [2, 0]]);
});

test("of several pieces on offer the first that is of use is taken; one that a reader waits for before all", () => {
  const bench = hungry(3, { readerWindowCount: 2 });
  bench.receive(1, 0);
  bench.tell("offered", 1, 1);
  assert.deepEqual(named(bench.offered(2, [0, 1, 2, 3]), "sendAccept"), [[2, 2]], "0 is here, 1 is coming");
  bench.feed({ type: "readerMoved", taskId: TASK, readerId: 1, piece: 5 });
  bench.wait(2);
  assert.deepEqual(named(bench.offered(3, [4, 6, 5]), "sendAccept"), [[3, 5]]);
  bench.tell("receiveFinished", 1, 1);
  assert.deepEqual(declines(bench.offered(3, [0, 2])), ["taking"]);
  assert.deepEqual(declines(bench.offered(3, [0])), ["have"]);
});

test("one who joins while the receiver is full learns when it no longer is", () => {
  const bench = hungry(1, { downloadCountMax: 1 });
  bench.wait(2);
  bench.tell("offered", 1, 0);
  const [told] = of(bench.neighbour(2, { have: [3] }), "sendStatus");
  assert.equal(told?.incoming, 1);
  const later = of(bench.tell("receiveCancelled", 1, 0), "sendStatus").filter(({ linkId }) => linkId === 2);
  assert.deepEqual(later.map(({ incoming }) => incoming), [0]);
});

test("pieces that wait for disk and digest make the receiver busy, too", () => {
  const bench = hungry(1, { verifyCountMax: 2 });
  for (const piece of [0, 1]) {
    bench.tell("offered", 1, piece);
    bench.tell("receiveFinished", 1, piece);
  }
  assert.deepEqual(declines(bench.tell("offered", 1, 2)), ["busy"]);
  bench.stored(0);
  assert.deepEqual(named(bench.tell("offered", 1, 2), "sendAccept"), [[1, 2]]);
});

/* Their number is over all tasks: what a closed task left behind made the peer busy for good. */
test("pieces of a closed task that were being verified no longer make the receiver busy", () => {
  const bench = hungry(1, { verifyCountMax: 2 });
  bench.open(20, [], { taskId: OTHER_TASK });
  bench.join(1, { taskId: OTHER_TASK, have: [0, 1, 2] });
  for (const piece of [0, 1]) {
    bench.tell("offered", 1, piece, OTHER_TASK);
    bench.tell("receiveFinished", 1, piece, OTHER_TASK);
  }
  bench.feed({ type: "taskClosed", taskId: OTHER_TASK });
  for (const piece of [0, 1]) bench.stored(piece, OTHER_TASK);
  assert.deepEqual(named(bench.tell("offered", 1, 5), "sendAccept"), [[1, 5]]);
});

test("a silent transfer is late after silenceMs and taken from a second source; the loser is cancelled", () => {
  const bench = hungry(3);
  bench.tell("offered", 1, 5);
  bench.progressed("receive", 1, 5);
  assert.deepEqual(declines(bench.tell("offered", 2, 5)), ["taking"]);
  const wanted = of(bench.wait(600), "sendWant");
  assert.deepEqual(wanted.map(({ linkId, pieces }) => [linkId, pieces]), [[1, [5]], [2, [5]], [3, [5]]]);
  assert.deepEqual(named(bench.tell("offered", 2, 5), "sendAccept"), [[2, 5]]);
  assert.deepEqual(declines(bench.tell("offered", 3, 5)), ["taking"], "two sources are enough");
  bench.progressed("receive", 2, 5);
  assert.deepEqual(named(bench.tell("receiveFinished", 2, 5), "cancelReceive"), [[1, 5]]);
  assert.equal(bench.task().doubled, 1);
});

test("the late one may win as well", () => {
  const bench = hungry(2);
  bench.tell("offered", 1, 5);
  bench.progressed("receive", 1, 5);
  bench.wait(600);
  bench.tell("offered", 2, 5);
  bench.progressed("receive", 1, 5);
  assert.deepEqual(named(bench.tell("receiveFinished", 1, 5), "cancelReceive"), [[2, 5]]);
  assert.deepEqual(bench.stored(5).filter(({ type }) => type === "cancelReceive"), []);
});

test("an agreed piece that never starts is late after answerMs", () => {
  const bench = hungry(2);
  bench.tell("offered", 1, 5);
  assert.deepEqual(of(bench.wait(1_900), "sendWant"), []);
  assert.deepEqual(of(bench.wait(200), "sendWant").map(({ pieces }) => pieces), [[5], [5]]);
});

test("a transfer that crawls is late when it takes a multiple of the usual time", () => {
  const bench = hungry(2);
  for (let piece = 0; piece < 5; piece++) {
    bench.tell("offered", 1, piece);
    bench.progressed("receive", 1, piece);
    bench.nowMs += 200;
    bench.tell("receiveFinished", 1, piece);
    bench.stored(piece);
  }
  bench.tell("offered", 2, 10);
  for (let i = 0; i < 5; i++) {
    bench.progressed("receive", 2, 10);
    assert.equal(bench.task().late, 0);
    bench.wait(100);
  }
  bench.progressed("receive", 2, 10);
  bench.wait(300);
  assert.equal(bench.task().late, 1);
});

/** Pieces of 64 KiB come over link 1, one after the other, each in so many ms, until `count` are here. */
function receivesAtPace(bench: TestSwarm, count: number, eachMs: number): void {
  for (let piece = 0; piece < count; piece++) {
    bench.tell("offered", 1, piece);
    bench.progressed("receive", 1, piece, 0);
    for (let part = 0; part < 4; part++) {
      bench.wait(eachMs / 4);
      bench.progressed("receive", 1, piece, PIECE_BYTES / 4);
    }
    bench.tell("receiveFinished", 1, piece);
    bench.stored(piece);
  }
}

/* Eight at a time over a slow downlink: all were late, each was taken from a second source, and so on. */
test("no more pieces are taken at a time than come in within four seconds; three are always", () => {
  for (const [eachMs, count] of [[2_000, 3], [1_100, 4], [600, 7], [300, 8]] as const) {
    const bench = hungry(2, { downloadCountMax: 8 });
    receivesAtPace(bench, 3, eachMs);
    const answers = Array.from({ length: 9 }, (_, i) => bench.tell("offered", 2, 10 + i));
    const accepted = answers.flatMap((effects) => named(effects, "sendAccept"));
    assert.equal(accepted.length, count, `pieces that take ${eachMs} ms each`);
    assert.deepEqual(declines(answers[count] as readonly SwarmEffect[]), ["busy"]);
  }
});

test("who is full because its downlink is says so, and invites as many as it has room for", () => {
  const bench = hungry(4, { downloadCountMax: 8 });
  receivesAtPace(bench, 3, 2_000);
  for (const piece of [10, 14]) bench.tell("offered", 1, piece);
  assert.deepEqual(of(bench.tell("offered", 2, 11), "sendStatus").map(({ incoming, capacity }) => [incoming, capacity]), [[8, 8]]);
  for (const [linkId, piece] of [[3, 12], [4, 13]] as const) assert.deepEqual(declines(bench.tell("offered", linkId, piece)), ["busy"]);
  const invited = of(bench.tell("receiveCancelled", 1, 10), "sendStatus").filter(({ incoming }) => incoming < 8);
  assert.equal(invited.length, 1, "one place, one invitation");
});

test("who waits while others' bytes fill our downlink is not late; who does while they had their turn is", () => {
  const bench = hungry(3);
  for (const linkId of [1, 2]) {
    bench.tell("offered", linkId, linkId);
    bench.progressed("receive", linkId, linkId);
  }
  for (let part = 0; part < 10; part++) {
    bench.wait(100);
    bench.progressed("receive", 1, 1, 40_000);
  }
  assert.equal(bench.task().late, 0, "400 kB of one other sender");
  for (let part = 0; part < 5; part++) {
    bench.progressed("receive", 1, 1, 40_000);
    bench.wait(100);
  }
  assert.deepEqual(bench.task().incoming.map(({ linkId, late }) => [linkId, late]), [[1, false], [2, true]]);
});

test("what still comes of a transfer that was given up takes others' turns, too", () => {
  const bench = hungry(3);
  bench.tell("offered", 1, 1);
  bench.progressed("receive", 1, 1);
  for (let part = 0; part < 10; part++) {
    bench.feed({ type: "strayReceived", linkId: 1, bytes: 40_000 });
    bench.wait(100);
  }
  assert.equal(bench.task().late, 0);
  bench.wait(600);
  assert.equal(bench.task().late, 0, "as much as that may come yet");
  for (let part = 0; part < 4; part++) bench.feed({ type: "strayReceived", linkId: 1, bytes: 40_000 });
  bench.wait(100);
  assert.equal(bench.task().late, 1);
});

test("nobody's turn takes longer than five seconds", () => {
  const bench = hungry(3);
  for (const linkId of [1, 2]) {
    bench.tell("offered", linkId, linkId);
    bench.progressed("receive", linkId, linkId);
  }
  for (let part = 0; part < 50; part++) {
    assert.equal(bench.task().late, 0, `after ${part * 100} ms`);
    bench.progressed("receive", 1, 1, 1_000);
    bench.wait(100);
  }
  bench.wait(100);
  assert.equal(bench.task().late, 1);
});

test("late transfers leave room for others", () => {
  const bench = hungry(2);
  for (const piece of [0, 1, 2]) {
    bench.tell("offered", 1, piece);
    bench.progressed("receive", 1, piece);
  }
  bench.wait(600);
  assert.deepEqual(named(bench.tell("offered", 2, 3), "sendAccept"), [[2, 3]]);
});

test("a rejected piece isolates its sender, drops all that comes from it, and tells", () => {
  const bench = hungry(2);
  bench.tell("offered", 1, 5);
  bench.tell("offered", 1, 6);
  bench.tell("receiveFinished", 1, 5);
  const effects = bench.tell("pieceRejected", 1, 5);
  assert.deepEqual(named(effects, "isolate"), [[1, 5]]);
  assert.deepEqual(named(effects, "cancelReceive"), [[1, 6]]);
  assert.deepEqual(declines(bench.tell("offered", 1, 7)), ["unwanted"]);
  assert.deepEqual(of(bench.wait(2), "sendWant").map(({ linkId, pieces }) => [linkId, pieces]), [[2, [5, 6]]]);
  assert.deepEqual(named(bench.tell("offered", 2, 5), "sendAccept"), [[2, 5]]);
});

test("an isolated neighbour gets nothing either", () => {
  const bench = hungry(1);
  bench.neighbour(2, { have: [] });
  bench.tell("pieceRejected", 2, 5);
  assert.deepEqual(named(bench.receive(1, 0), "sendOffer"), []);
});

test("a lost link frees its pieces at once, and they are wanted aloud", () => {
  const bench = hungry(2);
  bench.tell("offered", 1, 5);
  bench.progressed("receive", 1, 5);
  assert.deepEqual(declines(bench.tell("offered", 2, 5)), ["taking"]);
  bench.feed({ type: "linkClosed", linkId: 1 });
  assert.deepEqual(of(bench.wait(2), "sendWant").map(({ linkId, pieces }) => [linkId, pieces]), [[2, [5]]]);
  assert.deepEqual(named(bench.tell("offered", 2, 5), "sendAccept"), [[2, 5]]);
});

/* A neighbour that withdrew what it had never offered could make this list, and the frame it is sent in, endless. */
test("only what had been agreed is wanted aloud when it is withdrawn", () => {
  const bench = hungry(2);
  for (const piece of [5, 6, 100_000]) bench.tell("receiveCancelled", 1, piece);
  assert.deepEqual(of(bench.wait(2), "sendWant"), []);
});

test("a piece lost for a reason of our own is accepted again a second later, and nobody is blamed", () => {
  const bench = hungry(1);
  bench.tell("offered", 1, 5);
  bench.tell("receiveFinished", 1, 5);
  const effects = bench.feed({ type: "pieceLost", taskId: TASK, piece: 5 });
  assert.deepEqual(named(effects, "isolate"), []);
  assert.deepEqual(named(bench.tell("offered", 1, 5), "sendDecline"), [[1, 5]]);
  bench.wait(1_000);
  assert.deepEqual(named(bench.tell("offered", 1, 5), "sendAccept"), [[1, 5]]);
});

test("a piece that comes from elsewhere cancels its transfer", () => {
  const bench = hungry(1);
  bench.tell("offered", 1, 5);
  assert.deepEqual(named(bench.stored(5), "cancelReceive"), [[1, 5]]);
});

test("what a reader waits for is wanted from everybody, in order, and again when the reader moves", () => {
  const bench = hungry(2, { readerWindowCount: 3 });
  bench.receive(1, 5);
  bench.wait(2);
  bench.feed({ type: "readerMoved", taskId: TASK, readerId: 1, piece: 4 });
  assert.deepEqual(of(bench.wait(2), "sendWant").map(({ linkId, pieces }) => [linkId, pieces]), [[1, [4, 6, 7]], [2, [4, 6, 7]]]);
  bench.receive(2, 4);
  assert.deepEqual(of(bench.wait(20), "sendWant"), [], "by windows, not piece by piece");
  assert.deepEqual(of(bench.wait(40), "sendWant").map(({ pieces }) => pieces), [[6, 7, 8], [6, 7, 8]]);
  assert.deepEqual(of(bench.join(1, { have: [9] }), "sendWant").map(({ pieces }) => pieces), [[6, 7, 8]]);
  bench.feed({ type: "readerMoved", taskId: TASK, readerId: 1, piece: undefined });
  assert.deepEqual(of(bench.wait(60), "sendWant").map(({ pieces }) => pieces), [[], []]);
});

test("status has three levels, idle, receiving and full; a change of level rides on what is said anyway", () => {
  const bench = hungry(2);
  bench.wait(2);
  const told = [0, 1, 2].map((piece) => of(bench.tell("offered", 1, piece), "sendStatus").map(({ linkId, incoming }) => [linkId, incoming]));
  assert.deepEqual(told, [[[1, 1]], [], [[1, 3]]]);
  assert.deepEqual(of(bench.wait(20), "sendStatus"), [], "the other one was not spoken to");
});

test("that a receiver has nothing more to receive cannot wait", () => {
  const bench = hungry(1);
  bench.tell("offered", 1, 0);
  bench.wait(2);
  assert.deepEqual(of(bench.tell("receiveFinished", 1, 0), "sendStatus").map(({ incoming }) => incoming), [0]);
});

test("a reader whose whole window has come tells the next at once", () => {
  const bench = hungry(1, { readerWindowCount: 2 });
  bench.feed({ type: "readerMoved", taskId: TASK, readerId: 1, piece: 0 });
  bench.wait(2);
  bench.receive(1, 0);
  bench.receive(1, 1);
  assert.deepEqual(of(bench.wait(2), "sendWant").map(({ pieces }) => pieces), [[2, 3]]);
});

/* Each `want` of a piece that is coming made every neighbour offer it, to be declined: a reader cost more than it got. */
test("what is on its way to a reader is not asked of others", () => {
  const bench = hungry(2, { readerWindowCount: 3 });
  bench.tell("offered", 1, 0);
  bench.feed({ type: "readerMoved", taskId: TASK, readerId: 1, piece: 0 });
  assert.deepEqual(of(bench.wait(2), "sendWant").map(({ pieces }) => pieces), [[1, 2], [1, 2]]);
});

test("a piece that is late from two sources is not taken from a third until one of them is given up", () => {
  const bench = hungry(3);
  bench.tell("offered", 1, 5);
  bench.progressed("receive", 1, 5);
  bench.wait(600);
  bench.tell("offered", 2, 5);
  bench.progressed("receive", 2, 5);
  bench.wait(600);
  assert.deepEqual(bench.task().incoming.map(({ linkId, late }) => [linkId, late]), [[1, true], [2, true]]);
  assert.deepEqual(declines(bench.tell("offered", 3, 5)), ["taking"]);
  assert.deepEqual(named(bench.wait(5_000), "cancelReceive"), [[1, 5], [2, 5]]);
  assert.deepEqual(named(bench.tell("offered", 3, 5), "sendAccept"), [[3, 5]]);
});

test("who withdraws and offers again in one breath does not keep a piece from everybody else", () => {
  const swarm = new TestSwarm({ downloadCountMax: 11 });
  swarm.open(10, []);
  for (const linkId of [1, 2]) swarm.neighbour(linkId, { have: [3] });
  swarm.feed({ type: "readerMoved", taskId: TASK, readerId: 1, piece: 3 });
  swarm.tell("offered", 1, 3);
  const accepted: Transfer[] = [];
  for (let round = 0; round < 100 && accepted.length === 0; round++) {
    swarm.wait(300);
    swarm.tell("receiveCancelled", 1, 3);
    swarm.tell("offered", 1, 3);
    // The honest one answers what it has heard: it is never quicker than what was in the same write.
    accepted.push(...named(swarm.tell("offered", 2, 3), "sendAccept"));
  }
  assert.deepEqual(accepted, [[2, 3]], "within half a minute");
});

test("two that send a byte now and then do not keep a piece from a third", () => {
  const swarm = new TestSwarm({ downloadCountMax: 11 });
  swarm.open(10, []);
  for (const linkId of [1, 2, 3]) swarm.neighbour(linkId, { have: [3] });
  swarm.feed({ type: "readerMoved", taskId: TASK, readerId: 1, piece: 3 });
  for (const piece of [0, 1]) {
    swarm.tell("offered", 3, piece);
    swarm.progressed("receive", 3, piece);
    swarm.wait(100);
    swarm.tell("receiveFinished", 3, piece);
    swarm.stored(piece);
  }
  const trickle = (linkId: number): void => {
    swarm.tell("offered", linkId, 3);
    swarm.progressed("receive", linkId, 3, 1);
  };
  trickle(1);
  swarm.wait(1_000);
  trickle(2);
  const accepted: Transfer[] = [];
  for (let second = 0; second < 60 && accepted.length === 0; second++) {
    swarm.wait(1_000);
    accepted.push(...named(swarm.tell("offered", 3, 3), "sendAccept"));
    trickle(1);
    trickle(2);
  }
  assert.deepEqual(accepted, [[3, 3]], "within a minute");
});

test("of two late senders the slower is ended only when it would take half a minute longer", () => {
  const cancelled = (bytesPerSecond: readonly [number, number]): readonly Transfer[] => {
    const swarm = new TestSwarm({ downloadCountMax: 11 });
    swarm.open(10, []);
    const effects: SwarmEffect[] = [];
    for (const linkId of [1, 2]) {
      swarm.neighbour(linkId, { have: [3] });
      swarm.tell("offered", linkId, 3);
      swarm.progressed("receive", linkId, 3, bytesPerSecond[linkId - 1]);
      effects.push(...swarm.wait(1_000));
    }
    for (let second = 0; second < 12; second++) {
      bytesPerSecond.forEach((bytes, i) => effects.push(...swarm.progressed("receive", i + 1, 3, bytes)));
      effects.push(...swarm.wait(1_000));
    }
    return named(effects, "cancelReceive");
  };
  assert.deepEqual(cancelled([20_000, 24_000]), [], "of 512 KiB");
  assert.deepEqual(cancelled([8_000, 4_000]), [[2, 3]]);
});

test("one piece that took long does not make an agreed one that never begins punctual for minutes", () => {
  const swarm = new TestSwarm({ downloadCountMax: 11 });
  swarm.open(10, []);
  for (const linkId of [1, 2, 3]) swarm.neighbour(linkId, { have: [3, 4] });
  swarm.tell("offered", 1, 3);
  for (let second = 0; second < 100; second++) {
    swarm.progressed("receive", 1, 3, 600);
    swarm.wait(1_000);
  }
  swarm.tell("receiveFinished", 1, 3);
  swarm.stored(3);
  swarm.tell("offered", 2, 4);
  swarm.wait(60_000);
  assert.deepEqual(named(swarm.tell("offered", 3, 4), "sendAccept"), [[3, 4]]);
});
