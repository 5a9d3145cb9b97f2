/**
 * Which tasks go when the cache must shrink: the least recently used of those nobody has open. Pure.
 */
import type { TaskId } from "../../protocol/ids.ts";

export interface EvictionCandidate {
  readonly taskId: TaskId;
  /** Bytes of piece data that its removal frees. */
  readonly heldBytes: number;
  readonly usedAtUnixMs: number;
  /** Open, or being opened: never evicted. */
  readonly isPinned: boolean;
}

/** The state of the disk and what is wanted of it; all in bytes. */
export interface SpaceRequest {
  readonly wantedBytes: number;
  readonly usedBytes: number;
  /** Undefined = no quota. */
  readonly quotaBytes: number | undefined;
  readonly freeBytes: number;
  readonly reservedFreeBytes: number;
}

/** Why tasks were evicted: the cache's own limit, or the file system's free space. */
export type EvictionReason = "quota" | "free-space";

export type EvictionDecision =
  | { readonly kind: "fits" }
  /** Evict these, least recently used first, then ask again. */
  | { readonly kind: "evict"; readonly taskIds: readonly TaskId[]; readonly reason: EvictionReason }
  /** Even without every task that may go it does not fit; so nothing is evicted in vain. */
  | { readonly kind: "refuse"; readonly reason: EvictionReason };

/** Decides how `wantedBytes` more can be stored. Same arguments, same answer; ties in age go by task id. */
export function decideEviction(request: SpaceRequest, candidates: Iterable<EvictionCandidate>): EvictionDecision {
  const { wantedBytes, usedBytes, quotaBytes, freeBytes, reservedFreeBytes } = request;
  const overQuotaBytes = quotaBytes === undefined ? 0 : usedBytes + wantedBytes - quotaBytes;
  const missingFreeBytes = wantedBytes + reservedFreeBytes - freeBytes;
  const neededBytes = Math.max(overQuotaBytes, missingFreeBytes);
  if (neededBytes <= 0) return { kind: "fits" };

  const evictable = [...candidates].filter(({ isPinned, heldBytes }) => !isPinned && heldBytes > 0).sort(byAge);
  const taskIds: TaskId[] = [];
  let freedBytes = 0;
  for (const { taskId, heldBytes } of evictable) {
    if (freedBytes >= neededBytes) break;
    taskIds.push(taskId);
    freedBytes += heldBytes;
  }
  if (freedBytes >= neededBytes) return { kind: "evict", taskIds, reason: overQuotaBytes > 0 ? "quota" : "free-space" };
  return { kind: "refuse", reason: freedBytes < overQuotaBytes ? "quota" : "free-space" };
}

function byAge(a: EvictionCandidate, b: EvictionCandidate): number {
  return a.usedAtUnixMs - b.usedAtUnixMs || (a.taskId < b.taskId ? -1 : 1);
}
