import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import { DEFAULT_SCHEDULER_CONFIG, Scheduler, type SchedulerConfig, type SchedulerEffect, type SchedulerInput, type Topology } from "./index.ts";
import { PIECES, TASK, World } from "./scheduler-fixture.test.ts";

function assigned(effects: readonly SchedulerEffect[]): readonly string[] {
  const assign = effects.find((effect) => effect.type === "assign");
  assert.ok(assign !== undefined, "a join is answered");
  return assign.neighbours;
}

function rewired(effects: readonly SchedulerEffect[], name: string): { add: readonly string[]; drop: readonly string[] } {
  const rewire = effects.find((effect) => effect.type === "rewire" && effect.peerId === name);
  return rewire?.type === "rewire" ? rewire : { add: [], drop: [] };
}

test("a newcomer gets the seed and the members there are, at once", () => {
  const world = new World();
  world.enter("seed", { seed: true });
  assert.deepEqual(assigned(world.enter("a")), ["seed"]);
  assert.deepEqual(assigned(world.enter("b")), ["seed", "a"]);
  assert.deepEqual(world.neighboursOf("a"), ["b", "seed"]);
});

test("a task is needed while somebody who is connected, and no seed, lacks part of it", () => {
  const world = new World();
  const needed = (): boolean => world.scheduler.isNeeded(TASK);
  assert.equal(needed(), false, "nobody knows it");
  world.enter("seed", { seed: true });
  world.enter("whole", {}, PIECES);
  assert.equal(needed(), false);
  world.enter("a");
  assert.equal(needed(), true);
  world.step({ type: "peerDisconnected", peerId: "a" as PeerId });
  assert.equal(needed(), false);
});

test("sixteen hosts and a seed become one dense mesh: nobody has fewer neighbours than half of what is wanted, or more than the cap", () => {
  const world = new World();
  world.enter("seed", { seed: true });
  for (let i = 0; i < 16; i++) world.enter(`peer-${i}`);
  const { neighbourCount, neighbourCountMax } = DEFAULT_SCHEDULER_CONFIG;
  for (let i = 0; i < 16; i++) {
    const { length } = world.neighboursOf(`peer-${i}`);
    assert.ok(length >= neighbourCount / 2 && length <= neighbourCountMax, `peer-${i} has ${length}`);
  }
});

test("in a large mesh degrees are level, within the caps, and every peer is a few hops from the seed", () => {
  const world = new World();
  world.enter("seed", { seed: true });
  for (let i = 0; i < 2_000; i++) world.enter(`peer-${i}`);
  const { neighbourCount, neighbourCountMax } = DEFAULT_SCHEDULER_CONFIG;
  const members = world.scheduler.snapshot().tasks[0]?.members ?? [];
  const neighbours = new Map(members.map((member) => [member.peerId as string, member.neighbours as readonly string[]]));
  for (const [name, list] of neighbours) {
    if (name === "seed") assert.equal(list.length, 48);
    // Whoever joins late is given half, and gets the rest from those that come after.
    else assert.ok(list.length >= neighbourCount / 2 && list.length <= neighbourCountMax, `${name} has ${list.length}`);
  }
  const hops = new Map([["seed", 0]]);
  for (const [name, distance] of hops) {
    for (const next of neighbours.get(name) ?? []) if (!hops.has(next)) hops.set(next, distance + 1);
  }
  assert.equal(hops.size, 2_001);
  assert.ok(Math.max(...hops.values()) <= 6, `the farthest is ${Math.max(...hops.values())} hops away`);
});

test("who has begun to receive has three quarters of its neighbours in its own rack, however many of the others are elsewhere", () => {
  const world = new World();
  world.enter("seed", { seed: true });
  for (let i = 0; i < 200; i++) world.enter(`peer-${i}`, { topology: { rack: `r${Math.floor(i / 40)}` } });
  const nearOf = (i: number): number => world.neighboursOf(`peer-${i}`).filter((name) => Math.floor(Number(name.slice(5)) / 40) === Math.floor(i / 40)).length;
  const progress = (i: number): readonly SchedulerEffect[] =>
    world.step({ type: "taskProgressed", peerId: `peer-${i}` as PeerId, taskId: TASK, pieceCount: PIECES >> 2, complete: false });
  const poor = Array.from({ length: 200 }, (_, i) => i).filter((i) => nearOf(i) < 12);
  assert.ok(poor.length > 0);
  for (const i of poor) progress(i);
  // One of those that it is given may be from elsewhere, or the seed.
  const left = poor.map(nearOf).filter((near) => near < 11);
  assert.deepEqual(left, [], `of ${poor.length} that had fewer than 12`);
});

test("who joined last has half the neighbours of others until it has begun to receive: then it is given three quarters", () => {
  const world = new World();
  world.enter("seed", { seed: true });
  for (let i = 0; i < 200; i++) world.enter(`peer-${i}`);
  const degreeOf = (i: number): number => world.neighboursOf(`peer-${i}`).length;
  const progressed = (i: number, complete: boolean): readonly SchedulerEffect[] =>
    world.step({ type: "taskProgressed", peerId: `peer-${i}` as PeerId, taskId: TASK, pieceCount: complete ? PIECES : PIECES >> 2, complete });
  const enough = (DEFAULT_SCHEDULER_CONFIG.neighbourCount * 3) / 4;
  const before = [degreeOf(199), degreeOf(198), degreeOf(0)] as const;
  assert.ok(before[0] < enough && before[1] < enough && before[2] >= enough, `${before.join(" ")}`);
  const { add, drop } = rewired(progressed(199, false), "peer-199");
  assert.equal(before[0] + add.length, enough);
  assert.equal(degreeOf(199), enough);
  assert.deepEqual(drop, []);
  assert.deepEqual(progressed(199, false), [], "once is enough");
  assert.deepEqual(progressed(198, true), [], "who has everything needs nobody");
  assert.deepEqual(progressed(0, false), [], "who has them is told nothing");
});

test("only dialable peers are handed out; one that cannot be dialled is told to dial newcomers", () => {
  const world = new World();
  assert.deepEqual(assigned(world.enter("hidden", { dialable: false })), []);
  const effects = world.enter("open");
  assert.deepEqual(assigned(effects), []);
  assert.deepEqual(rewired(effects, "hidden").add, ["open"]);
  assert.deepEqual(assigned(world.enter("hidden-2", { dialable: false })), ["open"]);
});

test("a joiner that holds everything needs no neighbours but becomes one", () => {
  const world = new World();
  assert.deepEqual(assigned(world.enter("full-1", {}, PIECES)), []);
  assert.deepEqual(assigned(world.enter("full-2", {}, PIECES)), []);
  assert.deepEqual([...assigned(world.enter("empty"))].sort(), ["full-1", "full-2"]);
});

test("members short of neighbours are told to dial a joiner that holds everything", () => {
  const world = new World();
  world.enter("empty");
  assert.deepEqual(rewired(world.enter("full", {}, PIECES), "empty").add, ["full"]);
});

test("a full seed gives up a neighbour that is complete for one that is not", () => {
  const world = new World({ seedNeighbourCountMax: 2 });
  world.enter("seed", { seed: true }, PIECES);
  world.enter("a");
  world.enter("b");
  assert.ok(!assigned(world.enter("c")).includes("seed"));
  world.step({ type: "taskProgressed", peerId: "a" as PeerId, taskId: TASK, pieceCount: PIECES, complete: true });
  const effects = world.enter("d");
  assert.ok(assigned(effects).includes("seed"));
  assert.deepEqual(rewired(effects, "a").drop, ["seed"]);
});

test("three quarters of the neighbours are near when topology is known", () => {
  const world = new World();
  for (let i = 0; i < 400; i++) world.enter(`peer-${i}`, { topology: { zone: "z", rack: `r${i % 10}` } });
  let near = 0;
  let all = 0;
  for (const member of world.scheduler.snapshot().tasks[0]?.members ?? []) {
    for (const neighbour of member.neighbours) {
      all++;
      if (Number(neighbour.slice(5)) % 10 === Number(member.peerId.slice(5)) % 10) near++;
    }
  }
  assert.ok(near / all > 0.65 && near / all < 0.9, `${near} of ${all} edges stay in the rack`);
});

test("a rejoining peer keeps its edges", () => {
  const world = new World();
  world.enter("seed", { seed: true });
  world.enter("a");
  world.enter("b");
  world.step({ type: "peerDisconnected", peerId: "b" as PeerId });
  world.wait(5_000);
  assert.deepEqual([...assigned(world.enter("b", {}, 40))].sort(), ["a", "seed"]);
  assert.deepEqual(world.wait(20_000), []);
});

test("a lost neighbour is replaced and not given again for 30 s", () => {
  const world = new World({ neighbourCount: 2, neighbourCountMax: 2 });
  for (const name of ["a", "b", "c", "d"]) world.enter(name, {}, 10);
  const [first, second] = world.neighboursOf("a") as [string, string];
  const { add, drop } = rewired(world.lost("a", first), "a");
  assert.deepEqual(drop, [first]);
  assert.ok(!add.includes(first) && !add.includes(second));
  assert.equal(add.length, 1);
});

test("a lost neighbour is given again when there is nobody else", () => {
  const world = new World();
  world.enter("a", {}, PIECES);
  world.enter("b");
  assert.deepEqual(rewired(world.lost("b", "a"), "b"), {
    type: "rewire",
    peerId: "b",
    taskId: TASK,
    add: ["a"],
    drop: ["a"],
  });
});

test("who finds nothing, and has lost nobody, is told of its neighbours again, for it may never have met them; but not of those it could not dial", () => {
  const world = new World();
  world.enter("seed", { seed: true }, PIECES);
  world.enter("hidden", { dialable: false });
  assert.deepEqual(assigned(world.enter("alone")), ["seed"]);
  assert.deepEqual(rewired(world.lost("alone"), "alone").add, ["seed"]);
  world.step({ type: "taskProgressed", peerId: "alone" as PeerId, taskId: TASK, pieceCount: PIECES, complete: true });
  assert.deepEqual(world.lost("alone"), [], "who has everything waits for nothing");
});

test("a peer lost by two others is handed to nobody until it shows life", () => {
  const world = new World();
  for (const name of ["frozen", "a", "b", "c"]) world.enter(name);
  world.lost("a", "frozen");
  world.lost("b", "frozen");
  assert.ok(!assigned(world.enter("d")).includes("frozen"));
  world.step({ type: "taskProgressed", peerId: "frozen" as PeerId, taskId: TASK, pieceCount: 25, complete: false });
  assert.ok(assigned(world.enter("e")).includes("frozen"));
});

test("a peer lost by two others is handed out again after 30 s, also when it had nothing to say", () => {
  const world = new World();
  for (const name of ["quiet", "a", "b", "c"]) world.enter(name);
  world.lost("a", "quiet");
  world.lost("b", "quiet");
  world.wait(30_000);
  assert.ok(assigned(world.enter("d")).includes("quiet"));
});

test("when the only whole holder loses pieces the seed reads at once, and not only when somebody starves", () => {
  const world = new World();
  world.enter("seed", { seed: true }, PIECES);
  world.enter("a");
  assert.equal(world.leaseHolder(), undefined);
  const lost = (name: string): readonly SchedulerEffect[] => world.step({ type: "taskProgressed", peerId: name as PeerId, taskId: TASK, pieceCount: PIECES - 1, complete: false });
  assert.ok(lost("seed").some(({ type }) => type === "grantLease"));
  assert.equal(world.leaseHolder(), "seed");
});

test("when the only whole holder leaves, the seed reads at once", () => {
  const world = new World();
  world.enter("full", {}, PIECES);
  world.enter("a");
  world.enter("seed", { seed: true }, 0);
  assert.equal(world.leaseHolder(), undefined);
  assert.ok(world.step({ type: "taskLeft", peerId: "full" as PeerId, taskId: TASK }).some(({ type }) => type === "grantLease"));
});

test("who has everything and reconnects without a word is handed out again", () => {
  const world = new World();
  world.enter("full", {}, PIECES);
  world.step({ type: "peerDisconnected", peerId: "full" as PeerId });
  assert.deepEqual(assigned(world.enter("a")), []);
  world.connect("full");
  assert.ok(assigned(world.enter("b")).includes("full"));
});

test("a peer that stays away leaves its tasks, and those short without it get others", () => {
  const world = new World({ neighbourCount: 2, neighbourCountMax: 3 });
  for (const name of ["a", "b", "c", "d", "e"]) world.enter(name, {}, 10);
  const former = world.neighboursOf("a");
  world.step({ type: "peerDisconnected", peerId: "a" as PeerId });
  assert.equal(world.scheduler.nextDeadlineMs(), 10_000);
  assert.deepEqual(world.wait(9_999), []);
  const effects = world.wait(1);
  assert.deepEqual(world.neighboursOf("a"), []);
  for (const name of former) assert.ok(world.neighboursOf(name).length >= 1, `${name} is cut off`);
  for (const effect of effects) assert.ok(effect.type === "rewire" && effect.drop.includes("a" as PeerId));
});

test("one accusation cuts the edge, a second peer's expels", () => {
  const world = new World();
  for (const name of ["liar", "a", "b", "c", "d"]) world.enter(name);
  const first = world.accuse("a", "liar");
  assert.deepEqual(rewired(first, "a").drop, ["liar"]);
  assert.ok(!first.some((effect) => effect.type === "expel"));
  assert.deepEqual(world.accuse("a", "liar"), [], "the same accuser counts once");
  const second = world.accuse("b", "liar");
  assert.deepEqual(second[0], { type: "expel", peerId: "liar", taskId: TASK });
  for (const name of ["b", "c", "d"]) assert.deepEqual(rewired(second, name).drop, ["liar"]);
  assert.deepEqual(assigned(world.join("liar" as PeerId, 0)), []);
  assert.ok(!assigned(world.enter("e")).includes("liar"));
});

test("a seed is never expelled", () => {
  const world = new World();
  world.enter("seed", { seed: true });
  for (const name of ["a", "b", "c"]) world.enter(name);
  for (const name of ["a", "b", "c"]) {
    assert.ok(!world.accuse(name, "seed").some((effect) => effect.type === "expel"));
  }
});

test("a task without members is forgotten, a seed alone does not keep it, a running origin read does", () => {
  const world = new World();
  world.enter("seed", { seed: true });
  world.enter("a");
  world.step({ type: "taskLeft", peerId: "a" as PeerId, taskId: TASK });
  assert.deepEqual(world.wait(600_000), []);
  world.step({ type: "originRead", taskId: TASK, holder: "seed" as PeerId, outcome: "complete" });
  assert.deepEqual(world.wait(119_999), []);
  assert.deepEqual(world.wait(1), [{ type: "forgetTask", taskId: TASK }]);
  assert.equal(world.scheduler.snapshot().tasks.length, 0);
  assert.equal(world.scheduler.nextDeadlineMs(), undefined);
});

test("a task whose members all have everything rests: the seed is let go of, the members stay, and a joiner finds them", () => {
  const world = new World();
  world.enter("seed", { seed: true });
  world.step({ type: "originRead", taskId: TASK, holder: "seed" as PeerId, outcome: "complete" });
  world.enter("a");
  assert.deepEqual(world.wait(600_000), [], "not while somebody lacks something");
  world.step({ type: "taskProgressed", peerId: "a" as PeerId, taskId: TASK, pieceCount: 10, complete: true });
  assert.deepEqual(world.wait(119_999), []);
  assert.deepEqual(world.wait(1), [{ type: "restTask", taskId: TASK }]);
  assert.deepEqual(world.scheduler.snapshot().tasks[0]?.members.map(({ peerId }) => peerId), ["a"]);
  assert.equal(world.scheduler.nextDeadlineMs(), undefined);
  assert.deepEqual(assigned(world.enter("b")), ["a"]);
  world.step({ type: "taskLeft", peerId: "b" as PeerId, taskId: TASK });
  world.step({ type: "taskLeft", peerId: "a" as PeerId, taskId: TASK });
  assert.deepEqual(world.wait(120_000), [{ type: "forgetTask", taskId: TASK }]);
});

// ── Properties ──────────────────────────────────────────────────────────────────────────────────────────────────

const NAMES = ["seed-1", "seed-2", "keeper-1", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"] as PeerId[];
const TASKS = [TASK, "1".repeat(64) as TaskId];
const peerId = fc.constantFrom(...NAMES);
const taskId = fc.constantFrom(...TASKS);
const pieceCount = fc.constantFrom(0, 0, 50, PIECES);
const topology = fc.constantFrom<Topology>({}, { zone: "z1", rack: "r1" }, { zone: "z1" }, { region: "q", rack: "r1" });

const input: fc.Arbitrary<SchedulerInput> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ type: fc.constant("peerConnected" as const), peerId, dialable: fc.boolean(), topology })
      .map((rest) => ({ ...rest, seed: rest.peerId.startsWith("seed"), keeper: rest.peerId.startsWith("keeper") })) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("peerDisconnected" as const), peerId }) },
  { weight: 8, arbitrary: fc.record({ type: fc.constant("taskJoined" as const), peerId, taskId, requestId: fc.nat(99), pieceCount,
      totalCount: fc.constantFrom(PIECES, PIECES, undefined) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("taskLeft" as const), peerId, taskId }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("taskProgressed" as const), peerId, taskId, pieceCount, complete: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ type: fc.constant("neighboursLost" as const), peerId, taskId, lost: fc.array(peerId, { maxLength: 4 }) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("peerAccused" as const), accuser: peerId, accused: peerId, taskId, piece: fc.nat(PIECES) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("originRead" as const), taskId, holder: peerId,
      outcome: fc.constantFrom("complete" as const, "failed" as const) }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("readersWanted" as const), taskId,
      spans: fc.constantFrom([], [{ firstPiece: 0, endPiece: 100 }], [{ firstPiece: 3, endPiece: 9 }, { firstPiece: 50, endPiece: 70 }]) }) },
  { weight: 4, arbitrary: fc.record({ type: fc.constant("spanProgressed" as const), taskId, leaseId: fc.integer({ min: 1, max: 12 }), nextPiece: fc.nat(PIECES) }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("spanFailed" as const), taskId, leaseId: fc.integer({ min: 1, max: 12 }) }) },
  { weight: 3, arbitrary: fc.constant({ type: "deadlineReached" as const }) },
);
const log = fc.array(fc.record({ input, afterMs: fc.constantFrom(0, 1, 50, 4_000, 11_000, 40_000) }), { maxLength: 120, size: "max" });
const small: SchedulerConfig = { ...DEFAULT_SCHEDULER_CONFIG, neighbourCount: 3, neighbourCountMax: 4, seedNeighbourCountMax: 5, spanHolderCountMax: 2, spanPieceCount: 8 };

test("property: an input log replayed gives byte-identical effects", () => {
  fc.assert(
    fc.property(log, fc.integer(), (entries, seed) => {
      const run = (): string => {
        const scheduler = new Scheduler(small, seed);
        let nowMs = 0;
        return entries
          .map((entry) => JSON.stringify(scheduler.step(entry.input, (nowMs += entry.afterMs))))
          .concat(JSON.stringify(scheduler.snapshot()))
          .join("\n");
      };
      assert.equal(run(), run());
    }),
    { numRuns: 200 },
  );
});

/*
 * Found by the property below: a peer that holds everything and has just lost its connection was told what a message
 * of its own, still on its way, had lost. Whoever is not connected is told nothing.
 */
test("a late word of a peer that is gone changes the mesh, but nobody unconnected is told", () => {
  const world = new World();
  world.enter("p8", { dialable: true });
  world.enter("p3");
  world.step({ type: "taskProgressed", peerId: "p3" as PeerId, taskId: TASK, pieceCount: 0, complete: true });
  world.step({ type: "peerDisconnected", peerId: "p3" as PeerId });
  const effects = world.step({ type: "neighboursLost", peerId: "p3" as PeerId, taskId: TASK, lost: ["p8" as PeerId] });
  assert.deepEqual(effects.filter((effect) => effect.type === "rewire" && effect.peerId === "p3"), []);
});

test("property: the invariants hold after any inputs", () => {
  fc.assert(
    fc.property(log, fc.integer(), (entries, seed) => {
      const scheduler = new Scheduler(small, seed);
      const dialable = new Map<PeerId, boolean>();
      const expelled = new Set<string>();
      let nowMs = 0;
      for (const entry of entries) {
        nowMs += entry.afterMs;
        if (entry.input.type === "peerConnected") dialable.set(entry.input.peerId, entry.input.dialable);
        const effects = scheduler.step(entry.input, nowMs);
        const snapshot = scheduler.snapshot();
        const connected = new Map(snapshot.peers.map((peer) => [peer.peerId, peer]));
        for (const effect of effects) {
          if (effect.type === "rewire") {
            for (const id of effect.add) assert.ok(connected.get(id)?.connected === true && dialable.get(id) === true, `S5 ${id}`);
            assert.ok(connected.get(effect.peerId)?.connected === true, "S5: only the connected are told");
          }
          if (effect.type === "invite") assert.ok(effect.peerId.startsWith("keeper") && connected.get(effect.peerId)?.connected, "only keepers are invited");
          if (effect.type === "assign") for (const id of effect.neighbours) assert.ok(dialable.get(id) === true, `S5 ${id}`);
          if (effect.type === "expel") {
            assert.ok(!effect.peerId.startsWith("seed"), "S7: no seed is expelled");
            expelled.add(`${effect.taskId} ${effect.peerId}`);
          }
          if (effect.type === "forgetTask") for (const id of NAMES) expelled.delete(`${effect.taskId} ${id}`);
        }
        for (const task of snapshot.tasks) {
          const members = new Map(task.members.map((member) => [member.peerId, member]));
          for (const member of task.members) {
            const isSeed = member.peerId.startsWith("seed");
            assert.ok(member.neighbours.length <= (isSeed || member.peerId.startsWith("keeper") ? 5 : 4), "S2: degree caps");
            assert.ok(!expelled.has(`${task.taskId} ${member.peerId}`), "S7: the expelled are no members");
            for (const id of member.neighbours) {
              assert.ok(id !== member.peerId && members.get(id)?.neighbours.includes(member.peerId) === true, "S1: symmetric");
            }
          }
          const holder = task.leaseHolder;
          if (holder !== undefined) assert.ok(members.has(holder) && connected.get(holder)?.seed && connected.get(holder)?.connected, "S4");
          assert.ok(task.spanLeases.length <= small.spanHolderCountMax, "S8: a configured few");
          assert.equal(new Set(task.spanLeases.map(({ holder }) => holder)).size, task.spanLeases.length, "S8: one span each");
          for (const { holder } of task.spanLeases) {
            assert.ok(members.has(holder) && connected.get(holder)?.seed === false && connected.get(holder)?.connected, "S8: held by members");
          }
          const spans = [...task.spanLeases, ...task.unreadSpans].sort((left, right) => left.firstPiece - right.firstPiece);
          for (const [at, span] of spans.entries()) {
            assert.ok(span.firstPiece < span.endPiece && span.firstPiece >= (spans[at - 1]?.endPiece ?? 0), "S8: spans do not overlap");
          }
          if (task.unreadSpans.length > 0) assert.ok(task.spanLeases.length > 0, "S8: nobody waits for nobody");
          if (task.spanLeases.length > 0) assert.ok(scheduler.nextDeadlineMs() !== undefined, "S6: a span has a deadline");
          const plain = task.members.some((member) => !member.peerId.startsWith("seed"));
          if (!plain && holder === undefined) assert.ok(scheduler.nextDeadlineMs() !== undefined, "S6: an empty task has a deadline");
        }
        if (snapshot.peers.some((peer) => !peer.connected)) assert.ok(scheduler.nextDeadlineMs() !== undefined, "S6");
      }
      // S6: with time alone everything unconnected and unused goes away.
      for (let dueMs = scheduler.nextDeadlineMs(); dueMs !== undefined; dueMs = scheduler.nextDeadlineMs()) {
        nowMs = Math.max(nowMs, dueMs);
        scheduler.step({ type: "deadlineReached" }, nowMs);
        const next = scheduler.nextDeadlineMs();
        assert.ok(next === undefined || next > nowMs, "S6: a deadline that is kept is gone");
      }
      assert.ok(scheduler.snapshot().peers.every((peer) => peer.connected));
    }),
    { numRuns: 300 },
  );
});

test("who joins again without saying what it holds is believed to hold what it last said", () => {
  const world = new World();
  world.enter("holder", {}, PIECES);
  // The seed has given the file up meanwhile: it is not to read what the holder has.
  world.connect("seed", { seed: true });
  world.join("seed" as PeerId, 0);
  assert.equal(world.leaseHolder(), undefined);
  world.join("holder" as PeerId, undefined);
  assert.equal(world.leaseHolder(), undefined);
  assert.ok(world.wait(DEFAULT_SCHEDULER_CONFIG.emptyTaskMs).some(({ type }) => type === "restTask"), "all have everything, and the seed is not let go");
  world.join("seed" as PeerId, 0);
  world.join("newcomer" as PeerId, undefined);
  assert.equal(world.leaseHolder(), undefined, "one that has said nothing yet holds nothing, and gets it from the holder");
  world.join("holder" as PeerId, 0);
  assert.equal(world.leaseHolder(), "seed", "what it says counts");
});
