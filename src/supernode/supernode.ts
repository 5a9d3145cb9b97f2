/** A supernode: its parts, and how they are connected. */
import { randomBytes, randomInt } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import type { FastifyInstance } from "fastify";
import type { Logger } from "pino";
import { AppError, toAppError } from "../base/errors.ts";
import { OriginClients } from "../origin/origin-clients.ts";
import type { Origin } from "../origin/origin.ts";
import { BudgetedOrigin } from "../origin/origin-budget.ts";
import { generatePeerId, loadOrCreateJoinToken, SigningKey } from "../peer/membership/credentials.ts";
import { siteServer, SiteTls } from "../peer/membership/site-tls.ts";
import type { TicketClock } from "../peer/membership/tickets.ts";
import { DiskStore } from "../peer/store/disk-store.ts";
import { HostLimits } from "../peer/host-limits.ts";
import { Peer } from "../peer/peer.ts";
import { makePrivateFolder } from "../peer/private-folder.ts";
import { RateGate } from "../peer/rate-gate.ts";
import { serviceLog } from "../peer/service-log.ts";
import type { TaskId } from "../protocol/ids.ts";
import { topologyOf } from "../protocol/topology.ts";
import { DEFAULT_SCHEDULER_CONFIG, Scheduler, type SchedulerConfig } from "../scheduler/index.ts";
import { ApiViews } from "./api/api-views.ts";
import { BufferPool } from "./cache/buffer-pool.ts";
import type { SupernodeConfig } from "./config.ts";
import { ControlServer } from "./control-server.ts";
import { descriptorLimit, PEER_COUNT_MAX, peerCountWithin } from "./descriptor-limit.ts";
import { createHttpApi } from "./api/http-api.ts";
import { SupernodeMetrics } from "./metrics.ts";
import { ExtraStreams } from "./cache/extra-streams.ts";
import { OriginMeter } from "./cache/origin-meter.ts";
import { LeaseDesk, strongDigestOf } from "./leases/lease-desk.ts";
import { LeaseHttp } from "./leases/lease-http.ts";
import { OriginBudgets } from "./origin-budgets.ts";
import { PeerTable } from "./peer-table.ts";
import { networkOf } from "./ip-network.ts";
import { PlaceMap } from "./place-map.ts";
import { SchedulerDriver } from "./scheduler-driver.ts";
import { OWN_FAILURES, SeedCache, WORTHLESS } from "./cache/seed-cache.ts";
import { SiteEffects } from "./site-effects.ts";
import { SmallContent } from "./small-content.ts";
import { TaskJoins } from "./task-joins.ts";
import { ContentPlaces } from "./tasks/content-places.ts";
import { PlaceProver } from "./tasks/place-proof.ts";
import { TaskResolver } from "./tasks/task-resolver.ts";
import { VersionMemory } from "./tasks/version-memory.ts";

/** What a test may replace. */
export interface SupernodeDeps {
  readonly origin: Origin;
  readonly log: Logger;
  readonly scheduler: Partial<SchedulerConfig>;
  /** Shows a new join token to the operator, once. */
  readonly showToken: (token: string, file: string) => void;
}

export interface Supernode {
  /** Where it listens; the port is the real one. */
  readonly address: { readonly host: string; readonly port: number };
  /** Puts new limits and the log level to work; the rest needs a restart. */
  reload(config: SupernodeConfig): void;
  /** Lets go of peers (they come back to whoever listens next), finishes writing, closes. */
  close(): Promise<void>;
}

/**
 * Starts a supernode; resolves when it takes peers.
 * @throws AppError LISTEN_FAILED, DISK_FAILED
 */
export async function startSupernode(config: SupernodeConfig, given: Partial<SupernodeDeps> = {}): Promise<Supernode> {
  const log = given.log ?? serviceLog(config.logLevel);
  const closers: (() => void | Promise<void>)[] = [];
  try {
    return await compose(config, given, log, closers);
  } catch (error) {
    await closeAll(closers);
    throw error;
  }
}

async function compose(
  config: SupernodeConfig,
  given: Partial<SupernodeDeps>,
  log: Logger,
  closers: (() => void | Promise<void>)[],
): Promise<Supernode> {
  const { version } = config;
  const state = config.cache.dataDirectory;
  await mkdir(state, { recursive: true, mode: 0o700 }).catch((error: unknown) => {
    throw new AppError("DISK_FAILED", `cannot make the data folder ${state}: ${toAppError(error).message}`, { cause: error });
  });
  const token = joinToken(config, given.showToken ?? showToken);
  const tls = config.tls === undefined ? undefined : new SiteTls({ config: config.tls, token, log });
  closers.push(() => tls?.close());
  if (tls !== undefined) writeFileSync(join(state, "tls-ca.pem"), tls.ca);
  const key = SigningKey.loadOrCreate(join(state, "signing-key.pem"));
  const nowMs = (): number => performance.now();
  const clock = steadyClock();
  const random = Math.random;
  const metrics = new SupernodeMetrics(version);

  const cacheDirectory = join(state, "cache");
  await makePrivateFolder(cacheDirectory, (message) => log.warn(message));
  const store = await DiskStore.open(
    {
      directory: cacheDirectory,
      quotaBytes: config.cache.quotaBytes,
      reservedFreeBytes: config.cache.reservedFreeBytes,
      scrubBytesPerSecond: config.cache.scrubBytesPerSecond,
      workerCount: 2,
    },
    { log: (level, message, fields) => log[level](fields, message), letGo: () => seeds.letGo((taskId) => isNeeded(taskId)) },
  );
  closers.push(() => store.close());
  const versions = new VersionMemory(join(state, "versions.sqlite"));
  closers.push(() => versions.close());
  const budgets = new OriginBudgets(config.originBudgets);
  closers.push(() => budgets.close());
  const origin = new BudgetedOrigin(given.origin ?? ownOrigin(config, tls, closers), budgets);
  const originLimit = new RateGate(config.limits.originBytesPerSecond);
  closers.push(() => originLimit.close());
  const meter = new OriginMeter({
    limit: originLimit,
    onBytes: (count) => metrics.originBytes.inc(count),
    onRequest: (code) => metrics.originRequests.inc({ code }),
  });

  const ownPeerId = generatePeerId(hostname());
  const peers = new PeerTable(nowMs);
  const placeMap = new PlaceMap(config.networkLabels);
  const peer = new Peer({
    peerId: ownPeerId,
    token,
    tls,
    store,
    log,
    limits: config.limits,
    topology: topologyOf(config.labels),
    clock,
    needNeighbours: (taskId, lost) => driver.push({ type: "neighboursLost", peerId: ownPeerId, taskId, lost }),
    accuse: (taskId, accused, piece) => driver.push({ type: "peerAccused", accuser: ownPeerId, accused, taskId, piece }),
    // The scheduler may have counted on our having all of it: it gives the lease when nobody else has.
    lost: ({ taskId, stored }) => {
      driver.push({ type: "taskProgressed", peerId: ownPeerId, taskId, pieceCount: stored.have.count, complete: stored.complete });
      desk.lost(taskId);
    },
  });
  closers.push(() => peer.close());

  const taskFailed = (taskId: TaskId, error: AppError, discard: boolean): void => {
    if (discard) resolver.forget(taskId);
    effects.seedFailed(taskId, error, discard);
  };
  const desk: LeaseDesk = new LeaseDesk({
    key,
    push: (input) => driver.push(input),
    received: (taskId, count, signal) => meter.received(taskId, "interactive", count, signal),
    onFailed: (taskId, error, discard) => {
      if (discard) seeds.discard(taskId);
      taskFailed(taskId, error, discard);
    },
    log,
  });
  closers.push(() => desk.close());
  const leases = new LeaseHttp(desk, key, clock);
  const limits = new HostLimits({ ...peer.limits, origin: originLimit });
  limits.observe(metrics.registry);
  peer.loopLoad.observe(metrics.registry);

  const seeds: SeedCache = new SeedCache({
    origin,
    peer,
    store,
    key,
    meter,
    pool: new BufferPool(READ_MEMORY_BYTES),
    extraStreams: new ExtraStreams(),
    random,
    log,
    events: {
      onOpened: (...opened) => effects.seedOpened(...opened),
      onRead: (taskId, outcome) => {
        if (outcome === "complete") void places.delivered(taskId);
        effects.seedRead(taskId, outcome);
      },
      onLength: (...length) => effects.lengthKnown(...length),
      onFailed: (taskId, error, discard) => {
        const stored = seeds.get(taskId)?.task.stored;
        // What only this machine cannot do, some of those who want it can.
        const isLent = stored !== undefined && OWN_FAILURES.has(error.code) && desk.begin(stored, error);
        if (!isLent) taskFailed(taskId, error, discard);
      },
      onPiece: () => metrics.pieces.inc(),
      onSlow: (taskId) => lendSlowRead(taskId, { seeds, desk, log }),
      onLetGo: (taskId) => driver.push({ type: "taskLeft", peerId: ownPeerId, taskId }),
    },
    mayBeLent: (record) => config.leasePeerCountMax > 0 && record.lengthBytes !== undefined && strongDigestOf(record) !== undefined,
    isLent: (taskId) => desk.isActive(taskId),
    slowReads: config.leaseBelowBytesPerSecond === undefined ? undefined : { bytesPerSecondMin: config.leaseBelowBytesPerSecond },
  });
  closers.push(() => seeds.close());
  const prover = new PlaceProver({ origin, onRequest: (code) => meter.asked(code), randomInt });
  closers.push(() => prover.close());
  const isActive = (taskId: TaskId): boolean => joins.isActive(taskId);
  const places = new ContentPlaces({ store, versions, prover, isActive, unixMs: Date.now, log });
  const resolver: TaskResolver = new TaskResolver({
    origin,
    store,
    versions,
    places,
    key,
    log,
    freshness: config.freshness,
    isActive,
    nowMs,
    unixMs: Date.now,
    random,
    onStat: (code) => meter.asked(code),
    grants: config.grants,
  });
  closers.push(() => resolver.close());
  const small = new SmallContent({ origin, store, key, meter, log, random });
  closers.push(() => small.close());
  const joins: TaskJoins = new TaskJoins({
    resolver,
    seeds,
    inline: (resolved) => small.get(resolved).catch((error: unknown) => {
      // As with files that are read piece by piece: what the origin said of it is not repeated to the next caller.
      if (WORTHLESS.has(toAppError(error).code)) resolver.forget(resolved.taskId);
      throw error;
    }),
    push: (input) => driver.push(input),
    peers,
    key,
    metrics,
    log,
    unixMs: clock.unixMs,
    grantMs: config.grants.grantMs,
  });
  const scheduler = new Scheduler({ ...DEFAULT_SCHEDULER_CONFIG, ...given.scheduler, spanHolderCountMax: config.leasePeerCountMax }, randomBytes(4).readInt32LE());
  const driver: SchedulerDriver = new SchedulerDriver({
    scheduler,
    execute: (effect) => effects.execute(effect),
    nowMs,
  });
  closers.push(() => driver.close());
  const isNeeded = (taskId: TaskId): boolean => scheduler.isNeeded(taskId);
  const advertised = { host: config.advertiseHost, port: config.listen.port };
  const effects = new SiteEffects({ ownPeerId, advertised, peers, budgets, seeds, desk, joins, meter, key, metrics, push: (input) => driver.push(input), log, unixMs: clock.unixMs });
  const control = new ControlServer({
    token,
    ownPeerId,
    publicKey: key.publicKey,
    peers,
    placeMap,
    keepers: config.keepers.map(networkOf),
    log,
    unixMs: clock.unixMs,
    connectionCountMax: peerCountMax(log),
    onConnected: (connected) => effects.peerConnected(connected),
    onDisconnected: (gone) => effects.peerDisconnected(gone),
    onMessage: (from, message) => effects.peerSaid(from, message),
  });
  closers.push(() => control.close());

  const seedAddress = { peerId: ownPeerId, address: config.advertiseHost ?? config.listen.host, port: 0, labels: config.labels, labelSources: placeMap.placeOf(config.labels, "").sources };
  const views = new ApiViews({
    snapshot: () => driver.snapshot(),
    seeds,
    isNeeded,
    joins,
    meter,
    peers,
    store,
    quotaBytes: config.cache.quotaBytes,
    seed: seedAddress,
    version,
  });
  metrics.observe({
    taskCount: () => joins.taskCount,
    peerCount: () => peers.size,
    linkCount: () => peer.linkCount,
    cache: () => store.usage(),
  });
  let isReady = false;
  const api = await createHttpApi({
    views,
    metrics,
    limits,
    budgets,
    token,
    tls,
    version,
    isReady: () => isReady,
    handlePieces: (request, response) => leases.handleRequest(request, response) || peer.handleRequest(request, response),
    upgrades: [
      (request, socket, head) => control.handleUpgrade(request, socket, head),
      (request, socket, head) => peer.handleUpgrade(request, socket, head),
    ],
    log,
  });
  closers.push(() => api.close());
  driver.push({ type: "peerConnected", peerId: ownPeerId, seed: true, dialable: true, topology: topologyOf(config.labels) });
  const address = await listen(api, config);
  advertised.port = address.port;
  seedAddress.port = address.port;
  isReady = true;
  log.info({ listen: address, dataDirectory: state, peerId: ownPeerId, tasksOnDisk: store.usage().taskCount }, "supernode is up");

  return {
    address,
    reload: (next) => {
      log.level = next.logLevel;
      limits.set(next.limits);
      resolver.setFreshness(next.freshness);
      budgets.setConfigs(next.originBudgets);
      placeMap.setNetworks(next.networkLabels);
      control.endMoved();
    },
    close: async () => {
      isReady = false;
      // Peers first: they reconnect elsewhere while the disk is being flushed.
      control.close();
      peer.hangUp();
      await closeAll(closers);
      log.info("supernode is down");
    },
  };
}

/**
 * The time of tickets: the machine's when we started, and what has passed since. Peers are told it once, when they register, so a
 * wall clock that is set meanwhile (NTP, soon after a start) would have them refuse all new tickets, or take old ones for too long.
 */
function steadyClock(): TicketClock {
  const offsetMs = Date.now() - performance.now();
  return { unixMs: () => Math.round(performance.now() + offsetMs), outageSinceUnixMs: () => undefined };
}

function peerCountMax(log: Logger): number {
  const openFileCountMax = descriptorLimit();
  const count = peerCountWithin(openFileCountMax);
  if (count < PEER_COUNT_MAX / 2) log.warn({ openFileCountMax }, `at most ${count} peers can be connected: raise the limit of open files (LimitNOFILE, ulimit -n)`);
  return count;
}

/** Peers read on where the seed was slow; it keeps what they bring, and goes on itself when nobody is there. */
function lendSlowRead(taskId: TaskId, { seeds, desk, log }: { seeds: SeedCache; desk: LeaseDesk; log: Logger }): void {
  const task = seeds.get(taskId)?.task;
  const isLent = task !== undefined && desk.begin(task.stored, new AppError("TIMEOUT", "the origin is slower for this supernode than --lease-below"), {
    keep: async (piece, bytes, proof) => {
      const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
      shared.set(bytes);
      await task.addOwn(piece, shared, () => proof.signature).catch((error: unknown) => {
        log.warn({ taskId, piece }, `cannot keep a piece that a peer has read: ${toAppError(error).message}`);
      });
    },
    onComplete: () => seeds.completed(taskId),
    onNobody: () => seeds.resume(taskId),
  });
  if (!isLent) seeds.resume(taskId);
}

function ownOrigin({ version, network, listen: { host, port } }: SupernodeConfig, tls: SiteTls | undefined, closers: (() => void | Promise<void>)[]): Origin {
  const here = { host: ANY_HOSTS.has(host) ? "127.0.0.1" : host, port };
  const servers = tls === undefined ? network.servers : [...network.servers, siteServer(here, tls)];
  const clients = new OriginClients({ userAgent: `dragonfly/${version}`, ...network, servers });
  closers.push(() => clients.close());
  return clients;
}

async function listen(api: FastifyInstance, { listen: { host, port } }: SupernodeConfig): Promise<Supernode["address"]> {
  try {
    await api.listen({ host, port, backlog: 4096 });
  } catch (error) {
    const message = `cannot listen on ${host}:${port}: ${toAppError(error).message}; is another supernode running?`;
    throw new AppError("LISTEN_FAILED", message, { cause: error });
  }
  return { host, port: (api.server.address() as AddressInfo).port };
}

function joinToken(config: SupernodeConfig, show: SupernodeDeps["showToken"]): string | undefined {
  const given = config.joinToken;
  if (given.kind === "none") return undefined;
  if (given.kind === "given") return given.token;
  const isNew = !existsSync(given.file);
  const token = loadOrCreateJoinToken(given.file);
  if (isNew) show(token, given.file);
  return token;
}

function showToken(token: string, file: string): void {
  process.stderr.write(
    `A join token was made: ${token}\nIt is in ${file}; other hosts need it (--join-token-file or DRAGONFLY_JOIN_TOKEN).\n`,
  );
}

/** The last opened first; each gets its turn. @throws the first failure, at the end */
async function closeAll(closers: readonly (() => void | Promise<void>)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const close of closers.toReversed()) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- the order is the point
      await close();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

const ANY_HOSTS: ReadonlySet<string> = new Set(["0.0.0.0", "::"]);
/** Pieces between origins and the disk, all reads together: sixteen of the longest. */
const READ_MEMORY_BYTES = 128 * 1024 * 1024;
