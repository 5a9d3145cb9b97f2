/** What a start takes from the index, and what it does not. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import { type StoreDisk, systemDisk } from "./disk.ts";
import { openStore, PIECE_LENGTH_BYTES, recordOf, storeAll, storePiece, taskDirectory, taskId, temporaryDirectory } from "./fixture.test.ts";

const NAMES = ["a", "b", "c", "d", "e"];

/** A closed store of five tasks of two pieces each. */
async function makeStore(t: TestContext): Promise<string> {
  const directory = temporaryDirectory(t);
  const { store } = await openStore(t, directory);
  for (const name of NAMES) {
    const task = await store.open(recordOf(name, 3 * PIECE_LENGTH_BYTES));
    await storePiece(task, name, 0);
    await storePiece(task, name, 2);
    task.release();
  }
  await store.close();
  return directory;
}

/** The system's, with a list of the journals it opened or looked at. */
function watchedDisk(): { readonly disk: StoreDisk; readonly opened: string[]; readonly looked: string[] } {
  const opened: string[] = [];
  const looked: string[] = [];
  const disk: StoreDisk = {
    ...systemDisk,
    open: (path, mode) => {
      if (path.endsWith("/journal")) opened.push(path);
      return systemDisk.open(path, mode);
    },
    factsSync: (path) => {
      looked.push(path);
      return systemDisk.factsSync(path);
    },
  };
  return { disk, opened, looked };
}

describe("the index", () => {
  test("after an orderly end a start opens and looks at no journal", async (t) => {
    const directory = await makeStore(t);
    const { disk, opened, looked } = watchedDisk();
    const { store } = await openStore(t, directory, {}, { disk });
    assert.deepEqual([opened, looked], [[], []]);
    assert.equal(store.usage().usedBytes, 10 * PIECE_LENGTH_BYTES);
    assert.deepEqual(new Set(store.list().map((task) => task.displayUrl)), new Set(NAMES.map((name) => `https://origin.test/${name}`)));
  });

  test("after a kill each journal is looked at, and those that changed are read", async (t) => {
    const directory = await makeStore(t);
    const { store } = await openStore(t, directory);
    const task = await store.open(recordOf("b", undefined));
    await storePiece(task, "b", 1);
    const added = await store.open(recordOf("new", PIECE_LENGTH_BYTES));
    await storeAll(added, "new");
    // As a kill leaves it.
    const copy = join(temporaryDirectory(t), "copy");
    execFileSync("cp", ["-a", directory, copy]);
    const { disk, opened, looked } = watchedDisk();
    const again = await openStore(t, copy, {}, { disk });
    assert.equal(looked.length, 5);
    assert.deepEqual(new Set(opened), new Set(["b", "new"].map((name) => join(taskDirectory(copy, taskId(name)), "journal"))));
    assert.equal(again.store.usage().usedBytes, 12 * PIECE_LENGTH_BYTES);
    assert.deepEqual([...((await again.store.find(taskId("b")))?.have ?? [])], [0, 1, 2]);
  });

  test("that is gone, of another version, or damaged at any byte changes nothing but the time a start takes", async (t) => {
    const directory = await makeStore(t);
    const path = join(directory, "index");
    const whole = readFileSync(path);
    const variants: (Buffer | undefined)[] = [undefined, Buffer.alloc(0), Buffer.from("something else\n"), whole.subarray(0, whole.length - 3)];
    for (let at = 0; at < whole.length; at += 41) {
      const damaged = Buffer.from(whole);
      damaged[at] = (damaged[at] as number) ^ 0x10;
      variants.push(damaged);
    }
    for (const [at, variant] of variants.entries()) {
      if (variant === undefined) rmSync(path);
      else writeFileSync(path, variant);
      const { store } = await openStore(t, directory);
      assert.equal(store.list().length, 5, `variant ${at}`);
      assert.equal(store.usage().usedBytes, 10 * PIECE_LENGTH_BYTES, `variant ${at}`);
      await store.close();
    }
  });

  test("that is older than the journals (a backup, put back) decides nothing about pieces", async (t) => {
    const directory = await makeStore(t);
    const old = readFileSync(join(directory, "index"));
    const { store } = await openStore(t, directory);
    await (await store.open(recordOf("a", undefined))).discard("all");
    await storePiece(await store.open(recordOf("b", undefined)), "b", 1);
    assert.equal(await store.remove(taskId("c")), true);
    await storeAll(await store.open(recordOf("new", PIECE_LENGTH_BYTES)), "new");
    await store.close();
    writeFileSync(join(directory, "index"), old);

    const again = await openStore(t, directory);
    const names = new Set(again.store.list().map((task) => task.displayUrl.split("/").at(-1)));
    assert.deepEqual(names, new Set(["a", "b", "d", "e", "new"]), "which tasks there are, the directories say");
    assert.deepEqual([...((await again.store.find(taskId("a")))?.have ?? [])], []);
    assert.deepEqual([...((await again.store.find(taskId("b")))?.have ?? [])], [0, 1, 2]);
    assert.equal(again.store.usage().usedBytes, (3 + 2 + 2 + 1) * PIECE_LENGTH_BYTES, "and the account is right once they were opened");
  });

  test("does not grow for ever, and a task that other hands removed is gone", async (t) => {
    const directory = await makeStore(t);
    rmSync(taskDirectory(directory, taskId("e")), { recursive: true });
    let clockMs = Date.now();
    for (let round = 0; round < 30; round++) {
      const { store } = await openStore(t, directory, {}, { nowMs: () => (clockMs += 70_000) });
      assert.equal(store.list().length, 4);
      for (let use = 0; use < 20; use++) for (const name of ["a", "b"]) (await store.find(taskId(name)))?.release();
      await store.close();
    }
    const lines = readFileSync(join(directory, "index"), "utf8").split("\n").length;
    assert.ok(lines < 1_100 + 50, `${lines} lines for four tasks`);
    assert.equal(existsSync(join(directory, "index.new")), false);
  });
});
