import assert from "node:assert/strict";
import { test } from "node:test";

import { AppError } from "../../base/errors.ts";
import { systemDisk } from "./disk.ts";
import { StoreSpace } from "./space.ts";

test("nothing is evicted for what would not fit although all went", async () => {
  const evicted: string[] = [];
  let evictableBytes = 50;
  const space: StoreSpace = new StoreSpace(
    { directory: "/", quotaBytes: 100, reservedFreeBytes: 0 },
    {
      disk: systemDisk,
      evictableBytes: () => evictableBytes,
      evictOne: (reason) => {
        evicted.push(reason);
        space.giveBack(50);
        evictableBytes -= 50;
        return Promise.resolve(true);
      },
      letGo: () => Promise.resolve(false),
      nowMs: () => 0,
    },
  );
  space.count(90);
  await assert.rejects(space.assertRoom(61), { code: "CACHE_QUOTA_EXCEEDED" });
  await assert.rejects(space.withRoom(61, stored), { code: "CACHE_QUOTA_EXCEEDED" });
  assert.deepEqual(evicted, []);
  await space.withRoom(60, stored);
  assert.deepEqual([evicted, space.usedBytes], [["quota"], 100]);
});

test("what has room and is not written yet is not free, whatever the file system says meanwhile", async () => {
  let nowMs = 0;
  const space = new StoreSpace(
    { directory: "/", quotaBytes: undefined, reservedFreeBytes: 0 },
    {
      disk: { ...systemDisk, freeBytes: () => Promise.resolve(100) },
      evictableBytes: () => 0,
      evictOne: () => Promise.resolve(false),
      letGo: () => Promise.resolve(false),
      nowMs: () => nowMs,
    },
  );
  const writing = Promise.withResolvers<boolean>();
  let isOut = (): void => undefined;
  const first = space.withRoom(70, (told) => {
    isOut = told;
    return writing.promise;
  });
  await new Promise(setImmediate);
  nowMs = 2000;
  await assert.rejects(space.withRoom(40, stored), { code: "DISK_FULL" });
  assert.equal(await space.withRoom(30, stored), true);
  // Written, though not signed and journaled: the file system says so itself.
  isOut();
  isOut();
  nowMs = 4000;
  assert.equal(await space.withRoom(100, stored), true);
  writing.resolve(true);
  assert.deepEqual([await first, space.usedBytes], [true, 200]);
});

test("many writes that are refused at once make room once", async () => {
  let evictedCount = 0;
  const refusal = Promise.withResolvers<never>();
  const space = new StoreSpace(
    { directory: "/", quotaBytes: undefined, reservedFreeBytes: 0 },
    {
      disk: { ...systemDisk, freeBytes: () => Promise.resolve(1000) },
      evictableBytes: () => 1000,
      evictOne: () => Promise.resolve(++evictedCount > 0),
      letGo: () => Promise.resolve(false),
      nowMs: () => 0,
    },
  );
  const writes = Array.from({ length: 32 }, () => {
    let isFirst = true;
    return space.withRoom(1, () => {
      if (!isFirst) return Promise.resolve(true);
      isFirst = false;
      return refusal.promise;
    });
  });
  await new Promise(setImmediate);
  refusal.reject(new AppError("DISK_FULL", "no space is left"));
  assert.deepEqual(new Set(await Promise.all(writes)), new Set([true]));
  assert.equal(evictedCount, 1);
});

test("a device that refuses what the account allows: a task goes for each refusal, up to three; with none to go it fails at once", async () => {
  let evictableCount = 5;
  let refusals = 0;
  const space = new StoreSpace(
    { directory: "/", quotaBytes: undefined, reservedFreeBytes: 0 },
    {
      disk: { ...systemDisk, freeBytes: () => Promise.resolve(100) },
      evictableBytes: () => evictableCount,
      evictOne: (reason) => Promise.resolve(reason === "free-space" && evictableCount > 0 && evictableCount-- > 0),
      letGo: () => Promise.resolve(false),
      nowMs: () => 0,
    },
  );
  const refusedTimes = (times: number) => (): Promise<boolean> => {
    if (refusals++ < times) return Promise.reject(new AppError("DISK_FULL", "no space is left"));
    return Promise.resolve(true);
  };
  assert.equal(await space.withRoom(10, refusedTimes(2)), true);
  assert.deepEqual([evictableCount, space.usedBytes], [3, 10]);
  refusals = 0;
  await assert.rejects(space.withRoom(10, refusedTimes(9)), { code: "DISK_FULL" });
  assert.deepEqual([evictableCount, refusals, space.usedBytes], [0, 4, 10]);
  refusals = 0;
  await assert.rejects(space.withRoom(10, refusedTimes(1)), { code: "DISK_FULL" });
  assert.equal(refusals, 1);
  await assert.rejects(
    space.withRoom(10, () => Promise.reject(new AppError("DISK_FAILED", "broken"))),
    { code: "DISK_FAILED" },
  );
});

function stored(): Promise<boolean> {
  return Promise.resolve(true);
}
