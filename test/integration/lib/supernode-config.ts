/** A supernode's settings as most tests want it: on loopback, any port, nothing limited, open to all. */
import { PLAIN_NETWORK } from "../../../src/origin/origin-clients.ts";
import type { SupernodeConfig } from "../../../src/supernode/config.ts";

export const NO_LIMITS = { downloadBytesPerSecond: undefined, uploadBytesPerSecond: undefined, originBytesPerSecond: undefined } as const;

/** A cache without bounds, of a supernode or a peer. */
export function cacheIn(dataDirectory: string): SupernodeConfig["cache"] {
  return { dataDirectory, quotaBytes: undefined, reservedFreeBytes: 0, scrubBytesPerSecond: 0 };
}

export function supernodeConfig(dataDirectory: string, changes: Partial<SupernodeConfig> = {}): SupernodeConfig {
  return {
    version: "0",
    listen: { host: "127.0.0.1", port: 0 },
    advertiseHost: undefined,
    grants: { grantMs: 300_000, outageGrantMs: 0 },
    joinToken: { kind: "none" },
    network: PLAIN_NETWORK,
    cache: cacheIn(dataDirectory),
    limits: NO_LIMITS,
    freshness: { revalidateMs: 1_000, staleMs: undefined, staleTagMs: undefined },
    leasePeerCountMax: 3,
    leaseBelowBytesPerSecond: undefined,
    originBudgets: [],
    networkLabels: [], keepers: [],
    labels: {},
    logLevel: "silent",
    ...changes,
  };
}
