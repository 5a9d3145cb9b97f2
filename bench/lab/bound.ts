/**
 * The least time in which every host can hold the whole file, whatever the protocol:
 *
 *     T* = w · max( F/u_s , F/min d_i , N·F/(u_s + Σu_i) )
 *
 * and with R racks behind links of speed r, the seed in none, also F/r and R·F/(u_s + R·r): each rack needs a copy from outside.
 *
 * `w` is the share of the wire that TCP's headers take. The token buckets count whole Ethernet frames, so at MTU 9000
 * a full segment of 8948 content bytes (IPv4 20, TCP 20, timestamps 12) costs 9014 bytes: w = 1.0074.
 * Not counted: acknowledgements (they travel in the other direction), handshakes, the systems' own messages,
 * the buckets' initial burst (64 KiB per link, 0.1 % of 50 MiB).
 */
export const MTU_BYTES = 9000;
export const WIRE_FACTOR: number = (MTU_BYTES + 14) / (MTU_BYTES - 52);

/** Link speeds in bit/s of the wire; `fileBytes` counts content. */
export interface Links {
  readonly seedUp: number;
  readonly up: readonly number[];
  readonly down: readonly number[];
  readonly racks?: { readonly count: number; readonly rate: number } | undefined;
}

/** T* in seconds. */
export function lowerBoundSeconds(fileBytes: number, links: Links): number {
  const wireBits = fileBytes * 8 * WIRE_FACTOR;
  const allUp = links.up.reduce((sum, rate) => sum + rate, links.seedUp);
  const flat = Math.max(wireBits / links.seedUp, wireBits / Math.min(...links.down), (links.up.length * wireBits) / allUp);
  if (links.racks === undefined) return flat;
  const { count, rate } = links.racks;
  return Math.max(flat, wireBits / rate, (count * wireBits) / (links.seedUp + count * rate));
}

/** Everybody from one link, one after the other or all at once: N·F/u_s, in seconds. */
export function directSeconds(fileBytes: number, links: Links): number {
  return (links.up.length * fileBytes * 8 * WIRE_FACTOR) / links.seedUp;
}
