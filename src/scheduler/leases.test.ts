/** Who reads the origin: one seed, or a few peers in its stead. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { PeerId } from "../protocol/ids.ts";
import { DEFAULT_SCHEDULER_CONFIG, type SchedulerEffect } from "./index.ts";
import { PIECES, TASK, World } from "./scheduler-fixture.test.ts";

test("the first seed reads the origin; another takes over when it goes or fails", () => {
  const world = new World();
  const effects = world.enter("seed-1", { seed: true });
  assert.deepEqual(effects.at(-1), { type: "grantLease", taskId: TASK, holder: "seed-1" });
  const others = [...world.enter("seed-2", { seed: true }), ...world.enter("a"), ...world.enter("seed-3", { seed: true }), ...world.step({ type: "peerDisconnected", peerId: "seed-3" as PeerId })];
  assert.deepEqual(others.filter(({ type }) => type === "grantLease"), [], "one reads");
  assert.equal(world.leaseHolder(), "seed-1");
  world.step({ type: "peerDisconnected", peerId: "seed-1" as PeerId });
  assert.equal(world.leaseHolder(), "seed-2");
  world.step({ type: "originRead", taskId: TASK, holder: "seed-2" as PeerId, outcome: "failed" });
  assert.equal(world.leaseHolder(), undefined);
  world.enter("b");
  assert.equal(world.leaseHolder(), "seed-2", "a new request is a new attempt");
});

test("no lease is given while a connected member holds the whole file, unless somebody cannot get it there", () => {
  const world = new World();
  world.enter("full", {}, PIECES);
  world.enter("seed", { seed: true });
  world.enter("a");
  assert.equal(world.leaseHolder(), undefined);
  world.lost("a", "full");
  assert.equal(world.leaseHolder(), "seed");
});

test("a lease is given when the last holder of the whole file goes, to the seed that came first", () => {
  const world = new World();
  world.enter("full", {}, PIECES);
  for (const name of ["seed-1", "seed-2"]) world.enter(name, { seed: true });
  world.step({ type: "peerDisconnected", peerId: "full" as PeerId });
  assert.equal(world.leaseHolder(), "seed-1");
});

test("an origin read to its end gives no second lease", () => {
  const world = new World();
  world.enter("seed", { seed: true });
  world.step({ type: "originRead", taskId: TASK, holder: "seed" as PeerId, outcome: "complete" });
  assert.ok(!world.enter("a").some((effect) => effect.type === "grantLease"));
  assert.ok(!world.lost("a", "seed").some((effect) => effect.type === "grantLease"), "who does not reach the seed gets nothing by another read");
});

function granted(effects: readonly SchedulerEffect[]): readonly string[] {
  return effects.flatMap((effect) => (effect.type === "grantSpan" ? [`${effect.holder} ${effect.firstPiece}-${effect.endPiece}`] : []));
}

function leaseOf(effects: readonly SchedulerEffect[], holder: string): number {
  const grant = effects.find((effect) => effect.type === "grantSpan" && effect.holder === holder);
  assert.ok(grant?.type === "grantSpan", `${holder} has a span`);
  return grant.leaseId;
}

test("what the seed cannot read a configured few peers read, in spans that do not overlap, lowest first", () => {
  const world = new World({ spanHolderCountMax: 2, spanPieceCount: 30 });
  world.enter("seed", { seed: true });
  for (const name of ["a", "b", "c"]) world.enter(name);
  const effects = world.want([10, 50], [70, 100]);
  assert.deepEqual(granted(effects), ["a 10-40", "b 40-50"]);
  const leaseId = leaseOf(effects, "b");
  assert.deepEqual(world.step({ type: "spanProgressed", taskId: TASK, leaseId, nextPiece: 45 }), []);
  assert.deepEqual(granted(world.step({ type: "spanProgressed", taskId: TASK, leaseId, nextPiece: 50 })), ["b 70-100"]);
});

test("the rest of a span goes to another when its holder fails, goes, or brings nothing", () => {
  for (const how of ["fails", "disconnects", "leaves", "sleeps"] as const) {
    const world = new World({ spanHolderCountMax: 1, spanPieceCount: 100 });
    world.enter("seed", { seed: true });
    for (const name of ["a", "b"]) world.enter(name);
    const leaseId = leaseOf(world.want([0, 100]), "a");
    world.wait(DEFAULT_SCHEDULER_CONFIG.spanMs - 1);
    world.step({ type: "spanProgressed", taskId: TASK, leaseId, nextPiece: 40 });
    assert.deepEqual(world.wait(DEFAULT_SCHEDULER_CONFIG.spanMs - 1), [], "who brings something has as long again");
    world.step({ type: "spanProgressed", taskId: TASK, leaseId, nextPiece: 20 });
    const peerId = "a" as PeerId;
    const effects =
      how === "fails" ? world.step({ type: "spanFailed", taskId: TASK, leaseId })
      : how === "disconnects" ? world.step({ type: "peerDisconnected", peerId })
      : how === "leaves" ? world.step({ type: "taskLeft", peerId, taskId: TASK })
      : world.wait(1);
    assert.deepEqual(granted(effects), ["b 40-100"], how);
    assert.ok(effects.some((effect) => effect.type === "revokeSpan" && effect.holder === "a"), how);
    assert.deepEqual(world.step({ type: "spanProgressed", taskId: TASK, leaseId, nextPiece: 100 }), [], "its word counts no more");
  }
});

test("what is given again goes first when it is the lowest, and a span of which nothing comes is given again after its time", () => {
  const world = new World({ spanHolderCountMax: 2, spanPieceCount: 10 });
  for (const name of ["a", "b", "c", "d"]) world.enter(name);
  const leaseId = leaseOf(world.want([0, 30]), "a");
  world.wait(1_000);
  assert.deepEqual(granted(world.step({ type: "spanFailed", taskId: TASK, leaseId })), ["c 0-10"]);
  assert.deepEqual(granted(world.wait(DEFAULT_SCHEDULER_CONFIG.spanMs - 1_001)), []);
  assert.deepEqual(granted(world.wait(1)), ["d 10-20"]);
});

test("a span whose reader fails is read by who is further on, when nobody else can: there he may wait for it for ever", () => {
  const world = new World({ spanHolderCountMax: 2, spanPieceCount: 16 });
  world.enter("seed", { seed: true });
  for (const name of ["a", "b"]) world.enter(name);
  const first = world.want([0, 48]);
  assert.deepEqual(granted(first), ["a 0-16", "b 16-32"]);
  const further = world.step({ type: "spanProgressed", taskId: TASK, leaseId: leaseOf(first, "a"), nextPiece: 16 });
  assert.deepEqual(granted(further), ["a 32-48"]);
  const failed = world.step({ type: "spanFailed", taskId: TASK, leaseId: leaseOf(first, "b") });
  assert.deepEqual(granted(failed), ["a 16-32"]);
  assert.ok(failed.some((effect) => effect.type === "revokeSpan" && effect.leaseId === leaseOf(further, "a")));
  assert.deepEqual(granted(world.step({ type: "spanProgressed", taskId: TASK, leaseId: leaseOf(failed, "a"), nextPiece: 32 })), ["a 32-48"]);
});

test("who two others have lost is lent nothing", () => {
  const world = new World({ spanHolderCountMax: 1 });
  for (const name of ["a", "b", "c"]) world.enter(name);
  for (const name of ["b", "c"]) world.lost(name, "a");
  assert.deepEqual(granted(world.want([0, 5])), ["b 0-5"]);
});

test("what peers read and took away with them is read again once somebody finds nothing with neighbours that are well", () => {
  const world = new World({ spanHolderCountMax: 1 });
  world.enter("seed", { seed: true });
  for (const name of ["a", "b"]) world.enter(name);
  const leaseId = leaseOf(world.want([0, 5]), "a");
  world.step({ type: "originRead", taskId: TASK, holder: "seed" as PeerId, outcome: "failed" });
  const starving = (): readonly SchedulerEffect[] => world.step({ type: "neighboursLost", peerId: "b" as PeerId, taskId: TASK, lost: [] });
  starving();
  assert.equal(world.leaseHolder(), undefined, "it is being read");
  world.step({ type: "spanProgressed", taskId: TASK, leaseId, nextPiece: 5 });
  world.want();
  world.step({ type: "taskLeft", peerId: "a" as PeerId, taskId: TASK });
  world.lost("b", "seed");
  assert.equal(world.leaseHolder(), undefined, "a lost link says nothing of the file");
  starving();
  assert.equal(world.leaseHolder(), "seed");
});

test("a task that rests wants no readers any more", () => {
  const world = new World({ spanHolderCountMax: 1, spanPieceCount: 10 });
  world.enter("seed", { seed: true });
  world.enter("a");
  world.step({ type: "originRead", taskId: TASK, holder: "seed" as PeerId, outcome: "failed" });
  const leaseId = leaseOf(world.want([0, 20]), "a");
  world.step({ type: "taskProgressed", peerId: "a" as PeerId, taskId: TASK, pieceCount: PIECES, complete: true });
  const effects: SchedulerEffect[] = [];
  // Its holder shows life, and brings nothing.
  for (let waitedMs = 0; waitedMs < DEFAULT_SCHEDULER_CONFIG.emptyTaskMs; waitedMs += 10_000) {
    world.step({ type: "spanProgressed", taskId: TASK, leaseId, nextPiece: 0 });
    effects.push(...world.wait(10_000));
  }
  assert.ok(effects.some(({ type }) => type === "restTask"));
  assert.deepEqual(effects.filter(({ type }) => type === "revokeSpan"), [{ type: "revokeSpan", taskId: TASK, holder: "a", leaseId }]);
  assert.deepEqual(granted(world.enter("b")), []);
});

test("when nobody is left who could read, that is said, once", () => {
  const world = new World();
  world.enter("seed", { seed: true });
  world.enter("a");
  world.enter("full", {}, PIECES);
  const leaseId = leaseOf(world.want([0, 5]), "a");
  assert.deepEqual(world.step({ type: "spanFailed", taskId: TASK, leaseId }), [
    { type: "revokeSpan", taskId: TASK, holder: "a", leaseId },
    { type: "nobodyReads", taskId: TASK },
  ]);
  assert.deepEqual(granted(world.enter("b")), []);
  assert.deepEqual(granted(world.want([0, 5])), ["b 0-5"], "who failed is not asked again");
});

test("no peer reads when none may, and whoever reads stops when it is no longer wanted", () => {
  const none = new World({ spanHolderCountMax: 0 });
  none.enter("a");
  assert.deepEqual(none.want([0, 5]), [{ type: "nobodyReads", taskId: TASK }]);
  const world = new World();
  world.enter("a");
  const leaseId = leaseOf(world.want([0, 5]), "a");
  assert.deepEqual(world.want(), [{ type: "revokeSpan", taskId: TASK, holder: "a", leaseId }]);
});
