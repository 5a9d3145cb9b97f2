/**
 * What every peer needs to be told, whatever program it lives in. Values are parsed, checked and frozen by src/cli;
 * sizes in bytes, times in milliseconds, rates in bytes per second. `undefined` means "no limit" or "not given".
 */

/**
 * What TLS between the site's programs stands on: keys that follow from the join token, or files of the operator's own
 * authority (PEM), read again when they change.
 */
export type TlsConfig =
  | { readonly kind: "token" }
  | { readonly kind: "files"; readonly caFile: string; readonly certFile: string; readonly keyFile: string };

/** Where to listen. `host` is an IP address or a name; `port` 0 asks the system for a free one. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** One supernode. `weight` ≥ 1: the heaviest that can be reached is taken, by every host, for supernodes share nothing. */
export interface SupernodeAddress {
  readonly host: string;
  readonly port: number;
  readonly weight: number;
}

/** Host-wide rates, shared by all tasks, each > 0; undefined = no limit. Changeable at run time. */
export interface RateLimits {
  readonly downloadBytesPerSecond: number | undefined;
  readonly uploadBytesPerSecond: number | undefined;
  readonly originBytesPerSecond: number | undefined;
}

/** The disk that a peer may use. */
export interface CacheConfig {
  /** Folder of the program: cache, state, token. Absolute; created when missing. */
  readonly dataDirectory: string;
  /** Most bytes of piece data; 0 keeps nothing that nobody reads; undefined = no quota. */
  readonly quotaBytes: number | undefined;
  /** Free space to leave on the file system; 0 = none. */
  readonly reservedFreeBytes: number;
  /** Bytes per second read back in the background to find damage; 0 = never. */
  readonly scrubBytesPerSecond: number;
}

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "silent";

/** Free-form facts about where a host stands (`region`, `zone`, `rack`), sent to the supernode as they are. */
export type HostLabels = Readonly<Record<string, string>>;

/** A host's peer as a whole. */
export interface PeerNodeConfig {
  readonly program: "dfdaemon" | "dfget";
  readonly version: string;
  readonly supernodes: readonly SupernodeAddress[];
  readonly joinToken: string | undefined;
  readonly peerListen: ListenAddress;
  readonly advertiseHost: string | undefined;
  readonly cache: CacheConfig;
  readonly limits: RateLimits;
  readonly labels: HostLabels;
  /** Take whatever others take, if the supernode asks to. */
  readonly keeper?: boolean;
}

/** A peer for as long as one dfget runs. */
export interface OwnPeerConfig {
  /** Version of the program, for the handshake and User-Agent. */
  readonly version: string;
  /** At least one. */
  readonly supernodes: readonly SupernodeAddress[];
  /** Secret; never logged. Undefined: the supernode runs without. */
  readonly joinToken: string | undefined;
  /** Undefined: in the clear. */
  readonly tls?: TlsConfig | undefined;
  /** Peer port; port 0 while dfget runs. */
  readonly peerListen: ListenAddress;
  /** The address others dial; undefined = what the supernode sees. */
  readonly advertiseHost: string | undefined;
  /** The folder is temporary: made before, removed after by the caller. */
  readonly cache: CacheConfig;
  readonly limits: RateLimits;
  readonly labels: HostLabels;
  readonly logLevel: LogLevel;
}
