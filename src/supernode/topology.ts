import type { Topology } from "../scheduler/index.ts";

/** Where a host stands, from its free-form labels. Empty values count as absent. */
export function topologyOf(labels: Readonly<Record<string, string>>): Topology {
  const topology: { region?: string; zone?: string; rack?: string } = {};
  for (const level of ["region", "zone", "rack"] as const) {
    const label = labels[level];
    if (label !== undefined && label !== "") topology[level] = label;
  }
  return topology;
}
