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

test("few readers get large buffers, many small ones, and the pool keeps no more than 8 MiB of them", () => {
  const pool = new ChunkPool();
  const lent = Array.from({ length: 200 }, () => pool.take());
  assert.equal(lent[0]?.length, 256 * 1024);
  assert.equal(lent.at(-1)?.length, 64 * 1024);
  assert.ok(lent.reduce((sum, { length }) => sum + length, 0) < 20 * 1024 * 1024);
  for (const buffer of lent) pool.give(buffer);
  const again = Array.from({ length: 200 }, () => pool.take());
  const kept = again.filter((buffer) => lent.includes(buffer)).reduce((sum, { length }) => sum + length, 0);
  assert.ok(kept > 0 && kept <= 8 * 1024 * 1024, `${kept} bytes`);
});
