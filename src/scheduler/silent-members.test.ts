/** Members that came back, or were suspect for a moment: what is counted on them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { PeerId } from "../protocol/ids.ts";
import { TASK, World } from "./scheduler-fixture.test.ts";
import { DEFAULT_SCHEDULER_CONFIG, type Imports, Scheduler, type SchedulerInput } from "./index.ts";

/** A seed, and a member whose connection broke; meanwhile its reader went away, and the `leave` was lost with the connection. */
function worldWithGhost(): World {
  const world = new World();
  world.enter("seed", { seed: true }, 100);
  world.enter("ghost", {}, 10);
  world.step({ type: "peerDisconnected", peerId: "ghost" as PeerId });
  world.nowMs += 100;
  world.connect("ghost");
  return world;
}

test("who reconnects and does not join again is no member for ever", () => {
  const world = worldWithGhost();
  world.wait(24 * 60 * 60_000);
  const members = world.scheduler.snapshot().tasks.flatMap((task) => task.members.map(({ peerId }) => peerId));
  assert.ok(!members.includes("ghost" as PeerId), "a day later it is a member still");
});

test("who reconnects and speaks of the task, by whatever word, stays a member", () => {
  const words = {
    join: (world: World) => world.join("ghost" as PeerId, 10),
    progress: (world: World) => world.step({ type: "taskProgressed", peerId: "ghost" as PeerId, taskId: TASK, pieceCount: 30, complete: false }),
    lost: (world: World) => world.lost("ghost"),
  };
  for (const [word, speak] of Object.entries(words)) {
    const world = worldWithGhost();
    world.wait(60_000);
    speak(world);
    world.wait(24 * 60 * 60_000);
    assert.ok(world.neighboursOf("ghost").includes("seed"), word);
  }
});

test("of who reconnects and does not join again the task is forgotten in the end, and nobody is sent to it", () => {
  const world = worldWithGhost();
  const effects = world.wait(24 * 60 * 60_000);
  assert.ok(effects.some(({ type }) => type === "forgetTask" || type === "restTask"), "the seed keeps the task open for ever");
  world.enter("newcomer", {}, 0);
  assert.ok(!world.neighboursOf("newcomer").includes("ghost"));
});

test("of who reconnects and does not join again no span of the origin waits twenty seconds for it", () => {
  const world = new World();
  world.enter("ghost", {}, 10);
  world.step({ type: "peerDisconnected", peerId: "ghost" as PeerId });
  world.nowMs += 100;
  world.connect("ghost");
  world.wait(150_000);
  world.enter("seed", { seed: true }, 0);
  world.enter("reader", {}, 0);
  const granted = world.want([0, 10]).filter((effect) => effect.type === "grantSpan");
  assert.deepEqual(granted.map((effect) => effect.holder), ["reader"]);
});

test("an importer that was suspect for a moment does not go on bringing in what is another's now", () => {
  const told = new Map<string, readonly Imports[]>();
  const scheduler = new Scheduler(DEFAULT_SCHEDULER_CONFIG, 1);
  let nowMs = 0;
  const step = (input: SchedulerInput): void => {
    for (const effect of scheduler.step(input, nowMs)) if (effect.type === "assign" || effect.type === "assignImports") told.set(effect.peerId, effect.imports);
  };
  const wait = (ms: number): void => {
    const endMs = nowMs + ms;
    for (let due = scheduler.nextDeadlineMs(); due !== undefined && due <= endMs; due = scheduler.nextDeadlineMs()) {
      nowMs = due;
      step({ type: "deadlineReached" });
    }
    nowMs = endMs;
  };
  const names = Array.from({ length: 20 }, (_, i) => `host-${i}`);
  for (const name of names) {
    step({ type: "peerConnected", peerId: name as PeerId, seed: false, dialable: true, topology: { rack: "r1" } });
    step({ type: "taskJoined", peerId: name as PeerId, taskId: TASK, requestId: 1, pieceCount: 0, totalCount: 100 });
  }
  wait(100);
  const owners = (bucket: number): number => names.filter((name) => ((told.get(name)?.[0]?.own ?? 0) & (1 << bucket)) !== 0).length;
  for (let bucket = 0; bucket < 32; bucket++) assert.equal(owners(bucket), 1);
  // Two neighbours lose it (their own network): suspect. Then it reports progress as ever.
  const neighbours = scheduler.snapshot().tasks[0]?.members.find(({ peerId }) => peerId === "host-3")?.neighbours ?? [];
  for (const by of neighbours.slice(0, 2)) step({ type: "neighboursLost", peerId: by, taskId: TASK, lost: ["host-3" as PeerId] });
  wait(100);
  step({ type: "taskProgressed", peerId: "host-3" as PeerId, taskId: TASK, pieceCount: 5, complete: false });
  wait(60_000);
  for (let bucket = 0; bucket < 32; bucket++) assert.equal(owners(bucket), 1, `bucket ${bucket} is told to ${owners(bucket)} hosts of the rack as theirs`);
});
