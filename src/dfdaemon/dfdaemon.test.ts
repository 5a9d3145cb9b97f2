import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, stat } from "node:fs/promises";
import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { pino } from "pino";
import { Gauge, Registry } from "prom-client";
import { PLAIN_NETWORK } from "../origin/origin-clients.ts";
import type { DfdaemonConfig } from "./config.ts";
import { HostLimits } from "../peer/host-limits.ts";
import { RateGate } from "../peer/rate-gate.ts";
import { startDfdaemon, type Dfdaemon, type DfdaemonDeps } from "./dfdaemon.ts";
import { eventually, fetchAnswer, LabOpener, LabRegistry, patterned } from "./mirror/lab.test.ts";
import { HttpUpstreamAsker } from "./mirror/passthrough.ts";

const CONFIG: DfdaemonConfig = {
  version: "1.2.3",
  listen: { host: "127.0.0.1", port: 0 },
  peerListen: { host: "127.0.0.1", port: 0 },
  advertiseHost: undefined,
  socketPath: "/nowhere/dfdaemon.sock",
  supernodes: [{ host: "127.0.0.1", port: 8002, weight: 1 }],
  grants: { grantMs: 300_000, outageGrantMs: 0, tagMs: 0, staleTagMs: 0 },
  joinToken: undefined,
  backToSource: true,
  registries: [],
  network: PLAIN_NETWORK,
  proxy: { clientNetworks: ["127.0.0.0/8"], credentials: undefined, interceptedHosts: [], authorityDirectory: "/nowhere/ca", swarmUrls: [] },
  cache: { dataDirectory: "/nowhere", quotaBytes: undefined, reservedFreeBytes: 0, scrubBytesPerSecond: 0 },
  limits: { downloadBytesPerSecond: undefined, uploadBytesPerSecond: undefined, originBytesPerSecond: undefined },
  labels: {},
  logLevel: "silent",
};

interface Rig {
  readonly registry: LabRegistry;
  readonly opener: LabOpener;
  readonly deps: Partial<DfdaemonDeps>;
  limits?: HostLimits;
  /** What was closed, in order. */
  readonly told: string[];
  ready: boolean;
}

function rig(): Rig {
  const registry = new LabRegistry();
  const opener = new LabOpener(registry);
  const metrics = new Registry();
  new Gauge({ name: "dragonfly_peer_links", help: "Links.", registers: [metrics] }).set(7);
  const told: string[] = [];
  const asker = new HttpUpstreamAsker({ userAgent: "x" });
  asker.stat = () => Promise.resolve();
  const built: Rig = {
    registry,
    opener,
    told,
    ready: false,
    deps: {
      asker,
      log: pino({ level: "silent" }),
      createPeer: () => {
        const close = (): Promise<void> => Promise.resolve(void told.push("peer closed"));
        const limits = new HostLimits({ download: new RateGate(undefined), upload: new RateGate(undefined), origin: new RateGate(undefined) });
        built.limits = limits;
        const open: LabOpener["open"] = (request, signal) => opener.open(request, signal);
        const stat: LabOpener["stat"] = (request) => opener.stat(request);
        return Promise.resolve({ open, stat, metrics, limits, tasks: () => [], close, get ready() { return built.ready; } });
      },
      openLocalApi: () => Promise.resolve({ close: () => Promise.resolve(void told.push("local API closed")) }),
    },
  };
  return built;
}

async function start(t: TestContext, { deps }: Rig): Promise<Dfdaemon> {
  const daemon = await startDfdaemon(CONFIG, deps);
  let closing: Promise<void> | undefined;
  const once = { ...daemon, close: () => (closing ??= daemon.close()) };
  t.after(() => once.close());
  return once;
}

void test("one port has the mirror, health, readiness, metrics and version", async (t) => {
  const built = rig();
  const { mirrorAddress } = await start(t, built);
  const get = (path: string): ReturnType<typeof fetchAnswer> => fetchAnswer(mirrorAddress.port, path);
  assert.equal((await get("/healthz")).status, 200);
  assert.equal((await get("/readyz")).status, 503);
  built.ready = true;
  assert.equal((await get("/readyz")).status, 200);
  assert.deepEqual(JSON.parse((await get("/version")).body.toString()), { version: "1.2.3" });
  const metrics = (await get("/metrics")).body.toString();
  assert.match(metrics, /^dragonfly_peer_links 7$/m);
  assert.match(metrics, /^# TYPE dragonfly_mirror_requests_total counter$/m);
  assert.equal((await get("/v2/")).status, 200);
  assert.equal((await get("/elsewhere")).status, 404);
  assert.equal((await fetchAnswer(mirrorAddress.port, "/healthz", "POST")).status, 405);
});

void test("a reload puts new limits to work", async (t) => {
  const built = rig();
  const daemon = await start(t, built);
  daemon.reload({ ...CONFIG, limits: { ...CONFIG.limits, downloadBytesPerSecond: 1000 } });
  assert.equal(built.limits?.view().download.limitBytesPerSecond, 1000);
  assert.equal(built.limits.view().upload.limitBytesPerSecond, null);
});

void test("closing lets an answer that has begun end, takes no new one, then closes what is below", async (t) => {
  const built = rig();
  const bytes = patterned(300_000);
  const digest = built.registry.putBlob("team/app", bytes);
  const gate = Promise.withResolvers<void>();
  built.opener.behaviour = { before: (at) => (at === 131_072 ? gate.promise : undefined) };
  const daemon = await start(t, built);
  const { port } = daemon.mirrorAddress;
  const answer = fetchAnswer(port, `/v2/reg.test/team/app/blobs/${digest}`);
  await eventually(() => built.opener.readBytes >= 131_072, "the first bytes");
  const closed = daemon.close();
  await assert.rejects(fetchAnswer(port, "/healthz"), { code: "ECONNREFUSED" });
  assert.deepEqual(built.told, []);
  gate.resolve();
  assert.ok((await answer).body.equals(bytes));
  await closed;
  assert.deepEqual(built.told, ["local API closed", "peer closed"]);
});

void test("a port that is taken is told with what to do, and leaves nothing running", async (t) => {
  const built = rig();
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  t.after(() => taken.close());
  const { port } = taken.address() as AddressInfo;
  const starting = startDfdaemon({ ...CONFIG, listen: { host: "127.0.0.1", port } }, built.deps);
  await assert.rejects(starting, { code: "LISTEN_FAILED", message: /EADDRINUSE.*--listen/s });
  assert.deepEqual(built.told, ["local API closed", "peer closed"]);
});

void test("without a supernode a real daemon still serves: straight from the registry, checked, and it says it is not ready", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "dfdaemon-"));
  t.after(() => rm(directory, { recursive: true }));
  const registry = new LabRegistry();
  const bytes = patterned(3_000_000);
  const digest = registry.putBlob("team/app", bytes);
  const upstream = createHttpServer((request, response) => registry.answer(request, response));
  await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
  t.after(() => upstream.close().closeAllConnections());
  const url = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`;
  // As an older version left it.
  await mkdir(join(directory, "cache"), { mode: 0o755 });
  const daemon = await startDfdaemon({
    ...CONFIG,
    socketPath: join(directory, "dfdaemon.sock"),
    supernodes: [{ host: "127.0.0.1", port: 9, weight: 1 }],
    registries: [{ host: "reg.test", url }],
    cache: { ...CONFIG.cache, dataDirectory: directory },
  });
  t.after(() => daemon.close());
  const { port } = daemon.mirrorAddress;
  assert.equal((await stat(join(directory, "cache"))).mode & 0o777, 0o700);
  assert.equal((await fetchAnswer(port, "/readyz")).status, 503);
  const answer = await fetchAnswer(port, `/v2/team/app/blobs/${digest}?ns=reg.test`);
  assert.ok(answer.body.equals(bytes));
  // Counted once the answer is over: who has it may be the faster one.
  const isCounted = async (): Promise<boolean> => /dragonfly_mirror_bytes_total\{source="origin"\} 3000000/.test((await fetchAnswer(port, "/metrics")).body.toString());
  // oxlint-disable-next-line no-await-in-loop -- polls
  while (!(await isCounted())) await new Promise((resolve) => setTimeout(resolve, 5));
});
