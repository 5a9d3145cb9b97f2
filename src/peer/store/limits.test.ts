import assert from "node:assert/strict";
import { existsSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { AppError } from "../../base/errors.ts";
import { type StoreDisk, systemDisk } from "./disk.ts";
import type { PieceStore } from "./piece-store.ts";
import { assertSameBytes, openStore, PIECE_LENGTH_BYTES, pieceBytes, proofOf, recordOf, storeAll, storePiece, taskDirectory, taskId, temporaryDirectory } from "./fixture.test.ts";
import { StorePool, type StoreRunner } from "./pool.ts";

function namesOf(store: PieceStore): Set<string | undefined> {
  return new Set(store.list().map(({ displayUrl }) => displayUrl.split("/").at(-1)));
}

describe("disk store at its limits", () => {
  const quota = { quotaBytes: 4 * PIECE_LENGTH_BYTES };

  test("evicts the task that nobody asked for again, and never an open one", async (t) => {
    const directory = temporaryDirectory(t);
    let nowMs = 1000;
    const { store, logged } = await openStore(t, directory, quota, { nowMs: () => nowMs++ });
    const pinned = await store.open(recordOf("pinned", PIECE_LENGTH_BYTES));
    await storeAll(pinned, "pinned");
    for (const name of ["a", "b", "c"]) {
      const task = await store.open(recordOf(name, PIECE_LENGTH_BYTES));
      await storeAll(task, name);
      task.release();
    }
    nowMs += 60_000;
    (await store.find(taskId("a")))?.release();
    const next = await store.open(recordOf("d", 4 * PIECE_LENGTH_BYTES));
    await storePiece(next, "d", 0);
    assert.deepEqual(namesOf(store), new Set(["pinned", "a", "c", "d"]), "b went; pinned stayed");
    assert.equal(existsSync(taskDirectory(directory, taskId("b"))), false);
    await storePiece(next, "d", 1);
    await storePiece(next, "d", 2);
    assert.deepEqual(pinned.have.count, 1);
    await assert.rejects(storePiece(next, "d", 3), (error: AppError) => {
      assert.equal(error.code, "CACHE_QUOTA_EXCEEDED");
      assert.match(error.message, /262144 of the cache quota of 262144 bytes are used/);
      return true;
    });
    const usage = store.usage();
    assert.deepEqual([usage.usedBytes, usage.evictedBytes, usage.evictedTasks], [quota.quotaBytes, 3 * PIECE_LENGTH_BYTES, { quota: 3, "free-space": 0 }]);
    assert.equal(logged.filter((line) => line.includes("evicted")).length, 3);
    pinned.release();
    assert.equal(await storePiece(next, "d", 3), "stored");
  });

  test("how old what the file system said is, no clock that is set says", async (t) => {
    t.mock.timers.enable({ apis: ["Date"], now: 0 });
    let asked = 0;
    const freeBytes = (): Promise<number> => Promise.resolve(++asked * 1e12);
    const { store } = await openStore(t, temporaryDirectory(t), quota, { disk: { ...systemDisk, freeBytes } });
    const task = await store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES));
    await storePiece(task, "a", 0);
    const before = asked;
    t.mock.timers.setTime(3_600_000);
    await storePiece(task, "a", 1);
    assert.equal(asked, before, "within the same second");
    task.release();
  });

  test("uses within a minute are one: a wave of hosts that want a file does not make it hot", async (t) => {
    let nowMs = 1000;
    const { store } = await openStore(t, temporaryDirectory(t), quota, { nowMs: () => nowMs++ });
    for (const name of ["a", "b", "c", "d"]) {
      const task = await store.open(recordOf(name, PIECE_LENGTH_BYTES));
      await storeAll(task, name);
      task.release();
    }
    for (let again = 0; again < 100; again++) store.used(taskId("a"));
    nowMs += 60_000;
    store.used(taskId("b"));
    const next = await store.open(recordOf("e", 2 * PIECE_LENGTH_BYTES));
    await storeAll(next, "e");
    assert.deepEqual(namesOf(store), new Set(["b", "d", "e"]));
  });

  test("remembers over a restart what was asked for again, and what is pinned", async (t) => {
    const directory = temporaryDirectory(t);
    let nowMs = 1000;
    const clock = { nowMs: () => nowMs++ };
    const first = await openStore(t, directory, {}, clock);
    for (const name of ["a", "b", "c", "d"]) {
      const task = await first.store.open(recordOf(name, PIECE_LENGTH_BYTES));
      await storeAll(task, name);
      task.release();
    }
    nowMs += 60_000;
    (await first.store.find(taskId("a")))?.release();
    assert.equal(await first.store.pin(taskId("b"), true), true);
    assert.equal(await first.store.pin(taskId("nobody"), true), false);
    await first.store.close();

    const second = await openStore(t, directory, quota, clock);
    assert.deepEqual(second.store.list().filter(({ isPinned }) => isPinned).map(({ taskId: id }) => id), [taskId("b")]);
    const task = await second.store.open(recordOf("e", 2 * PIECE_LENGTH_BYTES));
    await storeAll(task, "e");
    assert.deepEqual(namesOf(second.store), new Set(["a", "b", "e"]));
    assert.equal(await second.store.pin(taskId("b"), false), true);
    await second.store.close();
    const third = await openStore(t, directory, quota, clock);
    assert.deepEqual(third.store.list().filter(({ isPinned }) => isPinned), []);
  });

  test("whoever keeps tasks open without need is asked to let go before room is refused", async (t) => {
    const kept: { release(): void }[] = [];
    const letGo = (): Promise<boolean> => {
      const count = kept.length;
      for (const task of kept.splice(0)) task.release();
      return Promise.resolve(count > 0);
    };
    const { store } = await openStore(t, temporaryDirectory(t), quota, { letGo });
    const old = await store.open(recordOf("old", 4 * PIECE_LENGTH_BYTES));
    await storeAll(old, "old");
    kept.push(old);
    const task = await store.open(recordOf("a", 4 * PIECE_LENGTH_BYTES));
    await task.assertRoom();
    await storeAll(task, "a");
    assert.deepEqual(namesOf(store), new Set(["a"]));
    const last = await store.open(recordOf("b", PIECE_LENGTH_BYTES));
    await assert.rejects(last.assertRoom(), { code: "CACHE_QUOTA_EXCEEDED" });
    await assert.rejects(storeAll(last, "b"), { code: "CACHE_QUOTA_EXCEEDED" });
    assert.deepEqual(store.usage().refusedRequests, { quota: 2, "free-space": 0 });
  });

  test("a file that can never fit is refused before its first byte", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t), quota);
    const old = await store.open(recordOf("old", PIECE_LENGTH_BYTES));
    await storeAll(old, "old");
    old.release();
    const huge = await store.open(recordOf("huge", 5 * PIECE_LENGTH_BYTES));
    await assert.rejects(huge.assertRoom(), { code: "CACHE_QUOTA_EXCEEDED" });
    assert.ok(namesOf(store).has("old"), "and nothing was evicted for it");
    const fits = await store.open(recordOf("fits", 4 * PIECE_LENGTH_BYTES));
    await fits.assertRoom();
    for (const piece of [0, 1, 2]) await storePiece(fits, "fits", piece);
    await fits.assertRoom();
  });

  test("pieces stored at once do not exceed the quota together", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t), quota);
    const task = await store.open(recordOf("a", 8 * PIECE_LENGTH_BYTES));
    const results = await Promise.allSettled(Array.from({ length: 8 }, (_, piece) => storePiece(task, "a", piece)));
    assert.equal(results.filter(({ status }) => status === "fulfilled").length, 4);
    assert.equal(task.have.count, 4);
    assert.equal(store.usage().usedBytes, quota.quotaBytes);
  });

  test("keeps space free on the file system: by eviction, else DISK_FULL", async (t) => {
    let freeBytes = 10 * PIECE_LENGTH_BYTES;
    let nowMs = 0;
    const deps = { disk: { ...systemDisk, freeBytes: () => Promise.resolve(freeBytes) }, nowMs: () => (nowMs += 2000) };
    const { store } = await openStore(t, temporaryDirectory(t), { reservedFreeBytes: 5 * PIECE_LENGTH_BYTES }, deps);
    const old = await store.open(recordOf("old", PIECE_LENGTH_BYTES));
    await storeAll(old, "old");
    old.release();
    const task = await store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES));
    await storePiece(task, "a", 0);
    freeBytes = 5 * PIECE_LENGTH_BYTES;
    const stored = storePiece(task, "a", 1);
    await assert.rejects(stored, { code: "DISK_FULL" }, "eviction freed nothing on this file system");
    assert.equal(await store.find(old.record.taskId), undefined);
    assert.deepEqual(store.usage().evictedTasks, { quota: 0, "free-space": 1 });
    freeBytes = 6 * PIECE_LENGTH_BYTES;
    assert.equal(await storePiece(task, "a", 1), "stored");
  });

  test("a device that takes no more files: one that nobody uses makes way for a new one; when none may go, DISK_FULL", async (t) => {
    let isFull = false;
    let removed = 0;
    const directory = temporaryDirectory(t);
    const disk: StoreDisk = {
      ...systemDisk,
      makeDirectory: async (path) => {
        if (isFull && !existsSync(path)) throw Object.assign(new Error("ENOSPC"), { code: "ENOSPC" });
        await systemDisk.makeDirectory(path);
      },
      remove: async (path) => {
        await systemDisk.remove(path);
        // The first gives back too little.
        if (++removed === 2) isFull = false;
      },
    };
    const { store } = await openStore(t, directory, {}, { disk });
    const pinned = await store.open(recordOf("pinned", PIECE_LENGTH_BYTES));
    const old = await store.open(recordOf("old", PIECE_LENGTH_BYTES));
    await storeAll(old, "old");
    old.release();
    (await store.open(recordOf("empty", PIECE_LENGTH_BYTES))).release();
    isFull = true;
    await storeAll(await store.open(recordOf("new", PIECE_LENGTH_BYTES)), "new");
    assert.deepEqual(namesOf(store), new Set(["pinned", "new"]));
    isFull = true;
    await assert.rejects(store.open(recordOf("next", PIECE_LENGTH_BYTES)), { code: "DISK_FULL" });
    assert.deepEqual(namesOf(store), new Set(["pinned", "new"]));
    assert.equal(pinned.have.count, 0);
  });

  test("a write that fails is reported, stores nothing, and can be tried again", async (t) => {
    const pool = new StorePool(1);
    let failing = true;
    const runner: StoreRunner = {
      run: (kind, input, path) => (failing ? Promise.reject(new AppError("DISK_FULL", `cannot write ${path}`)) : pool.run(kind, input, path)),
      isBusy: false,
      close: () => pool.close(),
    };
    const { store } = await openStore(t, temporaryDirectory(t), {}, { runner });
    const task = await store.open(recordOf("a", PIECE_LENGTH_BYTES));
    await assert.rejects(storePiece(task, "a", 0), { code: "DISK_FULL" });
    assert.equal(task.have.count, 0);
    assert.equal(store.usage().usedBytes, 0);
    failing = false;
    assert.equal(await storePiece(task, "a", 0), "stored");
  });

  test("a task that is let go of while the device refuses its piece makes no room for itself: the piece fails, and the store goes on", { timeout: 20_000 }, async (t) => {
    const pool = new StorePool(1);
    const begun = Promise.withResolvers<void>();
    const refused = Promise.withResolvers<never>();
    let isRefusing = false;
    const runner: StoreRunner = {
      run: (kind, input, path) => {
        if (!isRefusing) return pool.run(kind, input, path);
        isRefusing = false;
        begun.resolve();
        return refused.promise;
      },
      isBusy: false,
      close: () => pool.close(),
    };
    const { store } = await openStore(t, temporaryDirectory(t), {}, { runner });
    const task = await store.open(recordOf("a", 4 * PIECE_LENGTH_BYTES));
    await storePiece(task, "a", 0);
    isRefusing = true;
    const storing = storePiece(task, "a", 1);
    await begun.promise;
    task.release();
    refused.reject(new AppError("DISK_FULL", "no space is left"));
    await assert.rejects(storing, { code: "DISK_FULL" });
    assert.equal(await storePiece(await store.open(recordOf("b", PIECE_LENGTH_BYTES)), "b", 0), "stored");
  });

  test("nor does one that is let go of while its piece waits for room", { timeout: 20_000 }, async (t) => {
    let letGo = (): void => undefined;
    const { store } = await openStore(t, temporaryDirectory(t), { quotaBytes: PIECE_LENGTH_BYTES }, {
      letGo: () => {
        letGo();
        letGo = () => undefined;
        return Promise.resolve(true);
      },
    });
    const task = await store.open(recordOf("a", 4 * PIECE_LENGTH_BYTES));
    await storePiece(task, "a", 0);
    letGo = () => task.release();
    await assert.rejects(storePiece(task, "a", 1), { code: "CACHE_QUOTA_EXCEEDED" });
    assert.equal(await storePiece(await store.open(recordOf("b", PIECE_LENGTH_BYTES)), "b", 0), "stored", "when nothing is on its way into it, it may go");
    assert.deepEqual(namesOf(store), new Set(["b"]));
  });

  test("a piece that waits while all is discarded is written after the discard, not under it", async (t) => {
    const pool = new StorePool(1);
    const first = Promise.withResolvers<void>();
    const directory = temporaryDirectory(t);
    const journalPath = join(taskDirectory(directory, taskId("a")), "journal");
    const journalLengths: number[] = [];
    const runner: StoreRunner = {
      async run(kind, input, path) {
        const output = pool.run(kind, input, path);
        if (journalLengths.push(statSync(journalPath).size) === 1) await first.promise;
        return await output;
      },
      isBusy: false,
      close: () => pool.close(),
    };
    const { store } = await openStore(t, directory, {}, { runner });
    const task = await store.open(recordOf("a", PIECE_LENGTH_BYTES));
    const wrong = task.storeVerified(0, pieceBytes("b", 0), proofOf(task, 0, pieceBytes("a", 0)));
    const waiting = storePiece(task, "a", 0);
    await new Promise(setImmediate);
    const discarded = task.discard("all");
    first.resolve();
    assert.deepEqual(await Promise.all([wrong, waiting]), ["mismatch", "stored"]);
    await discarded;
    const [before = 0, after = 0] = journalLengths;
    assert.ok(after > before, "the discard was journaled when the second write began");
    const into = new Uint8Array(PIECE_LENGTH_BYTES);
    await task.read(0, into);
    assertSameBytes(into, pieceBytes("a", 0));
  });

  test("a piece whose bytes are gone is dropped by the read that finds out", async (t) => {
    const directory = temporaryDirectory(t);
    const { store, logged } = await openStore(t, directory);
    const task = await store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES));
    await storeAll(task, "a");
    const path = join(taskDirectory(directory, taskId("a")), "data");
    truncateSync(path, PIECE_LENGTH_BYTES + 10);
    await assert.rejects(task.read(PIECE_LENGTH_BYTES, new Uint8Array(11)), { code: "CACHE_CORRUPT" });
    assert.deepEqual([...task.have], [0]);
    assert.equal(store.usage().damagedPieces, 2);
    assert.match(logged.join(), /dropped 2 damaged pieces \(1, 2\)/);
    assert.equal(await storePiece(task, "a", 1), "stored");
    assert.equal(statSync(path).size, 2 * PIECE_LENGTH_BYTES);
  });

  test("after close, tasks and store refuse with SHUTTING_DOWN", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", PIECE_LENGTH_BYTES));
    const storing = storePiece(task, "a", 0);
    await new Promise(setImmediate);
    await store.close();
    assert.equal(await storing, "stored", "what was being written was finished");
    await assert.rejects(task.read(0, new Uint8Array(1)), { code: "SHUTTING_DOWN" });
    await assert.rejects(store.open(recordOf("b", 1)), { code: "SHUTTING_DOWN" });
    task.release();
  });
});
