import type { OriginNetwork } from "../origin/origin-clients.ts";
import type { CacheConfig, HostLabels, ListenAddress, LogLevel, RateLimits, TlsConfig } from "../peer/config.ts";
import type { Topology } from "../protocol/topology.ts";

/**
 * How peers prove that they belong here.
 *
 * - `given`: this secret.
 * - `file`: the first line of `file`; when the file is not there, a new secret is written to it (mode 0600) and shown once.
 * - `none`: anybody may join; allowed on loopback or when the operator insists.
 */
export type JoinTokenConfig =
  | { readonly kind: "given"; readonly token: string }
  | { readonly kind: "file"; readonly file: string }
  | { readonly kind: "none" };

/** How long an origin's word holds that a caller may read something. */
export interface GrantConfig {
  /** In ms from when it was asked; tickets for what was asked for with credentials end with it. */
  readonly grantMs: number;
  /** How much longer while the origin cannot be asked, in ms. */
  readonly outageGrantMs: number;
}

/** How long what an origin said is believed. */
export interface FreshnessConfig {
  /** A file is not asked about again within this time, however many want it; 0 = each time, once for all who ask at that moment. */
  readonly revalidateMs: number;
  /** How long after the origin last confirmed it a file is still given out while the origin cannot be asked; undefined = never. */
  readonly staleMs: number | undefined;
  /** The same for an image's manifest by tag: a registry that is down for an hour must not stop every rollout. */
  readonly staleTagMs: number | undefined;
}

/** What the site may burden a host with. The first that matches counts; each host it matches has a budget of its own. */
export interface OriginBudgetConfig {
  /** `registry.example`, `registry.example:5000`, `*.example`, or `*`. */
  readonly host: string;
  /** > 0; undefined = no limit. */
  readonly bytesPerSecond: number | undefined;
  readonly requestsPerSecond: number | undefined;
}

/** Labels for the hosts of a network, as far as they do not say themselves where they stand. */
export interface NetworkLabels {
  /** `10.1.0.0/16`, `2001:db8::/32`, or one address. */
  readonly network: string;
  /** At least one. */
  readonly labels: Topology;
}

/** Everything that a supernode is told; parsed, checked and frozen by src/cli. */
export interface SupernodeConfig {
  readonly version: string;
  /** Control, links, pieces, REST and metrics. */
  readonly listen: ListenAddress;
  /** The address peers dial for the seed's links; undefined = the one they reached the supernode by. */
  readonly advertiseHost: string | undefined;
  readonly joinToken: JoinTokenConfig;
  /** Undefined: in the clear. */
  readonly tls?: TlsConfig | undefined;
  /** How origins are reached: their authorities, credentials, proxies. */
  readonly network: OriginNetwork;
  readonly grants: GrantConfig;
  readonly cache: CacheConfig;
  readonly limits: RateLimits;
  readonly freshness: FreshnessConfig;
  /** Peers that may read one file from its origin at a time when this supernode cannot; 0 = none. */
  readonly leasePeerCountMax: number;
  /** A read slower than this for ten seconds is handed to them; undefined = never. */
  readonly leaseBelowBytesPerSecond: number | undefined;
  readonly originBudgets: readonly OriginBudgetConfig[];
  /** Its own. */
  readonly labels: HostLabels;
  /** Of its peers. No network twice. */
  readonly networkLabels: readonly NetworkLabels[];
  /** Networks whose dfdaemons, if they want to, are keepers: whatever others take they take too, private files included. */
  readonly keepers: readonly string[];
  readonly logLevel: LogLevel;
}
