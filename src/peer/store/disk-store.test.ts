import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { SigningKey } from "../membership/credentials.ts";
import { pieceDigest } from "./piece-hash.ts";
import type { PieceProof } from "./piece-store.ts";
import { StorePool, type StoreRunner } from "./pool.ts";
import { type StoreDisk, systemDisk } from "./disk.ts";
import type { StoreJobs } from "./worker.ts";
import { assertSameBytes, openStore, PIECE_LENGTH_BYTES, pieceBytes, proofOf, proofsTogether, recordOf, storeAll, storePiece, taskDirectory, taskId, temporaryDirectory } from "./fixture.test.ts";

const sign = (digest: Uint8Array): Uint8Array => new Uint8Array(64).fill(digest[0] as number);

function bound(target: object, key: string | symbol): unknown {
  const value: unknown = Reflect.get(target, key, target);
  return typeof value === "function" ? (value as (...all: unknown[]) => unknown).bind(target) : value;
}

describe("disk store", () => {
  test("keeps pieces, proofs and the record over a restart", async (t) => {
    const directory = temporaryDirectory(t);
    const record = recordOf("a", 3 * PIECE_LENGTH_BYTES + 100);
    const first = await openStore(t, directory);
    const task = await first.store.open(record);
    assert.equal(await storePiece(task, "a", 0), "stored");
    assert.equal(await storePiece(task, "a", 2), "stored");
    assert.equal(await storePiece(task, "a", 3, 100), "stored");
    assert.deepEqual([...task.have], [0, 2, 3]);
    assert.equal(task.complete, false);
    task.release();
    await first.store.close();

    const { store } = await openStore(t, directory);
    const [cached] = store.list();
    assert.deepEqual([cached?.taskId, cached?.displayUrl, cached?.lengthBytes, cached?.contentType], [record.taskId, record.displayUrl, record.lengthBytes, record.contentType]);
    assert.equal(store.usage().usedBytes, 2 * PIECE_LENGTH_BYTES + 100);
    const again = await store.find(record.taskId);
    assert.ok(again);
    assert.deepEqual([...again.have], [0, 2, 3]);
    assert.deepEqual(again.record, record);
    assert.deepEqual(again.proofOf(2)?.signature, proofOf(again, 2, pieceBytes("a", 2)).signature);
    assert.equal(again.proofOf(1), undefined);
    assert.equal(store.usage().usedBytes, 2 * PIECE_LENGTH_BYTES + 100);
    const into = new Uint8Array(50);
    await again.read(3 * PIECE_LENGTH_BYTES + 50, into);
    assertSameBytes(into, pieceBytes("a", 3, 100).subarray(50));
    assert.ok(store.usage().verifyMsTotal > 0);
    assert.equal(await storePiece(again, "a", 1), "stored");
    assert.equal(again.complete, true);
  });

  test("a piece whose proof the task's key has not signed is forged, and nothing of it is written", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", PIECE_LENGTH_BYTES * 2));
    const bytes = pieceBytes("a", 0);
    const right = proofOf(task, 0, bytes);
    assert.equal(await task.storeVerified(0, bytes, { ...right, signature: new Uint8Array(64) }), "forged");
    assert.equal(await task.storeVerified(0, bytes, proofOf(task, 0, bytes, SigningKey.generate())), "forged", "another key's");
    assert.equal(await task.storeVerified(0, bytes, proofOf(task, 1, bytes)), "forged", "another piece's");
    assert.equal(task.have.count, 0);
    assert.equal(store.usage().usedBytes, 0);
    assert.equal(await task.storeVerified(0, bytes, right), "stored");
  });

  test("of pieces signed together the signature is checked with the first, and no other passes for it", async (t) => {
    const pool = new StorePool(1);
    const checked: boolean[] = [];
    const runner: StoreRunner = {
      run: (kind, input, path) => {
        if (kind === "verifyAndWrite") checked.push((input as StoreJobs["verifyAndWrite"]["input"]).signed !== undefined);
        return pool.run(kind, input, path);
      },
      isBusy: false,
      close: () => pool.close(),
    };
    const { store } = await openStore(t, temporaryDirectory(t), {}, { runner });
    const task = await store.open(recordOf("a", PIECE_LENGTH_BYTES * 5));
    const proofs = proofsTogether(task, [0, 1, 2, 3, 4].map((piece) => pieceBytes("a", piece)));
    const proofAt = (piece: number): PieceProof => proofs[piece] as PieceProof;
    assert.equal(await task.storeVerified(3, pieceBytes("a", 3), proofAt(3)), "stored");
    assert.equal(await task.storeVerified(1, pieceBytes("a", 1), proofAt(1)), "stored");
    const forged = Uint8Array.from(proofAt(0).signature);
    (forged[5] as number) ^= 1;
    for (const time of ["first", "second"]) {
      assert.equal(await task.storeVerified(0, pieceBytes("a", 0), { ...proofAt(0), signature: forged }), "forged", `a true tree under another signature, the ${time} time`);
    }
    assert.equal(await task.storeVerified(0, pieceBytes("b", 0), { ...proofAt(0), signature: forged }), "mismatch", "nor with other bytes");
    assert.equal(await task.storeVerified(0, pieceBytes("a", 0), { ...proofAt(0), signature: forged }), "forged", "which prove nothing");
    assert.equal(await task.storeVerified(0, pieceBytes("a", 0), proofAt(1)), "mismatch", "another piece's proof");
    assert.equal(await task.storeVerified(0, pieceBytes("a", 0), { ...proofAt(0), signature: proofAt(1).signature }), "forged", "another piece's signature");
    assert.equal(await task.storeVerified(0, pieceBytes("a", 0), { ...proofAt(0), signature: proofAt(0).signature.subarray(0, 100) }), "forged", "half a signature");
    assert.equal(await task.storeVerified(0, pieceBytes("a", 0), proofAt(0)), "stored");
    assert.deepEqual(checked, [true, false, true, true, true, true, true, true, false]);
  });

  test("the data file stays open as long as a thread reads it, also when another job of the same check has failed", async (t) => {
    const pool = new StorePool(1);
    const { promise: held, resolve: letGo } = Promise.withResolvers<readonly number[]>();
    let jobCount = 0;
    const run = (kind: string, ...rest: readonly unknown[]): Promise<unknown> => {
      if (kind !== "verifyOnDisk") return (pool.run as (...all: unknown[]) => Promise<unknown>).call(pool, kind, ...rest);
      return ++jobCount === 1 ? Promise.reject(new Error("the thread doing it ended")) : held;
    };
    const runner = { run, isBusy: false, close: () => pool.close() } as StoreRunner;
    let isDataClosed = false;
    const open: StoreDisk["open"] = async (path, mode) => {
      const file = await systemDisk.open(path, mode);
      if (!path.endsWith("/data")) return file;
      const close = (): Promise<void> => ((isDataClosed = true), file.close());
      return new Proxy(file, { get: (target, key) => (key === "close" ? close : bound(target, key)) });
    };
    const { store } = await openStore(t, temporaryDirectory(t), {}, { runner, disk: { ...systemDisk, open } });
    const pieceLengthBytes = 8 * 1024 * 1024;
    const task = await store.open(recordOf("a", pieceLengthBytes + 100, pieceLengthBytes));
    assert.deepEqual([await storePiece(task, "a", 0, pieceLengthBytes), await storePiece(task, "a", 1, 100)], ["stored", "stored"]);
    const failed = assert.rejects(task.verify([0, 1], true));
    task.release();
    const removed = store.remove(taskId("a"));
    // As much as a file needs to be closed in, were it not for the job.
    for (let n = 0; n < 200; n++) await turn();
    assert.deepEqual([jobCount, isDataClosed], [2, false]);
    letGo([]);
    await Promise.all([failed, removed]);
    assert.equal(isDataClosed, true);
  });

  test("pieces beyond the length that a file turned out to have are not back after a restart", async (t) => {
    const directory = temporaryDirectory(t);
    const { store } = await openStore(t, directory);
    const task = await store.open(recordOf("a", undefined));
    for (const piece of [0, 1, 4]) await storePiece(task, "a", piece);
    await task.setLength(3 * PIECE_LENGTH_BYTES, new Uint8Array(64).fill(4));
    assert.deepEqual([[...task.have], task.complete, store.usage().usedBytes], [[0, 1], false, 2 * PIECE_LENGTH_BYTES]);
    task.release();
    await store.close();

    const again = await openStore(t, directory);
    const opened = await again.store.find(taskId("a"));
    assert.deepEqual([[...(opened?.have ?? [])], opened?.complete, again.store.usage().usedBytes], [[0, 1], false, 2 * PIECE_LENGTH_BYTES]);
    opened?.release();
  });

  test("what was signed together is given on after a restart", async (t) => {
    const directory = temporaryDirectory(t);
    const first = await openStore(t, directory);
    const task = await first.store.open(recordOf("a", PIECE_LENGTH_BYTES * 3));
    const proofs = proofsTogether(task, [0, 1, 2].map((piece) => pieceBytes("a", piece)));
    for (const [piece, proof] of proofs.entries()) assert.equal(await task.storeVerified(piece, pieceBytes("a", piece), proof), "stored");
    await first.store.close();
    const { store } = await openStore(t, directory);
    const again = await store.open(recordOf("a", PIECE_LENGTH_BYTES * 3));
    proofs.forEach(({ signature }, piece) => assert.deepEqual(again.proofOf(piece)?.signature, signature));
  });

  test("bytes that are not the piece are not stored", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", 2 * PIECE_LENGTH_BYTES));
    const right = pieceBytes("a", 0);
    const wrong = pieceBytes("b", 0);
    assert.equal(await task.storeVerified(0, wrong, proofOf(task, 0, right)), "mismatch");
    assert.equal(await task.storeVerified(0, pieceBytes("a", 0, 100), proofOf(task, 0, pieceBytes("a", 0, 100))), "mismatch", "too short");
    assert.equal(await task.storeVerified(2, right, proofOf(task, 2, right)), "mismatch", "beyond the end");
    assert.equal(task.have.count, 0);
    assert.equal(store.usage().usedBytes, 0);
    await assert.rejects(task.read(0, new Uint8Array(1)), { code: "PIECE_UNKNOWN" });
    assert.equal(await task.storeVerified(0, right, proofOf(task, 0, right)), "stored");
  });

  test("stores a piece once, however many bring it, and leaves it as it is", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", PIECE_LENGTH_BYTES));
    const results = await Promise.all([storePiece(task, "a", 0), storePiece(task, "a", 0), storePiece(task, "a", 0)]);
    assert.deepEqual(results, ["stored", "stored", "stored"]);
    assert.equal(store.usage().usedBytes, PIECE_LENGTH_BYTES);
    assert.deepEqual(await task.storeOwn(0, pieceBytes("b", 0), sign), task.proofOf(0));
    const into = new Uint8Array(PIECE_LENGTH_BYTES);
    await task.read(0, into);
    assertSameBytes(into, pieceBytes("a", 0));
  });

  test("a wrong piece does not keep the right one that waited for it from being stored", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", PIECE_LENGTH_BYTES));
    const proof = proofOf(task, 0, pieceBytes("a", 0));
    const results = await Promise.all([task.storeVerified(0, pieceBytes("b", 0), proof), task.storeVerified(0, pieceBytes("a", 0), proof)]);
    assert.deepEqual(results, ["mismatch", "stored"]);
  });

  test("digests and signs what the origin gave", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", PIECE_LENGTH_BYTES));
    const expected = pieceDigest(pieceBytes("a", 0));
    const { digest, signature } = await task.storeOwn(0, pieceBytes("a", 0), sign);
    assert.deepEqual({ digest: Uint8Array.from(digest), signature }, { digest: Uint8Array.from(expected), signature: sign(expected) });
    assert.equal(task.complete, true);
  });

  test("a signer that throws leaves nothing stored", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", PIECE_LENGTH_BYTES));
    const failing = task.storeOwn(0, pieceBytes("a", 0), () => {
      throw new Error("no key");
    });
    await assert.rejects(failing, /no key/);
    assert.equal(task.have.count, 0);
    assert.equal(store.usage().usedBytes, 0);
    await task.storeOwn(0, pieceBytes("a", 0), sign);
  });

  test("200 pieces at once are all there, in memory, on disk, and after a restart", async (t) => {
    const directory = temporaryDirectory(t);
    const record = recordOf("a", 200 * PIECE_LENGTH_BYTES);
    const first = await openStore(t, directory);
    const task = await first.store.open(record);
    await storeAll(task, "a");
    assert.equal(task.complete, true);
    await first.store.close();
    const { store } = await openStore(t, directory);
    const again = await store.open(record);
    assert.equal(again.complete, true);
    const into = new Uint8Array(PIECE_LENGTH_BYTES);
    for (let piece = 0; piece < 200; piece++) {
      await again.read(piece * PIECE_LENGTH_BYTES, into);
      assertSameBytes(into, pieceBytes("a", piece), `piece ${piece}`);
    }
  });

  test("the same task is the same object while open, and stays one when opened from two sides at once", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const [one, two] = await Promise.all([store.open(recordOf("a", 10)), store.open(recordOf("a", 10))]);
    assert.equal(one, two);
    assert.equal(await store.find(taskId("a")), one);
    assert.equal(store.usage().openTaskCount, 1);
    for (let release = 0; release < 3; release++) one.release();
    assert.equal(store.usage().openTaskCount, 0);
    assert.throws(() => one.release(), /released more often than opened/);
  });

  test("a task that is not there is not found, and finding it creates nothing", async (t) => {
    const directory = temporaryDirectory(t);
    const { store } = await openStore(t, directory);
    assert.equal(await store.find(taskId("a")), undefined);
    assert.equal(existsSync(taskDirectory(directory, taskId("a"))), false);
    assert.equal(await store.remove(taskId("a")), true);
  });

  test("a file of unknown length completes when its length comes", async (t) => {
    const directory = temporaryDirectory(t);
    const first = await openStore(t, directory);
    const task = await first.store.open(recordOf("a", undefined));
    await storePiece(task, "a", 0);
    await storePiece(task, "a", 1, 77);
    assert.equal(task.complete, false);
    await assert.rejects(task.read(PIECE_LENGTH_BYTES, new Uint8Array(78)), { code: "PIECE_UNKNOWN" });
    const signature = new Uint8Array(64).fill(8);
    await task.setLength(PIECE_LENGTH_BYTES + 77, signature);
    assert.equal(task.complete, true);
    assert.equal(task.record.lengthSignature?.[0], 8);
    await first.store.close();

    const { store } = await openStore(t, directory);
    assert.equal(store.list()[0]?.lengthBytes, PIECE_LENGTH_BYTES + 77);
    assert.equal((await store.find(taskId("a")))?.complete, true);
  });

  test("a length drops the pieces that do not fit it", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", undefined));
    await storePiece(task, "a", 0);
    await storePiece(task, "a", 1, 77);
    await storePiece(task, "a", 5);
    await task.setLength(2 * PIECE_LENGTH_BYTES, new Uint8Array(64));
    assert.deepEqual([...task.have], [0]);
    assert.equal(store.usage().usedBytes, PIECE_LENGTH_BYTES);
  });

  test("opening with a length tells it to a task that did not know it", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", undefined));
    assert.equal(await store.open(recordOf("a", 0)), task);
    assert.equal(task.record.lengthBytes, 0);
    assert.equal(task.complete, true);
  });

  test("digests of the file, in every algorithm", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", 2 * PIECE_LENGTH_BYTES));
    await storePiece(task, "a", 0);
    await assert.rejects(task.digestOf("sha256", PIECE_LENGTH_BYTES + 1), { code: "PIECE_UNKNOWN" });
    await storePiece(task, "a", 1);
    const content = Buffer.concat([pieceBytes("a", 0), pieceBytes("a", 1)]);
    for (const algorithm of ["sha256", "sha512", "sha1", "md5"] as const) {
      for (const lengthBytes of [0, PIECE_LENGTH_BYTES + 1, content.length]) {
        const hex = createHash(algorithm).update(content.subarray(0, lengthBytes)).digest("hex");
        assert.equal(await task.digestOf(algorithm, lengthBytes), `${algorithm}:${hex}`);
      }
    }
  });

  test("discarded pieces are forgotten for good and can be stored again", async (t) => {
    const directory = temporaryDirectory(t);
    const first = await openStore(t, directory);
    const task = await first.store.open(recordOf("a", 3 * PIECE_LENGTH_BYTES));
    await storeAll(task, "a");
    await task.discard([1]);
    assert.deepEqual([...task.have], [0, 2]);
    await first.store.close();
    const { store } = await openStore(t, directory);
    const again = await store.open(recordOf("a", undefined));
    assert.deepEqual([...again.have], [0, 2]);
    assert.equal(await storePiece(again, "a", 1), "stored");
    assert.equal(again.complete, true);
  });

  test("discarding all includes what is being written and what waits behind it", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    const task = await store.open(recordOf("a", 4 * PIECE_LENGTH_BYTES));
    await storePiece(task, "a", 3);
    const wrong = task.storeVerified(0, pieceBytes("b", 0), proofOf(task, 0, pieceBytes("a", 0)));
    const stores = [storePiece(task, "a", 0), storePiece(task, "a", 1), storePiece(task, "a", 2)];
    const discarded = task.discard("all");
    assert.equal(task.have.count, 0);
    const after = storePiece(task, "a", 3);
    await Promise.all([wrong, discarded, after, ...stores]);
    assert.ok(task.have.has(3));
    for (const piece of task.have) {
      const into = new Uint8Array(PIECE_LENGTH_BYTES);
      await task.read(piece * PIECE_LENGTH_BYTES, into);
      assertSameBytes(into, pieceBytes("a", piece), `piece ${piece}`);
    }
    assert.equal(store.usage().usedBytes, task.have.count * PIECE_LENGTH_BYTES);
  });

  test("removes a task that nobody has open, files and account", async (t) => {
    const directory = temporaryDirectory(t);
    const { store } = await openStore(t, directory);
    const task = await store.open(recordOf("a", PIECE_LENGTH_BYTES));
    await storeAll(task, "a");
    assert.equal(await store.remove(taskId("a")), false);
    task.release();
    assert.equal(await store.remove(taskId("a")), true);
    assert.equal(existsSync(taskDirectory(directory, taskId("a"))), false);
    assert.deepEqual(readdirSync(join(directory, "trash")), []);
    assert.deepEqual(store.list(), []);
    assert.equal(store.usage().usedBytes, 0);
    assert.equal((await store.open(recordOf("a", PIECE_LENGTH_BYTES))).have.count, 0);
  });

  test("a task opened while it is removed starts anew", async (t) => {
    const { store } = await openStore(t, temporaryDirectory(t));
    await store.surveyed;
    const record = recordOf("a", PIECE_LENGTH_BYTES);
    const task = await store.open(record);
    await storeAll(task, "a");
    task.release();
    const [removed, found, again] = await Promise.all([store.remove(record.taskId), store.find(record.taskId), store.open(record)]);
    assert.equal(removed, true);
    assert.equal(found, undefined);
    assert.equal(again.have.count, 0);
    assert.equal(await storePiece(again, "a", 0), "stored");
  });

  test("many more tasks than are kept open at a time, and none for long that nobody uses", async (t) => {
    t.mock.timers.enable({ apis: ["setInterval"] });
    const directory = temporaryDirectory(t);
    let nowMs = 1_000_000;
    const { store } = await openStore(t, directory, {}, { nowMs: () => nowMs });
    const used = await store.open(recordOf("used", 10));
    for (let at = 0; at < 150; at++) {
      const task = await store.open(recordOf(`t${at}`, 10));
      await storePiece(task, `t${at}`, 0, 10);
      task.release();
    }
    await untilOpen(directory, 2 * 33, "the 32 released last, and the one in use");
    nowMs += 21_000;
    t.mock.timers.tick(5_000);
    await untilOpen(directory, 2, "the one in use");
    for (let at = 0; at < 150; at++) {
      const task = await store.find(taskId(`t${at}`));
      assert.equal(task?.complete, true);
      task.release();
    }
    used.release();
    assert.equal(store.usage().damagedPieces, 0);
  });
});

/** Waits until so many descriptors of tasks' files are open (closing takes a few turns); the test's timeout ends it. */
async function untilOpen(directory: string, count: number, what: string): Promise<void> {
  const open = (): string[] => readdirSync("/proc/self/fd").flatMap((fd) => pathOf(fd) ?? []).filter((path) => path.startsWith(join(directory, "tasks")));
  for (let turns = 0; open().length !== count; turns++) {
    assert.ok(turns < 10_000, `${open().length} descriptors open, instead of ${count}: ${what}`);
    await turn();
  }
}

function pathOf(fd: string): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return undefined;
  }
}
