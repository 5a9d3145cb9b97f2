/** A device that reports input/output errors: what may still be believed of what lies on it. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type DiskFile, type StoreDisk, systemDisk } from "./disk.ts";
import { assertSameBytes, openStore, PIECE_LENGTH_BYTES, pieceBytes, recordOf, storeAll, taskDirectory, taskId, temporaryDirectory } from "./fixture.test.ts";

type Fault = "read" | "sync";

/** The system's disk, whose data files fail as told. */
function sickDisk(faults: ReadonlySet<Fault>): StoreDisk {
  return new Proxy(systemDisk, {
    get: (disk, name) => {
      if (name !== "open") return (Reflect.get(disk, name) as (...args: unknown[]) => unknown).bind(disk);
      return async (...[path, mode]: Parameters<StoreDisk["open"]>): Promise<DiskFile> => {
        const file = await disk.open(path, mode);
        if (!path.endsWith("/data")) return file;
        return new Proxy(file, {
          get: (target, key) => {
            const value: unknown = Reflect.get(target, key, target);
            if (typeof value !== "function") return value;
            if (faults.has(key as Fault)) return () => Promise.reject(Object.assign(new Error("EIO: i/o error"), { code: "EIO" }));
            return (value as (...args: unknown[]) => unknown).bind(target);
          },
        });
      };
    },
  });
}

test("a piece that the device cannot give back is dropped and told of, the others stay", async (t) => {
  const faults = new Set<Fault>();
  const { store } = await openStore(t, temporaryDirectory(t), {}, { disk: sickDisk(faults) });
  const task = await store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES));
  await storeAll(task, "a");
  const lost: number[] = [];
  task.onLost((pieces) => lost.push(...pieces));
  faults.add("read");
  await assert.rejects(task.read(PIECE_LENGTH_BYTES, new Uint8Array(1)), { code: "CACHE_CORRUPT" });
  faults.delete("read");
  assert.deepEqual([[...task.have], lost], [[0, 2], [1]]);
});

test("after a failed flush nothing more is stored, and what is there is looked at each time it is wanted", async (t) => {
  const directory = temporaryDirectory(t);
  const faults = new Set<Fault>();
  const { store } = await openStore(t, directory, {}, { disk: sickDisk(faults) });
  const task = await store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES));
  await storeAll(task, "a");
  assert.equal(task.isVerified(1), true);
  faults.add("sync");
  await assert.rejects(task.discard([0]), { code: "DISK_FAILED" });
  faults.clear();
  await assert.rejects(storeAll(task, "a"), { code: "DISK_FAILED" });
  const bytes = new Uint8Array(PIECE_LENGTH_BYTES);
  await task.read(PIECE_LENGTH_BYTES, bytes);
  assertSameBytes(bytes, pieceBytes("a", 1));
  assert.equal(task.isVerified(1), false);
  // The system forgot what it had accepted.
  const path = join(taskDirectory(directory, taskId("a")), "data");
  const data = readFileSync(path);
  data.fill(0, PIECE_LENGTH_BYTES, 2 * PIECE_LENGTH_BYTES);
  writeFileSync(path, data);
  await assert.rejects(task.read(PIECE_LENGTH_BYTES, bytes), { code: "CACHE_CORRUPT" });
  assert.deepEqual([...task.have], [2]);
});

test("nor is it believed once the task's files have been closed and opened again", async (t) => {
  const directory = temporaryDirectory(t);
  const faults = new Set<Fault>();
  const { store } = await openStore(t, directory, {}, { disk: sickDisk(faults) });
  const task = await store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES));
  await storeAll(task, "a");
  faults.add("sync");
  await assert.rejects(task.discard([0]), { code: "DISK_FAILED" });
  faults.clear();
  task.release();
  // More than are kept open without a user.
  for (let other = 0; other < 40; other++) (await store.open(recordOf(`other ${other}`, PIECE_LENGTH_BYTES))).release();
  // The system forgot what it had accepted.
  const path = join(taskDirectory(directory, taskId("a")), "data");
  writeFileSync(path, readFileSync(path).fill(0, PIECE_LENGTH_BYTES, 2 * PIECE_LENGTH_BYTES));
  const again = await store.find(taskId("a"));
  t.after(() => again?.release());
  assert.notEqual(again, task);
  await assert.rejects(again?.read(PIECE_LENGTH_BYTES, new Uint8Array(PIECE_LENGTH_BYTES)) ?? Promise.resolve(), { code: "CACHE_CORRUPT" });
});
