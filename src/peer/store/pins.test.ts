/** A pin, and what happens while it is being written. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type StoreDisk, systemDisk } from "./disk.ts";
import { openStore, PIECE_LENGTH_BYTES, recordOf, storeAll, storePiece, taskId, temporaryDirectory } from "./fixture.test.ts";

test("a task whose pin is being written makes no room", async (t) => {
  const directory = temporaryDirectory(t);
  const writing = Promise.withResolvers<void>();
  const go = Promise.withResolvers<void>();
  const disk: StoreDisk = {
    ...systemDisk,
    open: async (path, mode) => {
      if (path.endsWith("/pins.new")) {
        writing.resolve();
        await go.promise;
      }
      return await systemDisk.open(path, mode);
    },
  };
  const { store } = await openStore(t, directory, { quotaBytes: 2 * PIECE_LENGTH_BYTES }, { disk });
  for (const name of ["a", "b"]) {
    const task = await store.open(recordOf(name, PIECE_LENGTH_BYTES));
    await storeAll(task, name);
    task.release();
  }
  const pinned = store.pin(taskId("a"), true);
  await writing.promise;
  const next = await store.open(recordOf("c", PIECE_LENGTH_BYTES));
  assert.equal(await storePiece(next, "c", 0), "stored");
  go.resolve();
  assert.equal(await pinned, true);
  assert.deepEqual(new Set(store.list().map((task) => task.taskId)), new Set([taskId("a"), taskId("c")]));
  assert.equal(readFileSync(join(directory, "pins"), "utf8"), `${taskId("a")}\n`);
});

test("a pin that could not be written is none, and the next one is written all the same", async (t) => {
  const directory = temporaryDirectory(t);
  let isFailing = false;
  const disk: StoreDisk = {
    ...systemDisk,
    rename: async (from, to) => {
      if (isFailing && to.endsWith("/pins")) throw Object.assign(new Error("EIO: i/o error"), { code: "EIO" });
      await systemDisk.rename(from, to);
    },
  };
  const { store } = await openStore(t, directory, {}, { disk });
  for (const name of ["a", "b"]) (await store.open(recordOf(name, PIECE_LENGTH_BYTES))).release();
  const pinned = (): readonly string[] => store.list().filter(({ isPinned }) => isPinned).map((task) => task.taskId);
  isFailing = true;
  await assert.rejects(store.pin(taskId("a"), true), { code: "DISK_FAILED" });
  assert.deepEqual(pinned(), []);
  isFailing = false;
  assert.deepEqual(await Promise.all([store.pin(taskId("a"), true), store.pin(taskId("b"), true)]), [true, true]);
  assert.deepEqual(new Set(pinned()), new Set([taskId("a"), taskId("b")]));
  assert.deepEqual(new Set(readFileSync(join(directory, "pins"), "utf8").trim().split("\n")), new Set([taskId("a"), taskId("b")]), "two at once are both written");
});
