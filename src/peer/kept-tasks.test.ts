import assert from "node:assert/strict";
import { test } from "node:test";
import type { TaskInfo } from "../protocol/control-messages.ts";
import type { TaskId } from "../protocol/ids.ts";
import { KeptTasks } from "./kept-tasks.ts";
import type { PeerTask } from "./peer.ts";

const taskId = "a".repeat(64) as TaskId;
const source = { url: "http://origin/file", headers: {} };
const info: TaskInfo = { taskId, lengthBytes: 1, pieceLengthBytes: 65_536, contentType: null, digest: null, headers: {} };

function fakeTask(isComplete = true): { readonly task: PeerTask; released: number } {
  const made = {
    released: 0,
    // The rest of a task is nothing to the one that keeps it.
    task: { session: { taskId }, stored: { complete: isComplete }, release: (): void => void made.released++ } as unknown as PeerTask,
  };
  return made;
}

test("a second reader shares the task that is here", (t) => {
  const kept = new KeptTasks();
  t.after(() => kept.close());
  const first = fakeTask();
  const second = fakeTask();
  const held = kept.hold(first.task, source, info, true);
  assert.equal(kept.hold(second.task, source, info, true), held);
  assert.deepEqual([first.released, second.released, held.readers], [0, 1, 2]);
});

test("a worthless task stays with its readers until the last has gone, and others begin anew", (t) => {
  const kept = new KeptTasks();
  t.after(() => kept.close());
  const worthless = fakeTask();
  const held = kept.hold(worthless.task, source, info, true);
  kept.use(held, true);
  kept.expel(held);
  const anew = fakeTask();
  const next = kept.hold(anew.task, source, info, true);
  assert.notEqual(next, held);
  kept.leave(held);
  assert.equal(worthless.released, 0);
  kept.leave(held);
  assert.equal(worthless.released, 1);
  assert.equal(kept.get(taskId), next);
  assert.equal(anew.released, 0);
});

test("a worthless task without readers goes at once", () => {
  const kept = new KeptTasks();
  const worthless = fakeTask();
  const held = kept.hold(worthless.task, source, info, true);
  kept.leave(held);
  kept.expel(held);
  assert.equal(worthless.released, 1);
  kept.close();
  assert.equal(worthless.released, 1);
});

test("who drops a task that is not whole says so: else nobody could tell that nothing of it is waited for", () => {
  for (const isComplete of [false, true]) {
    const kept = new KeptTasks();
    const unfinished: TaskId[] = [];
    kept.onUnfinished = (dropped) => unfinished.push(dropped);
    kept.leave(kept.hold(fakeTask(isComplete).task, source, info, true));
    assert.deepEqual(unfinished, [], "it is kept for a while");
    kept.dropIdle();
    assert.deepEqual(unfinished, isComplete ? [] : [taskId]);
  }
});

test("a task is kept for two minutes after its last reader, and as long as there is another", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const kept = new KeptTasks();
  const made = fakeTask();
  const held = kept.hold(made.task, source, info, true);
  kept.leave(held);
  t.mock.timers.tick(119_999);
  kept.use(held, true);
  t.mock.timers.tick(600_000);
  assert.deepEqual([kept.get(taskId), made.released], [held, 0], "somebody reads it");
  kept.leave(held);
  t.mock.timers.tick(119_999);
  assert.equal(kept.get(taskId), held);
  t.mock.timers.tick(1);
  assert.deepEqual([kept.get(taskId), made.released], [undefined, 1]);
});

test("room is made of tasks without readers only", () => {
  const kept = new KeptTasks();
  const made = fakeTask();
  const held = kept.hold(made.task, source, info, true);
  assert.equal(kept.dropIdle(), 0);
  assert.deepEqual([kept.get(taskId), made.released], [held, 0]);
  kept.leave(held);
  assert.equal(kept.dropIdle(), 1);
  assert.deepEqual([kept.get(taskId), made.released], [undefined, 1]);
});

test("a task that is let go of renews no ticket, and is let go of once", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  for (const end of ["dropIdle", "expel", "close"] as const) {
    const kept = new KeptTasks();
    const made = fakeTask();
    const held = kept.hold(made.task, source, info, true);
    let renewed = 0;
    held.renewal = setTimeout(() => renewed++, 60_000);
    kept.leave(held);
    kept[end](held);
    t.mock.timers.tick(600_000);
    assert.deepEqual([renewed, made.released], [0, 1], end);
  }
});

test("one reader who lets this host read the origin is enough", () => {
  const kept = new KeptTasks();
  const held = kept.hold(fakeTask().task, source, info, false);
  kept.hold(fakeTask().task, source, info, true);
  assert.equal(held.mayReadOrigin, true);
  kept.use(held, false);
  assert.equal(held.mayReadOrigin, true);
  kept.close();
});
