/** What a supernode keeps of small files that were read, and of questions that were asked: little, and not for ever. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { SigningKey } from "../peer/membership/credentials.ts";
import { RateGate } from "../peer/rate-gate.ts";
import type { TaskId } from "../protocol/ids.ts";
import { OriginMeter } from "./cache/origin-meter.ts";
import { FakeOrigin, FakeStore, resolvedTask, silentLog } from "./cache/seed-fixture.test.ts";
import { SmallContent } from "./small-content.ts";
import { VersionMemory } from "./tasks/version-memory.ts";

test("the meter keeps nothing of small files that have been read", async () => {
  const meter = new OriginMeter({ limit: new RateGate(undefined), onBytes: () => {}, onRequest: () => {} });
  const origin = new FakeOrigin(Buffer.alloc(100, 1));
  const key = SigningKey.generate();
  const small = new SmallContent({ origin, store: new FakeStore(), key, meter, log: silentLog, random: () => 0 });
  const base = resolvedTask(origin, key);
  const ids = Array.from({ length: 200 }, (_, n) => n.toString(16).padStart(64, "0") as TaskId);
  // oxlint-disable-next-line no-await-in-loop -- one after the other
  for (const taskId of ids) await small.get({ ...base, taskId, record: { ...base.record, taskId } });
  assert.equal(ids.filter((taskId) => meter.bytesOf(taskId) > 0).length, 0);
});

test("questions are forgotten while the supernode runs, not only when it starts", { timeout: 60_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-test-"));
  const file = join(directory, "versions.sqlite");
  const memory = new VersionMemory(file);
  for (let n = 0; n < 260_000; n++) memory.set(`key ${n} ${"x".repeat(35)}`, { taskId: "a".repeat(64) as TaskId, lengthBytes: 1, seenUnixMs: n });
  const count = Number(new DatabaseSync(file, { readOnly: true }).prepare("SELECT count(*) AS n FROM version").get()?.["n"]);
  memory.close();
  rmSync(directory, { recursive: true, force: true });
  assert.ok(count <= 220_000, `${count} rows`);
});
