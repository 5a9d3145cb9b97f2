/** Two things at once at an open task: what is held, read and closed is right whichever comes first. */
import assert from "node:assert/strict";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { describe, test, type TestContext } from "node:test";
import { type DiskFile, type StoreDisk, systemDisk } from "./disk.ts";
import { assertSameBytes, openStore, PIECE_LENGTH_BYTES, pieceBytes, proofOf, recordOf, storeAll, storePiece, taskDirectory, taskId, temporaryDirectory } from "./fixture.test.ts";
import { StorePool, type StoreRunner } from "./pool.ts";
import type { StoreJobKind } from "./worker.ts";

/** The system's disk, with some calls on files of this name replaced. */
function diskWith(name: "data" | "journal", replaced: (file: DiskFile) => Partial<DiskFile>): StoreDisk {
  const open: StoreDisk["open"] = async (path, mode) => {
    const file = await systemDisk.open(path, mode);
    if (!path.endsWith(`/${name}`) && !path.endsWith(`/${name}.new`)) return file;
    const own = replaced(file);
    return new Proxy(file, {
      get: (target, key) => {
        const value: unknown = Reflect.get(own, key) ?? Reflect.get(target, key, target);
        return typeof value === "function" ? (value.bind(target) as unknown) : value;
      },
    });
  };
  return { ...systemDisk, open };
}

/** The store's threads, whose next job of one kind is answered by the test. */
class HeldRunner implements StoreRunner {
  readonly isBusy = false;
  readonly #pool = new StorePool(1);
  #next: { readonly kind: StoreJobKind; readonly begun: () => void; readonly answer: Promise<unknown> } | undefined;
  readonly kinds: StoreJobKind[] = [];

  readonly run: StoreRunner["run"] = async (kind, input, path) => {
    this.kinds.push(kind);
    const next = this.#next;
    if (next?.kind !== kind) return await this.#pool.run(kind, input, path);
    this.#next = undefined;
    next.begun();
    const answer = await next.answer;
    return answer === undefined ? await this.#pool.run(kind, input, path) : (answer as never);
  };

  /** @returns `begun` when it is there; `answer` with undefined: as the threads answer it */
  hold(kind: StoreJobKind): { readonly begun: Promise<void>; readonly answer: (output: unknown) => void; readonly fail: (error: Error) => void } {
    const begun = Promise.withResolvers<void>();
    const answer = Promise.withResolvers<unknown>();
    this.#next = { kind, begun: begun.resolve, answer: answer.promise };
    return { begun: begun.promise, answer: answer.resolve, fail: answer.reject };
  }

  async close(): Promise<void> {
    await this.#pool.close();
  }
}

/** The directory of a store that was closed with a task "a" of three pieces in it, all of which are to be verified at their first use. */
async function directoryWithTask(t: TestContext): Promise<string> {
  const directory = temporaryDirectory(t);
  const { store } = await openStore(t, directory);
  await storeAll(await store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES)), "a");
  await store.close();
  return directory;
}

function damage(directory: string, piece: number): void {
  const path = join(taskDirectory(directory, taskId("a")), "data");
  writeFileSync(path, readFileSync(path).fill(0, piece * PIECE_LENGTH_BYTES, (piece + 1) * PIECE_LENGTH_BYTES));
}

describe("an open task", () => {
  test("a read whose piece is thrown away while it is being verified gets nothing of it", async (t) => {
    const runner = new HeldRunner();
    const { store } = await openStore(t, await directoryWithTask(t), {}, { runner });
    const task = await store.open(recordOf("a", undefined));
    const check = runner.hold("verifyOnDisk");
    const reading = assert.rejects(task.read(0, new Uint8Array(10)), { code: "PIECE_UNKNOWN" });
    await check.begun;
    await task.discard([0]);
    check.answer([]);
    await reading;
  });

  test("a read whose piece is thrown away while it is being read gets nothing of it", async (t) => {
    let onRead = (): Promise<void> => Promise.resolve();
    const disk = diskWith("data", (file) => ({
      read: async (into, offsetByte) => {
        const count = await file.read(into, offsetByte);
        await onRead();
        return count;
      },
    }));
    const { store } = await openStore(t, temporaryDirectory(t), {}, { disk });
    const task = await store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES));
    await storeAll(task, "a");
    onRead = async () => await task.discard([0]);
    await assert.rejects(task.read(0, new Uint8Array(10)), { code: "PIECE_UNKNOWN" });
  });

  test("who waits for another's verification looks himself when that has failed", async (t) => {
    const directory = await directoryWithTask(t);
    damage(directory, 0);
    const runner = new HeldRunner();
    const { store } = await openStore(t, directory, {}, { runner });
    const task = await store.open(recordOf("a", undefined));
    const check = runner.hold("verifyOnDisk");
    const first = assert.rejects(task.read(0, new Uint8Array(10)), /the thread doing it ended/);
    await check.begun;
    const second = assert.rejects(task.read(0, new Uint8Array(10)), { code: "CACHE_CORRUPT" });
    check.fail(new Error("the thread doing it ended"));
    await Promise.all([first, second]);
    assert.deepEqual([...task.have], [1, 2]);
  });

  test("two who want a piece at once have it verified once, and both wait for that", async (t) => {
    const runner = new HeldRunner();
    const { store } = await openStore(t, await directoryWithTask(t), {}, { runner });
    const task = await store.open(recordOf("a", undefined));
    const [one, other] = [new Uint8Array(PIECE_LENGTH_BYTES), new Uint8Array(PIECE_LENGTH_BYTES)];
    await Promise.all([task.read(0, one), task.read(0, other)]);
    for (const bytes of [one, other]) assertSameBytes(bytes, pieceBytes("a", 0));
    assert.deepEqual(runner.kinds, ["verifyOnDisk"]);
  });

  test("a verification of a piece that was stored anew meanwhile says nothing about it", async (t) => {
    const runner = new HeldRunner();
    const { store } = await openStore(t, await directoryWithTask(t), {}, { runner });
    const task = await store.open(recordOf("a", undefined));
    const check = runner.hold("verifyOnDisk");
    const verified = task.verify([0]);
    await check.begun;
    await task.discard([0]);
    assert.equal(await storePiece(task, "a", 0), "stored");
    check.answer([0]);
    assert.deepEqual(await verified, []);
    assert.deepEqual([...task.have], [0, 1, 2]);
  });

  test("a piece found damaged is forgotten for good", async (t) => {
    const directory = await directoryWithTask(t);
    damage(directory, 1);
    const first = await openStore(t, directory);
    assert.deepEqual(await first.store.verify(taskId("a")), { checkedPieces: 3, damagedPieces: 1 });
    await first.store.close();
    const { store } = await openStore(t, directory);
    assert.deepEqual([...((await store.find(taskId("a")))?.have ?? [])], [0, 2]);
    assert.equal(store.usage().usedBytes, 2 * PIECE_LENGTH_BYTES);
  });

  test("a piece that could not be journaled is not held, and takes no room", async (t) => {
    let isFull = false;
    const disk = diskWith("journal", (file) => ({
      writeSync: (bytes, offsetByte) => {
        if (isFull) throw Object.assign(new Error("ENOSPC"), { code: "ENOSPC" });
        file.writeSync(bytes, offsetByte);
      },
    }));
    const directory = temporaryDirectory(t);
    const { store } = await openStore(t, directory, {}, { disk });
    const task = await store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES));
    isFull = true;
    await assert.rejects(storePiece(task, "a", 0), { code: "DISK_FULL" });
    assert.deepEqual([[...task.have], task.proofOf(0), task.isVerified(0), store.usage().usedBytes], [[], undefined, false, 0]);
    isFull = false;
    assert.equal(await storePiece(task, "a", 1), "stored");
    await store.close();
    const again = await openStore(t, directory);
    assert.deepEqual([...((await again.store.find(taskId("a")))?.have ?? [])], [1]);
  });

  test("a piece that is being journaled when its file turns out to be shorter is not held", async (t) => {
    let onAppend = (): void => undefined;
    const disk = diskWith("journal", (file) => ({
      writeSync: (bytes, offsetByte) => {
        file.writeSync(bytes, offsetByte);
        onAppend();
      },
    }));
    const directory = temporaryDirectory(t);
    const { store } = await openStore(t, directory, {}, { disk });
    const task = await store.open(recordOf("a", undefined));
    await storePiece(task, "a", 0);
    let known: Promise<void> | undefined;
    onAppend = () => {
      onAppend = () => undefined;
      known = task.setLength(PIECE_LENGTH_BYTES, new Uint8Array(64));
    };
    assert.equal(await storePiece(task, "a", 1), "mismatch");
    await known;
    assert.deepEqual([[...task.have], task.complete, store.usage().usedBytes], [[0], true, PIECE_LENGTH_BYTES]);
  });

  test("a file that turns out to be shorter is so on disk, for those who read it there", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", undefined));
    await storePiece(task, "a", 0);
    await storePiece(task, "a", 1);
    await task.setLength(PIECE_LENGTH_BYTES + 10, new Uint8Array(64));
    assert.equal(statSync(task.dataPath ?? "").size, PIECE_LENGTH_BYTES + 10);
  });

  test("a piece longer than a piece touches nothing of its neighbour, whoever has signed it", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES));
    await storePiece(task, "a", 1);
    const long = pieceBytes("long", 0, 2 * PIECE_LENGTH_BYTES);
    assert.equal(await task.storeVerified(0, long, proofOf(task, 0, long)), "mismatch");
    const bytes = new Uint8Array(PIECE_LENGTH_BYTES);
    await task.read(PIECE_LENGTH_BYTES, bytes);
    assertSameBytes(bytes, pieceBytes("a", 1));
  });

  test("what is kept of a proof is the store's own: the sender's buffer comes round again", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES));
    const bytes = pieceBytes("a", 0);
    const { digest, signature } = proofOf(task, 0, bytes);
    const came = { digest: digest.slice(), signature: signature.slice() };
    await task.storeVerified(0, bytes, came);
    came.digest.fill(0);
    came.signature.fill(0);
    assert.deepEqual(task.proofOf(0), { lengthBytes: PIECE_LENGTH_BYTES, digest, signature });
  });

  test("the data file stays open until what is being written is, though the task was let go of and others took its place", async (t) => {
    let isDataClosed = false;
    const disk = diskWith("data", (file) => ({ close: () => ((isDataClosed = true), file.close()) }));
    const runner = new HeldRunner();
    const { store } = await openStore(t, temporaryDirectory(t), {}, { disk, runner });
    const task = await store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES));
    const write = runner.hold("verifyAndWrite");
    const storing = storePiece(task, "a", 0);
    await write.begun;
    task.release();
    const removed = store.remove(taskId("a"));
    for (let n = 0; n < 200; n++) await turn();
    assert.equal(isDataClosed, false);
    write.answer(undefined);
    assert.equal(await storing, "stored");
    await removed;
    assert.equal(isDataClosed, true);
    assert.equal(store.usage().usedBytes, 0);
  });
});
