/**
 * What may come in from outside of our rack, zone or region: each piece is brought in by the one the supernode designated
 * for it, and goes from hand to hand inside. Who has all of its share helps with the share it is the backup for. When inside nobody has anything for a while, the backup may bring it in,
 * and then anybody, for a moment: a dead importer costs a second, and a few pieces that cross twice.
 */
import { ALL_BUCKETS, BUCKET_COUNT, type Buckets, type Distance, hasBucketOf } from "../protocol/topology.ts";
import { isComplete, type Remote, type Task } from "./tables.ts";

/** Nothing gained for this long, while those outside have what nobody here has: the backup brings it in. */
const BACKUP_AFTER_MS = 1_000;
/** Slower than this nobody is thought to be: large pieces take their time. */
const SLOWEST_BYTES_PER_MS = 1024;
/** After so many times that, and for as long, anybody may: of what those inside claim to hold, too, for they may lie. */
const ANYBODY_FACTOR = 2;

/** What we take over links of this distance now. */
export function importable(task: Task, distance: Distance): Buckets {
  if (distance === 0 || task.relief === "anybody") return ALL_BUCKETS;
  for (const entry of task.imports) {
    if (entry.distance === distance) return task.relief === "backup" ? entry.own | entry.backup : entry.own;
  }
  return ALL_BUCKETS;
}

/** Whether an offer of this piece may be accepted from there, as far as boundaries go. */
export function mayImport({ task, link }: Remote, piece: number): boolean {
  if (link.distance === 0 || task.imports.length === 0) return true;
  if (!hasBucketOf(importable(task, link.distance), piece)) return false;
  if (task.relief === "anybody") return true;
  // Somebody nearer has it already: it comes from there.
  for (const remote of task.remotes.values()) if (remote.link.distance < link.distance && remote.have.has(piece)) return false;
  return true;
}

/** @returns whether what we take has changed */
export function reconsiderRelief(task: Task, nowMs: number): boolean {
  if (task.imports.length === 0 || nowMs < task.reliefUntilMs) return false;
  const backupAfterMs = Math.max(BACKUP_AFTER_MS, task.pieceLengthBytes / SLOWEST_BYTES_PER_MS);
  const anybodyAfterMs = backupAfterMs * ANYBODY_FACTOR;
  const formerly = task.relief;
  // While relief lasts, what comes from outside is no reason to end it.
  const hungryMs = nowMs - (formerly === "anybody" ? task.lastInsideGainMs : task.lastGainMs);
  task.relief = "none";
  if (!isComplete(task)) {
    if (hungryMs >= anybodyAfterMs && outsideHasMore(task, false)) task.relief = "anybody";
    else if (hungryMs >= backupAfterMs && outsideHasMore(task, true)) task.relief = "backup";
    task.reliefUntilMs = nowMs + (task.relief === "anybody" ? anybodyAfterMs : task.relief === "backup" ? backupAfterMs : 0);
    if (task.relief === "none" && isShareDone(task)) task.relief = "backup";
  }
  return task.relief !== formerly;
}

/** All that is ours to bring in is here, or on its way. */
function isShareDone({ imports, claims, have, pieceCount }: Task): boolean {
  const own = imports.reduce((union, entry) => union | entry.own, 0);
  if (own === 0 || pieceCount === undefined) return false;
  for (let at = 0, left = pieceCount; left > 0; at++, left -= BUCKET_COUNT) {
    const valid = left < BUCKET_COUNT ? 2 ** left - 1 : ALL_BUCKETS;
    if ((own & valid & ~((claims.words[at] ?? 0) | (have.words[at] ?? 0))) !== 0) return false;
  }
  return true;
}

/** Some neighbour outside holds what we do not, nor, if those are counted, any neighbour inside. */
function outsideHasMore(task: Task, countInside: boolean): boolean {
  const inside = [...task.have.words];
  for (const { link, have } of task.remotes.values()) {
    if (countInside && link.distance === 0) have.words.forEach((word, at) => (inside[at] = (inside[at] ?? 0) | word));
  }
  for (const { link, have, isolated } of task.remotes.values()) {
    if (link.distance === 0 || isolated) continue;
    if (have.words.some((word, at) => (word & ~(inside[at] ?? 0)) !== 0)) return true;
  }
  return false;
}
