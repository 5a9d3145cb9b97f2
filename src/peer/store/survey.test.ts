import assert from "node:assert/strict";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openStore, PIECE_LENGTH_BYTES, recordOf, storeAll, temporaryDirectory } from "./fixture.test.ts";
import { systemDisk, type StoreDisk } from "./disk.ts";

test("one folder that cannot be listed does not hide what is in the others, nor keep it from going", async (t) => {
  const directory = temporaryDirectory(t);
  const first = await openStore(t, directory);
  for (const name of ["a", "b", "c", "d"]) {
    const task = await first.store.open(recordOf(name, PIECE_LENGTH_BYTES));
    await storeAll(task, name);
    task.release();
  }
  await first.store.close();
  rmSync(join(directory, "index"));
  const bad = join(directory, "tasks", "00");
  mkdirSync(bad, { recursive: true });
  const disk: StoreDisk = {
    ...systemDisk,
    list: async (path) => {
      if (path === bad) throw Object.assign(new Error("EIO"), { code: "EIO" });
      return await systemDisk.list(path);
    },
  };
  const { store } = await openStore(t, directory, { quotaBytes: 4 * PIECE_LENGTH_BYTES }, { disk });
  await store.surveyed;
  assert.equal(store.list().length, 4);
  assert.equal(store.usage().usedBytes, 4 * PIECE_LENGTH_BYTES);
});
