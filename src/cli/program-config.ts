/** From resolved settings to what each program is given: tokens read, relations between settings checked. */
import { join } from "node:path";
import { AppError } from "../base/errors.ts";
import type { DfdaemonConfig } from "../dfdaemon/config.ts";
import type { OriginNetwork } from "../origin/origin-clients.ts";
import type { CacheConfig, RateLimits, SupernodeAddress, TlsConfig } from "../peer/config.ts";
import type { JoinTokenConfig, SupernodeConfig } from "../supernode/config.ts";
import { isLoopback, printAddress } from "./addresses.ts";
import { invalidConfig, type ResolvedConfig } from "./config.ts";
import type { DFDAEMON_SETTINGS, DFGET_SETTINGS, SUPERNODE_SETTINGS } from "./config-schema.ts";
import { clientToken, defaultTokenFile } from "./join-token.ts";
import { tlsConfig } from "./site-tls-config.ts";
import { candidateSocketPaths, type Machine } from "./machine.ts";
import { originNetwork, proxyCredentials, refuseOwnProxy } from "./origin-network.ts";

/** What one run of dfget is given by its machine's configuration; the rest is on its command line. */
export interface DfgetConfig {
  readonly version: string;
  /** Tried in order. */
  readonly socketPaths: readonly string[];
  /** The operator named the socket: its absence is worth a word. */
  readonly isSocketGiven: boolean;
  readonly supernodes: readonly SupernodeAddress[];
  readonly areSupernodesGiven: boolean;
  readonly joinToken: string | undefined;
  readonly tls: TlsConfig | undefined;
  readonly backToSource: boolean;
  readonly network: OriginNetwork;
  readonly limitBytesPerSecond: number | undefined;
  readonly timeoutMs: number | undefined;
  readonly progress: "auto" | "bar" | "plain" | "none";
  readonly advertiseHost: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
}

export function supernodeConfig(config: ResolvedConfig<typeof SUPERNODE_SETTINGS>, version: string): SupernodeConfig {
  const { values } = config;
  return deepFreeze({
    version,
    listen: values.listen,
    advertiseHost: values.advertise,
    joinToken: supernodeToken(config),
    tls: tlsConfig(config),
    network: originNetwork(values),
    grants: { grantMs: values.grantLife, outageGrantMs: values.outageGrant },
    cache: cacheConfig(values),
    limits: rateLimits(values),
    freshness: { revalidateMs: values.revalidateInterval, staleMs: values.serveStale, staleTagMs: values.serveStaleTags },
    leasePeerCountMax: values.leasePeers,
    leaseBelowBytesPerSecond: values.leaseBelow,
    originBudgets: values.originBudgets,
    labels: values.labels,
    networkLabels: values.networkLabels,
    keepers: values.keepers,
    logLevel: values.logLevel,
  });
}

/** @throws AppError CONFIG_INVALID, also when others can reach the peer port and there is no token */
export function dfdaemonConfig(
  config: ResolvedConfig<typeof DFDAEMON_SETTINGS>,
  version: string,
  machine: Machine,
): DfdaemonConfig {
  const { values } = config;
  const joinToken = clientToken(config, machine);
  if (joinToken === undefined && !values.insecureNoToken && !isLoopback(values.peerListen.host)) {
    throw new AppError(
      "CONFIG_INVALID",
      `no join token, and others can reach the peer port ${printAddress(values.peerListen)}: ` +
        `give --join-token-file FILE or DRAGONFLY_JOIN_TOKEN (looked in ${defaultTokenFile(machine)}), ` +
        "or --insecure-no-token when the supernode runs without one",
    );
  }
  const network = originNetwork(values, values.registries);
  refuseOwnProxy(network, values.listen);
  return deepFreeze({
    version,
    listen: values.listen,
    peerListen: values.peerListen,
    advertiseHost: values.advertise,
    socketPath: values.socket,
    supernodes: values.supernodes,
    joinToken,
    tls: tlsConfig(config),
    backToSource: values.backToSource,
    registries: values.registries.map(({ host, url, access }) => ({ host, url, access })),
    grants: {
      grantMs: values.grantLife,
      outageGrantMs: values.outageGrant,
      tagMs: values.tagLife,
      staleTagMs: values.staleTagLife,
    },
    network,
    proxy: {
      clientNetworks: values.proxyClients,
      credentials: proxyCredentials(values.proxyUserFile),
      interceptedHosts: values.proxyIntercept,
      authorityDirectory: join(values.dataDir, "proxy-ca"),
      swarmUrls: values.proxyFiles,
    },
    cache: cacheConfig(values),
    limits: rateLimits(values),
    labels: values.labels,
    keeper: values.keeper,
    logLevel: values.logLevel,
  });
}

export function dfgetConfig(
  config: ResolvedConfig<typeof DFGET_SETTINGS>,
  version: string,
  machine: Machine,
): DfgetConfig {
  const { values } = config;
  return deepFreeze({
    version,
    socketPaths: values.socket === undefined ? candidateSocketPaths(machine) : [values.socket],
    isSocketGiven: values.socket !== undefined,
    supernodes: values.supernodes,
    areSupernodesGiven: config.sources.supernodes !== "default",
    joinToken: clientToken(config, machine),
    tls: tlsConfig(config),
    backToSource: values.backToSource,
    network: originNetwork(values),
    limitBytesPerSecond: values.limitRate,
    timeoutMs: values.timeout,
    progress: values.progress,
    advertiseHost: values.advertise,
    labels: values.labels,
  });
}

/** Where a supernode's token comes from. @throws AppError CONFIG_INVALID for contradictions */
export function supernodeToken({ values, sources }: ResolvedConfig<typeof SUPERNODE_SETTINGS>): JoinTokenConfig {
  if (values.insecureNoToken) {
    const contradiction = (["joinToken", "joinTokenFile"] as const).find((key) => values[key] !== undefined);
    if (contradiction === undefined) return { kind: "none" };
    throw invalidConfig([
      `${sources[contradiction]} gives a join token and ${sources.insecureNoToken} says to ask for none: leave one of them out`,
    ]);
  }
  if (values.joinToken !== undefined) return { kind: "given", token: values.joinToken };
  return { kind: "file", file: values.joinTokenFile ?? join(values.dataDir, "join-token") };
}

function cacheConfig(values: {
  readonly dataDir: string;
  readonly cacheQuota: number | undefined;
  readonly reservedFree: number;
  readonly scrubRate: number;
}): CacheConfig {
  return {
    dataDirectory: values.dataDir,
    quotaBytes: values.cacheQuota,
    reservedFreeBytes: values.reservedFree,
    scrubBytesPerSecond: values.scrubRate,
  };
}

function rateLimits(
  values: Readonly<Record<"downloadLimit" | "uploadLimit" | "originLimit", number | undefined>>,
): RateLimits {
  return {
    downloadBytesPerSecond: values.downloadLimit,
    uploadBytesPerSecond: values.uploadLimit,
    originBytesPerSecond: values.originLimit,
  };
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) deepFreeze(inner);
  }
  return value;
}
