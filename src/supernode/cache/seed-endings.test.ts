/** Reads and tasks that end otherwise than well: what they leave behind, and what goes on. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import type { TaskId } from "../../protocol/ids.ts";
import { expectedVersion } from "./seed-cache.ts";
import { FakeOrigin, type FakeStored, KIB, MIB, resolvedTask, seedLab } from "./seed-fixture.test.ts";

const PIECE = 64 * KIB;
const busy = (): AppError => new AppError("ORIGIN_BUSY", "busy");

function fileLab(pieceCount: number) {
  const origin = new FakeOrigin(randomBytes(pieceCount * PIECE));
  const lab = seedLab(origin);
  return { origin, lab, resolved: resolvedTask(origin, lab.key) };
}

test("what a stream could not read the others do, no piece twice, and the next read of the origin has all streams", async () => {
  const origin = new FakeOrigin(randomBytes(80 * MIB));
  const lab = seedLab(origin);
  const digest = `sha256:${createHash("sha256").update(origin.content).digest("hex")}`;
  const resolved = resolvedTask(origin, lab.key, digest);
  const { pieceLengthBytes } = resolved.record;
  // Three streams come to nothing, one of them after three pieces and a half.
  let refusals = 15;
  origin.fault = (n, startByte) => {
    if (startByte === 0) return undefined;
    if (n === 2) return { cutAfterBytes: 3.5 * pieceLengthBytes };
    return refusals-- > 0 ? { error: busy() } : undefined;
  };
  const stored = await lab.read(resolved);
  assert.ok(stored.content.equals(origin.content));
  assert.deepEqual(lab.told, [{ event: "opened" }, { event: "complete" }]);
  assert.equal(origin.bytesRead, origin.content.length + pieceLengthBytes / 2);

  const taskId = "a".repeat(64) as TaskId;
  const next = { ...resolved, taskId, record: { ...resolved.record, taskId } };
  const { task } = await lab.seeds.open(next);
  const heldAtRequest: number[] = [];
  origin.fault = () => (heldAtRequest.push(task.stored.have.count), undefined);
  await lab.read(next);
  assert.ok((heldAtRequest[1] as number) < 64, `${heldAtRequest[1]} pieces are here before the second stream begins`);
});

test("a disk that fails while a piece comes in leaves no buffer behind", async () => {
  const { origin, lab, resolved } = fileLab(40);
  origin.chunkBytes = PIECE / 4;
  (await lab.store.open(resolved.record)).storeError = new AppError("DISK_FULL", "no space");
  await lab.read(resolved);
  assert.equal(lab.told.at(-1)?.event, "failed");
  assert.equal(lab.pool.usedBytes, 0);
});

test("cut off behind the last byte of an unknown length, a file is read again to see its end", async () => {
  const { origin, lab } = fileLab(16 * 3);
  origin.tellsLength = false;
  // Of a version with a name the last piece is held back, and read again instead.
  origin.etag = undefined;
  const open = origin.open.bind(origin);
  const ranges: number[] = [];
  origin.open = async (request, range, expected) => {
    ranges.push(range.startByte);
    if (range.startByte >= origin.content.length) throw new AppError("RANGE_NOT_SATISFIABLE", "beyond its end");
    const opened = await open(request, range, expected);
    return ranges.length > 1 ? opened : { ...opened, body: Readable.from(cutAtEnd(opened.body)) };
  };
  const stored = await lab.read(resolvedTask(origin, lab.key));
  assert.deepEqual(ranges, [0, origin.content.length, 0]);
  assert.ok(stored.content.equals(origin.content));
  assert.equal(lab.told.at(-1)?.event, "complete");
});

async function* cutAtEnd(body: Readable): AsyncGenerator<Buffer> {
  for await (const chunk of body as AsyncIterable<Buffer>) yield chunk;
  throw new AppError("ORIGIN_CUT", "cut");
}

test("who wants a file again that is being thrown away has one of its own", async () => {
  const { lab, resolved } = fileLab(3);
  const before = await lab.read(resolved);
  const remove = lab.store.remove.bind(lab.store);
  lab.store.remove = async (taskId) => {
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
    return await remove(taskId);
  };
  lab.seeds.discard(resolved.taskId);
  const { task } = await lab.seeds.open(resolved);
  assert.notEqual(task.stored, before);
  assert.equal(lab.store.tasks.get(resolved.taskId), task.stored);
  lab.seeds.discard(resolved.taskId);
  await lab.seeds.close();
  assert.equal(lab.store.tasks.size, 0);
});

test("a file that is being opened when the supernode ends is let go of", async () => {
  const { lab, resolved } = fileLab(3);
  const opening = assert.rejects(lab.seeds.open(resolved), { code: "SHUTTING_DOWN" });
  await lab.seeds.close();
  await opening;
  assert.equal(lab.store.tasks.get(resolved.taskId)?.releases, 1);
  assert.deepEqual(lab.told, []);
});

test("credentials that the origin was not asked about do not take the place of those that worked", async () => {
  const { origin, lab, resolved } = fileLab(10);
  const as = (authorization: string) => ({ ...resolved, source: { ...resolved.source, headers: { authorization } } });
  origin.fault = (n) => {
    if (n > 1) return undefined;
    void lab.seeds.open({ ...as("unasked"), info: undefined });
    return { cutAfterBytes: 3 * PIECE };
  };
  await lab.read(as("good"));
  assert.deepEqual(origin.requests.map(({ headers }) => headers["authorization"]), ["good", "good"]);
});

for (const [code, end] of [["ORIGIN_FORBIDDEN", "complete"], ["ORIGIN_CHANGED", "failed"]] as const) {
  test(`${code} while others brought the rest of the file: ${end}`, async () => {
    const { origin, lab, resolved } = fileLab(3);
    const { task } = await lab.seeds.open(resolved);
    const stored = task.stored as FakeStored;
    origin.fault = () => {
      for (let piece = 0; piece < 3; piece++) stored.have.add(piece);
      return { error: new AppError(code, "no") };
    };
    await lab.read(resolved);
    assert.equal(lab.told.at(-1)?.event, end);
  });
}

test("an origin that does not say at the end whether the file is still the same is waited for five seconds", { timeout: 10_000 }, async (t) => {
  const { origin, lab, resolved } = fileLab(3);
  const ended = new AbortController();
  const waited: number[] = [];
  t.mock.method(AbortSignal, "timeout", (delayMs: number) => (waited.push(delayMs), ended.signal));
  origin.stat = (_request, signal) => {
    setImmediate(() => ended.abort());
    return new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(new AppError("ABORTED", "given up"))));
  };
  assert.ok((await lab.read(resolved)).content.equals(origin.content));
  assert.deepEqual(waited, [5_000]);
});

test("a read names the version that is on disk where the origin could not be asked, and none of what a digest names", () => {
  const { origin, lab, resolved } = fileLab(3);
  assert.equal(expectedVersion(resolved.record, undefined).etag, origin.etag);
  assert.equal(expectedVersion(resolvedTask(origin, lab.key, `sha256:${"a".repeat(64)}`).record, resolved.info).etag, undefined);
});

test("a file that is being read is not let go of, nor one whose second read went well", async () => {
  const { origin, lab, resolved } = fileLab(3);
  const letGo: Promise<boolean>[] = [];
  origin.fault = (n) => {
    letGo.push(lab.seeds.letGo(() => false));
    return n === 1 ? { error: new AppError("ORIGIN_FORBIDDEN", "no") } : undefined;
  };
  await lab.read(resolved);
  await lab.read(resolved);
  assert.deepEqual(lab.told.map(({ event }) => event), ["opened", "failure", "failed", "complete"]);
  assert.deepEqual(await Promise.all(letGo), [false, false]);
  assert.equal(await lab.seeds.letGo(() => true), false);
});

test("a lease of a file that is not open is given back", async () => {
  const { lab, resolved } = fileLab(3);
  lab.seeds.grantLease(resolved.taskId);
  await Promise.resolve();
  assert.deepEqual(lab.told, [{ event: "failed" }]);
});

test("of a task that is forgotten in mid-read the meter keeps nothing, though bytes come yet", async () => {
  const { origin, lab, resolved } = fileLab(40);
  origin.chunkBytes = PIECE / 4;
  const { taskId } = resolved;
  await lab.seeds.open(resolved);
  lab.seeds.grantLease(taskId);
  while (lab.meter.bytesOf(taskId) < 5 * PIECE) await new Promise((resolve) => setImmediate(resolve));
  lab.seeds.forget(taskId);
  lab.meter.forget(taskId);
  await lab.seeds.close();
  assert.equal(lab.meter.bytesOf(taskId), 0);
});
