import assert from "node:assert/strict";
import { test } from "node:test";
import { ChunkPool } from "./chunk-pool.ts";

test("a buffer given back is lent again, and never to two at a time", () => {
  const pool = new ChunkPool();
  const first = pool.take();
  const second = pool.take();
  assert.notEqual(first, second);
  pool.give(first);
  assert.equal(pool.take(), first);
});

test("few readers get large buffers, many small ones, and the pool throws none away that 200 had, and keeps no more than 16 MiB", () => {
  const bytesOf = (buffers: readonly Buffer[]): number => buffers.reduce((sum, { length }) => sum + length, 0);
  const pool = new ChunkPool();
  const lent = Array.from({ length: 200 }, () => pool.take());
  assert.equal(lent[0]?.length, 256 * 1024);
  assert.equal(lent.at(-1)?.length, 64 * 1024);
  assert.ok(bytesOf(lent) < 16 * 1024 * 1024);
  for (const buffer of lent) pool.give(buffer);
  const again = Array.from({ length: 200 }, () => pool.take());
  assert.deepEqual(new Set(again), new Set(lent));

  const more = Array.from({ length: 200 }, () => pool.take());
  for (const buffer of [...again, ...more]) pool.give(buffer);
  const known = new Set([...again, ...more]);
  const kept = Array.from({ length: 400 }, () => pool.take()).filter((buffer) => known.has(buffer));
  assert.ok(bytesOf(kept) > 15 * 1024 * 1024 && bytesOf(kept) <= 16 * 1024 * 1024, `${bytesOf(kept)} bytes`);
});
