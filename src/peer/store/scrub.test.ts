import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { TaskId } from "../../protocol/ids.ts";
import { openStore, PIECE_LENGTH_BYTES, recordOf, storeAll, taskDirectory, taskId, temporaryDirectory } from "./fixture.test.ts";
import { Scrub, type ScrubDeps } from "./scrub.ts";

/** Sleeps that end at once, or never once there have been enough of them. */
function virtualSleep(endsAt: (delayMs: number, count: number) => boolean) {
  const slept: number[] = [];
  const ended = Promise.withResolvers<void>();
  const sleep: ScrubDeps["sleep"] = (delayMs) => {
    slept.push(delayMs);
    if (!endsAt(delayMs, slept.length)) return new Promise((resolve) => setImmediate(resolve));
    ended.resolve();
    return new Promise(() => undefined);
  };
  return { slept, sleep, ended: ended.promise };
}

const HOUR_MS = 3_600_000;

test("reads all that is stored back at its rate, drops and tells what is damaged, and begins again an hour later", async (t) => {
  const directory = temporaryDirectory(t);
  const first = await openStore(t, directory);
  for (const [name, count] of [["a", 70], ["b", 3]] as const) {
    const task = await first.store.open(recordOf(name, count * PIECE_LENGTH_BYTES));
    await storeAll(task, name);
    task.release();
  }
  await first.store.close();
  const { taskId } = recordOf("a", 0);
  const path = join(taskDirectory(directory, taskId), "data");
  const data = readFileSync(path);
  data[66 * PIECE_LENGTH_BYTES] = (data[66 * PIECE_LENGTH_BYTES] as number) ^ 1;
  writeFileSync(path, data);

  const { store } = await openStore(t, directory);
  const open = await store.find(taskId);
  const lost: number[] = [];
  open?.onLost((pieces) => lost.push(...pieces));
  const { slept, sleep, ended } = virtualSleep((delayMs) => delayMs === HOUR_MS);
  const rate = 10 * PIECE_LENGTH_BYTES;
  const scrub = new Scrub(rate, {
    taskIds: () => store.list().map((task) => task.taskId),
    open: (id) => store.find(id),
    isBusy: () => false,
    onFailed: (id, error) => assert.fail(`${id}: ${error.message}`),
    nowMs: () => 77,
    sleep,
  });
  assert.equal(scrub.doneAtUnixMs, undefined);
  scrub.start();
  await ended;
  assert.deepEqual(lost, [66]);
  assert.equal(store.usage().damagedPieces, 1);
  assert.equal(scrub.bytes, 73 * PIECE_LENGTH_BYTES);
  assert.equal(scrub.doneAtUnixMs, 77);
  const pausedMs = slept.filter((delayMs) => delayMs < 60_000).reduce((sum, delayMs) => sum + delayMs, 0);
  assert.equal(pausedMs, 7_300, "73 pieces at 10 pieces a second");
  scrub.stop();
});

test("waits while the store's threads have work, and does nothing at a rate of zero", async (t) => {
  const { store } = await openStore(t, temporaryDirectory(t));
  const task = await store.open(recordOf("a", PIECE_LENGTH_BYTES));
  await storeAll(task, "a");
  let looks = 0;
  const { slept, sleep, ended } = virtualSleep((delayMs) => delayMs === HOUR_MS);
  const deps: ScrubDeps = {
    taskIds: () => store.list().map(({ taskId }) => taskId),
    open: (id) => store.find(id),
    isBusy: () => looks++ < 20,
    onFailed: () => assert.fail(),
    nowMs: () => 0,
    sleep,
  };
  const scrub = new Scrub(1e9, deps);
  scrub.start();
  await ended;
  assert.equal(slept.filter((delayMs) => delayMs === 100).length, 20);
  assert.equal(scrub.bytes, PIECE_LENGTH_BYTES);
  const never = new Scrub(0, { ...deps, taskIds: () => assert.fail() });
  never.start();
  await new Promise(setImmediate);
  assert.equal(never.bytes, 0);
});

test("a task that cannot be opened is said, and the others are read all the same", async (t) => {
  const { store } = await openStore(t, temporaryDirectory(t));
  for (const name of ["a", "b"]) await storeAll(await store.open(recordOf(name, PIECE_LENGTH_BYTES)), name);
  const failed: string[] = [];
  const { sleep, ended } = virtualSleep((delayMs) => delayMs === HOUR_MS);
  const broken = recordOf("a", 0).taskId;
  const scrub = new Scrub(1e9, {
    taskIds: () => store.list().map(({ taskId }) => taskId),
    open: (id) => (id === broken ? Promise.reject(new Error("no descriptor left")) : store.find(id)),
    isBusy: () => false,
    onFailed: (id, error) => failed.push(`${id} ${error.message}`),
    nowMs: () => 0,
    sleep,
  });
  scrub.start();
  await ended;
  assert.deepEqual(failed, [`${broken} no descriptor left`]);
  assert.equal(scrub.bytes, PIECE_LENGTH_BYTES);
});

test("what this process has seen right before is read back, too", async (t) => {
  const directory = temporaryDirectory(t);
  const { store } = await openStore(t, directory);
  const task = await store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES));
  await storeAll(task, "a");
  const lost: number[] = [];
  task.onLost((pieces) => lost.push(...pieces));
  const path = join(taskDirectory(directory, task.record.taskId), "data");
  const data = readFileSync(path);
  data[PIECE_LENGTH_BYTES] = (data[PIECE_LENGTH_BYTES] as number) ^ 1;
  writeFileSync(path, data);
  const { sleep, ended } = virtualSleep((delayMs) => delayMs === HOUR_MS);
  const scrub = new Scrub(PIECE_LENGTH_BYTES, {
    taskIds: () => store.list().map(({ taskId }) => taskId),
    open: (id) => store.find(id),
    isBusy: () => false,
    onFailed: (id, error) => assert.fail(`${id}: ${error.message}`),
    nowMs: () => 0,
    sleep,
  });
  scrub.start();
  await ended;
  scrub.stop();
  assert.deepEqual(lost, [1]);
});

test("what is open only to be read back goes when its room is needed, or it is to be removed", async (t) => {
  const { store } = await openStore(t, temporaryDirectory(t));
  for (const name of ["a", "b"]) {
    const task = await store.open(recordOf(name, 200 * PIECE_LENGTH_BYTES));
    await storeAll(task, name);
    task.release();
  }
  const reading = Promise.withResolvers<void>();
  const opened: string[] = [];
  // The first pause within a task does not end by itself.
  const sleep: ScrubDeps["sleep"] = (delayMs, signal) => {
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    if (opened.length !== 1 || delayMs >= 60_000) return new Promise((resolve) => setImmediate(resolve));
    reading.resolve();
    return new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));
  };
  const rounds = Promise.withResolvers<void>();
  const scrub = new Scrub(PIECE_LENGTH_BYTES, {
    taskIds: () => (opened.length === 0 ? store.list().map((task) => task.taskId) : (rounds.resolve(), [])),
    open: (taskId) => (opened.push(taskId), store.find(taskId)),
    isBusy: () => false,
    onFailed: (taskId, error) => assert.fail(`${taskId}: ${error.message}`),
    nowMs: () => 0,
    sleep,
  });
  scrub.start();
  await reading.promise;
  const [first] = opened as [TaskId];
  assert.deepEqual([await store.remove(first), await scrub.letGo(taskId("other")), await scrub.letGo(first)], [false, false, true]);
  assert.equal(await store.remove(first), true);
  await rounds.promise;
  assert.equal(opened.length, 2, "the other was read after that");
  scrub.stop();
});

test("room that an opening asks for while the scrub waits for that opening is not waited for by both", async () => {
  const opening = Promise.withResolvers<undefined>();
  const begun = Promise.withResolvers<void>();
  const scrub = new Scrub(1e9, {
    taskIds: () => [taskId("a")],
    open: () => (begun.resolve(), opening.promise),
    isBusy: () => false,
    onFailed: (id, error) => assert.fail(`${id}: ${error.message}`),
    nowMs: () => 0,
    sleep: () => new Promise((resolve) => setImmediate(resolve)),
  });
  scrub.start();
  await begun.promise;
  assert.equal(await scrub.letGo(), false);
  scrub.stop();
  opening.resolve(undefined);
});
