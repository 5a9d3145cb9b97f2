/** What `dfget --explain` says. */
import type { Bound } from "../base/bounds.ts";
import type { Explanation } from "../protocol/explanation.ts";
import { showBytes, showDuration } from "./units.ts";

const WORDS: Readonly<Record<Bound, string>> = {
  waiting: "waiting for the supernode, or for neighbours",
  origin: "the origin",
  downlink: "this host's download limit, or its network interface",
  seed: "the seed's uplink",
  neighbours: "neighbours' uplinks",
  disk: "the disk",
  cpu: "the CPU of the peer on this host",
  reader: "who reads: all bytes were here",
};

/** Some lines, each ending in a line feed. */
export function explanationText(explanation: Explanation): string {
  const { boundBy, tookMs, openedMs, firstByteMs, spentMs, bytes, neighbours, pieces, wastedBytes } = explanation;
  const total = Object.values(spentMs).reduce((sum, each) => sum + each, 0);
  const share = (ms: number): string => `${Math.round((100 * ms) / Math.max(1, total))}%`;
  // Most downloads are over within seconds: tenths of one would say of all but the longest part that it was none.
  const show = (ms: number): string => (ms < 1000 ? `${ms} ms` : showDuration(ms));
  const spent = (Object.keys(WORDS) as Bound[]).filter((bound) => spentMs[bound] > 0).toSorted((a, b) => spentMs[b] - spentMs[a]);
  const lines = [
    boundBy === null ? "bound by: nothing, it took no time" : `bound by: ${WORDS[boundBy]} (${share(spentMs[boundBy])} of ${show(tookMs)})`,
    `time: ${spent.map((bound) => `${bound} ${show(spentMs[bound])}`).join(", ") || "none"}`,
    `first byte: after ${firstByteMs === null ? "-" : `${firstByteMs} ms`}; it was known what the file is after ${openedMs} ms`,
    `bytes: seed ${showBytes(bytes.seedBytes)}, peers ${showBytes(bytes.peerBytes)}, origin ${showBytes(bytes.originBytes)}, cache ${showBytes(bytes.cacheBytes)}; wasted ${showBytes(wastedBytes)}`,
    ...neighbours.map(({ peerId, seed, bytes: given }) => `  ${peerId}${seed ? " (seed)" : ""}: ${showBytes(given)}`),
    `pieces: ${pieces.offered} offered, ${pieces.declined} declined, ${pieces.late} late, ${pieces.doubled} doubled, ${pieces.rejected} rejected`,
  ];
  return lines.map((line) => `${line}\n`).join("");
}
