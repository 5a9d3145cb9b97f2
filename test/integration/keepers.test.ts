/** Keepers on real sockets: further seeds, named by the supernode, that give what others take; and who may be one. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { createServer, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { test, type TestContext } from "node:test";
import { pino } from "pino";
import { ControlClient } from "../../src/peer/control/control-client.ts";
import { generatePeerId } from "../../src/peer/membership/credentials.ts";
import type { PeerId, TaskId } from "../../src/protocol/ids.ts";
import { JOIN_TOKEN, relayFrom, startSite, type TestHost, type TestSite } from "./site.test.ts";

const CONTENT = randomBytes(8 * 1024 * 1024);
const KEEPERS = { keepers: ["127.0.9.0/24"], isKeeper: (host: number) => host === 0 };
const SECRET = "Bearer open-sesame";

interface Member {
  readonly peerId: string;
  readonly complete: boolean;
  readonly sources: { readonly seedBytes: number; readonly peerBytes: number } | null;
}

/** One file for everybody, one for those who have the word. */
async function startOrigin(t: TestContext): Promise<{ readonly url: string; readonly privateUrl: string; readonly gets: string[] }> {
  const gets: string[] = [];
  const server = createServer((request, response) => {
    if (request.url?.startsWith("/private") === true && request.headers.authorization !== SECRET) {
      response.writeHead(401).end();
      return;
    }
    if (request.headers["if-none-match"] === '"1"') {
      response.writeHead(304).end();
      return;
    }
    if (request.method === "GET" && request.headers.range === undefined) gets.push(request.url ?? "");
    response.writeHead(200, { "content-length": CONTENT.length, etag: '"1"' });
    response.end(request.method === "HEAD" ? undefined : CONTENT);
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { url: `${base}/file`, privateUrl: `${base}/private?key=quite-secret`, gets };
}

async function ask<T>({ supernode }: TestSite, path: string): Promise<T> {
  return (await (await fetch(`http://127.0.0.1:${supernode.address.port}${path}`)).json()) as T;
}

async function peerIdOf(site: TestSite, host: TestHost): Promise<string | undefined> {
  const { peers } = await ask<{ peers: { peerId: string; port: number }[] }>(site, "/v1/peers");
  return peers.find(({ port }) => port === host.peerPort)?.peerId;
}

async function onlyTask(site: TestSite): Promise<{ readonly taskId: TaskId; readonly members: readonly Member[] }> {
  const { tasks } = await ask<{ tasks: { taskId: TaskId }[] }>(site, "/v1/tasks");
  return await ask(site, `/v1/tasks/${tasks[0]?.taskId}`);
}

async function untilKept(site: TestSite, host: TestHost): Promise<void> {
  const keeper = await peerIdOf(site, host);
  // oxlint-disable-next-line no-await-in-loop -- polls
  while (!(await onlyTask(site)).members.some(({ peerId, complete }) => peerId === keeper && complete)) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** What a host says of its tasks to those who can reach its socket. */
async function urlsAt({ socketPath }: TestHost): Promise<readonly (string | null)[]> {
  const answer = await new Promise<string>((resolve, reject) => {
    httpRequest({ socketPath, path: "/v1/tasks" }, (response) => void text(response).then(resolve, reject)).on("error", reject).end();
  });
  return (JSON.parse(answer) as { tasks: { url: string | null }[] }).tasks.map(({ url }) => url);
}

/** On a unix socket, or the supernode's port. */
function putLimits(where: { readonly socketPath: string } | { readonly port: number }, uploadBytesPerSecond: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const sent = httpRequest({ host: "127.0.0.1", ...where, method: "PUT", path: "/v1/limits", headers: { "content-type": "application/json" } }, (response) => {
      response.resume();
      if (response.statusCode === 200) response.on("end", resolve);
      else reject(new Error(`limits: ${response.statusCode}`));
    });
    sent.on("error", reject);
    sent.end(JSON.stringify({ uploadBytesPerSecond }));
  });
}

const isWhole = (body: Buffer): boolean => createHash("sha256").update(body).digest("hex") === createHash("sha256").update(CONTENT).digest("hex");

test("a keeper has what one host took, and gives it to others when the supernode's uplink is next to nothing", { timeout: 90_000 }, async (t) => {
  const site = await startSite(t, { hosts: 4, ...KEEPERS, addressOf: (host) => `127.0.${host === 0 ? 9 : 1}.${host + 1}` });
  const { url, gets } = await startOrigin(t);
  const [keeper, first, ...others] = site.hosts as [TestHost, TestHost, ...TestHost[]];
  assert.ok(isWhole((await first.local(url)).body));
  await untilKept(site, keeper);
  // From these two alone it would take a minute. What they have begun is late after seconds.
  await Promise.all([putLimits({ port: site.supernode.address.port }, 128 * 1024), putLimits({ socketPath: first.socketPath }, 16 * 1024)]);
  const startedMs = performance.now();
  for (const { body } of await Promise.all(others.map((host) => host.local(url)))) assert.ok(isWhole(body));
  const tookMs = performance.now() - startedMs;
  t.diagnostic(`two hosts had 8 MiB each after ${Math.round(tookMs)} ms`);
  assert.ok(tookMs < 40_000, `${tookMs} ms`);
  assert.deepEqual(gets, ["/file"], "the origin is read once");
});

test("a region that has a keeper hardly asks a far supernode for what it holds", { timeout: 60_000 }, async (t) => {
  const site = await startSite(t, { hosts: 3, ...KEEPERS, supernodeLabels: { region: "far" }, labelsOf: () => ({ region: "near" }), addressOf: (host) => `127.0.${host === 0 ? 9 : 1}.1` });
  const { url } = await startOrigin(t);
  const [keeper, first, later] = site.hosts as [TestHost, TestHost, TestHost];
  assert.ok(isWhole((await first.local(url)).body));
  await untilKept(site, keeper);
  await putLimits({ socketPath: first.socketPath }, 16 * 1024);
  assert.ok(isWhole((await later.local(url)).body));
  await untilKept(site, later);
  const laterId = await peerIdOf(site, later);
  const { seedBytes, peerBytes } = (await onlyTask(site)).members.find(({ peerId }) => peerId === laterId)?.sources ?? assert.fail("nothing is known of it");
  t.diagnostic(`${seedBytes} bytes from the supernode, ${peerBytes} from the keeper and the other`);
  assert.ok(seedBytes <= 0.1 * CONTENT.length, `${seedBytes} bytes`);
});

test("a keeper keeps private files, too, and shows them to nobody who may not have them", { timeout: 60_000 }, async (t) => {
  const site = await startSite(t, { hosts: 2, ...KEEPERS, addressOf: (host) => `127.0.${host === 0 ? 9 : 1}.1` });
  const { privateUrl } = await startOrigin(t);
  const [keeper, first] = site.hosts as [TestHost, TestHost];
  assert.ok(isWhole((await first.local(privateUrl, SECRET)).body));
  await untilKept(site, keeper);
  assert.equal((await keeper.local(privateUrl)).status, 401);
  assert.deepEqual(await urlsAt(keeper), [null], "not even where it is from");
  // Nobody was invited by a caller: what is left is to ask the origin without the word.
  assert.equal((await keeper.localSource({ url: privateUrl, headers: {}, invited: true })).status, 401);
  assert.ok(isWhole((await keeper.local(privateUrl, SECRET)).body));
  assert.match((await urlsAt(keeper))[0] ?? "", /\/private/, "somebody here takes it now");
  assert.ok(!site.lines.some((line) => line.includes("quite-secret") || line.includes("open-sesame")), "what is secret in a URL is not told");
});

test("who only wants to be a keeper is none: it is not invited, and cannot invite itself", { timeout: 60_000 }, async (t) => {
  const site = await startSite(t, { hosts: 2, ...KEEPERS, addressOf: () => "127.0.1.1" });
  const { privateUrl } = await startOrigin(t);
  const [wishful, first] = site.hosts as [TestHost, TestHost];
  assert.ok(isWhole((await first.local(privateUrl, SECRET)).body));
  const { taskId, members } = await onlyTask(site);
  const wishfulId = await peerIdOf(site, wishful);
  assert.ok(wishfulId !== undefined && !members.some(({ peerId }) => peerId === wishfulId));
  assert.ok(site.lines.some((line) => line.includes("wants to be a keeper")));
  const { client } = await wouldBeKeeper(t, site.supernode.address.port, generatePeerId("thief"));
  const { signal } = new AbortController();
  await assert.rejects(client.join({ url: privateUrl, headers: {}, invited: true }, { taskId, download: true, signal }), { code: "TASK_UNKNOWN" });
});

test("a keeper that comes back from where keepers may not stand is told of no file", { timeout: 60_000 }, async (t) => {
  const site = await startSite(t, { hosts: 1, ...KEEPERS, isKeeper: () => false });
  const { url, privateUrl } = await startOrigin(t);
  const [first] = site.hosts as [TestHost];
  const { port } = site.supernode.address;
  const peerId = generatePeerId("keeper");
  const before = await wouldBeKeeper(t, await relayFrom(t, "127.0.9.1", port), peerId);
  assert.ok(isWhole((await first.local(url)).body));
  await before.invited;
  before.client.close();
  const after = await wouldBeKeeper(t, port, peerId);
  assert.ok(isWhole((await first.local(privateUrl, SECRET)).body));
  const isInvited = await Promise.race([after.invited.then(() => true), new Promise<false>((resolve) => setTimeout(resolve, 500, false))]);
  assert.ok(!isInvited);
});

/** Registered. It does nothing by itself. */
async function wouldBeKeeper(t: TestContext, port: number, peerId: PeerId): Promise<{ readonly client: ControlClient; readonly invited: Promise<void> }> {
  const invited = Promise.withResolvers<void>();
  const registered = Promise.withResolvers<void>();
  const client = new ControlClient({
    supernodes: [{ host: "127.0.0.1", port }],
    token: JOIN_TOKEN,
    peerId,
    host: { address: "", port: 1, name: "would-be", program: "dfdaemon", version: "0", labels: {}, keeper: true },
    log: pino({ level: "silent" }),
    random: Math.random,
    handlers: { onRegistered: () => registered.resolve(), onInvited: () => invited.resolve(), onNeighbours: ignore, onImports: ignore, onLength: ignore, onTaskFailed: ignore, onLease: ignore, onLeaseRevoked: ignore, onDisconnected: ignore },
  });
  t.after(() => client.close());
  await registered.promise;
  return { client, invited: invited.promise };
}

function ignore(): void {}
