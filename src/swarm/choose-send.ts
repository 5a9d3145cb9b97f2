/**
 * Late binding: which neighbour and which piece, at the moment the uplink is about to be free.
 *
 * Neighbour: the one that receives least. Piece: one that nobody around holds (a wanted one first, then in file
 * order: this is what makes a seed send each piece about once); else one its reader waits for; else the rarest.
 */
import type { Prng } from "../base/prng.ts";
import { expireAvoidances, holdsAll, PRIORITY_RANK, type Link, type Remote } from "./tables.ts";

export interface Choice {
  readonly remote: Remote;
  readonly piece: number;
}

/** @returns the best transfer to offer now, or undefined when no neighbour could use anything we hold */
export function chooseSend(links: Iterable<Link>, prng: Prng, nowMs: number): Choice | undefined {
  const candidates: { readonly remote: Remote; readonly key: number }[] = [];
  for (const link of links) {
    if (nowMs < link.stalledUntilMs) continue;
    const busy = Math.max(link.incoming, link.outgoing);
    if (busy >= link.capacity) continue;
    for (const remote of link.remotes.values()) {
      if (remote.isolated || !remote.receives || remote.task.have.count === 0 || holdsAll(remote)) continue;
      // Priority, then how busy, then our own share to it, then chance: one integer, so that the order is total.
      const key =
        PRIORITY_RANK[remote.task.priority] * 2 ** 40 +
        Math.min(busy, 255) * 2 ** 32 +
        Math.min(link.outgoing, 15) * 2 ** 28 +
        (prng.nextUint32() >>> 4);
      candidates.push({ remote, key });
    }
  }
  candidates.sort((a, b) => a.key - b.key);
  for (const { remote } of candidates) {
    expireAvoidances(remote, nowMs);
    const piece = choosePiece(remote, prng);
    if (piece !== undefined) return { remote, piece };
  }
  return undefined;
}

/** @returns the piece to offer to this neighbour, or undefined when it needs none that we hold */
export function choosePiece(remote: Remote, prng: Prng): number | undefined {
  const { task } = remote;
  const copies = task.copies;
  let wanted: number | undefined;
  let wantedCopies = Number.POSITIVE_INFINITY;
  for (const piece of remote.wants) {
    if (!task.have.has(piece) || remote.have.has(piece)) continue;
    if (remote.underWay.has(piece) || remote.avoided.has(piece)) continue;
    const count = copies[piece] ?? 0;
    if (count < wantedCopies) {
      wanted = piece;
      wantedCopies = count;
    }
  }
  if (wantedCopies === 0) return wanted;
  const mine = task.have.words;
  const theirs = remote.have.words;
  const underWay = remote.underWay.words;
  const avoided = remote.avoided.words;
  const wordCount = mine.length;
  const startWord = wordCount > 1 ? prng.below(wordCount) : 0;
  let firstUnique: number | undefined;
  let rarest: number | undefined;
  let rarestCopies = Number.POSITIVE_INFINITY;
  for (let step = 0; step < wordCount; step++) {
    const at = step + startWord < wordCount ? step + startWord : step + startWord - wordCount;
    let word = (mine[at] as number) & ~(theirs[at] ?? 0) & ~(underWay[at] ?? 0) & ~(avoided[at] ?? 0);
    if (word === 0) continue;
    // A random bit order within the word, so that equally rare pieces of one word are not always taken lowest first.
    const rotation = prng.nextUint32() & 31;
    word = rotation === 0 ? word : (word >>> rotation) | (word << (32 - rotation));
    while (word !== 0) {
      const lowest = word & -word;
      word ^= lowest;
      const piece = at * 32 + ((31 - Math.clz32(lowest) + rotation) & 31);
      const count = copies[piece] ?? 0;
      if (count === 0) {
        if (firstUnique === undefined || piece < firstUnique) firstUnique = piece;
      } else if (count < rarestCopies) {
        rarest = piece;
        rarestCopies = count;
      }
    }
  }
  return firstUnique ?? wanted ?? rarest;
}
