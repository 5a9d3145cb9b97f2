import type { OriginNetwork } from "../origin/origin-clients.ts";
import type { CacheConfig, HostLabels, ListenAddress, LogLevel, RateLimits, SupernodeAddress, TlsConfig } from "../peer/config.ts";

/**
 * In whose name a registry is asked.
 *
 * - `passthrough`: each caller's own, with what he sends; without credentials anonymously.
 * - `own-credentials`: dfdaemon's; whoever reaches the mirror may read what they open. What callers send is ignored.
 * - `public`: nobody's; what callers send is ignored.
 */
export type RegistryAccess = "passthrough" | "own-credentials" | "public";

/** An upstream of the registry mirror that is not simply `https://<host>`. */
export interface RegistryConfig {
  /** The registry's name in image references and `?ns=`, lower case, with its port if it has one. */
  readonly host: string;
  /** Base URL without trailing slash, `http:` or `https:`; `/v2/…` is appended. */
  readonly url: string;
  /** Default `passthrough`. */
  readonly access?: RegistryAccess | undefined;
}

/** How long the registry mirror takes a registry at its word. */
export interface GrantConfig {
  /** A caller may read in a repository, in ms. */
  readonly grantMs: number;
  /** How much longer a grant holds while the registry cannot be asked, in ms. */
  readonly outageGrantMs: number;
  /** What a tag means, in ms; 0: each request is checked. */
  readonly tagMs: number;
  /** What a tag meant, while the registry cannot be asked, in ms; 0: never. */
  readonly staleTagMs: number;
}

/** The forward proxy on the mirror's port. */
export interface ProxyConfig {
  /** Addresses and networks of the clients that may use it; none: nobody may. */
  readonly clientNetworks: readonly string[];
  /** Secret; never logged. What every client has to log in with; undefined: nothing. */
  readonly credentials: { readonly username: string; readonly password: string } | undefined;
  /** Hosts whose TLS is ended here (see HostList). */
  readonly interceptedHosts: readonly string[];
  /** Key and certificate of the authority for those; absolute, made at the first use. */
  readonly authorityDirectory: string;
  /** Files that go through the swarm (see UrlGlobs). */
  readonly swarmUrls: readonly string[];
}

/** Everything that the host's daemon is told; parsed, checked and frozen by src/cli. */
export interface DfdaemonConfig {
  readonly version: string;
  /** Registry mirror, health and metrics. */
  readonly listen: ListenAddress;
  /** Links and pieces for other hosts. */
  readonly peerListen: ListenAddress;
  /** The address others dial; undefined = what the supernode sees. */
  readonly advertiseHost: string | undefined;
  /** Unix socket of the local API; absolute. Its folder is created when missing. */
  readonly socketPath: string;
  /** At least one. */
  readonly supernodes: readonly SupernodeAddress[];
  /** Secret; never logged. Undefined: the supernode runs without. */
  readonly joinToken: string | undefined;
  /** Undefined: in the clear. */
  readonly tls?: TlsConfig | undefined;
  /** May this host read an origin itself when the swarm cannot deliver? */
  readonly backToSource: boolean;
  readonly registries: readonly RegistryConfig[];
  /** How origins are reached: their authorities, credentials, proxies. */
  readonly network: OriginNetwork;
  readonly grants: GrantConfig;
  readonly proxy: ProxyConfig;
  readonly cache: CacheConfig;
  readonly limits: RateLimits;
  readonly labels: HostLabels;
  /** Take whatever others of the site take, where the supernode lets this host. */
  readonly keeper?: boolean;
  readonly logLevel: LogLevel;
}
