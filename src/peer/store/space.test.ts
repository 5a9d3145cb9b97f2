import assert from "node:assert/strict";
import { test } from "node:test";
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
  await assert.rejects(space.reserve(61), { code: "CACHE_QUOTA_EXCEEDED" });
  assert.deepEqual(evicted, []);
  await space.reserve(60);
  assert.deepEqual([evicted, space.usedBytes], [["quota"], 100]);
});
