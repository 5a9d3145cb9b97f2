/**
 * Where a host stands, how far two hosts are from each other, and how the pieces of a file are shared out among those
 * who bring them into a group of hosts.
 */

/** From far to near; equal labels are near. Any may be absent. */
export const TOPOLOGY_LEVELS = ["region", "zone", "rack", "switch"] as const;
export type TopologyLevel = (typeof TOPOLOGY_LEVELS)[number];
export type Topology = { readonly [Level in TopologyLevel]?: string };

/** Levels up to and with the outermost that separates two hosts: 0 = none does, 1 = the switch, … 4 = the region. */
export type Distance = 0 | 1 | 2 | 3 | 4;

/** From free-form labels; empty values count as absent. */
export function topologyOf(labels: Readonly<Record<string, string>>): Topology {
  const topology: { [Level in TopologyLevel]?: string } = {};
  for (const level of TOPOLOGY_LEVELS) {
    const label = labels[level];
    if (label !== undefined && label !== "") topology[level] = label;
  }
  return topology;
}

export function distanceOf(a: Topology, b: Topology): Distance {
  const differing = TOPOLOGY_LEVELS.findIndex((level) => a[level] !== b[level]);
  return (differing < 0 ? 0 : TOPOLOGY_LEVELS.length - differing) as Distance;
}

/** Pieces are shared out by their index modulo this: as many as a word of a piece set has bits. */
export const BUCKET_COUNT = 32;
/** A set of buckets: bit b for the pieces with index ≡ b. */
export type Buckets = number;
export const ALL_BUCKETS: Buckets = -1;

export function hasBucketOf(buckets: Buckets, piece: number): boolean {
  return ((buckets >>> (piece & (BUCKET_COUNT - 1))) & 1) === 1;
}

/** What a peer may take over links of one distance; over others, and where it is told nothing, it may take everything. */
export interface Imports {
  readonly distance: Distance;
  /** It is the one of its group to bring these in. */
  readonly own: Buckets;
  /** It stands in where the one who should bring nothing. */
  readonly backup: Buckets;
}
