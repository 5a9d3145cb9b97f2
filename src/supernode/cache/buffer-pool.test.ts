import assert from "node:assert/strict";
import { test } from "node:test";
import { BufferPool, type BufferShare, type PieceBuffer } from "./buffer-pool.ts";

const { signal } = new AbortController();
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("the budget is kept, and who waits is served in order", async () => {
  const pool = new BufferPool(100);
  const held = [await pool.share().acquire(40, signal), await pool.share().acquire(60, signal)];
  const served: number[] = [];
  const waiting = [50, 10].map((bytes, at) => pool.share().acquire(bytes, signal).then((buffer) => (served.push(at), buffer)));
  held[0]?.release();
  await turn();
  // 10 would fit, but 50 came first.
  assert.deepEqual(served, []);
  held[1]?.release();
  for (const buffer of await Promise.all(waiting)) buffer.release();
  assert.deepEqual(served, [0, 1]);
  assert.equal(pool.usedBytes, 0);
});

test("a buffer larger than the budget is handed out alone", async () => {
  const pool = new BufferPool(10);
  const large = await pool.share().acquire(1000, signal);
  assert.equal(large.bytes.length, 1000);
  assert.ok(large.bytes.buffer instanceof SharedArrayBuffer);
  let isServed = false;
  const next = pool.share().acquire(1, signal).then((buffer) => ((isServed = true), buffer));
  await turn();
  assert.equal(isServed, false);
  large.release();
  (await next).release();
});

test("a detached buffer makes room at once, and is used again once it is released", async () => {
  const pool = new BufferPool(40);
  const first = await pool.share().acquire(10, signal);
  first.detach();
  assert.equal(pool.usedBytes, 0);
  const second = await pool.share().acquire(10, signal);
  assert.notEqual(second.bytes.buffer, first.bytes.buffer);
  assert.equal(pool.usedBytes, 10);
  first.release();
  assert.equal(pool.usedBytes, 10);
  const third = await pool.share().acquire(10, signal);
  assert.equal(third.bytes.buffer, first.bytes.buffer);
  second.release();
  third.release();
  assert.equal(pool.usedBytes, 0);
});

test("waiting can be given up, by one for all behind it", async () => {
  const pool = new BufferPool(10);
  const held = await pool.share().acquire(6, signal);
  const giving = new AbortController();
  const large = pool.share().acquire(10, giving.signal);
  const small = pool.share().acquire(4, signal);
  giving.abort();
  await assert.rejects(large, { code: "ABORTED" });
  (await small).release();
  held.release();
  await assert.rejects(pool.share().acquire(1, giving.signal), { code: "ABORTED" });
});

test("first buffers have all of the budget, further ones of the same share half of it, and wait behind them", { timeout: 5_000 }, async () => {
  const pool = new BufferPool(80);
  const greedy = pool.share();
  const served: string[] = [];
  const want = (name: string, share: BufferShare): Promise<PieceBuffer> => share.acquire(10, signal).then((buffer) => (served.push(name), buffer));
  const held = await Promise.all(["1", "2", "3", "4"].map((name) => want(name, greedy)));
  const further = [want("5", greedy), want("6", greedy)];
  const firsts = await Promise.all(["a", "b", "c", "d"].map((name) => want(name, pool.share())));
  const last = want("e", pool.share());
  await turn();
  assert.deepEqual(served, ["1", "2", "3", "4", "a", "b", "c", "d"]);
  for (const buffer of [held[0], ...firsts]) buffer?.release();
  await turn();
  assert.deepEqual(served.slice(8), ["e"]);
  (await last).release();
  await turn();
  assert.deepEqual(served.slice(9), ["5"]);
  // One that has none left has a first one again.
  for (const buffer of [...held.slice(1), await further[0]]) buffer?.detach();
  (await (further[1] as Promise<PieceBuffer>)).release();
  assert.deepEqual(served.slice(10), ["6"]);
  assert.equal(pool.usedBytes, 0);
});
