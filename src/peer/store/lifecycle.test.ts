/** A task that is opened, closed, removed or evicted at the same time as something else, or on a disk that fails in the midst of it. */
import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { describe, test, type TestContext } from "node:test";
import { DiskStore } from "./disk-store.ts";
import { type DiskFile, type StoreDisk, systemDisk } from "./disk.ts";
import type { StoreRunner } from "./pool.ts";
import { openStore, PIECE_LENGTH_BYTES, recordOf, storeAll, storePiece, taskDirectory, taskId, temporaryDirectory } from "./fixture.test.ts";

type Call = "open" | "rename" | "makeDirectory";

/** The system's disk, whose next call of a kind that concerns such a path is held back, or fails. */
class FaultyDisk {
  /** Journals and the index cannot be added to. */
  isFull = false;
  /** Opened, and not closed. */
  readonly left = new Map<DiskFile, string>();
  #next: { readonly call: Call; readonly path: RegExp; readonly before: () => Promise<void> } | undefined;

  readonly disk: StoreDisk = {
    ...systemDisk,
    open: async (path, mode) => {
      await this.#before("open", path);
      const file = await systemDisk.open(path, mode);
      const writeSync: DiskFile["writeSync"] = (bytes, offsetByte) => {
        if (this.isFull) throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
        file.writeSync(bytes, offsetByte);
      };
      this.left.set(file, path);
      const close: DiskFile["close"] = async () => {
        this.left.delete(file);
        await file.close();
      };
      return new Proxy(file, {
        get: (target, key) => {
          const value: unknown = key === "writeSync" ? writeSync : key === "close" ? close : Reflect.get(target, key, target);
          return typeof value === "function" ? (value.bind(target) as unknown) : value;
        },
      });
    },
    rename: async (from, to) => {
      await this.#before("rename", to);
      await systemDisk.rename(from, to);
    },
    makeDirectory: async (path) => {
      await this.#before("makeDirectory", path);
      await systemDisk.makeDirectory(path);
    },
  };

  hold(call: Call, path: RegExp): { readonly begun: Promise<void>; readonly goOn: () => void; readonly fail: () => void } {
    const begun = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    this.#next = { call, path, before: () => (begun.resolve(), go.promise) };
    return { begun: begun.promise, goOn: go.resolve, fail: () => go.reject(inputOutputError()) };
  }

  fail(call: Call, path: RegExp): void {
    this.#next = { call, path, before: () => Promise.reject(inputOutputError()) };
  }

  async #before(call: Call, path: string): Promise<void> {
    const next = this.#next;
    if (next === undefined || next.call !== call || !next.path.test(path)) return;
    this.#next = undefined;
    await next.before();
  }
}

function inputOutputError(): Error {
  return Object.assign(new Error("EIO: i/o error"), { code: "EIO" });
}

/** A task of one piece that nobody has open. */
async function storeTask(store: DiskStore, name: string): Promise<void> {
  const task = await store.open(recordOf(name, PIECE_LENGTH_BYTES));
  await storeAll(task, name);
  task.release();
}

async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  void promise.then(() => (settled = true), () => (settled = true));
  for (let n = 0; n < 200; n++) await turn();
  return settled;
}

async function openLab(t: TestContext, config: { readonly quotaBytes?: number } = {}): Promise<{ readonly store: DiskStore; readonly faults: FaultyDisk; readonly directory: string }> {
  const directory = temporaryDirectory(t);
  const faults = new FaultyDisk();
  const { store } = await openStore(t, directory, config, { disk: faults.disk });
  return { store, faults, directory };
}

/** One task that goes to make room for the next, held where its files would be moved, and somebody who wants it at that moment. */
async function evicting(t: TestContext) {
  const { store, faults } = await openLab(t, { quotaBytes: PIECE_LENGTH_BYTES });
  await storeTask(store, "a");
  const removal = faults.hold("rename", /trash/);
  const next = await store.open(recordOf("b", PIECE_LENGTH_BYTES));
  const storing = storePiece(next, "b", 0);
  await removal.begun;
  return { next, removal, storing, found: store.find(taskId("a")) };
}

describe("a cached task", () => {
  test("that is being removed is waited for, and what is stored in it from then on stays", async (t) => {
    const { store, faults, directory } = await openLab(t);
    await storeTask(store, "a");
    const removal = faults.hold("rename", /trash/);
    const removed = store.remove(taskId("a"));
    await removal.begun;
    assert.equal(await store.pin(taskId("a"), true), false, "it is as good as gone");
    const opened = store.open(recordOf("a", 2 * PIECE_LENGTH_BYTES));
    assert.equal(await isSettled(opened), false);
    removal.goOn();
    assert.equal(await removed, true);
    const task = await opened;
    assert.deepEqual([...task.have], []);
    await storePiece(task, "a", 1);
    assert.equal(store.usage().usedBytes, PIECE_LENGTH_BYTES);
    await store.close();
    const again = await openStore(t, directory);
    assert.deepEqual([...((await again.store.find(taskId("a")))?.have ?? [])], [1]);
  });

  test("whose removal fails is there as before, and can be removed then", async (t) => {
    const { store, faults } = await openLab(t);
    await storeTask(store, "a");
    faults.fail("rename", /trash/);
    await assert.rejects(store.remove(taskId("a")), { code: "DISK_FAILED" });
    assert.equal(store.usage().usedBytes, PIECE_LENGTH_BYTES);
    const task = await store.find(taskId("a"));
    assert.deepEqual([...(task?.have ?? [])], [0]);
    task?.release();
    assert.equal(await store.remove(taskId("a")), true);
    assert.deepEqual([store.usage().usedBytes, store.list()], [0, []]);
  });

  test("that could not be evicted is evicted when the disk can do it", async (t) => {
    const { store, faults } = await openLab(t, { quotaBytes: PIECE_LENGTH_BYTES });
    await storeTask(store, "a");
    faults.fail("rename", /trash/);
    const task = await store.open(recordOf("b", PIECE_LENGTH_BYTES));
    await assert.rejects(storeAll(task, "b"), { code: "DISK_FAILED" });
    await storeAll(task, "b");
    assert.deepEqual(store.list().map((each) => each.taskId), [taskId("b")]);
    assert.equal(store.usage().usedBytes, PIECE_LENGTH_BYTES);
  });

  test("that is being evicted is waited for by who wants it, and then not found", async (t) => {
    const { removal, storing, found } = await evicting(t);
    assert.equal(await isSettled(found), false);
    removal.goOn();
    assert.equal(await found, undefined, "it was evicted before");
    assert.equal(await storing, "stored");
  });

  test("that could not be evicted while somebody waited for it is his, and stays", async (t) => {
    const { next, removal, storing, found } = await evicting(t);
    removal.fail();
    await assert.rejects(storing, { code: "DISK_FAILED" });
    assert.deepEqual([...((await found)?.have ?? [])], [0]);
    await assert.rejects(storePiece(next, "b", 0), { code: "CACHE_QUOTA_EXCEEDED" });
  });

  test("that is in use again is not closed for having been out of use", async (t) => {
    let nowMs = 0;
    const { store } = await openStore(t, temporaryDirectory(t), {}, { nowMs: () => nowMs });
    await storeTask(store, "a");
    const task = await store.find(taskId("a"));
    nowMs = 25_000;
    await storeTask(store, "b");
    await task?.read(0, new Uint8Array(10));
    assert.equal(await store.find(taskId("a")), task);
    task?.release();
    task?.release();
  });

  test("whose files cannot be opened is nobody's, and is opened when they can", async (t) => {
    const directory = temporaryDirectory(t);
    const first = await openStore(t, directory);
    await storeTask(first.store, "a");
    await first.store.close();
    const faults = new FaultyDisk();
    const { store } = await openStore(t, directory, {}, { disk: faults.disk });
    faults.fail("open", /\/journal$/);
    await assert.rejects(store.find(taskId("a")), { code: "DISK_FAILED" });
    assert.equal(store.usage().openTaskCount, 0);
    const task = await store.find(taskId("a"));
    assert.deepEqual([...(task?.have ?? [])], [0]);
    task?.release();
    assert.equal(await store.remove(taskId("a")), true);
  });

  test("that could not be created is not there", async (t) => {
    const { store, faults } = await openLab(t);
    faults.fail("makeDirectory", /\/tasks\//);
    await assert.rejects(store.open(recordOf("a", PIECE_LENGTH_BYTES)), { code: "DISK_FAILED" });
    assert.deepEqual([store.usage().taskCount, store.usage().openTaskCount, await store.has(taskId("a"))], [0, 0, false]);
    await storeTask(store, "a");
    assert.equal(await store.has(taskId("a")), true);
  });

  test("that other hands removed while it was closed is out of the account when somebody wants it", async (t) => {
    const directory = temporaryDirectory(t);
    const first = await openStore(t, directory);
    await storeTask(first.store, "a");
    await first.store.close();
    const { store } = await openStore(t, directory);
    await store.surveyed;
    rmSync(taskDirectory(directory, taskId("a")), { recursive: true });
    assert.equal(await store.find(taskId("a")), undefined);
    const { usedBytes, taskCount, openTaskCount } = store.usage();
    assert.deepEqual([usedBytes, taskCount, openTaskCount], [0, 0, 0]);
  });

  test("that is verified is let go of after it", async (t) => {
    const { store } = await openLab(t);
    await storeTask(store, "a");
    assert.deepEqual(await store.verify(taskId("a")), { checkedPieces: 1, damagedPieces: 0 });
    assert.equal(store.usage().openTaskCount, 0);
    assert.equal(await store.remove(taskId("a")), true);
  });

  test("that is read back is not used by that", async (t) => {
    let nowMs = 1_000;
    const { store } = await openStore(t, temporaryDirectory(t), {}, { nowMs: () => nowMs });
    await storeTask(store, "a");
    nowMs = 500_000;
    await store.verify(taskId("a"));
    assert.deepEqual(store.list().map(({ usedAtUnixMs }) => usedAtUnixMs), [1_000]);
    (await store.find(taskId("a")))?.release();
    assert.deepEqual(store.list().map(({ usedAtUnixMs }) => usedAtUnixMs), [500_000]);
  });

  test("that is evicted is told of, one that the operator removes is not, and its pin goes with it", async (t) => {
    const evicted: string[] = [];
    const config = { quotaBytes: 2 * PIECE_LENGTH_BYTES };
    const { store } = await openStore(t, temporaryDirectory(t), config, { onEvicted: (id) => evicted.push(id) });
    for (const name of ["a", "b", "c"]) await storeTask(store, name);
    assert.deepEqual(evicted, [taskId("a")]);
    assert.equal(await store.pin(taskId("b"), true), true);
    assert.equal(await store.remove(taskId("b")), true);
    await storeTask(store, "b");
    assert.deepEqual(evicted, [taskId("a")]);
    assert.deepEqual(store.list().filter(({ isPinned }) => isPinned), []);
  });

  test("whose length cannot be written down is nobody's", async (t) => {
    const { store, faults } = await openLab(t);
    const unknown = await store.open(recordOf("a", undefined));
    await storePiece(unknown, "a", 0);
    unknown.release();
    faults.isFull = true;
    await assert.rejects(store.open(recordOf("a", PIECE_LENGTH_BYTES)), { code: "DISK_FULL" });
    assert.equal(store.usage().openTaskCount, 0);
    faults.isFull = false;
    assert.equal(await store.remove(taskId("a")), true);
  });

  test("that is being opened when the store closes is waited for, and closed", async (t) => {
    const faults = new FaultyDisk();
    const runner: StoreRunner = { run: () => assert.fail("nothing is stored"), isBusy: false, close: () => Promise.resolve() };
    const { store } = await openStore(t, temporaryDirectory(t), {}, { disk: faults.disk, runner });
    const opening = faults.hold("open", /\/journal\.new$/);
    const opened = store.open(recordOf("a", PIECE_LENGTH_BYTES));
    await opening.begun;
    const closed = store.close();
    assert.equal(await isSettled(closed), false);
    opening.goOn();
    const task = await opened;
    await closed;
    await assert.rejects(storePiece(task, "a", 0), { code: "SHUTTING_DOWN" });
  });

  test("whose files are being closed is opened after that, with what was seen of it", async (t) => {
    const directory = temporaryDirectory(t);
    const syncing = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    const open: StoreDisk["open"] = async (path, mode) => {
      const file = await systemDisk.open(path, mode);
      if (!path.endsWith("/data")) return file;
      const sync = async (): Promise<void> => {
        syncing.resolve();
        await go.promise;
        await file.sync();
      };
      return new Proxy(file, {
        get: (target, key) => {
          const value: unknown = key === "sync" ? sync : Reflect.get(target, key, target);
          return typeof value === "function" ? (value.bind(target) as unknown) : value;
        },
      });
    };
    let nowMs = 0;
    const { store } = await openStore(t, directory, {}, { disk: { ...systemDisk, open }, nowMs: () => nowMs });
    await storeTask(store, "a");
    // Longer than a task is kept open without a user.
    nowMs = 25_000;
    const other = await store.open(recordOf("b", PIECE_LENGTH_BYTES));
    other.release();
    await syncing.promise;
    const found = store.find(taskId("a"));
    assert.equal(await isSettled(found), false);
    go.resolve();
    const task = await found;
    assert.deepEqual([[...(task?.have ?? [])], task?.isVerified(0)], [[0], true]);
    task?.release();
  });
});

test("a store that is closed has no file open, whatever failed meanwhile", async (t) => {
  const { store, faults, directory } = await openLab(t, { quotaBytes: 3 * PIECE_LENGTH_BYTES });
  for (const name of ["a", "b", "c", "d"]) await storeTask(store, name);
  await store.pin(taskId("b"), true);
  await store.close();
  assert.deepEqual([...faults.left.values()], []);
  rmSync(join(directory, "index"));
  writeFileSync(join(taskDirectory(directory, taskId("c")), "journal"), "something else");
  const { store: again } = await openStore(t, directory, {}, { disk: faults.disk });
  await again.surveyed;
  assert.deepEqual(new Set(again.list().map((task) => task.taskId)), new Set([taskId("b"), taskId("d")]));
  faults.fail("open", /\/data$/);
  await assert.rejects(again.find(taskId("b")), { code: "DISK_FAILED" });
  faults.fail("rename", /\/journal$/);
  await assert.rejects(again.open(recordOf("e", PIECE_LENGTH_BYTES)), { code: "DISK_FAILED" });
  faults.fail("rename", /\/pins$/);
  await assert.rejects(again.pin(taskId("d"), true), { code: "DISK_FAILED" });
  (await again.find(taskId("d")))?.release();
  await again.close();
  assert.deepEqual([...faults.left.values()], []);
});

test("a store that could not be opened leaves the directory to the next", async (t) => {
  const directory = temporaryDirectory(t);
  const faults = new FaultyDisk();
  faults.fail("open", /\/pins$/);
  const config = { directory, quotaBytes: undefined, reservedFreeBytes: 0, workerCount: 1, scrubBytesPerSecond: 0 };
  await assert.rejects(DiskStore.open(config, { disk: faults.disk }), { code: "DISK_FAILED" });
  await openStore(t, directory);
});
