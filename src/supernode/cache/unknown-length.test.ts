/** Reads of files whose length is not known: what they hold while they wait for the end, and give back. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import type { TaskId } from "../../protocol/ids.ts";
import { FakeOrigin, FakeStored, MIB, resolvedTask, seedLab } from "./seed-fixture.test.ts";
import { BufferPool } from "./buffer-pool.ts";
import { OriginRead } from "./origin-read.ts";
import { expectedVersion } from "./seed-cache.ts";
import { SigningDesk, SYSTEM_CLOCK } from "./signing-desk.ts";
import { ExtraStreams } from "./extra-streams.ts";
import { OriginMeter } from "./origin-meter.ts";
import { RateGate } from "../../peer/rate-gate.ts";
import { SigningKey } from "../../peer/membership/credentials.ts";

test("as many reads of unknown length as the pool has buffers come to an end", { timeout: 10_000 }, async () => {
  const origin = new FakeOrigin(randomBytes(3 * MIB));
  origin.tellsLength = false;
  const lab = seedLab(origin);
  const base = resolvedTask(origin, lab.key);
  const ids = Array.from({ length: 4 }, (_, n) => String(n).repeat(64) as TaskId);
  const tasks = await Promise.all(ids.map((taskId) => lab.seeds.open({ ...base, taskId, record: { ...base.record, taskId } })));
  for (const taskId of ids) lab.seeds.grantLease(taskId);
  const end = Date.now() + 3_000;
  while (tasks.some(({ task }) => !task.stored.complete) && Date.now() < end) await new Promise((r) => setTimeout(r, 20));
  assert.deepEqual(tasks.map(({ task }) => task.stored.complete), [true, true, true, true], `pool uses ${lab.pool.usedBytes / MIB} MiB`);
});

function readOf(origin: FakeOrigin, pool: BufferPool, stored: FakeStored, key: SigningKey) {
  const { record, source } = resolvedTask(origin, key);
  return new OriginRead(
    { origin, pool, meter: new OriginMeter({ limit: new RateGate(undefined), onBytes: () => {}, onRequest: () => {} }), extraStreams: new ExtraStreams(), random: () => 0, sleep: () => Promise.resolve() },
    {
      stored,
      addOwn: async (piece, bytes, sign) => void (await stored.storeOwn(piece, bytes, sign)),
      source: () => source,
      expected: expectedVersion(record, undefined),
      signingDesk: new SigningDesk({ sign: (s) => key.sign(s), ...SYSTEM_CLOCK }, record.taskId, record.pieceLengthBytes),
      confirm: () => Promise.resolve(),
      onLength: (lengthBytes) => stored.setLength(lengthBytes, new Uint8Array(64)),
      signal: new AbortController().signal,
    },
  );
}

test("a read of unknown length whose source changed gives all its buffers back", { timeout: 10_000 }, async () => {
  const origin = new FakeOrigin(randomBytes(4 * MIB));
  origin.tellsLength = false;
  origin.ranges = false;
  const key = SigningKey.generate();
  const stored = new FakeStored(resolvedTask(origin, key).record);
  // Cut once; read again from the start, other bytes come.
  origin.fault = (n) => {
    if (n === 1) return { cutAfterBytes: 2 * MIB + 100 };
    origin.content = randomBytes(4 * MIB);
    return undefined;
  };
  const pool = new BufferPool(64 * MIB);
  await assert.rejects(readOf(origin, pool, stored, key).run(), { code: "ORIGIN_CHANGED" });
  assert.equal(pool.usedBytes, 0);
});
