import type { ByteSources } from "../../protocol/control-messages.ts";

/** Bytes by where they came from; `cacheBytes` were on this host before. */
export interface SourceBytes extends ByteSources {
  readonly cacheBytes: number;
}

export const NO_SOURCE_BYTES: SourceBytes = { cacheBytes: 0, seedBytes: 0, peerBytes: 0, originBytes: 0 };

/** As `x-dragonfly-sources` has it: what an answer stands on when it begins; the log line has what came of it. */
export function describeSources({ cacheBytes, seedBytes, peerBytes, originBytes }: SourceBytes): string {
  return `cache=${cacheBytes}, seed=${seedBytes}, peers=${peerBytes}, origin=${originBytes}`;
}

/**
 * Shares the bytes of one answer among the sources of its content: what came in for it is counted to where it came
 * from, the rest to the cache. Several readers of one download each count its sources, in proportion to what they sent.
 *
 * @param of as the content tells it when the answer is over
 * @returns whole numbers, in sum `sentBytes`
 */
export function shareSources(of: SourceBytes, sentBytes: number): SourceBytes {
  const { seedBytes: seed, peerBytes: peer, originBytes: origin } = of;
  const scale = Math.min(1, sentBytes / Math.max(1, seed + peer + origin));
  const seedBytes = Math.floor(seed * scale);
  const peerBytes = Math.floor(peer * scale);
  const originBytes = Math.floor(origin * scale);
  const shared = seedBytes + peerBytes + originBytes;
  // What rounding left over belongs to a source when the sources outweigh the answer, else to the cache.
  if (scale === 1 || shared === sentBytes) return { seedBytes, peerBytes, originBytes, cacheBytes: sentBytes - shared };
  const rest = sentBytes - shared;
  if (seed >= peer && seed >= origin) return { seedBytes: seedBytes + rest, peerBytes, originBytes, cacheBytes: 0 };
  if (peer >= origin) return { seedBytes, peerBytes: peerBytes + rest, originBytes, cacheBytes: 0 };
  return { seedBytes, peerBytes, originBytes: originBytes + rest, cacheBytes: 0 };
}
