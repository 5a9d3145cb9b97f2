/**
 * How much one transfer takes of the places for transfers (`uploadCount`, `downloadCountMax`, `farDownloadCountMax`).
 *
 * A short piece is whole, and can be passed on, sooner: more of them may share a link, and a socket that takes a whole piece at
 * once hides less of what waits. So of 6 uploads, 11 places and 2 from outside there are 8, 15 and 3 for short pieces. Source:
 * docs/policy.md, "Six with eleven places".
 */

const SHORT_PIECE_BYTES_MAX = 256 * 1024;
/** A sum of quarters is exact. */
const SHORT_SHARE = 0.75;

/** @returns in (0, 1]. Sent is what fits into the places; taken is what begins within them. */
export function placeShareOf(pieceLengthBytes: number): number {
  return pieceLengthBytes <= SHORT_PIECE_BYTES_MAX ? SHORT_SHARE : 1;
}
