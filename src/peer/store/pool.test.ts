import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import { pathToFileURL } from "node:url";
import { AppError } from "../../base/errors.ts";
import { collectGarbage } from "../../base/garbage-fixture.test.ts";
import { SigningKey } from "../membership/credentials.ts";
import { pieceDigest } from "./piece-hash.ts";
import { StorePool } from "./pool.ts";
import type { SignedStatement } from "./worker.ts";
import { assertSameBytes, pieceBytes, temporaryDirectory } from "./fixture.test.ts";

/** By default everything goes to the threads. */
function poolOf(t: TestContext, workerCount = 2, workerUrl?: URL, ownBytesMax = 0, nowMs = (): number => 0): StorePool {
  const pool = new StorePool(workerCount, workerUrl, ownBytesMax, nowMs);
  t.after(() => pool.close());
  return pool;
}

function fileOf(t: TestContext, content: Uint8Array | string): { readonly path: string; readonly fd: number } {
  const path = join(temporaryDirectory(t), "data");
  writeFileSync(path, content);
  const fd = openSync(path, "r+");
  t.after(() => closeSync(fd));
  return { path, fd };
}

const KEY = SigningKey.generate();
const MIB = 1024 * 1024;

/** The digest, signed. */
function signed(digest: Uint8Array): SignedStatement {
  return { publicKey: KEY.publicKey, statement: digest, signature: KEY.sign(digest) };
}

describe("store pool", () => {
  test("writes what has the right digest and is signed, and nothing else", async (t) => {
    const pool = poolOf(t);
    const { path, fd } = fileOf(t, "");
    const bytes = pieceBytes("a", 0);
    const digest = pieceDigest(bytes);
    assert.equal(await pool.run("verifyAndWrite", { fd, offsetByte: 10, bytes, digest: new Uint8Array(32), signed: signed(digest) }, path), "mismatch");
    const forged = { ...signed(digest), publicKey: SigningKey.generate().publicKey };
    assert.equal(await pool.run("verifyAndWrite", { fd, offsetByte: 10, bytes, digest, signed: forged }, path), "forged");
    assert.equal(readFileSync(path).length, 0);
    assert.equal(await pool.run("verifyAndWrite", { fd, offsetByte: 10, bytes, digest, signed: signed(digest) }, path), "written");
    assertSameBytes(readFileSync(path).subarray(10), bytes);
    assert.deepEqual(Buffer.from(await pool.run("digestAndWrite", { fd, offsetByte: 0, bytes }, path)), Buffer.from(digest));
    assertSameBytes(readFileSync(path).subarray(0, bytes.length), bytes);
  });

  test("small pieces are done without the threads, with the same answers and errors", async (t) => {
    const noThread = new URL("./there-is-no-such-thread.mjs", import.meta.url);
    const bytes = pieceBytes("a", 0);
    const digest = pieceDigest(bytes);
    // However slow the machine: it is not the disk that is.
    t.mock.method(performance, "now", () => 0);
    const pool = poolOf(t, 1, noThread, bytes.length);
    const { path, fd } = fileOf(t, "");
    assert.equal(await pool.run("verifyAndWrite", { fd, offsetByte: 0, bytes, digest: new Uint8Array(32), signed: signed(digest) }, path), "mismatch");
    assert.equal(await pool.run("verifyAndWrite", { fd, offsetByte: 0, bytes, digest, signed: signed(digest) }, path), "written");
    assertSameBytes(readFileSync(path), bytes);
    const readOnly = openSync(path, "r");
    t.after(() => closeSync(readOnly));
    await assert.rejects(pool.run("digestAndWrite", { fd: readOnly, offsetByte: 0, bytes }, path), { code: "DISK_FAILED", message: /EBADF/ });
    await assert.rejects(pool.run("fileDigest", { fd, algorithm: "md5", lengthBytes: 1 }, path), { code: "INTERNAL" });
  });

  describe("small pieces, done on the caller's thread while the disk is quick", () => {
    /** A pool whose threads are none: what is handed over fails. `writes` are done as if each took so long. */
    function start(t: TestContext): { readonly clock: { nowMs: number }; readonly write: (tookMs: number) => Promise<"here" | "handed over"> } {
      const noThread = new URL("./there-is-no-such-thread.mjs", import.meta.url);
      const bytes = pieceBytes("a", 0);
      const clock = { nowMs: 0, stepMs: 0 };
      // Asked before a write, to see where it is to be done, at its start and at its end.
      const pool = poolOf(t, 1, noThread, bytes.length, () => (clock.nowMs += clock.stepMs));
      const { path, fd } = fileOf(t, "");
      const write = async (tookMs: number): Promise<"here" | "handed over"> => {
        clock.stepMs = tookMs;
        const job = pool.run("digestAndWrite", { fd, offsetByte: 0, bytes }, path);
        return await job.then(() => "here" as const, (error: unknown) => {
          assert.match((error as AppError).message, /the thread doing it ended/);
          return "handed over" as const;
        }).finally(() => (clock.stepMs = 0));
      };
      return { clock, write };
    }

    test("go to the threads for a second after three writes in a row that took longer than 5 ms", async (t) => {
      const { clock, write } = start(t);
      for (const tookMs of [6, 6, 6]) assert.equal(await write(tookMs), "here");
      const doneMs = clock.nowMs;
      assert.equal(await write(0), "handed over");
      clock.nowMs = doneMs + 999;
      assert.equal(await write(0), "handed over");
      clock.nowMs = doneMs + 1_000;
      assert.equal(await write(6), "here", "it is tried again");
      assert.equal(await write(0), "handed over", "the disk is as slow as before");
      clock.nowMs += 1_000;
      for (const tookMs of [0, 6, 6]) assert.equal(await write(tookMs), "here");
      assert.equal(await write(0), "here", "it has been quick in between");
    });

    test("stay when a single one is slow: the machine was busy, not the disk", async (t) => {
      const { write } = start(t);
      for (const tookMs of [40, 0, 6, 6, 0, 99]) assert.equal(await write(tookMs), "here");
    });

    test("go at once after a write that took longer than 100 ms", async (t) => {
      const { write } = start(t);
      assert.equal(await write(101), "here");
      assert.equal(await write(0), "handed over");
    });
  });

  test("finds the pieces that are wrong, cut, or not there", async (t) => {
    const pool = poolOf(t);
    const bytes = pieceBytes("a", 0, 300_000);
    const { path, fd } = fileOf(t, bytes);
    const digest = pieceDigest(bytes.subarray(0, 100_000));
    const pieces = [
      { piece: 0, offsetByte: 0, lengthBytes: 100_000, digest },
      { piece: 1, offsetByte: 1, lengthBytes: 100_000, digest },
      { piece: 2, offsetByte: 200_001, lengthBytes: 100_000, digest },
      { piece: 3, offsetByte: 400_000, lengthBytes: 100_000, digest },
    ];
    assert.deepEqual(await pool.run("verifyOnDisk", { fd, pieces }, path), [1, 2, 3]);
  });

  test("digests the head of a file, also past its turn, and notices a short one", async (t) => {
    const pool = poolOf(t);
    const content = Buffer.alloc(9 * 1024 * 1024, "0123456789");
    const { path, fd } = fileOf(t, content);
    for (const algorithm of ["sha256", "sha512", "sha1", "md5"] as const) {
      for (const lengthBytes of [0, 1, 5 * 1024 * 1024 + 1, content.length]) {
        const expected = createHash(algorithm).update(content.subarray(0, lengthBytes)).digest("hex");
        assert.equal(await pool.run("fileDigest", { fd, algorithm, lengthBytes }, path), expected);
      }
    }
    assert.equal(await pool.run("fileDigest", { fd, algorithm: "sha256", lengthBytes: content.length + 1 }, path), undefined);
  });

  test("a full device is DISK_FULL, says so, and the thread lives on", async (t) => {
    const pool = poolOf(t, 1);
    const full = openSync("/dev/full", "r+");
    t.after(() => closeSync(full));
    const bytes = pieceBytes("a", 0);
    await assert.rejects(pool.run("digestAndWrite", { fd: full, offsetByte: 0, bytes }, "/cache/data"), (error: AppError) => {
      assert.equal(error.code, "DISK_FULL");
      assert.match(error.message, /cannot write a piece to \/cache\/data: no space is left on the device; free some/);
      return true;
    });
    const { path, fd } = fileOf(t, "");
    assert.equal((await pool.run("digestAndWrite", { fd, offsetByte: 0, bytes }, path)).length, 32);
  });

  test("any other refusal of the system is DISK_FAILED", async (t) => {
    const pool = poolOf(t, 1);
    const path = join(temporaryDirectory(t), "data");
    writeFileSync(path, "x");
    const fd = openSync(path, "r");
    t.after(() => closeSync(fd));
    const job = pool.run("digestAndWrite", { fd, offsetByte: 0, bytes: pieceBytes("a", 0) }, path);
    await assert.rejects(job, { code: "DISK_FAILED", message: /EBADF/ });
  });

  test("a thread that dies rejects its jobs and is replaced", async (t) => {
    const path = join(temporaryDirectory(t), "worker.mjs");
    writeFileSync(
      path,
      `import { parentPort } from "node:worker_threads";
       parentPort.on("message", ({ id, kind }) => {
         if (kind === "fileDigest") throw new Error("the roof is on fire");
         parentPort.postMessage({ id, output: true });
       });`,
    );
    const pool = poolOf(t, 1, pathToFileURL(path));
    const input = { fd: 0, offsetByte: 0, bytes: pieceBytes("a", 0), digest: new Uint8Array(32), signed: signed(new Uint8Array(32)) };
    assert.equal(await pool.run("verifyAndWrite", input, "data"), true);
    const dying = pool.run("fileDigest", { fd: 0, algorithm: "md5", lengthBytes: 1 }, "data");
    const behind = pool.run("verifyAndWrite", input, "data");
    await assert.rejects(dying, { code: "INTERNAL", message: /cannot read data: the thread doing it ended \(the roof is on fire\)/ });
    await behind.catch((error: unknown) => assert.ok(error instanceof AppError && error.code === "INTERNAL"));
    assert.equal(await pool.run("verifyAndWrite", input, "data"), true);
  });

  test("a thread keeps no piece's memory for long, though each has its own", async (t) => {
    const pool = poolOf(t, 1);
    const { path, fd } = fileOf(t, "");
    const digest = new Uint8Array(32);
    const job = async (): Promise<unknown> => {
      const bytes = new Uint8Array(new SharedArrayBuffer(4 * MIB));
      return await pool.run("verifyAndWrite", { fd, offsetByte: 0, bytes, digest, signed: signed(digest) }, path);
    };
    await job();
    const startBytes = process.memoryUsage().arrayBuffers;
    const keptBytes = async (): Promise<number> => {
      collectGarbage();
      // Memory is given back behind a collection, by other threads.
      await new Promise(setImmediate);
      return process.memoryUsage().arrayBuffers - startBytes;
    };
    /** Given a while to come down to `wanted`: those threads may have to wait for a busy machine. */
    const settledBytes = async (wanted: number): Promise<number> => {
      let bytes = await keptBytes();
      for (const endMs = performance.now() + 20_000; bytes > wanted && performance.now() < endMs; ) bytes = await keptBytes();
      return bytes;
    };
    let mostBytes = 0;
    for (let i = 1; i <= 100; i++) {
      assert.equal(await job(), "mismatch");
      if (i % 10 === 0) mostBytes = Math.max(mostBytes, await settledBytes(120 * MIB));
    }
    assert.ok(mostBytes <= 120 * MIB, `of 400 MiB ${Math.round(mostBytes / MIB)} were there at a time`);
    const leftBytes = await settledBytes(MIB);
    assert.ok(leftBytes <= MIB, `${Math.round(leftBytes / MIB)} MiB are still there, seconds later`);
  });

  test("close rejects what is not done, and refuses what comes later", async (t) => {
    const pool = poolOf(t, 1);
    const { path, fd } = fileOf(t, Buffer.alloc(64 * 1024 * 1024));
    const job = pool.run("fileDigest", { fd, algorithm: "md5", lengthBytes: 64 * 1024 * 1024 }, path);
    const rejected = assert.rejects(job, { code: "SHUTTING_DOWN" });
    await pool.close();
    await rejected;
    await assert.rejects(pool.run("fileDigest", { fd, algorithm: "md5", lengthBytes: 1 }, path), { code: "SHUTTING_DOWN" });
  });
});
