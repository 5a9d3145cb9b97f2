/**
 * What the disk, the kernel and other processes may do to the store. This file is also the process that gets killed.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, test, type TestContext } from "node:test";
import type { AppError } from "../../base/errors.ts";
import { systemDisk } from "./disk.ts";
import { DiskStore } from "./disk-store.ts";
import { assertSameBytes, openStore, PIECE_LENGTH_BYTES, pieceBytes, recordOf, storeAll, storePiece, taskDirectory, taskId, temporaryDirectory } from "./fixture.test.ts";

const CHILD_DIRECTORY = "STORE_CRASH_TEST_DIRECTORY";
/** More than are stored before the kill comes, however late. */
const PIECE_COUNT = 8000;

/** Stores piece after piece, and says which are stored, until it is killed. */
async function storeUntilKilled(directory: string): Promise<void> {
  const store = await DiskStore.open({ directory, quotaBytes: undefined, reservedFreeBytes: 0, workerCount: 2, scrubBytesPerSecond: 0 });
  const task = await store.open(recordOf("a", PIECE_COUNT * PIECE_LENGTH_BYTES));
  process.stdout.write("open\n");
  const pieces = Array.from({ length: PIECE_COUNT }, (_, piece) => piece).values();
  const lane = async (): Promise<void> => {
    for (const piece of pieces) {
      await storePiece(task, "a", piece);
      process.stdout.write(`${piece}\n`);
    }
  };
  await Promise.all([lane(), lane(), lane(), lane()]);
  await new Promise(() => setInterval(() => undefined, 1000));
}

function startChild(t: TestContext, directory: string): ChildProcess {
  const child = spawn(process.execPath, [import.meta.filename], {
    env: { ...process.env, [CHILD_DIRECTORY]: directory, NODE_TEST_CONTEXT: undefined },
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => child.kill("SIGKILL"));
  return child;
}

/** Kills the child at once after it said `count` lines. @returns the lines */
async function killAfter(child: ChildProcess, count: number): Promise<string[]> {
  const lines: string[] = [];
  assert.ok(child.stdout);
  const exited = once(child, "exit");
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    if (lines.length === count) child.kill("SIGKILL");
  }
  await exited;
  return lines;
}

const directory = process.env[CHILD_DIRECTORY];
if (directory !== undefined) {
  await storeUntilKilled(directory);
} else {
  describe("disk store after kill -9", { concurrency: false }, () => {
    for (const lineCount of [2, 30, 111, 400]) {
      test(`in mid-write after ${lineCount - 1} pieces: every piece held is right, and none acknowledged is lost`, async (t) => {
        const path = temporaryDirectory(t);
        const lines = await killAfter(startChild(t, path), lineCount);
        const acknowledged = lines.slice(1).map(Number);
        assert.ok(acknowledged.length >= lineCount - 1 && acknowledged.length < PIECE_COUNT);
        const { store } = await openStore(t, path);
        const task = await store.open(recordOf("a", undefined));
        for (const piece of acknowledged) assert.ok(task.have.has(piece), `piece ${piece} was acknowledged`);
        const into = new Uint8Array(PIECE_LENGTH_BYTES);
        for (const piece of task.have) {
          await task.read(piece * PIECE_LENGTH_BYTES, into);
          assertSameBytes(into, pieceBytes("a", piece), `piece ${piece}`);
        }
        assert.equal(store.usage().damagedPieces, 0, "journaled only what was written");
      });
    }

    test("what was half created or half removed is cleared away at the next start", async (t) => {
      const path = temporaryDirectory(t);
      const half = taskDirectory(path, taskId("half"));
      mkdirSync(half, { recursive: true });
      writeFileSync(join(half, "data"), "x");
      writeFileSync(join(half, "journal.new"), "x");
      mkdirSync(join(path, "trash", "some.task"), { recursive: true });
      writeFileSync(join(path, "trash", "some.task", "data"), "x");
      const { store } = await openStore(t, path);
      await store.surveyed;
      assert.deepEqual(store.list(), []);
      await store.close();
      assert.equal(existsSync(half), false);
      assert.deepEqual(readdirSync(join(path, "trash")), []);
    });
  });

  describe("disk store's lock", () => {
    test("keeps a second process out by name, and ends with the first, however that ends", async (t) => {
      const path = temporaryDirectory(t);
      const child = startChild(t, path);
      assert.ok(child.stdout);
      await once(child.stdout, "data");
      await assert.rejects(openStore(t, path), (error: AppError) => {
        assert.equal(error.code, "DISK_FAILED");
        assert.match(error.message, new RegExp(`${path} is in use by process ${child.pid} on .*; stop it, or choose another data directory`));
        return true;
      });
      const exited = once(child, "exit");
      child.kill("SIGKILL");
      await exited;
      const { store } = await openStore(t, path);
      await store.surveyed;
      assert.equal(store.list().length, 1);
    });

    test("keeps a second store of this process out until the first is closed", async (t) => {
      const path = temporaryDirectory(t);
      const first = await openStore(t, path);
      await assert.rejects(openStore(t, path), { code: "DISK_FAILED", message: new RegExp(`in use by process ${process.pid}`) });
      await assert.rejects(openStore(t, path), { code: "DISK_FAILED" }, "and trying did not break the lock");
      await first.store.close();
      await openStore(t, path);
    });
  });

  describe("disk store on a bad disk", () => {
    test("a flipped bit is found at the piece's first use after a start, and only that piece dropped and told of", async (t) => {
      const path = temporaryDirectory(t);
      const first = await openStore(t, path);
      const record = recordOf("a", 40 * PIECE_LENGTH_BYTES);
      await storeAll(await first.store.open(record), "a");
      await first.store.close();
      const dataPath = join(taskDirectory(path, record.taskId), "data");
      const data = readFileSync(dataPath);
      for (const at of [17 * PIECE_LENGTH_BYTES, 40 * PIECE_LENGTH_BYTES - 1]) data[at] = (data[at] as number) ^ 1;
      writeFileSync(dataPath, data);

      const second = await openStore(t, path);
      const task = await second.store.open(record);
      const told: number[] = [];
      task.onLost((pieces) => told.push(...pieces));
      assert.equal(second.store.usage().verifyMsTotal, 0, "nothing is read back before it is wanted");
      await task.read(0, new Uint8Array(PIECE_LENGTH_BYTES));
      assert.equal(task.have.count, 40);
      await assert.rejects(task.read(16 * PIECE_LENGTH_BYTES + 5, new Uint8Array(2 * PIECE_LENGTH_BYTES)), {
        code: "CACHE_CORRUPT",
        message: /does not hold 1 of the pieces that were stored in it; they are fetched again/,
      });
      assert.deepEqual(told, [17]);
      assert.deepEqual([task.isVerified(16), task.isVerified(17), task.isVerified(20)], [true, false, false]);
      await assert.rejects(task.digestOf("sha256", 40 * PIECE_LENGTH_BYTES), { code: "PIECE_UNKNOWN" });
      assert.deepEqual(await task.verify([...task.have]), [39]);
      assert.deepEqual(told, [17, 39]);
      assert.equal(task.have.count, 38);
      assert.deepEqual([task.have.has(17), task.have.has(39)], [false, false]);
      assert.equal(task.proofOf(17), undefined);
      assert.equal(second.store.usage().damagedPieces, 2);
      assert.equal(second.store.usage().usedBytes, 38 * PIECE_LENGTH_BYTES);
      assert.match(second.logged.join(), /warn: dropped 1 damaged pieces \(17\): .* does not hold what was written to it.*dropped 1 damaged pieces \(39\)/);
      await second.store.close();

      const third = await openStore(t, path);
      const again = await third.store.open(record);
      assert.equal(again.have.count, 38);
      assert.equal(third.store.usage().damagedPieces, 0, "dropped for good");
      assert.equal(await storePiece(again, "a", 17), "stored");
    });

    test("a data file that is gone leaves no piece", async (t) => {
      const path = temporaryDirectory(t);
      const first = await openStore(t, path);
      const record = recordOf("a", 3 * PIECE_LENGTH_BYTES);
      await storeAll(await first.store.open(record), "a");
      await first.store.close();
      rmSync(join(taskDirectory(path, record.taskId), "data"));
      const { store } = await openStore(t, path);
      const task = await store.open(record);
      assert.equal((await task.verify([0, 1, 2])).length, 3);
      assert.equal(task.have.count, 0);
      await storeAll(task, "a");
      assert.equal(task.complete, true);
    });

    test("a task of an unknown journal version is named and left alone, and moved aside when its place is needed", async (t) => {
      const path = temporaryDirectory(t);
      const first = await openStore(t, path);
      const record = recordOf("a", PIECE_LENGTH_BYTES);
      await storeAll(await first.store.open(record), "a");
      await first.store.close();
      const journalPath = join(taskDirectory(path, record.taskId), "journal");
      const journal = readFileSync(journalPath);
      journal.writeUInt32LE(99, 4);
      writeFileSync(journalPath, journal);
      // As the program of another version leaves it: that one has an index of its own.
      rmSync(join(path, "index"));

      const { store, logged } = await openStore(t, path);
      await store.surveyed;
      assert.deepEqual(store.list(), []);
      assert.match(logged.join(), /not used: .* has journal format 99, this program reads format 2/);
      assert.equal(await store.find(record.taskId), undefined);
      assert.deepEqual(readFileSync(journalPath), journal);
      const task = await store.open(record);
      assert.equal(task.have.count, 0);
      assert.equal(await storePiece(task, "a", 0), "stored");
      const aside = readdirSync(join(path, "aside"));
      assert.equal(aside.length, 1);
      assert.deepEqual(readFileSync(join(path, "aside", aside[0] as string, "journal")), journal);
    });

    test("a task whose journal's header is damaged is removed with a word", async (t) => {
      const path = temporaryDirectory(t);
      const first = await openStore(t, path);
      const record = recordOf("a", PIECE_LENGTH_BYTES);
      await storeAll(await first.store.open(record), "a");
      await first.store.close();
      const journalPath = join(taskDirectory(path, record.taskId), "journal");
      const journal = readFileSync(journalPath);
      journal[40] = (journal[40] as number) ^ 1;
      writeFileSync(journalPath, journal);
      rmSync(join(path, "index"));
      const { store, logged } = await openStore(t, path);
      await store.surveyed;
      assert.match(logged.join(), /the header of .* is damaged; the task's pieces are fetched again/);
      assert.equal(existsSync(journalPath), false);
      assert.equal((await store.open(record)).have.count, 0);
    });

    test("a read-only directory is refused with what to do", async (t) => {
      const isRoot = process.getuid?.() === 0;
      // Root writes wherever the file system lets it.
      const path = isRoot ? mountedDirectory(t, "ro,size=1m") : temporaryDirectory(t);
      if (path === undefined) return t.skip("mounting is not permitted");
      if (!isRoot) chmodSync(path, 0o555);
      await assert.rejects(openStore(t, path), (error: AppError) => {
        assert.equal(error.code, "DISK_FAILED");
        assert.match(error.message, /cannot create the directory .*(read-only|permission denied)/);
        return true;
      });
    });

    test("a path that is a file is refused with what to do", async (t) => {
      const path = join(temporaryDirectory(t), "file");
      writeFileSync(path, "");
      await assert.rejects(openStore(t, path), { code: "DISK_FAILED", message: /is a file, not a directory/ });
    });

    test("a full file system is DISK_FULL, and the store goes on once there is room", async (t) => {
      const path = mountedDirectory(t, `size=${8 * PIECE_LENGTH_BYTES}`);
      if (path === undefined) return t.skip("mounting is not permitted");
      // Says that there is room, so that the write itself finds out.
      const { store } = await openStore(t, path, {}, { disk: { ...systemDisk, freeBytes: () => Promise.resolve(Infinity) } });
      const task = await store.open(recordOf("a", 20 * PIECE_LENGTH_BYTES));
      const results = await Promise.allSettled(Array.from({ length: 20 }, (_, piece) => storePiece(task, "a", piece)));
      const failures = results.filter((result) => result.status === "rejected").map(({ reason }) => reason as AppError);
      assert.ok(failures.length >= 12);
      for (const { code, message } of failures) {
        assert.equal(code, "DISK_FULL");
        assert.match(message, /no space is left on the device/);
      }
      assert.equal(task.have.count, 20 - failures.length);
      assert.equal(store.usage().usedBytes, task.have.count * PIECE_LENGTH_BYTES);
      await task.discard("all");
      assert.equal(await storePiece(task, "a", 19), "stored");
      await store.close();
      const again = await openStore(t, path);
      assert.deepEqual([...((await again.store.find(taskId("a")))?.have ?? [])], [19]);
      await again.store.close();
    });

    test("the real free space of the file system is respected", async (t) => {
      const path = mountedDirectory(t, `size=${16 * PIECE_LENGTH_BYTES}`);
      if (path === undefined) return t.skip("mounting is not permitted");
      const { store } = await openStore(t, path, { reservedFreeBytes: 8 * PIECE_LENGTH_BYTES });
      const task = await store.open(recordOf("a", 20 * PIECE_LENGTH_BYTES));
      const results = await Promise.allSettled(Array.from({ length: 20 }, (_, piece) => storePiece(task, "a", piece)));
      assert.ok(results.some(({ status }) => status === "fulfilled"));
      for (const result of results) if (result.status === "rejected") assert.match((result.reason as Error).message, /are to stay free, and no cached task can go/);
      assert.ok(task.have.count <= 8);
      assert.ok(statSync(join(taskDirectory(path, taskId("a")), "data")).blocks * 512 <= 8 * PIECE_LENGTH_BYTES);
      await store.close();
    });
  });
}

/** A directory on a small file system of its own, for the test; undefined when mounting is not permitted. */
function mountedDirectory(t: TestContext, options: string): string | undefined {
  const path = mkdtempSync(join(tmpdir(), "piece-store-mount-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", options, "none", path], { stdio: "ignore" });
    // Lazy: the store may still be open when the test failed.
    t.after(() => execFileSync("umount", ["--lazy", path]));
    return path;
  } catch {
    return undefined;
  } finally {
    t.after(() => rmdirSync(path));
  }
}
