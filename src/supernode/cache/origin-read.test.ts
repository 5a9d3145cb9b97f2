/** What a read asks of the desk that signs its pieces; what it asks of origins is in seed-cache.test.ts. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { RateGate } from "../../peer/rate-gate.ts";
import { SigningKey } from "../../peer/membership/credentials.ts";
import { BufferPool } from "./buffer-pool.ts";
import { ExtraStreams } from "./extra-streams.ts";
import { OriginMeter } from "./origin-meter.ts";
import { OriginRead } from "./origin-read.ts";
import { expectedVersion } from "./seed-cache.ts";
import { FakeOrigin, FakeStored, MIB, resolvedTask } from "./seed-fixture.test.ts";
import { SigningDesk } from "./signing-desk.ts";

/** A read at a desk whose time never comes. */
function readAt(origin: FakeOrigin, pool: BufferPool): { readonly read: OriginRead; readonly stored: FakeStored } {
  const key = SigningKey.generate();
  const { record, source } = resolvedTask(origin, key);
  const stored = new FakeStored(record);
  const desk = new SigningDesk({ sign: (statement) => key.sign(statement), nowMs: () => 0, after: () => () => undefined }, record.taskId, record.pieceLengthBytes);
  const read = new OriginRead(
    {
      origin,
      pool,
      meter: new OriginMeter({ limit: new RateGate(undefined), onBytes: () => {}, onRequest: () => {} }),
      extraStreams: new ExtraStreams(),
      random: () => 0,
      sleep: () => Promise.resolve(),
    },
    {
      stored,
      addOwn: async (piece, bytes, sign) => void (await stored.storeOwn(piece, bytes, sign)),
      source: () => source,
      expected: expectedVersion(record, undefined),
      signingDesk: desk,
      confirm: undefined,
      onLength: (lengthBytes) => stored.setLength(lengthBytes, new Uint8Array(64)),
      signal: new AbortController().signal,
    },
  );
  return { read, stored };
}

test("pieces that wait for others to be signed with are signed at the end of the read, and a cut does not stop them", { timeout: 20_000 }, async () => {
  const origin = new FakeOrigin(randomBytes(10 * 64 * 1024));
  origin.fault = (n) => (n === 1 ? { cutAfterBytes: 5 * 64 * 1024 } : undefined);
  const { read, stored } = readAt(origin, new BufferPool(4 * MIB));
  await read.run();
  assert.ok(stored.content.equals(origin.content));
  assert.equal(origin.bytesRead, origin.content.length);
});

test("a piece whose buffer the next one needs waits for no others to be signed with", { timeout: 20_000 }, async () => {
  const origin = new FakeOrigin(randomBytes(10 * 64 * 1024));
  const { read, stored } = readAt(origin, new BufferPool(64 * 1024));
  await read.run();
  assert.ok(stored.content.equals(origin.content));
});
