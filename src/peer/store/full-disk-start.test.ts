import assert from "node:assert/strict";
import { test } from "node:test";
import { type StoreDisk, systemDisk } from "./disk.ts";
import { openStore, PIECE_LENGTH_BYTES, recordOf, storeAll, taskId, temporaryDirectory } from "./fixture.test.ts";

/** A device without a block left: what is there can be read, moved and removed; nothing can be written until something goes. */
function fullDisk(state: { isFull: boolean }): StoreDisk {
  const enospc = (): never => {
    throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
  };
  return {
    ...systemDisk,
    freeBytes: (path) => (state.isFull ? Promise.resolve(0) : systemDisk.freeBytes(path)),
    remove: async (path) => {
      await systemDisk.remove(path);
      if (/trash\/[0-9a-f]{64}/.test(path)) state.isFull = false;
    },
    open: async (path, mode) => {
      const file = await systemDisk.open(path, mode);
      return new Proxy(file, {
        get: (target, key) => {
          if (state.isFull && key === "writeSync") return enospc;
          const value: unknown = Reflect.get(target, key, target);
          return typeof value === "function" ? (value as (...args: unknown[]) => unknown).bind(target) : value;
        },
      });
    },
  };
}

test("a store on a full disk starts: what it holds is served, and goes when room is needed", async (t) => {
  const directory = temporaryDirectory(t);
  const first = await openStore(t, directory);
  const old = await first.store.open(recordOf("old", 2 * PIECE_LENGTH_BYTES));
  await storeAll(old, "old");
  old.release();
  await first.store.close();

  const state = { isFull: true };
  const { store } = await openStore(t, directory, { reservedFreeBytes: 1 }, { disk: fullDisk(state) });
  assert.equal(await store.has(taskId("old")), true);
  const task = await store.open(recordOf("new", PIECE_LENGTH_BYTES));
  await storeAll(task, "new");
  assert.equal(await store.has(taskId("old")), false);
  task.release();
  await store.close();

  // What the index could not be told is found in the journals.
  const third = await openStore(t, directory);
  await third.store.surveyed;
  assert.deepEqual(third.store.list().map(({ taskId: id, heldBytes }) => [id, heldBytes]), [[taskId("new"), PIECE_LENGTH_BYTES]]);
});
