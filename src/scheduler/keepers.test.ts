/** Keepers: hosts that take whatever others take, and give it on. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { PeerId } from "../protocol/ids.ts";
import { DEFAULT_SCHEDULER_CONFIG, type SchedulerEffect } from "./index.ts";
import { PIECES, TASK, World } from "./scheduler-fixture.test.ts";

const KEEPER = "keeper" as PeerId;
const invitedIn = (effects: readonly SchedulerEffect[]): readonly string[] => effects.flatMap((effect) => (effect.type === "invite" ? [effect.peerId] : []));
const given = (effects: readonly SchedulerEffect[]): readonly string[] => effects.flatMap((effect) => (effect.type === "assign" ? effect.neighbours : []));

test("a keeper is invited when somebody takes a file, once, and again after a reconnect", () => {
  const world = new World();
  world.connect(KEEPER, { keeper: true });
  assert.deepEqual(invitedIn(world.enter("holder", {}, PIECES)), [], "nobody takes anything");
  assert.deepEqual(invitedIn(world.enter("a")), [KEEPER]);
  assert.deepEqual(invitedIn(world.enter("b")), [], "it knows");
  world.step({ type: "peerDisconnected", peerId: KEEPER });
  assert.deepEqual(invitedIn(world.step({ type: "peerConnected", peerId: KEEPER, seed: false, keeper: true, dialable: true, topology: {} })), [KEEPER]);
  world.join(KEEPER, 0);
  assert.deepEqual(invitedIn(world.enter("c")), [], "it is there");
});

test("a keeper that comes later is invited to what is being taken, and not to what is at rest", () => {
  const world = new World();
  world.enter("a");
  assert.deepEqual(invitedIn(world.step({ type: "peerConnected", peerId: KEEPER, seed: false, keeper: true, dialable: true, topology: {} })), [KEEPER]);
  world.step({ type: "taskProgressed", peerId: "a" as PeerId, taskId: TASK, pieceCount: PIECES, complete: true });
  assert.deepEqual(invitedIn(world.step({ type: "peerConnected", peerId: "late" as PeerId, seed: false, keeper: true, dialable: true, topology: {} })), []);
});

test("newcomers get the nearest two keepers, which take more neighbours than others do", () => {
  const { neighbourCountMax, seedNeighbourCountMax } = DEFAULT_SCHEDULER_CONFIG;
  const world = new World();
  const racks = ["r1", "r2"];
  for (const rack of racks) for (const number of [1, 2]) world.enter(`keeper-${rack}-${number}`, { keeper: true, topology: { rack } }, PIECES);
  for (let i = 0; i < 40; i++) {
    const rack = racks[i % 2] as string;
    const keepers = given(world.enter(`p${i}`, { topology: { rack } })).filter((name) => name.startsWith("keeper"));
    assert.deepEqual([...keepers].sort(), [`keeper-${rack}-1`, `keeper-${rack}-2`], `p${i}`);
  }
  const none = new World();
  none.enter(KEEPER, { keeper: true }, PIECES);
  for (let i = 0; i < seedNeighbourCountMax + 5; i++) none.enter(`p${i}`);
  const { length } = none.neighboursOf(KEEPER);
  assert.ok(length > neighbourCountMax && length <= seedNeighbourCountMax, `${length} neighbours`);
});

test("a member has two keepers, however often it is given more neighbours", () => {
  const world = new World();
  for (let i = 0; i < 6; i++) world.enter(`keeper-${i}`, { keeper: true }, PIECES);
  const names = Array.from({ length: 60 }, (_, i) => `p${i}`);
  for (const name of names) world.enter(name);
  const keepersOf = (name: string): readonly string[] => world.neighboursOf(name).filter((other) => other.startsWith("keeper"));
  for (const name of names) world.step({ type: "taskProgressed", peerId: name as PeerId, taskId: TASK, pieceCount: 30, complete: false });
  for (let round = 0; round < 5; round++) world.lost("p3", ...world.neighboursOf("p3").filter((other) => other.startsWith("p")).slice(0, 2));
  assert.deepEqual(names.filter((name) => keepersOf(name).length > 2), []);
  // One that is gone is made up for.
  const [gone] = keepersOf("p3");
  world.lost("p3", gone as string);
  assert.equal(keepersOf("p3").length, 2);
  assert.ok(!keepersOf("p3").includes(gone as string));
});

test("a keeper that has as many neighbours as it may gives up one that holds everything for one that does not", () => {
  const world = new World();
  world.enter(KEEPER, { keeper: true }, PIECES);
  for (let i = 0; i < DEFAULT_SCHEDULER_CONFIG.seedNeighbourCountMax + 10; i++) {
    assert.ok(given(world.enter(`p${i}`)).includes(KEEPER), `p${i}`);
    world.step({ type: "taskProgressed", peerId: `p${i}` as PeerId, taskId: TASK, pieceCount: PIECES, complete: true });
  }
});

test("a keeper reads no origin, and while it holds the whole file nobody does", () => {
  const world = new World();
  world.enter(KEEPER, { keeper: true });
  assert.equal(world.leaseHolder(), undefined);
  world.enter("seed", { seed: true });
  assert.equal(world.leaseHolder(), "seed");
  const other = new World();
  other.enter(KEEPER, { keeper: true }, PIECES);
  other.enter("seed", { seed: true });
  other.enter("a");
  assert.equal(other.leaseHolder(), undefined);
});

test("a keeper is trusted no more than others: it is expelled by two accusers, and handed to nobody while it is suspect", () => {
  const world = new World();
  world.enter(KEEPER, { keeper: true }, PIECES);
  for (const name of ["a", "b", "c"]) world.enter(name);
  for (const name of ["a", "b"]) world.lost(name, KEEPER);
  assert.ok(!given(world.enter("d")).includes(KEEPER), "suspect");
  world.join(KEEPER, PIECES);
  assert.ok(given(world.enter("e")).includes(KEEPER), "it has shown life");
  world.accuse("c", KEEPER);
  assert.ok(world.accuse("e", KEEPER).some((effect) => effect.type === "expel" && effect.peerId === KEEPER));
  assert.deepEqual(invitedIn(world.enter("f")), []);
});

test("a task is not at rest while a keeper lacks part of it, and is not forgotten while one holds it", () => {
  const { emptyTaskMs } = DEFAULT_SCHEDULER_CONFIG;
  const world = new World();
  world.enter("seed", { seed: true }, PIECES);
  world.enter("a", {}, PIECES);
  world.enter(KEEPER, { keeper: true });
  world.step({ type: "originRead", taskId: TASK, holder: "seed" as PeerId, outcome: "complete" });
  assert.deepEqual(world.wait(2 * emptyTaskMs).map(({ type }) => type).filter((type) => type.endsWith("Task")), []);
  world.step({ type: "taskProgressed", peerId: KEEPER, taskId: TASK, pieceCount: PIECES, complete: true });
  world.step({ type: "taskLeft", peerId: "a" as PeerId, taskId: TASK });
  assert.deepEqual(world.wait(2 * emptyTaskMs).map(({ type }) => type).filter((type) => type.endsWith("Task")), ["restTask"]);
  assert.ok(given(world.enter("b")).includes(KEEPER));
});
