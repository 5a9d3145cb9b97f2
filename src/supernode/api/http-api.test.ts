import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { FastifyInstance } from "fastify";
import type { PeerId, TaskId } from "../../protocol/ids.ts";
import type { SchedulerSnapshot } from "../../scheduler/index.ts";
import { ApiViews } from "./api-views.ts";
import { HostLimits } from "../../peer/host-limits.ts";
import { RateGate } from "../../peer/rate-gate.ts";
import { OriginBudgets } from "../origin-budgets.ts";
import { createHttpApi } from "./http-api.ts";
import { SupernodeMetrics } from "../metrics.ts";
import { PeerTable } from "../peer-table.ts";
import { FakeOrigin, resolvedTask, seedLab, silentLog } from "../cache/seed-fixture.test.ts";

const seedId = "seed-1" as PeerId;
const hostId = "host-1" as PeerId;
const otherTaskId = "e".repeat(64) as TaskId;
/** Of peers alone. */
const unheldTaskId = "0".repeat(64) as TaskId;

async function startApi(t: TestContext, token: string | undefined): Promise<{ app: FastifyInstance; taskId: TaskId; setReady: (ready: boolean) => void; setNeeded: (needed: boolean) => void }> {
  const origin = new FakeOrigin(Buffer.alloc(200_000));
  const lab = seedLab(origin);
  const resolved = resolvedTask(origin, lab.key);
  const { taskId } = resolved;
  await lab.read(resolved);
  await lab.store.open({ ...resolved.record, taskId: otherTaskId });
  const member = { peerId: hostId, pieceCount: 1, complete: false, neighbours: [seedId] };
  const seed = { peerId: seedId, pieceCount: 0, complete: true, neighbours: [hostId] };
  const snapshot: SchedulerSnapshot = {
    peers: [
      { peerId: hostId, seed: false, keeper: false, connected: true, topology: {}, taskCount: 1 },
      { peerId: seedId, seed: true, keeper: false, connected: true, topology: {}, taskCount: 1 },
    ],
    tasks: [unheldTaskId, taskId].map((each) => ({ taskId: each, leaseHolder: undefined, spanLeases: [], unreadSpans: [], members: each === taskId ? [member, seed] : [] })),
  };
  const usage = {
    usedBytes: 5,
    taskCount: 2,
    openTaskCount: 1,
    evictedBytes: 0,
    evictedTasks: { quota: 3, "free-space": 0 },
    refusedRequests: { quota: 0, "free-space": 1 },
    damagedPieces: 0,
    verifyMsTotal: 0,
    scrubbedBytes: 7,
    scrubbedAllAtUnixMs: undefined,
  };
  const pinned = new Set<TaskId>();
  const metrics = new SupernodeMetrics("1.2.3");
  metrics.observe({ taskCount: () => 1, peerCount: () => 1, linkCount: () => 1, cache: () => usage });
  const views = new ApiViews({
    snapshot: () => snapshot,
    seeds: lab.seeds,
    joins: { membersOf: () => [{ peerId: hostId, sources: { seedBytes: 1, peerBytes: 2, originBytes: 0 }, isComplete: false, explanation: undefined, grantedUnixMs: 0 }] },
    meter: lab.meter,
    peers: new PeerTable(() => 0),
    isNeeded: () => isNeeded,
    store: {
      list: () => [...lab.store.tasks.values()].map(({ record }) => ({ ...record, heldBytes: 5, usedAtUnixMs: 0, isPinned: pinned.has(record.taskId), isInUse: false })),
      has: (id) => Promise.resolve(lab.store.tasks.has(id)),
      usage: () => usage,
      remove: (id) => lab.store.remove(id),
      pin: (id, isPinned) => {
        if (isPinned) pinned.add(id);
        else pinned.delete(id);
        return Promise.resolve(true);
      },
      verify: () => Promise.resolve({ checkedPieces: 4, damagedPieces: 1 }),
    },
    quotaBytes: undefined,
    seed: { peerId: seedId, address: "10.0.0.1", port: 8002, labels: { zone: "a" }, labelSources: { zone: "host" } },
    version: "1.2.3",
  });
  let ready = true;
  let isNeeded = true;
  const limits = new HostLimits({ download: new RateGate(undefined), upload: new RateGate(2000), origin: new RateGate(undefined) });
  const app = await createHttpApi({
    views,
    metrics,
    limits,
    budgets: new OriginBudgets([]),
    token,
    version: "1.2.3",
    isReady: () => ready,
    handlePieces: (request, response) => {
      if (request.url?.includes("pieces/7")) return false;
      response.end("a piece");
      return true;
    },
    upgrades: [],
    log: silentLog,
  });
  t.after(() => app.close());
  return { app, taskId, setReady: (value) => (ready = value), setNeeded: (value) => (isNeeded = value) };
}

async function get(app: FastifyInstance, url: string, options: { remoteAddress?: string; token?: string } = {}) {
  const headers = options.token === undefined ? {} : { authorization: `Bearer ${options.token}` };
  const response = await app.inject({ url, headers, remoteAddress: options.remoteAddress ?? "127.0.0.1" });
  return { status: response.statusCode, body: response.body, json: (): Record<string, unknown> => response.json() };
}

test("health, readiness and metrics are for everybody", async (t) => {
  const { app, setReady } = await startApi(t, "secret");
  const remoteAddress = "10.1.1.1";
  assert.equal((await get(app, "/healthz", { remoteAddress })).status, 200);
  assert.equal((await get(app, "/readyz", { remoteAddress })).status, 200);
  setReady(false);
  assert.deepEqual((await get(app, "/readyz")).json()["code"], "SHUTTING_DOWN");
  assert.equal((await get(app, "/readyz")).status, 503);
  const { body } = await get(app, "/metrics", { remoteAddress });
  assert.match(body, /^dragonfly_supernode_origin_bytes_total 0$/m);
  assert.match(body, /^dragonfly_supernode_cache_bytes 5$/m);
  assert.match(body, /^dragonfly_supernode_build_info\{version="1.2.3",node="[^"]+"\} 1$/m);
});

test("the API needs the join token from elsewhere, and none from this machine", async (t) => {
  const { app, taskId } = await startApi(t, "secret");
  for (const url of ["/v1/version", "/v1/tasks", "/v1/peers", "/v1/links", "/v1/cache"]) {
    // oxlint-disable-next-line no-await-in-loop -- cases
    const [here, stranger, wrong, known] = await Promise.all([
      get(app, url),
      get(app, url, { remoteAddress: "10.1.1.1" }),
      get(app, url, { remoteAddress: "10.1.1.1", token: "wrong" }),
      get(app, url, { remoteAddress: "::ffff:10.1.1.1", token: "secret" }),
    ]);
    assert.deepEqual([here.status, stranger.status, wrong.status, known.status], [200, 401, 401, 200]);
    assert.equal(stranger.json()["code"], "TOKEN_REFUSED");
  }
  const { paths } = (await get(app, "/openapi.json")).json() as { paths: Record<string, Record<string, unknown>> };
  const open: string[] = [];
  for (const [path, operations] of Object.entries(paths)) {
    for (const method of Object.keys(operations) as ("GET" | "PUT")[]) {
      const url = path.replaceAll(/\{\w+\}/g, taskId);
      // oxlint-disable-next-line no-await-in-loop -- cases
      const { statusCode } = await app.inject({ method, url, remoteAddress: "10.1.1.1" });
      if (statusCode !== 401) open.push(`${method} ${path}`);
    }
  }
  assert.deepEqual(open.toSorted(), [
    "get /healthz", "get /metrics", "get /readyz", "get /v1/tasks/{id}/content", "get /v1/tasks/{id}/pieces/{n}", "put /v1/tasks/{id}/leases/{lease}/pieces/{n}",
  ]);
  const unguarded = await startApi(t, undefined);
  assert.equal((await get(unguarded.app, "/v1/tasks", { remoteAddress: "10.1.1.1" })).status, 200);
});

test("tasks, members, peers and links are shown", async (t) => {
  const { app, taskId } = await startApi(t, "secret");
  const [task] = (await get(app, "/v1/tasks?limit=1")).json()["tasks"] as [Record<string, unknown>];
  assert.deepEqual(task, {
    taskId,
    url: "http://origin/file",
    digest: null,
    lengthBytes: 200_000,
    pieceLengthBytes: 65_536,
    heldPieces: 4,
    complete: true,
    reading: false,
    originBytes: 200_000,
    memberCount: 1,
  });
  const { members } = (await get(app, `/v1/tasks/${taskId}`)).json() as { members: unknown[] };
  const sources = { seedBytes: 1, peerBytes: 2, originBytes: 0 };
  assert.deepEqual(members[0], { peerId: hostId, pieceCount: 1, complete: false, neighbours: [seedId], sources, explanation: null });
  assert.deepEqual((await get(app, "/v1/links")).json(), { links: [{ taskId, peers: [hostId, seedId] }] });
  const { peers } = (await get(app, `/v1/peers?after=${hostId}`)).json() as { peers: { peerId: string; port: number }[] };
  assert.deepEqual(peers.map(({ peerId, port }) => [peerId, port]), [[seedId, 8002]]);
});

test("the cache is listed by pages, and a file removed unless it is in use", async (t) => {
  const { app, taskId, setNeeded } = await startApi(t, "secret");
  const idsOf = async (url: string): Promise<unknown[]> => ((await get(app, url)).json() as { tasks: { taskId: string }[] }).tasks.map((each) => each.taskId);
  assert.deepEqual(await idsOf("/v1/cache"), [taskId, otherTaskId]);
  assert.deepEqual(await idsOf("/v1/cache?limit=1"), [taskId]);
  assert.deepEqual(await idsOf(`/v1/cache?after=${taskId}`), [otherTaskId]);
  const remove = async (id: string): Promise<number> => (await app.inject({ method: "DELETE", url: `/v1/cache/${id}` })).statusCode;
  assert.equal(await remove(taskId), 409, "open, and somebody needs it");
  setNeeded(false);
  assert.equal(await remove(taskId), 204, "open, and nobody needs it");
  assert.equal(await remove(otherTaskId), 204);
  assert.equal(await remove(otherTaskId), 404);
  assert.equal(await remove("../../etc/passwd"), 404);
  assert.equal(await remove("nonsense"), 400);
});

test("files are pinned, unpinned and verified; a pinned one is not removed", async (t) => {
  const { app } = await startApi(t, "secret");
  const call = async (method: "PUT" | "DELETE" | "POST", path: string) => await app.inject({ method, url: `/v1/cache/${path}` });
  const shown = async (): Promise<unknown> => ((await get(app, "/v1/cache")).json() as { tasks: { taskId: string }[] }).tasks.find((task) => task.taskId === otherTaskId);
  assert.equal((await call("PUT", `${otherTaskId}/pin`)).statusCode, 204);
  assert.deepEqual(await shown(), {
    taskId: otherTaskId,
    url: "http://origin/file",
    digest: null,
    lengthBytes: 200_000,
    contentType: "application/x-test",
    heldBytes: 5,
    usedAt: "1970-01-01T00:00:00.000Z",
    pinned: true,
    inUse: false,
  });
  const refused = await call("DELETE", otherTaskId);
  assert.equal(refused.statusCode, 409);
  assert.match(refused.body, /pinned; unpin it first/);
  assert.equal((await call("DELETE", `${otherTaskId}/pin`)).statusCode, 204);
  const verified = await call("POST", `${otherTaskId}/verify`);
  assert.deepEqual([verified.statusCode, verified.json()], [200, { taskId: otherTaskId, checkedPieces: 4, damagedPieces: 1 }]);
  assert.equal((await call("DELETE", otherTaskId)).statusCode, 204);
  for (const [method, path] of [["PUT", "pin"], ["DELETE", "pin"], ["POST", "verify"]] as const) {
    // oxlint-disable-next-line no-await-in-loop -- cases
    const answer = await call(method, `${otherTaskId}/${path}`);
    assert.deepEqual([answer.statusCode, answer.json<{ code: string }>().code], [404, "TASK_UNKNOWN"], path);
  }
});

test("the supernode's limits are told, and changed at once, with the token", async (t) => {
  const { app } = await startApi(t, "secret");
  const put = async (payload: object, remoteAddress = "127.0.0.1") => {
    const response = await app.inject({ method: "PUT", url: "/v1/limits", payload, remoteAddress });
    return { status: response.statusCode, json: response.json<Record<string, { limitBytesPerSecond: number | null }>>() };
  };
  const told = (await get(app, "/v1/limits")).json();
  assert.deepEqual(told["upload"], { limitBytesPerSecond: 2000, bytesPerSecond: 0, totalBytes: 0, waitingCount: 0 });
  const changed = await put({ uploadBytesPerSecond: null, originBytesPerSecond: 1_000_000 });
  assert.equal(changed.status, 200);
  assert.equal(changed.json["upload"]?.limitBytesPerSecond, null);
  assert.equal(changed.json["origin"]?.limitBytesPerSecond, 1_000_000);
  assert.equal((await put({ originBytesPerSecond: 0 })).status, 400);
  assert.equal((await put({ origin: 5 })).status, 400);
  assert.equal((await put({ originBytesPerSecond: 5 }, "10.1.1.1")).status, 401);
  assert.equal(((await get(app, "/v1/limits")).json()["origin"] as { limitBytesPerSecond: number }).limitBytesPerSecond, 1_000_000);
});

test("pieces go to the peer, whoever asks: they need a ticket", async (t) => {
  const { app, taskId } = await startApi(t, "secret");
  assert.equal((await get(app, `/v1/tasks/${taskId}/pieces/0`, { remoteAddress: "10.1.1.1" })).body, "a piece");
  assert.equal((await get(app, `/v1/tasks/${taskId}/content`)).body, "a piece");
  assert.equal((await get(app, `/v1/tasks/${taskId}/pieces/7`)).status, 404);
});

test("what is wrong is said with a code", async (t) => {
  const { app } = await startApi(t, "secret");
  for (const [url, status, code] of [
    ["/v1/nothing?secret=1", 404, "USAGE"],
    [`/v1/tasks/${"f".repeat(64)}`, 404, "TASK_UNKNOWN"],
    ["/v1/tasks/xyz", 400, "USAGE"],
    ["/v1/tasks?limit=0", 400, "USAGE"],
    ["/v1/tasks?limit=x", 400, "USAGE"],
  ] as const) {
    // oxlint-disable-next-line no-await-in-loop -- cases
    const response = await get(app, url);
    assert.deepEqual([response.status, response.json()["code"]], [status, code], url);
    assert.doesNotMatch(response.body, /secret/);
  }
});

test("the OpenAPI document describes every route and each of its answers", async (t) => {
  const { app } = await startApi(t, "secret");
  const document = (await get(app, "/openapi.json")).json() as {
    openapi: string;
    info: { version: string };
    paths: Record<string, Record<string, { description?: string; responses: Record<string, { description?: string }>; parameters?: { name: string; in: string }[] }>>;
  };
  assert.match(document.openapi, /^3\.1/);
  assert.equal(document.info.version, "1.2.3");
  assert.deepEqual(Object.keys(document.paths).toSorted(), [
    "/healthz",
    "/metrics",
    "/readyz",
    "/v1/cache",
    "/v1/cache/{id}",
    "/v1/cache/{id}/pin",
    "/v1/cache/{id}/verify",
    "/v1/limits",
    "/v1/links",
    "/v1/origins",
    "/v1/peers",
    "/v1/tasks",
    "/v1/tasks/{id}",
    "/v1/tasks/{id}/content",
    "/v1/tasks/{id}/leases/{lease}/pieces/{n}",
    "/v1/tasks/{id}/pieces/{n}",
    "/v1/version",
  ]);
  const queryOf = (path: string): readonly string[] => (document.paths[path]?.["get"]?.parameters ?? []).map(({ name }) => name);
  assert.deepEqual([queryOf("/v1/peers"), queryOf("/v1/links")], [["limit", "after"], ["limit"]]);
  for (const [path, operations] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      assert.ok(operation.description, `${method} ${path}`);
      for (const response of Object.values(operation.responses)) assert.equal(typeof response.description, "string");
      const named = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
      const inPath = (operation.parameters ?? []).filter((parameter) => parameter.in === "path").map((parameter) => parameter.name);
      assert.deepEqual(new Set(inPath), new Set(named), path);
    }
  }
});
