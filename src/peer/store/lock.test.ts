import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { temporaryDirectory } from "./fixture.test.ts";
import { StoreLock } from "./lock.ts";

test("taking the lock writes nothing beside `lock`, and so needs no block of a full device", async (t) => {
  const directory = temporaryDirectory(t);
  const lock = await StoreLock.take(directory);
  assert.equal(existsSync(join(directory, "lock-journal")), false);
  await lock.release();
});
