import type { Logger } from "pino";
import type { Registry } from "prom-client";
import type { Origin } from "../origin/origin.ts";
import type { OriginBudget } from "../origin/origin-budget.ts";
import type { ListenAddress, SupernodeAddress } from "../peer/config.ts";
import type { ContentOpener } from "../peer/content.ts";
import type { TaskReport } from "../peer/explain.ts";
import type { HostLimits } from "../peer/host-limits.ts";
import { SITE_ORIGIN, siteServer, SiteTls } from "../peer/membership/site-tls.ts";
import { PeerNode } from "../peer/peer-node.ts";
import { serviceLog } from "../peer/service-log.ts";
import { SELF_TEST_PATH, SELF_TEST_REGISTRY } from "../protocol/self-test.ts";
import type { DfdaemonConfig, RegistryConfig } from "./config.ts";
import { LocalApi } from "./local/local-api.ts";
import { Mirror, type MirrorOptions } from "./mirror/mirror.ts";
import { HttpUpstreamAsker } from "./mirror/passthrough.ts";
import { MirrorServer } from "./mirror/server.ts";
import { Registries } from "./mirror/registries.ts";
import { Proxy } from "./proxy/proxy.ts";

/** A running daemon. */
export interface Dfdaemon {
  /** Where engines reach the mirror; the port is the real one. */
  readonly mirrorAddress: ListenAddress;
  /** Puts the rate limits and the log level of `config` to work at once; the rest needs a restart. */
  reload(config: DfdaemonConfig): void;
  /** Accepts no more, lets answers that have begun end (10 s at most), then lets go of everything. Once. */
  close(): Promise<void>;
}

/** What the daemon needs of its peer. */
interface DaemonPeer extends ContentOpener {
  /** A supernode knows this peer. */
  readonly ready: boolean;
  readonly metrics: Registry;
  /** Undefined: nobody keeps budgets for origins. */
  readonly originBudget?: OriginBudget;
  readonly limits: Pick<HostLimits, "set" | "change" | "view">;
  tasks(): readonly TaskReport[];
  close(): Promise<void>;
}

/** What the daemon is made of; tests put others in. */
export interface DfdaemonDeps {
  /** @param origin what the peer reads itself when the swarm cannot deliver */
  readonly createPeer: (config: DfdaemonConfig, origin: Origin, log: Logger) => Promise<DaemonPeer>;
  /** Serves dfget on `config.socketPath`. */
  readonly openLocalApi: (config: DfdaemonConfig, peer: DaemonPeer, log: Logger) => Promise<{ close(): Promise<void> }>;
  readonly asker: HttpUpstreamAsker;
  readonly log: Logger;
  readonly mirrorOptions: Partial<MirrorOptions>;
}

/**
 * Starts the host's daemon: peer, registry mirror, local API.
 *
 * @param config stays the caller's
 * @throws AppError LISTEN_FAILED, CONFIG_INVALID, and what the peer's start says; nothing is left running then
 */
export async function startDfdaemon(config: DfdaemonConfig, given: Partial<DfdaemonDeps> = {}): Promise<Dfdaemon> {
  const log = given.log ?? serviceLog(config.logLevel);
  const tls = config.tls === undefined ? undefined : new SiteTls({ config: config.tls, token: config.joinToken, log });
  const deps = { ...defaultDeps(config, log, tls), ...given };
  const { asker } = deps;
  const logs = [log];
  const child = (component: string): Logger => {
    const made = log.child({ component });
    logs.push(made);
    return made;
  };
  const closers: (() => Promise<void> | void)[] = [() => tls?.close(), () => asker.close()];
  try {
    const registries = new Registries(config.registries, selfTestRegistry(config.supernodes, tls));
    for (const { name, access } of registries.configured()) {
      if (access !== "own-credentials") continue;
      log.warn({ registry: name }, "whoever reaches this dfdaemon may read what its own credentials open at this registry");
    }
    const peer = await deps.createPeer(config, asker.clients, child("peer"));
    closers.push(() => peer.close());
    if (peer.originBudget !== undefined) asker.countAgainst(peer.originBudget);
    const localApi = await deps.openLocalApi(config, peer, child("local-api"));
    closers.push(() => localApi.close());
    const mirror = new Mirror({
      opener: peer,
      registries,
      asker,
      log: child("mirror"),
      backToSource: config.backToSource,
      options: { grants: config.grants, ...deps.mirrorOptions },
    });
    const proxy = new Proxy({
      config: config.proxy,
      network: config.network,
      mirror,
      registries,
      opener: peer,
      backToSource: config.backToSource,
      log: child("proxy"),
    });
    const server = await MirrorServer.listen(config.listen, {
      mirror,
      proxy,
      version: config.version,
      isReady: () => peer.ready,
      metricsText: async () => {
        const all = [mirror.metrics.registry, proxy.metrics.registry, peer.metrics];
        return (await Promise.all(all.map((each) => each.metrics()))).join("\n");
      },
    });
    closers.push(() => server.close(DRAIN_MS));
    log.info({ mirror: server.address, peer: config.peerListen, socket: config.socketPath }, "dfdaemon is up");
    if (proxy.authorityFile !== undefined) {
      log.info({ certificate: proxy.authorityFile, hosts: config.proxy.interceptedHosts }, "clients that reach these hosts by this proxy have to trust its authority");
    }
    return {
      mirrorAddress: server.address,
      reload: (next) => {
        for (const each of logs) each.level = next.logLevel;
        peer.limits.set(next.limits);
      },
      close: () => closeAll(closers),
    };
  } catch (error) {
    await closeAll(closers);
    throw error;
  }
}

function defaultDeps(config: DfdaemonConfig, log: Logger, tls: SiteTls | undefined): DfdaemonDeps {
  const { network } = config;
  const seed = heaviest(config.supernodes);
  const servers = tls === undefined || seed === undefined ? network.servers : [...network.servers, siteServer(seed, tls)];
  return {
    createPeer: ({ version, supernodes, joinToken, peerListen, advertiseHost, cache, limits, labels, keeper = false }, origin, peerLog) =>
      PeerNode.start(
        { program: "dfdaemon", version, supernodes, joinToken, peerListen, advertiseHost, cache, limits, labels, keeper },
        { origin, tls, log: peerLog },
      ),
    openLocalApi: ({ socketPath, version, backToSource }, peer, apiLog) =>
      LocalApi.listen({ opener: peer, limits: peer.limits, tasks: () => peer.tasks(), socketPath, version, log: apiLog, backToSource }),
    asker: new HttpUpstreamAsker({ userAgent: `dfdaemon/${config.version}`, ...network, servers }),
    log,
    mirrorOptions: {},
  };
}

/** The one that `dfdaemon doctor` pulls from: at the supernode that is taken when all answer. */
function selfTestRegistry(supernodes: readonly SupernodeAddress[], tls: SiteTls | undefined): RegistryConfig | undefined {
  const first = heaviest(supernodes);
  if (tls !== undefined) return { host: SELF_TEST_REGISTRY, url: `${SITE_ORIGIN}${SELF_TEST_PATH}` };
  if (first === undefined) return undefined;
  const host = first.host.includes(":") ? `[${first.host}]` : first.host;
  return { host: SELF_TEST_REGISTRY, url: `http://${host}:${first.port}${SELF_TEST_PATH}` };
}

function heaviest(supernodes: readonly SupernodeAddress[]): SupernodeAddress | undefined {
  return supernodes.toSorted((left, right) => right.weight - left.weight)[0];
}

/** The last opened first; one that fails does not keep the others open. @throws the first failure, at the end */
async function closeAll(closers: readonly (() => Promise<void> | void)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const close of closers.toReversed()) {
    try {
      await close();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

/** As the local API's, which drains after it: together within the 25 s that the command gives the whole drain. */
const DRAIN_MS = 10_000;
