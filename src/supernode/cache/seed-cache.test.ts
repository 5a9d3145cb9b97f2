import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import { SigningKey } from "../../peer/membership/credentials.ts";
import { pieceCountOf } from "../../protocol/geometry.ts";
import type { TaskId } from "../../protocol/ids.ts";
import { FakeOrigin, type FakeStored, FakeStore, KIB, MIB, resolvedTask, seedLab } from "./seed-fixture.test.ts";

const PIECE = 64 * KIB;

function sha256(content: Buffer): string {
  return `sha256:${createHash("sha256").update(content).digest("hex")}`;
}

function overlapBytes(intervals: readonly (readonly [number, number])[]): number {
  let endByte = 0;
  let overlap = 0;
  for (const [start, end] of [...intervals].sort(([left], [right]) => left - right)) {
    overlap += Math.max(0, Math.min(end, endByte) - start);
    endByte = Math.max(endByte, end);
  }
  return overlap;
}

test("a file is read once, and each piece stored as it comes", async () => {
  const origin = new FakeOrigin(randomBytes(10 * PIECE + 100));
  const lab = seedLab(origin);
  const stored = await lab.read(resolvedTask(origin, lab.key));
  assert.ok(stored.content.equals(origin.content));
  assert.deepEqual(stored.storedOrder, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assert.equal(origin.bytesRead, origin.content.length);
  assert.equal(lab.meter.bytesOf(stored.record.taskId), origin.content.length);
  assert.deepEqual(lab.told, [{ event: "opened" }, { event: "complete" }]);
  assert.equal(lab.pool.usedBytes, 0);
  assert.equal(origin.asked.at(-1)?.etag, '"v1"', "at the end it is asked whether it is still this version");
});

for (const ranges of [true, false]) {
  test(`an origin that cuts half-way is continued ${ranges ? "where it broke" : "from the start, without ranges"}`, async () => {
    const origin = new FakeOrigin(randomBytes(10 * PIECE));
    origin.ranges = ranges;
    origin.fault = (n) => (n === 1 ? { cutAfterBytes: 5 * PIECE + 7 } : undefined);
    const lab = seedLab(origin);
    const stored = await lab.read(resolvedTask(origin, lab.key));
    assert.ok(stored.content.equals(origin.content));
    assert.equal(origin.bytesRead, origin.content.length + (ranges ? 7 : 5 * PIECE + 7));
    assert.deepEqual(lab.told.at(-1), { event: "complete" });
  });
}

test("an origin that breaks off at the same place again and again is given up, what came is kept", async () => {
  const origin = new FakeOrigin(randomBytes(10 * PIECE));
  origin.fault = (_n, startByte) => ({ cutAfterBytes: Math.max(0, 5 * PIECE - startByte) });
  const lab = seedLab(origin);
  const stored = await lab.read(resolvedTask(origin, lab.key));
  assert.equal(stored.have.count, 5);
  assert.deepEqual(lab.told.slice(1), [{ event: "failure", code: "ORIGIN_CUT", discard: false }, { event: "failed" }]);
  assert.ok(origin.requests.length <= 7);
});

for (const [code, attempts] of [["ORIGIN_NOT_FOUND", 1], ["ORIGIN_UNAUTHORIZED", 1], ["ORIGIN_BUSY", 5]] as const) {
  test(`${code} in mid-read ends it after ${attempts} attempts, what came is kept`, async () => {
    const origin = new FakeOrigin(randomBytes(10 * PIECE));
    origin.fault = (n) => (n === 1 ? { cutAfterBytes: 3 * PIECE } : { error: new AppError(code, "no") });
    const lab = seedLab(origin);
    const stored = await lab.read(resolvedTask(origin, lab.key));
    assert.deepEqual(lab.told.slice(1), [{ event: "failure", code, discard: false }, { event: "failed" }]);
    assert.equal(stored.have.count, 3);
    assert.equal(origin.requests.length, 1 + attempts);
  });
}

test("503 and then well: waited out as long as it asks", async () => {
  const origin = new FakeOrigin(randomBytes(4 * PIECE));
  const busy = new AppError("ORIGIN_BUSY", "busy", { details: { retryAfterMs: 3_000 } });
  origin.fault = (n) => (n <= 2 ? { error: busy } : undefined);
  const lab = seedLab(origin);
  await lab.read(resolvedTask(origin, lab.key));
  assert.deepEqual(lab.told.at(-1), { event: "complete" });
  assert.ok(lab.slept.length === 2 && lab.slept.every((delayMs) => delayMs >= 3_000));
});

test("a file that changes in mid-read fails at once and nothing of it is kept", async () => {
  const origin = new FakeOrigin(randomBytes(10 * PIECE));
  origin.fault = (n) => {
    if (n > 1) origin.etag = '"v2"';
    return n === 1 ? { cutAfterBytes: 3 * PIECE } : undefined;
  };
  const lab = seedLab(origin);
  const resolved = resolvedTask(origin, lab.key);
  const stored = await lab.read(resolved);
  assert.deepEqual(lab.told.slice(1), [{ event: "failure", code: "ORIGIN_CHANGED", discard: true }, { event: "failed" }]);
  assert.equal(origin.requests.length, 2);
  await lab.seeds.close();
  assert.equal(stored.have.count, 0);
  assert.equal(lab.seeds.get(resolved.taskId), undefined);
});

test("a change that only the bytes show is found when they are read again", async () => {
  const origin = new FakeOrigin(randomBytes(10 * PIECE));
  origin.ranges = false;
  origin.etag = undefined;
  origin.fault = (n) => {
    if (n > 1) origin.content = randomBytes(10 * PIECE);
    return n === 1 ? { cutAfterBytes: 3 * PIECE } : undefined;
  };
  const lab = seedLab(origin);
  await lab.read(resolvedTask(origin, lab.key));
  assert.deepEqual(lab.told[1], { event: "failure", code: "ORIGIN_CHANGED", discard: true });
});

for (const extraBytes of [-1000, 1000]) {
  test(`a body of ${extraBytes} bytes more than was said is an error, not a file`, async () => {
    const origin = new FakeOrigin(randomBytes(4 * PIECE));
    origin.ranges = false;
    const lab = seedLab(origin);
    const resolved = resolvedTask(origin, lab.key);
    origin.content = Buffer.concat([origin.content, randomBytes(1000)]).subarray(0, 4 * PIECE + extraBytes);
    origin.tellsLength = false;
    await lab.read(resolved);
    const code = extraBytes < 0 ? "ORIGIN_CUT" : "ORIGIN_LENGTH_WRONG";
    assert.deepEqual(lab.told[1], { event: "failure", code, discard: extraBytes > 0 });
  });
}

for (const [name, lengthBytes] of [["a part of a piece", 3 * MIB + 5], ["whole pieces", 3 * MIB], ["less than a piece", 7]] as const) {
  for (const withDigest of [false, true]) {
    test(`unknown length, ${name}${withDigest ? ", with a digest" : ""}: the length is told at the end`, async () => {
      const origin = new FakeOrigin(randomBytes(lengthBytes));
      origin.tellsLength = false;
      origin.ranges = false;
      const lab = seedLab(origin);
      const stored = await lab.read(resolvedTask(origin, lab.key, withDigest ? sha256(origin.content) : undefined));
      assert.ok(stored.content.equals(origin.content));
      assert.ok(stored.complete);
      assert.equal(origin.bytesRead, lengthBytes);
      assert.deepEqual(lab.told.slice(1), [{ event: "length", lengthBytes }, { event: "complete" }]);
    });
  }
}

test("unknown length and nothing in it", async () => {
  const origin = new FakeOrigin(Buffer.alloc(0));
  origin.tellsLength = false;
  const lab = seedLab(origin);
  await lab.read(resolvedTask(origin, lab.key, sha256(origin.content)));
  assert.deepEqual(lab.told.slice(1), [{ event: "length", lengthBytes: 0 }, { event: "complete" }]);
});

test("unknown length, cut: continued by ranges where there are any", async () => {
  const origin = new FakeOrigin(randomBytes(4 * MIB + 9));
  origin.tellsLength = false;
  origin.fault = (n) => (n === 1 ? { cutAfterBytes: 2 * MIB + 1 } : undefined);
  const lab = seedLab(origin);
  const stored = await lab.read(resolvedTask(origin, lab.key));
  assert.ok(stored.content.equals(origin.content));
  // The second piece waited for a successor, for it might have been the last one.
  assert.equal(origin.bytesRead, origin.content.length + MIB + 1);
});

for (const tellsLength of [true, false]) {
  test(`a file overwritten in place while it is read is never whole (length ${tellsLength ? "" : "un"}known)`, async () => {
    const origin = new FakeOrigin(randomBytes(4 * MIB));
    origin.tellsLength = tellsLength;
    origin.fault = () => {
      let turns = 10;
      const tick = (): void => void (turns-- > 0 ? setImmediate(tick) : (origin.etag = '"v2"'));
      tick();
      return undefined;
    };
    const lab = seedLab(origin);
    await lab.read(resolvedTask(origin, lab.key));
    assert.deepEqual(lab.told.at(-2), { event: "failure", code: "ORIGIN_CHANGED", discard: true });
    assert.ok(!lab.told.some(({ event }) => event === "complete"));
  });
}

test("an origin that cannot be asked at the end has not changed the file", async () => {
  const origin = new FakeOrigin(randomBytes(MIB));
  const lab = seedLab(origin);
  const resolved = resolvedTask(origin, lab.key);
  origin.statErrors = [new AppError("ORIGIN_UNREACHABLE", "down")];
  assert.ok((await lab.read(resolved)).content.equals(origin.content));
});

test("a large file is read by parallel streams, lowest spans first, no byte twice", async () => {
  const origin = new FakeOrigin(randomBytes(80 * MIB + 123));
  origin.chunkBytes = 256 * KIB;
  const lab = seedLab(origin);
  const stored = await lab.read(resolvedTask(origin, lab.key, sha256(origin.content)));
  assert.ok(stored.content.equals(origin.content));
  assert.equal(overlapBytes(origin.intervals), 0);
  assert.equal(origin.bytesRead, origin.content.length);
  const starts = origin.intervals.map(([startByte]) => startByte);
  assert.deepEqual(starts, [...starts].sort((left, right) => left - right));
  assert.ok(starts.length > 1);
  // The last piece waited for the digest.
  assert.equal(stored.storedOrder.at(-1), Math.max(...stored.storedOrder));
});

test("of two large files of one origin one has the extra streams and is whole long before the other, which has them then", async () => {
  const origin = new FakeOrigin(randomBytes(80 * MIB));
  origin.chunkBytes = 256 * KIB;
  const lab = seedLab(origin);
  const resolved = resolvedTask(origin, lab.key, sha256(origin.content));
  const tasks = ["a", "b"].map((letter) => {
    const taskId = letter.repeat(64) as TaskId;
    const source = { ...resolved.source, url: `http://origin/${letter}` };
    return { ...resolved, taskId, source, record: { ...resolved.record, taskId } };
  });
  const opened = await Promise.all(tasks.map((task) => lab.seeds.open(task)));
  for (const { taskId } of opened) lab.seeds.grantLease(taskId);
  const until = async (isSo: () => boolean): Promise<void> => {
    while (!isSo()) await new Promise((resolve) => setImmediate(resolve));
  };
  const stored = opened.map(({ task }) => task.stored as FakeStored);
  const pieceCount = pieceCountOf(origin.content.length, resolved.record.pieceLengthBytes);
  // All but the one that waits for the digest.
  await until(() => stored.some(({ have }) => have.count >= pieceCount - 1));
  const heldShare = Math.min(...stored.map(({ have }) => have.count)) / pieceCount;
  assert.ok(heldShare < 0.6, `the other has ${heldShare} of its pieces by then`);
  await until(() => lab.told.filter(({ event }) => event === "complete").length === 2);
  for (const { content } of stored) assert.ok(content.equals(origin.content));
  assert.equal(origin.bytesRead, 2 * origin.content.length);
});

test("an origin that does not keep its promise of ranges is read from its start", async () => {
  const origin = new FakeOrigin(randomBytes(80 * MIB));
  origin.chunkBytes = 256 * KIB;
  const lab = seedLab(origin);
  const resolved = resolvedTask(origin, lab.key, sha256(origin.content));
  origin.ranges = false;
  const stored = await lab.read(resolved);
  assert.ok(stored.content.equals(origin.content));
  assert.deepEqual(lab.told.at(-1), { event: "complete" });
});

test("a wrong digest: the last piece is never stored, and nothing is kept", async () => {
  for (const length of [10 * PIECE, 10 * PIECE + 1, 80 * MIB]) {
    const origin = new FakeOrigin(randomBytes(length));
    origin.chunkBytes = 256 * KIB;
    const lab = seedLab(origin);
    const resolved = resolvedTask(origin, lab.key, sha256(Buffer.from("other")));
    // oxlint-disable-next-line no-await-in-loop -- cases
    const stored = await lab.read(resolved);
    const lastPiece = Math.ceil(length / stored.record.pieceLengthBytes) - 1;
    assert.ok(stored.storedOrder.length > 0 && !stored.storedOrder.includes(lastPiece));
    assert.deepEqual(lab.told[1], { event: "failure", code: "DIGEST_MISMATCH", discard: true });
    // oxlint-disable-next-line no-await-in-loop -- cases
    await lab.seeds.close();
    assert.equal(stored.have.count, 0);
    assert.equal(lab.pool.usedBytes, 0);
  }
});

test("unknown length, cut, and no ranges: read again from its start, and compared", async () => {
  const origin = new FakeOrigin(randomBytes(4 * MIB + 9));
  origin.tellsLength = false;
  origin.fault = (n) => (n === 1 ? { cutAfterBytes: 2 * MIB + 1 } : undefined);
  const lab = seedLab(origin);
  const resolved = resolvedTask(origin, lab.key);
  // Promised, and not kept.
  origin.ranges = false;
  const stored = await lab.read(resolved);
  assert.ok(stored.content.equals(origin.content));
  assert.ok(origin.intervals.every(([startByte]) => startByte === 0));
});

test("a read names the version that it is a part of", async () => {
  const origin = new FakeOrigin(randomBytes(20 * PIECE));
  origin.fault = (n) => (n === 1 ? { cutAfterBytes: 2 * PIECE } : undefined);
  const lab = seedLab(origin);
  await lab.read(resolvedTask(origin, lab.key));
  assert.ok(origin.expected.length >= 2);
  for (const expected of origin.expected) assert.equal(expected?.etag, '"v1"');
});

test("a part of a file whose length is another now is thrown away; a whole one of the same version is served", async () => {
  for (const isWhole of [false, true]) {
    const origin = new FakeOrigin(randomBytes(20 * PIECE));
    if (!isWhole) origin.fault = (n) => (n === 1 ? { cutAfterBytes: 12 * PIECE } : { error: new AppError("ORIGIN_NOT_FOUND", "gone") });
    const store = new FakeStore();
    const key = SigningKey.generate();
    const before = seedLab(origin, store, key);
    const resolved = resolvedTask(origin, key);
    await before.read(resolved);
    await before.seeds.close();
    const after = seedLab(origin, store, key);
    const record = { ...resolved.record, lengthBytes: 19 * PIECE };
    const { task } = await after.seeds.open({ ...resolved, record });
    assert.equal(task.stored.have.count, isWhole ? 20 : 0);
    await after.seeds.close();
  }
});

test("after a restart only what is missing is read, and the digest covers what was there", async () => {
  const origin = new FakeOrigin(randomBytes(20 * PIECE));
  const store = new FakeStore();
  const key = SigningKey.generate();
  const resolved = resolvedTask(origin, key, sha256(origin.content));
  const before = seedLab(origin, store, key);
  origin.fault = () => ({ cutAfterBytes: 12 * PIECE + 5, ...(origin.requests.length > 1 && { error: new AppError("ORIGIN_NOT_FOUND", "gone") }) });
  await before.read(resolved);
  assert.equal(store.tasks.get(resolved.taskId)?.have.count, 12);
  await before.seeds.close();
  origin.fault = () => undefined;
  origin.intervals.length = 0;
  const after = seedLab(origin, store, key);
  const stored = await after.read(resolved);
  assert.ok(stored.content.equals(origin.content));
  assert.deepEqual(origin.intervals, [[12 * PIECE, 20 * PIECE]]);
});

test("files signed with another key are not served, but fetched anew", async () => {
  const origin = new FakeOrigin(randomBytes(3 * PIECE));
  const store = new FakeStore();
  const before = seedLab(origin, store);
  await before.read(resolvedTask(origin, before.key));
  await before.seeds.close();
  const after = seedLab(origin, store);
  await after.read(resolvedTask(origin, after.key));
  assert.equal(origin.bytesRead, 2 * origin.content.length);
});

test("a full disk ends the read with its code", async () => {
  const origin = new FakeOrigin(randomBytes(40 * PIECE));
  const lab = seedLab(origin);
  const resolved = resolvedTask(origin, lab.key);
  (await lab.store.open(resolved.record)).storeError = new AppError("DISK_FULL", "no space");
  await lab.read(resolved);
  assert.deepEqual(lab.told[1], { event: "failure", code: "DISK_FULL", discard: false });
  assert.equal(lab.pool.usedBytes, 0);
});

test("a disk that takes no new file: what others could read is opened all the same, fails by name under a lease, and is stored once it can be", async () => {
  const origin = new FakeOrigin(randomBytes(3 * PIECE));
  const lab = seedLab(origin);
  lab.store.openError = new AppError("DISK_FAILED", "read-only");
  await assert.rejects(lab.seeds.open(resolvedTask(origin, lab.key)), { code: "DISK_FAILED" });
  const resolved = resolvedTask(origin, lab.key, `sha256:${createHash("sha256").update(origin.content).digest("hex")}`);
  await lab.read(resolved);
  assert.deepEqual(lab.told, [{ event: "opened" }, { event: "failure", code: "DISK_FAILED", discard: false }, { event: "failed" }]);
  assert.equal(origin.bytesRead, 0);
  lab.store.openError = undefined;
  await lab.read(resolved);
  assert.deepEqual(lab.told.slice(3).map(({ event }) => event), ["opened", "complete"]);
  assert.equal(lab.store.tasks.get(resolved.taskId)?.have.count, 3);
});

test("a thousand joins open one task, and a lease reads it once", async () => {
  const origin = new FakeOrigin(randomBytes(3 * PIECE));
  const lab = seedLab(origin);
  const resolved = resolvedTask(origin, lab.key);
  await Promise.all(Array.from({ length: 1000 }, () => lab.seeds.open(resolved)));
  await lab.read(resolved);
  lab.seeds.grantLease(resolved.taskId);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(origin.bytesRead, origin.content.length);
  assert.equal(lab.told.filter(({ event }) => event === "opened").length, 1);
});

test("the latest credentials that worked are used", async () => {
  const origin = new FakeOrigin(randomBytes(10 * PIECE));
  const lab = seedLab(origin);
  const resolved = resolvedTask(origin, lab.key);
  origin.fault = (n) => {
    if (n > 1) return undefined;
    void lab.seeds.open({ ...resolved, source: { url: "http://origin/file", headers: { authorization: "new" } } });
    return { cutAfterBytes: 3 * PIECE };
  };
  await lab.read({ ...resolved, source: { url: "http://origin/file", headers: { authorization: "old" } } });
  assert.deepEqual(origin.requests.map(({ headers }) => headers["authorization"]), ["old", "new"]);
});

test("closing in mid-read lets go of everything", async () => {
  const origin = new FakeOrigin(randomBytes(40 * PIECE));
  const lab = seedLab(origin);
  const resolved = resolvedTask(origin, lab.key);
  const { task } = await lab.seeds.open(resolved);
  lab.seeds.grantLease(resolved.taskId);
  for (let turn = 0; turn < 10; turn++) {
    // oxlint-disable-next-line no-await-in-loop -- let it begin
    await new Promise((resolve) => setImmediate(resolve));
  }
  await lab.seeds.close();
  assert.equal((task.stored as unknown as { releases: number }).releases, 1);
  assert.equal(lab.pool.usedBytes, 0);
  await assert.rejects(lab.seeds.open(resolved), { code: "SHUTTING_DOWN" });
  assert.deepEqual(lab.told, [{ event: "opened" }]);
});

for (const digest of [false, true]) {
  test(`a piece that the disk loses in mid-read is read once more${digest ? ", and the digest still found right" : ""}`, async () => {
    const origin = new FakeOrigin(randomBytes(10 * PIECE));
    const lab = seedLab(origin);
    const resolved = resolvedTask(origin, lab.key, digest ? sha256(origin.content) : undefined);
    const { task } = await lab.seeds.open(resolved);
    const stored = lab.store.tasks.get(resolved.taskId);
    assert.ok(stored);
    assert.equal(task.stored, stored);
    let losses = 0;
    stored.onStored = (piece) => {
      if (piece === 6 && losses++ === 0) stored.lose(2);
    };
    await lab.read(resolved);
    assert.ok(stored.content.equals(origin.content));
    assert.equal(origin.bytesRead, origin.content.length + PIECE);
    assert.deepEqual(lab.told.at(-1), { event: "complete" });
  });
}

/** Four pieces at an origin, and the file that is open for them. */
async function openedFile() {
  const origin = new FakeOrigin(randomBytes(4 * PIECE));
  const lab = seedLab(origin);
  const resolved = resolvedTask(origin, lab.key);
  await lab.seeds.open(resolved);
  const stored = lab.store.tasks.get(resolved.taskId);
  assert.ok(stored);
  return { origin, lab, resolved, stored };
}

test("a disk that keeps losing pieces fails the read instead of asking the origin for ever", async () => {
  const { origin, lab, resolved, stored } = await openedFile();
  stored.onStored = (piece) => stored.lose(piece);
  await lab.read(resolved);
  assert.deepEqual(lab.told.slice(1), [{ event: "failure", code: "CACHE_CORRUPT", discard: false }, { event: "failed" }]);
  assert.equal(origin.bytesRead, 3 * origin.content.length);
});

test("where room is needed a file goes whose read has failed, or that nobody needs; one that peers read meanwhile stays", async () => {
  const origin = new FakeOrigin(randomBytes(4 * PIECE));
  const lab = seedLab(origin);
  const resolved = resolvedTask(origin, lab.key);
  const opened = async (): Promise<void> => void (await lab.seeds.open(resolved));
  await opened();
  assert.equal(await lab.seeds.letGo(() => true), false, "somebody needs it");
  assert.equal(await lab.seeds.letGo(() => false), true);
  assert.equal(lab.seeds.get(resolved.taskId), undefined);
  await opened();
  const stored = lab.store.tasks.get(resolved.taskId);
  assert.ok(stored);
  stored.onStored = (piece) => stored.lose(piece);
  await lab.read(resolved);
  lab.lent.add(resolved.taskId);
  assert.equal(await lab.seeds.letGo(() => true), false, "what is here of it is needed to know the whole");
  lab.lent.clear();
  assert.equal(await lab.seeds.letGo(() => true, "f".repeat(64) as TaskId), false, "another one is to go");
  assert.equal(await lab.seeds.letGo(() => true), true, "its read has failed");
});

test("before the origin is asked for a byte there has to be room for the whole file", async () => {
  const { origin, lab, resolved, stored } = await openedFile();
  stored.roomError = new AppError("CACHE_QUOTA_EXCEEDED", "no room");
  await lab.read(resolved);
  assert.deepEqual(lab.told.slice(1), [{ event: "failure", code: "CACHE_QUOTA_EXCEEDED", discard: false }, { event: "failed" }]);
  assert.equal(origin.requests.length, 0);
});

test("an origin that breaks off again and again is asked for three times the file and 64 MiB at most", async () => {
  const origin = new FakeOrigin(randomBytes(96 * PIECE));
  origin.ranges = false;
  origin.chunkBytes = PIECE;
  // Each time a piece more than before: there is progress, so nothing else gives up.
  origin.fault = (n) => ({ cutAfterBytes: n * PIECE + 1 });
  const lab = seedLab(origin);
  await lab.read(resolvedTask(origin, lab.key));
  assert.equal(lab.told.at(-1)?.event, "failed");
  const budgetBytes = 3 * origin.content.length + 64 * MIB;
  assert.ok(origin.bytesRead > budgetBytes && origin.bytesRead < budgetBytes + origin.content.length, `${origin.bytesRead} bytes of ${budgetBytes}`);
});
