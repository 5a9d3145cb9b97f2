import assert from "node:assert/strict";
import { test } from "node:test";
import { PieceSet } from "../protocol/piece-set.ts";
import { DEFAULT_SWARM_CONFIG, type SwarmEffect } from "./index.ts";
import { named, of, OTHER_TASK, TASK, TestSwarm, type Transfer } from "./swarm-fixture.test.ts";

/** Plays willing neighbours: what is offered is accepted, sent and finished, until nothing more is offered. */
function playOut(bench: TestSwarm, first: readonly SwarmEffect[], announce: boolean): readonly Transfer[] {
  const sent: Transfer[] = [];
  const queue = [...first];
  for (let effect = queue.shift(); effect !== undefined; effect = queue.shift()) {
    if (effect.type === "sendOffer") queue.push(...bench.tell("offerAccepted", effect.linkId, effect.pieces[0] as number));
    if (effect.type !== "startSend") continue;
    sent.push([effect.linkId, effect.piece]);
    bench.nowMs += 10;
    queue.push(...bench.tell("sendFinished", effect.linkId, effect.piece));
    if (announce) queue.push(...bench.has(effect.linkId, effect.piece));
  }
  return sent;
}

test("a seed sends each piece once before it sends any twice, whoever has announced what", () => {
  for (const announce of [true, false]) {
    const bench = new TestSwarm();
    const effects = [1, 2, 3, 4].flatMap((linkId) => [...bench.neighbour(linkId)]);
    const sent = playOut(bench, [...effects, ...bench.open(40), ...[1, 2, 3, 4].flatMap((linkId) => [...bench.join(linkId)])], announce);
    assert.equal(new Set(sent.slice(0, 40).map(([, piece]) => piece)).size, 40);
    assert.equal(sent.length, 160, "and in the end everybody gets everything from it, once");
    assert.equal(new Set(sent.map(String)).size, 160);
  }
});

test("pieces that nobody around holds go out in file order", () => {
  const bench = new TestSwarm();
  bench.open(200);
  const sent = playOut(bench, [...bench.neighbour(1), ...bench.neighbour(2)], true);
  assert.deepEqual(sent.slice(0, 200).map(([, piece]) => piece), Array.from({ length: 200 }, (_, piece) => piece));
});

test("of pieces that others hold too, the rarest goes first", () => {
  const bench = new TestSwarm();
  bench.open(8, [0, 1, 2, 3]);
  bench.neighbour(1, { have: [0, 1, 2, 3], receives: false });
  bench.neighbour(2, { have: [0, 1, 3], receives: false });
  assert.deepEqual(named(bench.neighbour(3), "sendOffer")[0], [3, 2]);
});

test("while a file comes in, no more copies leave at a time than pieces are here, so that each is soon whole and passed on", () => {
  const bench = new TestSwarm({ uploadCount: 5 });
  bench.open(20, []);
  for (let linkId = 1; linkId <= 6; linkId++) bench.neighbour(linkId);
  assert.equal(named(bench.stored(0), "sendOffer").length, 1);
  const second = named(bench.stored(1), "sendOffer");
  assert.deepEqual(second.map(([, piece]) => piece), [1], "what nobody has yet comes before a copy");
  const [linkId] = second[0] as Transfer;
  bench.tell("offerAccepted", linkId, 1);
  assert.equal(named(bench.tell("sendFinished", linkId, 1), "sendOffer").length, 1);
});

test("who has all of a file has as much on its way as its uplink takes, however few pieces that is", () => {
  const bench = new TestSwarm({ uploadCount: 5 });
  bench.open(1);
  const offers = [1, 2, 3, 4].flatMap((linkId) => [...named(bench.neighbour(linkId), "sendOffer")]);
  assert.deepEqual(offers, [[1, 0], [2, 0], [3, 0], [4, 0]]);
});

test("a neighbour that does not answer, or takes no byte, does not keep the only piece from the others", () => {
  const bench = new TestSwarm({ uploadCount: 5 });
  bench.open(20, []);
  for (let linkId = 1; linkId <= 3; linkId++) bench.neighbour(linkId);
  const [[frozen]] = named(bench.stored(0), "sendOffer") as [Transfer];
  const [[next]] = named(bench.wait(700), "sendOffer") as [Transfer];
  assert.notEqual(next, frozen);
  bench.tell("offerAccepted", next, 0);
  const others = named(bench.wait(700), "sendOffer");
  assert.equal(others.length, 1);
  assert.deepEqual([frozen, next, (others[0] as Transfer)[0]].toSorted((a, b) => a - b), [1, 2, 3]);
});

test("the neighbour that receives least is offered first", () => {
  for (let seed = 0; seed < 20; seed++) {
    const bench = new TestSwarm({ lookaheadCount: 0 }, seed);
    bench.open(10, []);
    bench.neighbour(1, { incoming: 2 });
    bench.neighbour(2, { incoming: 0 });
    bench.neighbour(3, { incoming: 1 });
    assert.deepEqual(named(bench.stored(7), "sendOffer"), [[2, 7]]);
  }
});

test("a more urgent task is offered before a preheat, however idle the preheat's neighbours", () => {
  const bench = new TestSwarm({ lookaheadCount: 0 });
  bench.open(4, [], { taskId: OTHER_TASK, priority: "preheat" });
  bench.open(4, [], { priority: "interactive" });
  bench.neighbour(1, { taskId: OTHER_TASK });
  bench.neighbour(2, { incoming: 2 });
  bench.neighbour(3, { have: [0], receives: false });
  // One offer at a time: it is under way until answered.
  assert.deepEqual(named(bench.stored(0), "sendOffer"), [[2, 0]]);
  assert.deepEqual(named(bench.stored(0, OTHER_TASK), "sendOffer"), []);
});

test("the next piece is agreed while the present one is sent", () => {
  const bench = new TestSwarm();
  bench.open(10);
  const [first, second] = named(bench.neighbour(1), "sendOffer");
  assert.deepEqual([first, second], [[1, 0], [1, 1]]);
  assert.deepEqual(named(bench.tell("offerAccepted", 1, 0), "startSend"), [[1, 0]]);
  assert.deepEqual(named(bench.tell("offerAccepted", 1, 1), "startSend"), [], "it waits for the uplink");
  const effects = bench.tell("sendFinished", 1, 0);
  assert.deepEqual(named(effects, "startSend"), [[1, 1]]);
  assert.deepEqual(named(effects, "sendOffer"), [[1, 2]]);
});

/** An uplink that is done with a piece every `intervalMs`, and answers that take 100 ms. @returns most offers unanswered at a time, once it runs */
function playUplink(intervalMs: number, what: "held" | "unique"): number {
  const bench = new TestSwarm({ lookaheadCount: 1, downloadCountMax: 8 });
  const due: { readonly atMs: number; readonly play: () => readonly SwarmEffect[] }[] = [];
  let unanswered = 0;
  let most = 0;
  let wireFreeMs = 0;
  const take = (effects: readonly SwarmEffect[]): void => {
    for (const effect of effects) {
      if (effect.type === "sendOffer") {
        const { linkId, pieces } = effect;
        unanswered++;
        if (bench.nowMs > 2_000) most = Math.max(most, unanswered);
        due.push({ atMs: bench.nowMs + 100, play: () => (unanswered--, bench.tell("offerAccepted", linkId, pieces[0] as number)) });
      } else if (effect.type === "startSend") {
        const { linkId, piece } = effect;
        // The socket takes it at once if it is the only one; else it waits for those before it.
        const atMs = Math.max(bench.nowMs + 1, wireFreeMs);
        wireFreeMs = atMs + intervalMs;
        due.push({ atMs, play: () => bench.tell("sendFinished", linkId, piece) });
      }
    }
  };
  bench.open(400);
  if (what === "held") bench.neighbour(9, { have: range(400), receives: false });
  for (let linkId = 1; linkId <= 8; linkId++) take(bench.neighbour(linkId, { capacity: 8 }));
  while (bench.nowMs < 4_000) {
    due.sort((a, b) => a.atMs - b.atMs);
    const next = due.shift();
    assert.ok(next !== undefined);
    bench.nowMs = next.atMs;
    take(next.play());
  }
  return most;
}

test("as many pieces are agreed ahead as leave while an answer takes its time, and three at most", () => {
  for (const what of ["held", "unique"] as const) {
    assert.equal(playUplink(200, what), 1);
    assert.equal(playUplink(60, what), 2);
  }
  assert.equal(playUplink(5, "held"), 3 + 1, "with nothing on the wire, one in its place");
});

test("nothing is offered to one who has shown no ticket", () => {
  const bench = new TestSwarm();
  bench.open(10);
  assert.deepEqual(named(bench.neighbour(1, { receives: false }), "sendOffer"), []);
  assert.deepEqual(named(bench.wants(1, 3), "sendOffer"), []);
  assert.notDeepEqual(named(bench.join(1), "sendOffer"), [], "until it does");
});

test("a neighbour that declined as busy is not asked again until its status says otherwise", () => {
  const bench = new TestSwarm({ lookaheadCount: 0 });
  bench.open(10);
  bench.neighbour(1);
  assert.deepEqual(named(bench.declined(1, 0, "busy"), "sendOffer"), []);
  assert.deepEqual(named(bench.wait(10_000), "sendOffer"), []);
  assert.deepEqual(named(bench.status(1, 3), "sendOffer"), []);
  assert.deepEqual(named(bench.status(1, 2), "sendOffer"), [[1, 0]]);
});

test("a piece declined as held is never offered there again; one declined as under way, not for some seconds", () => {
  const bench = new TestSwarm({ lookaheadCount: 0 });
  bench.open(2);
  assert.deepEqual(named(bench.neighbour(1), "sendOffer"), [[1, 0]]);
  assert.deepEqual(named(bench.declined(1, 0, "have"), "sendOffer"), [[1, 1]]);
  assert.deepEqual(named(bench.declined(1, 1, "taking"), "sendOffer"), []);
  assert.deepEqual(named(bench.wait(2_900), "sendOffer"), []);
  assert.deepEqual(named(bench.wait(200), "sendOffer"), [[1, 1]], "nothing else happens, and still it is tried again");
});

test("the first offer to a neighbour is of what it wanted when it joined", () => {
  const bench = new TestSwarm();
  bench.open(8);
  // Somebody else holds all of it: what nobody around holds would go before.
  bench.neighbour(2, { have: [0, 1, 2, 3, 4, 5, 6, 7], receives: false });
  assert.deepEqual(named(bench.neighbour(1, { wants: [6, 3] }), "sendOffer").slice(0, 2), [[1, 6], [1, 3]]);
});

test("a piece declined as under way is offered again at once when it is wanted", () => {
  const bench = new TestSwarm({ lookaheadCount: 0 });
  bench.open(2, [1]);
  assert.deepEqual(named(bench.neighbour(1), "sendOffer"), [[1, 1]]);
  bench.declined(1, 1, "taking");
  assert.deepEqual(named(bench.wants(1, 1), "sendOffer"), [[1, 1]]);
});

test("an offer nobody answers stops holding the uplink", () => {
  const bench = new TestSwarm({ lookaheadCount: 0 });
  bench.open(10);
  bench.neighbour(1);
  bench.neighbour(2, { incoming: 2 });
  const effects = bench.wait(700);
  assert.deepEqual(named(effects, "sendOffer"), [[2, 1]], "after silenceMs somebody else is asked");
});

test("a neighbour that left an offer unanswered is tried again after a second, or when it shows life", () => {
  for (const alive of [true, false]) {
    const bench = new TestSwarm({ lookaheadCount: 0 });
    bench.open(10);
    bench.neighbour(1);
    assert.deepEqual(named(bench.wait(2_500), "sendOffer"), []);
    if (alive) assert.deepEqual(named(bench.has(1, 5), "sendOffer"), [[1, 1]]);
    else assert.deepEqual(named(bench.wait(700), "sendOffer"), [[1, 1]]);
  }
});

test("a transfer that does not move stops holding the uplink, and moves on when its receiver does", () => {
  const bench = new TestSwarm({ lookaheadCount: 0 });
  bench.open(10);
  bench.neighbour(1);
  bench.neighbour(2, { incoming: 2 });
  bench.tell("offerAccepted", 1, 0);
  const effects = bench.wait(600);
  assert.deepEqual(named(effects, "sendOffer"), [[2, 1]]);
  bench.progressed("send", 1, 0);
  assert.deepEqual(bench.task().outgoing, [
    { linkId: 1, piece: 0, state: "sending" },
    { linkId: 2, piece: 1, state: "offered" },
  ]);
});

/*
 * A receiver's reader window names pieces that are on their way to it. `want` used to lift the mark that kept the
 * sender from offering those again: the second offer was declined ("taking"), the answer matched the first transfer,
 * so the second stayed "offered" for two seconds, held a place of the uplink, and then marked a healthy link as dead.
 */
test("a wanted piece that is already on its way there is not offered twice", () => {
  const bench = new TestSwarm({ lookaheadCount: 2 });
  bench.open(3);
  bench.neighbour(1);
  bench.tell("offerAccepted", 1, 0);
  bench.tell("offerAccepted", 1, 1);
  bench.wants(1, 0, 1, 2);
  bench.tell("sendFinished", 1, 0);
  bench.has(1, 0);
  const pieces = bench.task().outgoing.map(({ piece }) => piece);
  assert.deepEqual(pieces, [1, 2]);
});

test("the end of an old avoidance does not release a piece that is on its way again", () => {
  const bench = new TestSwarm({ lookaheadCount: 1, uploadCount: 1 });
  bench.open(1);
  bench.neighbour(1);
  bench.declined(1, 0, "taking");
  bench.wants(1, 0);
  bench.tell("offerAccepted", 1, 0);
  for (let i = 0; i < 50; i++) {
    bench.wait(100);
    bench.progressed("send", 1, 0);
  }
  assert.deepEqual(bench.task().outgoing, [{ linkId: 1, piece: 0, state: "sending" }]);
});

/*
 * The sender had given the offer up (answerMs), the receiver's answer was on its way: the receiver then waited for a
 * transfer that nobody knew of, declined every new offer of it from the same link as "taking", and with one holder
 * only never got the piece.
 */
test("an acceptance that comes after the offer was given up is answered with a withdrawal", () => {
  const bench = new TestSwarm();
  bench.open(1);
  bench.neighbour(1);
  bench.wait(2_500);
  assert.deepEqual(named(bench.tell("offerAccepted", 1, 0), "cancelSend"), [[1, 0]]);
});

test("a transfer that its receiver gives up frees the uplink at once, and the piece for the others", () => {
  const bench = new TestSwarm({ lookaheadCount: 0 });
  bench.open(1);
  bench.neighbour(1);
  bench.tell("offerAccepted", 1, 0);
  assert.deepEqual(named(bench.neighbour(2), "sendOffer"), [], "the uplink has what it can have");
  assert.deepEqual(named(bench.tell("sendCancelled", 1, 0), "sendOffer"), [[2, 0]]);
  assert.deepEqual(bench.task().outgoing, [{ linkId: 2, piece: 0, state: "offered" }]);
});

test("a lost link frees its pieces at once for the others", () => {
  const bench = new TestSwarm({ lookaheadCount: 0 });
  bench.open(2);
  bench.neighbour(1);
  bench.neighbour(2, { incoming: 2 });
  bench.tell("offerAccepted", 1, 0);
  const effects = bench.feed({ type: "linkClosed", linkId: 1 });
  assert.deepEqual(named(effects, "sendOffer"), [[2, 0]]);
  assert.deepEqual(named(effects, "cancelSend"), [], "there is nobody to tell");
});

test("what a neighbour held, or had just been sent, counts for nothing once it is gone", () => {
  for (const gone of ["linkClosed", "remoteLeft"] as const) {
    const bench = new TestSwarm();
    bench.open(3);
    bench.neighbour(1, { have: [1], capacity: 1 });
    bench.tell("offerAccepted", 1, 0);
    bench.tell("sendFinished", 1, 0);
    bench.feed(gone === "linkClosed" ? { type: gone, linkId: 1 } : { type: gone, linkId: 1, taskId: TASK });
    const sent = playOut(bench, bench.neighbour(2), false);
    assert.deepEqual(sent.map(([, piece]) => piece), [0, 1, 2], "nobody holds any of them, so they go in file order");
  }
});

test("a closed task is withdrawn from everybody, and nothing of it is offered any more", () => {
  const bench = new TestSwarm();
  bench.open(10);
  bench.neighbour(1);
  bench.tell("offerAccepted", 1, 0);
  const effects = bench.feed({ type: "taskClosed", taskId: TASK });
  assert.deepEqual(named(effects, "cancelSend"), [[1, 0]]);
  assert.deepEqual(named([...bench.status(1, 0), ...bench.wait(5_000)], "sendOffer"), []);
  assert.equal(bench.swarm.nextDeadlineMs(), undefined);
});

test("a neighbour whose ticket has run out is given nothing more, and still gives; with a new one it is fed again", () => {
  const bench = new TestSwarm({ lookaheadCount: 0 });
  bench.open(4, [0, 1]);
  bench.neighbour(1, { have: [2] });
  bench.tell("offerAccepted", 1, 0);
  const over = bench.feed({ type: "remoteAdmitted", linkId: 1, taskId: TASK, receives: false });
  assert.deepEqual(named(over, "cancelSend"), [[1, 0]]);
  assert.deepEqual(named([...bench.status(1, 0), ...bench.wait(5_000)], "sendOffer"), []);
  assert.deepEqual(named(bench.feed({ type: "offered", linkId: 1, taskId: TASK, pieces: [2] }), "sendAccept"), [[1, 2]]);
  const again = bench.feed({ type: "remoteAdmitted", linkId: 1, taskId: TASK, receives: true });
  assert.equal(named(again, "sendOffer").length > 0, true);
});

test("a peer sleeps when nothing is under way and nobody needs anything", () => {
  const bench = new TestSwarm();
  bench.open(4);
  bench.neighbour(1, { receives: false });
  bench.neighbour(2, { have: [0, 1, 2] });
  bench.tell("offerAccepted", 2, 3);
  bench.tell("sendFinished", 2, 3);
  assert.notEqual(bench.swarm.nextDeadlineMs(), undefined);
  bench.has(2, 3);
  bench.wait(100);
  assert.equal(bench.swarm.nextDeadlineMs(), undefined);
});

test("a piece stored is on offer in the same step", () => {
  const bench = new TestSwarm();
  bench.open(undefined, []);
  bench.neighbour(1);
  const effects = bench.stored(4);
  assert.deepEqual(named(effects, "sendOffer"), [[1, 4]]);
});

test("an offer names several pieces; the one that is chosen is sent, and the others are free again", () => {
  const bench = new TestSwarm({ candidateCount: 3, lookaheadCount: 0 });
  bench.open(6);
  const [offer] = of(bench.neighbour(1), "sendOffer");
  assert.deepEqual(offer?.pieces, [0, 1, 2]);
  const effects = bench.tell("offerAccepted", 1, 2);
  assert.deepEqual(named(effects, "startSend"), [[1, 2]]);
  const [next] = of(bench.tell("sendFinished", 1, 2), "sendOffer");
  assert.deepEqual(next?.pieces, [0, 1, 3]);
  const [after] = of(bench.declined(1, 0, "taking"), "sendOffer");
  assert.deepEqual(after?.pieces, [4, 5], "none of those that it declined, for a while");
});

test("of what nobody around holds an offer names four pieces at most, of all else as many as it may", () => {
  const bench = new TestSwarm({ candidateCount: 8, lookaheadCount: 0 });
  bench.open(20);
  const [unique] = of(bench.neighbour(1), "sendOffer");
  assert.deepEqual(unique?.pieces, [0, 1, 2, 3]);
  bench.neighbour(2, { have: range(20) });
  const [held] = of(bench.declined(1, 0, "taking"), "sendOffer");
  assert.equal(held?.pieces.length, 8);
});

test("a seed with nothing to send meanwhile offers what nobody has up to twelve pieces ahead", () => {
  assert.equal(playUplink(5, "unique"), 12 + 1);
});

test("while something waits for its uplink, a seed offers no more ahead than others do", () => {
  const bench = new TestSwarm({ uploadCount: 2 });
  bench.open(200);
  for (let linkId = 1; linkId <= 20; linkId++) bench.neighbour(linkId);
  // One answer every 10 ms, the oldest offer first: soon each has waited for all others.
  for (let sent = 0; sent < 60; sent++) {
    bench.wait(10);
    const { linkId, piece } = bench.task().outgoing[0] as { readonly linkId: number; readonly piece: number };
    bench.tell("offerAccepted", linkId, piece);
    bench.tell("sendFinished", linkId, piece);
  }
  const ahead = bench.task().outgoing;
  assert.equal(ahead.length, 2 + 12);
  for (const { linkId, piece } of ahead.slice(0, 3)) bench.tell("offerAccepted", linkId, piece);
  for (const { linkId, piece } of ahead.slice(3)) bench.declined(linkId, piece, "taking");
  assert.equal(bench.task().outgoing.length, 2 + 3);
});

test("a piece that was sent, and is then announced by who got it, counts as one copy", () => {
  for (let seed = 0; seed < 20; seed++) {
    const bench = new TestSwarm({ lookaheadCount: 0 }, seed);
    bench.open(3, [0]);
    bench.neighbour(1);
    bench.tell("offerAccepted", 1, 0);
    bench.tell("sendFinished", 1, 0);
    bench.has(1, 0);
    bench.neighbour(2, { have: [1], receives: false });
    bench.neighbour(3, { have: [1], receives: false });
    bench.status(1, 3);
    bench.stored(1);
    assert.deepEqual(named(bench.neighbour(4), "sendOffer"), [[4, 0]]);
  }
});

test("an uplink slower than those that feed it sends fewer at a time: what is agreed beyond that waits", () => {
  for (const [outMs, expected] of [[50, 2], [1_000, 1]] as const) {
    const { sending, pass, finish } = fedHost();
    for (let i = 0; i < 8; i++) {
      pass(outMs);
      finish(0);
    }
    assert.equal(sending.length, expected, `${expected} at a time while one ends every ${outMs} ms`);
  }
});

test("what the kernel holds counts as time to go out: who hands whole pieces to a slow uplink sends fewer at a time", () => {
  const { sending, pass, finish } = fedHost();
  for (let i = 0; i < 4; i++) {
    finish(600);
    pass(600);
  }
  assert.equal(sending.length, 1);
});

test("who holds six pieces less is served first; nearer than that chance decides", () => {
  const servedFirst = (moreCount: number): ReadonlySet<number> =>
    new Set(
      Array.from({ length: 20 }, (_, seed) => {
        const bench = new TestSwarm({ uploadCount: 1, lookaheadCount: 0 }, seed);
        bench.open(1_000, []);
        for (const [linkId, count] of [[1, 24], [2, 24 + moreCount]] as const) bench.neighbour(linkId, { have: Array.from({ length: count }, (_, piece) => piece) });
        const [offer] = bench.stored(900).filter((effect) => effect.type === "sendOffer");
        return offer?.type === "sendOffer" ? offer.linkId : 0;
      }),
    );
  assert.deepEqual(servedFirst(6), new Set([1]));
  assert.equal(servedFirst(5).size, 2);
});

test("no piece is begun while the kernel has more to send than may wait before an answer, nor later than that", () => {
  const { sending, pass, finish } = fedHost();
  assert.equal(sending.length, 2);
  // Two pieces come in within 200 ms: a piece is to be out by then, and what is before it within eight tenths of that.
  finish(110);
  assert.equal(sending.length, 2);
  finish(600);
  pass(390);
  assert.equal(sending.length, 1);
  pass(20);
  assert.equal(sending.length, 2);
  finish(60_000);
  pass(410);
  assert.equal(sending.length, 2, "for less than it takes until a piece is late");
});

test("a long way makes transfers long, and no fewer of them: its bytes do not wait", () => {
  for (const [queueMs, count] of [[5, 2], [100, 1]] as const) {
    const { sending, pass, finish } = fedHost(queueMs);
    for (let i = 0; i < 6; i++) {
      pass(400);
      finish(100);
    }
    assert.equal(sending.length, count);
  }
});

test("what is before a piece has eight tenths of the time in which it is to be out", () => {
  const { sending, pass, finish } = fedHost();
  finish(180);
  pass(15);
  assert.equal(sending.length, 1);
  pass(10);
  assert.equal(sending.length, 2);
});

test("whatever happens first after that begins the piece that waits", () => {
  const { bench, sending, take, finish } = fedHost();
  finish(240);
  const [linkId, piece] = sending[0] as Transfer;
  bench.nowMs += 150;
  take(bench.progressed("send", linkId, piece));
  assert.equal(sending.length, 2);
});

/** A host into which a piece comes every 100 ms, whatever it sends; its neighbours accept all that it offers. */
function fedHost(queueMs = 100): { readonly bench: TestSwarm; readonly take: (effects: readonly SwarmEffect[]) => void; readonly sending: readonly Transfer[]; readonly pass: (ms: number) => void; readonly finish: (leavesInMs: number) => void } {
  const bench = new TestSwarm({ uploadCount: 2 });
  bench.open(40, []);
  bench.neighbour(9, { have: Array.from({ length: 40 }, (_, piece) => piece), receives: false });
  const kernel = new TestKernel(bench, queueMs);
  kernel.holds(0);
  for (let piece = 0; piece < 20; piece++) {
    bench.tell("offered", 9, piece);
    bench.progressed("receive", 9, piece);
    bench.nowMs += 100;
    bench.tell("receiveFinished", 9, piece);
    bench.stored(piece);
    kernel.holds(150);
  }
  const sending: Transfer[] = [];
  const take = (effects: readonly SwarmEffect[]): void => {
    for (const effect of effects) {
      if (effect.type === "startSend") sending.push([effect.linkId, effect.piece]);
      if (effect.type === "sendOffer") take(bench.tell("offerAccepted", effect.linkId, effect.pieces[0] as number));
    }
  };
  for (const linkId of [1, 2, 3]) take(bench.neighbour(linkId, { capacity: 8 }));
  return {
    bench,
    take,
    sending,
    pass: (ms) => {
      for (let left = ms; left > 0; left -= 100) {
        for (const [linkId, piece] of sending) bench.progressed("send", linkId, piece);
        take(bench.wait(Math.min(left, 100)));
      }
    },
    finish: (leavesInMs) => {
      const [linkId, piece] = sending.shift() as Transfer;
      kernel.holds(leavesInMs);
      take(bench.tell("sendFinished", linkId, piece));
    },
  };
}

test("receivers on slow downlinks do not keep an idle uplink from quick ones", () => {
  const swarm = new TestSwarm({ ...DEFAULT_SWARM_CONFIG });
  swarm.open(4_000);
  const isSlow = (linkId: number): boolean => linkId <= 8;
  const queue: { readonly atMs: number; readonly act: () => readonly SwarmEffect[] }[] = [];
  const at = (ms: number, act: () => readonly SwarmEffect[]): void => void queue.push({ atMs: swarm.nowMs + ms, act });
  let toQuick = 0;
  const react = (effects: readonly SwarmEffect[]): void => {
    for (const effect of effects) {
      if (effect.type === "sendOffer") at(1, () => swarm.tell("offerAccepted", effect.linkId, effect.pieces[0] as number));
      if (effect.type !== "startSend") continue;
      const { linkId, piece } = effect;
      const tookMs = isSlow(linkId) ? 20_000 : 50;
      for (let ms = 100; ms < tookMs; ms += 200) at(ms, () => swarm.progressed("send", linkId, piece, 600));
      at(tookMs, () => {
        if (!isSlow(linkId)) toQuick++;
        return [...swarm.tell("sendFinished", linkId, piece), ...swarm.has(linkId, piece), ...swarm.status(linkId, 0, 11)];
      });
    }
  };
  for (let linkId = 1; linkId <= 18; linkId++) react(swarm.neighbour(linkId, { capacity: 11 }));
  for (; swarm.nowMs < 60_000; swarm.nowMs++) {
    const due = queue.filter(({ atMs }) => atMs <= swarm.nowMs);
    for (const entry of due) queue.splice(queue.indexOf(entry), 1);
    for (const { act } of due) react(act());
    react(swarm.wait(0));
  }
  assert.ok(toQuick > 1_000, `${toQuick} pieces to quick receivers in a minute; 7,194 without slow ones`);
});

test("what is out at once because it is short, a file's last piece or another file's, makes no slow receivers of those of long pieces", () => {
  for (const isLast of [true, false]) {
    const swarm = new TestSwarm({ ...DEFAULT_SWARM_CONFIG });
    swarm.open(200);
    const taskId = isLast ? TASK : OTHER_TASK;
    const short = isLast ? 199 : 0;
    if (!isLast) swarm.feed({ type: "taskOpened", taskId, pieceCount: 2, pieceLengthBytes: 1024, have: PieceSet.full(2), priority: "normal" });
    const started: Transfer[] = [];
    const react = (effects: readonly SwarmEffect[]): void => {
      for (const { linkId, taskId: of, pieces } of effects.filter((effect) => effect.type === "sendOffer")) react(swarm.tell("offerAccepted", linkId, pieces[0] as number, of));
      started.push(...named(effects, "startSend"));
    };
    react(swarm.neighbour(100, { taskId, have: Array.from({ length: isLast ? 200 : 2 }, (_, piece) => piece).filter((piece) => piece !== short), capacity: 11 }));
    assert.deepEqual(started.splice(0), [[100, short]]);
    swarm.nowMs++;
    react(swarm.tell("sendFinished", 100, short, taskId));
    for (let linkId = 1; linkId <= 40; linkId++) react(swarm.neighbour(linkId, { capacity: 11 }));
    for (let ms = 0; ms < 2_000; ms += 100) {
      for (const [linkId, piece] of started) react(swarm.progressed("send", linkId, piece));
      react(swarm.wait(100));
    }
    assert.equal(started.length, DEFAULT_SWARM_CONFIG.uploadCount, "they share an uplink on which a piece takes two seconds");
  }
});

/** Its uplink carries 1,000 bytes per ms, and it always has something to send. */
class TestKernel {
  readonly #bench: TestSwarm;
  readonly #queueMs: number;
  #goneBytes = 0;
  #sampledMs: number;

  /** @param queueMs what a byte waits in queues on its way */
  constructor(bench: TestSwarm, queueMs: number) {
    this.#bench = bench;
    this.#queueMs = queueMs;
    this.#sampledMs = bench.nowMs;
  }

  /** The brain looks, and it has so much to send as leaves within `leavesInMs`. */
  holds(leavesInMs: number): void {
    this.#goneBytes += (this.#bench.nowMs - this.#sampledMs) * 1_000;
    this.#sampledMs = this.#bench.nowMs;
    const heldBytes = leavesInMs * 1_000;
    this.#bench.feed({ type: "uplinkSampled", handedBytes: this.#goneBytes + heldBytes, links: heldBytes === 0 ? [] : [{ heldBytes, roundTripMs: this.#queueMs, leastRoundTripMs: 0 }] });
  }
}

/** 0 … count − 1. */
function range(count: number): readonly number[] {
  return Array.from({ length: count }, (_, piece) => piece);
}
