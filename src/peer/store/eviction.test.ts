import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { TaskId } from "../../protocol/ids.ts";
import { decideEviction, type EvictionCandidate, type SpaceRequest } from "./eviction.ts";

const request: SpaceRequest = { wantedBytes: 10, usedBytes: 90, quotaBytes: 100, freeBytes: 1000, reservedFreeBytes: 100 };

function candidate(name: string, heldBytes: number, usedAtUnixMs: number, isPinned = false): EvictionCandidate {
  return { taskId: name as TaskId, heldBytes, usedAtUnixMs, isPinned };
}

describe("eviction", () => {
  test("what fits exactly evicts nothing", () => {
    assert.deepEqual(decideEviction(request, [candidate("a", 90, 1)]), { kind: "fits" });
  });

  test("without a quota only the free space counts, and a quota of zero is a quota", () => {
    assert.deepEqual(decideEviction({ ...request, quotaBytes: undefined, usedBytes: 1e15 }, []), { kind: "fits" });
    assert.deepEqual(decideEviction({ ...request, quotaBytes: 0, usedBytes: 0 }, []), { kind: "refuse", reason: "quota" });
  });

  test("the least recently used go first, and no more of them than needed", () => {
    const candidates = [candidate("new", 30, 3), candidate("old", 5, 1), candidate("middle", 30, 2)];
    assert.deepEqual(decideEviction({ ...request, wantedBytes: 20 }, candidates), { kind: "evict", taskIds: ["old", "middle"], reason: "quota" });
  });

  test("tasks of one age go in the order of their ids, whatever the order of the candidates", () => {
    const candidates = [candidate("b", 10, 1), candidate("a", 10, 1)];
    assert.deepEqual(decideEviction({ ...request, wantedBytes: 20 }, candidates), { kind: "evict", taskIds: ["a"], reason: "quota" });
  });

  test("open tasks never go, empty ones are of no use", () => {
    const candidates = [candidate("open", 80, 1, true), candidate("empty", 0, 2), candidate("closed", 10, 3)];
    assert.deepEqual(decideEviction({ ...request, wantedBytes: 20 }, candidates), { kind: "evict", taskIds: ["closed"], reason: "quota" });
  });

  test("nothing is evicted in vain", () => {
    const candidates = [candidate("open", 80, 1, true), candidate("closed", 9, 3)];
    assert.deepEqual(decideEviction({ ...request, wantedBytes: 20 }, candidates), { kind: "refuse", reason: "quota" });
  });

  test("free space that is to stay free is made, else refused", () => {
    const low = { ...request, usedBytes: 50, freeBytes: 105 };
    assert.deepEqual(decideEviction(low, [candidate("a", 5, 1)]), { kind: "evict", taskIds: ["a"], reason: "free-space" });
    assert.deepEqual(decideEviction(low, [candidate("a", 4, 1)]), { kind: "refuse", reason: "free-space" });
  });
});
