/**
 * Late binding: which neighbour and which pieces, at the moment the uplink is about to be free.
 *
 * Neighbour: the one that receives least. Pieces: those that nobody around holds (wanted ones first, then in file
 * order: this is what makes a seed send each piece about once); then those its reader waits for; then the rarest.
 */
import type { Prng } from "../base/prng.ts";
import { hasBucketOf } from "../protocol/topology.ts";
import { expireAvoidances, holdsAll, isComplete, PRIORITY_RANK, type Link, type Remote, type Send, type Task } from "./tables.ts";

export interface Choice {
  readonly remote: Remote;
  /** Best first; at least one. */
  readonly pieces: readonly number[];
  /** Nobody around holds the first of them, or is about to. */
  readonly isUnique: boolean;
}

/** A neighbour is behind another when it holds so many pieces less; with more, some are whole late. Source: docs/policy.md, "Who is furthest behind". */
const BEHIND_PIECES = 6;
/** Of a file of very many pieces a step is longer, so that there are no more steps than these. */
const BEHIND_STEPS_MAX = 2 ** 10;

/** So many pieces that nobody around holds are named at most: each is kept for one neighbour until it answers, and hardly ever declined. */
const UNIQUE_CANDIDATE_COUNT_MAX = 4;

/**
 * @param sends what is under way already
 * @returns the best offer to make now, or undefined when no neighbour could use anything we hold
 */
export function chooseSend(links: Iterable<Link>, sends: Iterable<Send>, candidateCount: number, prng: Prng, nowMs: number): Choice | undefined {
  const candidates: { readonly remote: Remote; readonly key: number }[] = [];
  const lots = new Map<Task, number | "none">();
  for (const link of links) {
    if (nowMs < link.stalledUntilMs) continue;
    const busy = Math.max(link.incoming, link.outgoing);
    if (busy >= link.capacity) continue;
    for (const remote of link.remotes.values()) {
      if (remote.isolated || !remote.receives || holdsAll(remote)) continue;
      // Priority, how busy, our own share to it, a file by lot, how far behind, chance: one integer, a total order.
      // Shares of different files say nothing about each other: compared, they starved small files to the last moment.
      const { task } = remote;
      let lot = lots.get(task);
      if (lot === undefined) lots.set(task, (lot = isBeginning(task, sends) ? "none" : prng.nextUint32() >>> 26));
      if (lot === "none") continue;
      const key =
        PRIORITY_RANK[task.priority] * 2 ** 45 +
        Math.min(busy, 255) * 2 ** 37 +
        Math.min(link.outgoing, 15) * 2 ** 33 +
        lot * 2 ** 27 +
        stepOf(remote) * 2 ** 17 +
        (prng.nextUint32() >>> 15);
      candidates.push({ remote, key });
    }
  }
  candidates.sort((a, b) => a.key - b.key);
  for (const { remote } of candidates) {
    expireAvoidances(remote, nowMs);
    const pieces = choosePieces(remote, candidateCount, prng);
    const [first] = pieces;
    if (first === undefined) continue;
    const isUnique = (remote.task.copies[first] ?? 0) === 0;
    return { remote, pieces: isUnique ? pieces.slice(0, UNIQUE_CANDIDATE_COUNT_MAX) : pieces, isUnique };
  }
  return undefined;
}

/** How far it is, in steps of {@link BEHIND_PIECES}; below {@link BEHIND_STEPS_MAX}. */
function stepOf({ have, task }: Remote): number {
  const pieces = Math.max(BEHIND_PIECES, (task.pieceCount ?? 0) / BEHIND_STEPS_MAX);
  return Math.min(BEHIND_STEPS_MAX - 1, Math.floor(have.count / pieces));
}

/**
 * True when all that is here of a file is on its way already. Two copies of one piece at a time take twice as long until
 * somebody can pass it on, and while a file comes in, something that nobody has is here in a moment. What has stalled does
 * not count. Source: docs/policy.md, "How a swarm fills".
 */
function isBeginning(task: Task, sends: Iterable<Send>): boolean {
  if (isComplete(task)) return false;
  let count = 0;
  for (const { remote, stalled } of sends) if (remote.task === task && !stalled) count++;
  return count >= task.have.count;
}

/** Where a class of pieces begins in the order of choice; a piece index has 24 bits. */
const UNIQUE_RANK = 2 ** 10;
const WANTED_RANK = 2 ** 25;
const RARE_RANK = 2 ** 26;

/** @returns at most `count` pieces to offer to this neighbour, best first; none when it needs none that we hold */
export function choosePieces(remote: Remote, count: number, prng: Prng): readonly number[] {
  const { task } = remote;
  const { copies } = task;
  const chosen: number[] = [];
  const ranks: number[] = [];
  const consider = (piece: number, rank: number): void => {
    if (chosen.length === count) {
      if (rank >= (ranks[count - 1] as number)) return;
      chosen.pop();
      ranks.pop();
    }
    let at = ranks.length;
    while (at > 0 && rank < (ranks[at - 1] as number)) at--;
    chosen.splice(at, 0, piece);
    ranks.splice(at, 0, rank);
  };
  const { imports } = remote;
  remote.wants.forEach((piece, at) => {
    if (!hasBucketOf(imports, piece)) return;
    if (chosen.includes(piece) || !task.have.has(piece) || remote.have.has(piece)) return;
    if (remote.underWay.has(piece) || remote.avoided.has(piece)) return;
    consider(piece, (copies[piece] ?? 0) === 0 ? at : WANTED_RANK + at);
  });
  const mine = task.have.words;
  const theirs = remote.have.words;
  const underWay = remote.underWay.words;
  const avoided = remote.avoided.words;
  const wordCount = mine.length;
  // Equally rare pieces are taken in a random order: of words, and of bits within a word.
  const startWord = wordCount > 1 ? prng.below(wordCount) : 0;
  for (let step = 0; step < wordCount; step++) {
    const at = step + startWord < wordCount ? step + startWord : step + startWord - wordCount;
    let word = imports & (mine[at] as number) & ~(theirs[at] ?? 0) & ~(underWay[at] ?? 0) & ~(avoided[at] ?? 0);
    if (word === 0) continue;
    const rotation = prng.nextUint32() & 31;
    word = rotation === 0 ? word : (word >>> rotation) | (word << (32 - rotation));
    while (word !== 0) {
      const lowest = word & -word;
      word ^= lowest;
      const piece = at * 32 + ((31 - Math.clz32(lowest) + rotation) & 31);
      const copyCount = copies[piece] ?? 0;
      const rank = copyCount === 0 ? UNIQUE_RANK + piece : RARE_RANK + copyCount;
      if (chosen.length === count && rank >= (ranks[count - 1] as number)) continue;
      if (!chosen.includes(piece)) consider(piece, rank);
    }
  }
  return chosen;
}
