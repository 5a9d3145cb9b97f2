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

interface FileSystem {
  freeBytes: number;
  /** How often it was asked. */
  asked: number;
  /** Answered by the test. */
  readonly held: ((freeBytes: number) => void)[] | undefined;
  evictions: number;
}

/** Room on a file system without a quota; each eviction frees 50 bytes. The clock stands still. */
function spaceOn(system: FileSystem, letGo = (): Promise<boolean> => Promise.resolve(false)): StoreSpace {
  return new StoreSpace(
    { directory: "/", quotaBytes: undefined, reservedFreeBytes: 0 },
    {
      disk: {
        ...systemDisk,
        freeBytes: () => {
          system.asked++;
          return system.held === undefined ? Promise.resolve(system.freeBytes) : new Promise((resolve) => system.held?.push(resolve));
        },
      },
      evictableBytes: () => 100,
      evictOne: () => {
        system.evictions++;
        system.freeBytes += 50;
        return Promise.resolve(true);
      },
      letGo,
      nowMs: () => 0,
    },
  );
}

test("what was taken since the file system was asked is not there any more", async () => {
  const system: FileSystem = { freeBytes: 100, asked: 0, held: undefined, evictions: 0 };
  const space = spaceOn(system);
  await space.withRoom(70, () => ((system.freeBytes -= 70), stored()));
  await space.withRoom(30, () => ((system.freeBytes -= 30), stored()));
  assert.deepEqual([system.asked, system.evictions], [1, 0]);
  await space.withRoom(1, stored);
  assert.equal(system.evictions, 1);
});

test("what is taken while the file system is being asked is not there any more either", async () => {
  const system: FileSystem = { freeBytes: 0, asked: 0, held: [], evictions: 0 };
  const space = spaceOn(system);
  const asserted = space.assertRoom(10);
  const writing = Promise.withResolvers<boolean>();
  const written = space.withRoom(70, () => writing.promise);
  await new Promise(setImmediate);
  const [first, second] = system.held ?? [];
  second?.(100);
  await new Promise(setImmediate);
  first?.(100);
  await asserted;
  const next = space.withRoom(40, stored);
  await new Promise(setImmediate);
  assert.equal(system.evictions, 1, "30 are left");
  writing.resolve(true);
  system.held?.[2]?.(150);
  await Promise.all([written, next]);
});

test("room that was made by hand a moment ago is found before a file is refused", async () => {
  const system: FileSystem = { freeBytes: 100, asked: 0, held: undefined, evictions: 0 };
  const space = spaceOn(system);
  await space.withRoom(100, () => ((system.freeBytes = 0), stored()));
  system.freeBytes = 1000;
  await space.assertRoom(500);
  assert.equal(system.evictions, 0);
});

test("no more goes than is needed: after each task the file system is asked", async () => {
  const system: FileSystem = { freeBytes: 0, asked: 0, held: undefined, evictions: 0 };
  const space = spaceOn(system);
  await space.withRoom(40, stored);
  assert.deepEqual([system.evictions, system.asked], [1, 2]);
  // Also when it was the device that refused.
  let refusals = 0;
  system.freeBytes = 1000;
  await space.withRoom(10, () => (refusals++ === 0 ? Promise.reject(new AppError("DISK_FULL", "no space is left")) : stored()));
  assert.equal(system.evictions, 2);
  await space.withRoom(500, stored);
  assert.equal(system.evictions, 2, "what the file system says now counts, not what it said before");
});

function stored(): Promise<boolean> {
  return Promise.resolve(true);
}
