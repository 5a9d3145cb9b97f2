/** What a start takes from the index, and what is found out behind it. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import { Catalog } from "./catalog.ts";
import { DiskStore } from "./disk-store.ts";
import { type DiskFile, type FileFacts, type StoreDisk, systemDisk } from "./disk.ts";
import type { StoreEntry } from "./entry.ts";
import { openStore, PIECE_LENGTH_BYTES, recordOf, storeAll, storePiece, taskDirectory, taskId, temporaryDirectory } from "./fixture.test.ts";
import { decodeIndex, INDEX_OPEN } from "./index-format.ts";
import { MemoryDisk } from "./memory-disk.test.ts";

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
    facts: (path) => {
      looked.push(path);
      return systemDisk.facts(path);
    },
  };
  return { disk, opened, looked };
}

describe("the index", () => {
  test("after an orderly end no journal is opened or looked at", async (t) => {
    const directory = await makeStore(t);
    const { disk, opened, looked } = watchedDisk();
    const { store } = await openStore(t, directory, {}, { disk });
    assert.equal(store.usage().usedBytes, 10 * PIECE_LENGTH_BYTES);
    assert.deepEqual(new Set(store.list().map((task) => task.displayUrl)), new Set(NAMES.map((name) => `https://origin.test/${name}`)));
    await store.surveyed;
    assert.deepEqual([opened, looked], [[], []]);
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
    await again.store.surveyed;
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
    for (let at = 0; at < whole.length; at += 23) {
      const damaged = Buffer.from(whole);
      damaged[at] = (damaged[at] as number) ^ 0x10;
      variants.push(damaged);
    }
    for (const [at, variant] of variants.entries()) {
      if (variant === undefined) rmSync(path);
      else writeFileSync(path, variant);
      const { store } = await openStore(t, directory);
      await store.surveyed;
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
    await again.store.surveyed;
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
      await store.surveyed;
      assert.equal(store.list().length, 4);
      for (let use = 0; use < 40; use++) for (const name of ["a", "b"]) (await store.find(taskId(name)))?.release();
      await store.close();
    }
    const { frameCount } = decodeIndex(readFileSync(join(directory, "index")));
    assert.ok(frameCount < 1_100, `${frameCount} frames for four tasks`);
    assert.equal(existsSync(join(directory, "index.new")), false);
  });

  test("has nothing of a task that was removed", async (t) => {
    const directory = await makeStore(t);
    const { store } = await openStore(t, directory);
    assert.equal(await store.remove(taskId("b")), true);
    await store.close();
    const { entries, isClean } = decodeIndex(readFileSync(join(directory, "index")));
    assert.deepEqual([isClean, entries.size, entries.has(taskId("b"))], [true, 4, false]);
  });

  test("vouches for nothing when the store is closed before all is found, or with a journal that cannot be looked at", async (t) => {
    const directory = await makeStore(t);
    rmSync(join(directory, "index"));
    const { disk, release } = heldBackDisk();
    const first = await openStore(t, directory, {}, { disk });
    const closed = first.store.close();
    release();
    await closed;
    assert.equal(decodeIndex(readFileSync(join(directory, "index"))).isClean, false);

    const open: StoreDisk["open"] = async (path, mode) => {
      const file = await systemDisk.open(path, mode);
      if (!path.endsWith("/journal") || mode !== "edit") return file;
      let isRead = false;
      const facts = async (): Promise<FileFacts> => {
        if (isRead) throw new Error("EIO");
        isRead = true;
        return await file.facts();
      };
      return new Proxy(file, {
        get: (target, key) => {
          const value: unknown = key === "facts" ? facts : Reflect.get(target, key, target);
          return typeof value === "function" ? (value.bind(target) as unknown) : value;
        },
      });
    };
    const second = await openStore(t, directory, {}, { disk: { ...systemDisk, open } });
    await second.store.surveyed;
    await storePiece(await second.store.open(recordOf("a", undefined)), "a", 1);
    await second.store.close();
    assert.equal(decodeIndex(readFileSync(join(directory, "index"))).isClean, false);
  });

  test("whose run has ended as it should is believed no longer once another has begun, and what is behind a damaged frame does not come back", async (t) => {
    const directory = await makeStore(t);
    const cleanBytes = readFileSync(join(directory, "index")).length;
    const { store } = await openStore(t, directory);
    const task = await store.open(recordOf("b", undefined));
    await storePiece(task, "b", 1);
    assert.equal(await store.remove(taskId("c")), true);
    // As a kill leaves it, and a device that damages the first frame of the run.
    const copy = join(temporaryDirectory(t), "copy");
    execFileSync("cp", ["-a", directory, copy]);
    const path = join(copy, "index");
    const bytes = readFileSync(path);
    assert.ok(bytes.length > cleanBytes + INDEX_OPEN.length);
    bytes[cleanBytes + 8] = (bytes[cleanBytes + 8] as number) ^ 0x10;
    writeFileSync(path, bytes);
    const again = await openStore(t, copy);
    assert.equal(readFileSync(path).length, cleanBytes + INDEX_OPEN.length);
    await again.store.surveyed;
    assert.equal(again.store.usage().usedBytes, 9 * PIECE_LENGTH_BYTES);
  });

  test("says on the device that a run has begun, before anything happens in it", async (t) => {
    const directory = temporaryDirectory(t);
    const disk = new MemoryDisk(directory);
    const first = new Catalog(directory, disk);
    await first.restore(() => undefined);
    await first.close(true);
    await new Catalog(directory, disk).restore(() => undefined);
    const index = await disk.afterPowerCut(disk.log.length, "none").open(join(directory, "index"), "read");
    const bytes = Buffer.alloc((await index.facts()).lengthBytes);
    await index.read(bytes, 0);
    assert.deepEqual([decodeIndex(bytes).frameCount > 0, decodeIndex(bytes).isClean], [true, false]);
  });

  test("on a disk that is full for a moment misses what could not be noted, and nothing after it; it vouches for nothing", async (t) => {
    const directory = temporaryDirectory(t);
    const memory = new MemoryDisk(directory);
    let isFull = false;
    const open: StoreDisk["open"] = async (path, mode) => {
      const file = await memory.open(path, mode);
      const writeSync: DiskFile["writeSync"] = (bytes, offsetByte) => {
        if (isFull) throw Object.assign(new Error("ENOSPC"), { code: "ENOSPC" });
        file.writeSync(bytes, offsetByte);
      };
      return { ...file, writeSync };
    };
    const disk = Object.assign(Object.create(memory) as MemoryDisk, { open, rename: memory.rename.bind(memory), syncDirectory: memory.syncDirectory.bind(memory) });
    const catalog = new Catalog(directory, disk);
    await catalog.restore(() => undefined);
    for (const name of ["a", "b", "c"]) {
      isFull = name === "b";
      const entry = catalog.add(recordOf(name, PIECE_LENGTH_BYTES), 0);
      Object.assign(entry, { isOnDisk: true, journal: { lengthBytes: 100, modifiedUnixMs: 0 } });
      catalog.note(entry);
    }
    await catalog.close(true);
    const index = await memory.open(join(directory, "index"), "read");
    const bytes = Buffer.alloc((await index.facts()).lengthBytes);
    await index.read(bytes, 0);
    const { entries, isClean } = decodeIndex(bytes);
    assert.deepEqual([[...entries.keys()], isClean], [[taskId("a"), taskId("c")], false]);
  });

  test("is written anew also while a task is on its way out", async (t) => {
    const directory = temporaryDirectory(t);
    const memory = new MemoryDisk(directory);
    let onRename = (): void => undefined;
    const disk = Object.assign(Object.create(memory) as MemoryDisk, {
      open: memory.open.bind(memory),
      syncDirectory: memory.syncDirectory.bind(memory),
      rename: async (from: string, to: string) => {
        onRename();
        await memory.rename(from, to);
      },
    });
    const catalog = new Catalog(directory, disk);
    await catalog.restore(() => undefined);
    const [leaving, staying, going] = ["a", "b", "c"].map((name) => {
      const entry = catalog.add(recordOf(name, PIECE_LENGTH_BYTES), 0);
      Object.assign(entry, { isOnDisk: true, journal: { lengthBytes: 100, modifiedUnixMs: 0 } });
      return entry;
    }) as [StoreEntry, StoreEntry, StoreEntry];
    const victim = catalog.takeVictim();
    assert.equal(victim, leaving);
    leaving.removing = Promise.resolve();
    // What is noted after its line was written, and before the new file is in its place.
    onRename = () => catalog.delete(going);
    for (let note = 0; note < 1_100; note++) catalog.note(staying);
    await catalog.close(true);
    const index = await disk.open(join(directory, "index"), "read");
    const bytes = Buffer.alloc((await index.facts()).lengthBytes);
    await index.read(bytes, 0);
    const { entries, frameCount } = decodeIndex(bytes);
    assert.deepEqual([...entries.keys()], [staying.summary.taskId]);
    assert.ok(frameCount < 200, `${frameCount} frames for one task`);
  });

  test("until all is found, a task that it does not know is found when it is wanted", async (t) => {
    const directory = await makeStore(t);
    rmSync(join(directory, "index"));
    const { disk, release } = heldBackDisk();
    // Room for something new is where a and e are.
    const freeBytes = (): Promise<number> => Promise.resolve(["a", "e"].some((name) => existsSync(taskDirectory(directory, taskId(name)))) ? 0 : 1e9);
    const { store } = await openStore(t, directory, {}, { disk: { ...disk, freeBytes } });
    assert.deepEqual(store.list(), []);
    assert.equal(await store.has(taskId("b")), true);
    assert.equal(await store.has(taskId("nobody's")), false);
    const [found, again] = await Promise.all([store.find(taskId("b")), store.open(recordOf("b", undefined))]);
    assert.equal(found, again);
    assert.deepEqual([...again.have], [0, 2]);
    assert.equal(await store.remove(taskId("c")), true);
    assert.equal(existsSync(taskDirectory(directory, taskId("c"))), false);
    assert.equal(await store.pin(taskId("d"), true), true);
    // Room is asked for that only those not found yet can give: all are found first.
    const stored = storeAll(await store.open(recordOf("new", PIECE_LENGTH_BYTES)), "new");
    release();
    await stored;
    await store.surveyed;
    const left = store.list().map((task) => task.displayUrl.split("/").at(-1));
    assert.deepEqual(new Set(left), new Set(["b", "d", "new"]));
    assert.equal(store.usage().usedBytes, 5 * PIECE_LENGTH_BYTES);
  });

  test("makes a start cost the disk the same, however many tasks there are", async (t) => {
    const counts: number[] = [];
    for (const count of [10, 400]) {
      const directory = temporaryDirectory(t);
      const disk = new MemoryDisk(directory);
      const config = { directory, quotaBytes: undefined, reservedFreeBytes: 0, workerCount: 1, scrubBytesPerSecond: 0 };
      const before = await DiskStore.open(config, { disk, runner: disk.runner() });
      for (let at = 0; at < count; at++) (await before.open(recordOf(`file ${at}`, PIECE_LENGTH_BYTES))).release();
      await before.close();
      let operations = 0;
      const counting = new Proxy(disk, {
        get: (target, name) => {
          const value: unknown = Reflect.get(target, name, target);
          if (typeof value === "function") operations++;
          return typeof value === "function" ? (value.bind(target) as unknown) : value;
        },
      });
      const store = await DiskStore.open(config, { disk: counting, runner: disk.runner() });
      counts.push(operations);
      assert.equal(store.list().length, count);
      await store.close();
    }
    assert.equal(counts[1], counts[0], "a start asks as much of the disk for 400 tasks as for ten");
    assert.ok((counts[0] as number) < 20, `${counts[0]} operations`);
  });
});

/** The system's, whose directories of tasks cannot be read before `release`. */
function heldBackDisk(): { readonly disk: StoreDisk; readonly release: () => void } {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const list: StoreDisk["list"] = async (path) => {
    if (path.includes("/tasks")) await promise;
    return await systemDisk.list(path);
  };
  return { disk: { ...systemDisk, list }, release: () => resolve(undefined) };
}
