import assert from "node:assert/strict";
import { test } from "node:test";
import { RECEIVE_BYTES_MAX, ReceiveBuffers } from "./receive-buffers.ts";

const MIB = 1024 * 1024;

test("memory goes round: what is given back is taken again, however often, but not what somebody may still write into", () => {
  const buffers = new ReceiveBuffers();
  const first = buffers.take(8 * MIB).buffer;
  let bytes = new Uint8Array(first);
  for (let round = 0; round < 10; round++) {
    buffers.release(bytes, true);
    bytes = buffers.take(8 * MIB);
    assert.ok(bytes.buffer === first, `round ${round}`);
  }
  buffers.release(bytes, false);
  assert.ok(buffers.take(8 * MIB).buffer !== first);
  assert.equal(buffers.usedBytes, 8 * MIB);
});

test("little is kept of what nobody uses: 16 MiB, and no last pieces", () => {
  const buffers = new ReceiveBuffers();
  const taken = Array.from({ length: 4 }, () => buffers.take(8 * MIB));
  const last = buffers.take(100_000);
  for (const bytes of taken) buffers.release(bytes, true);
  buffers.release(last, true);
  const known = new Set(taken.map(({ buffer }) => buffer));
  const again = Array.from({ length: 4 }, () => buffers.take(8 * MIB));
  assert.equal(again.filter(({ buffer }) => known.has(buffer)).length, 2);
  assert.ok(buffers.take(100_000).buffer !== last.buffer);
});

test("there is room until the limit is reached", () => {
  const buffers = new ReceiveBuffers();
  buffers.take(RECEIVE_BYTES_MAX - 1);
  assert.equal(buffers.hasRoom, true);
  const last = buffers.take(1);
  assert.equal(buffers.hasRoom, false);
  buffers.release(last, true);
  assert.equal(buffers.hasRoom, true);
});
