/** The supernode as a whole, on loopback: what a peer sees of it, and what is left of it after a restart. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { PLAIN_NETWORK } from "../origin/origin-clients.ts";
import { pino } from "pino";
import type { AppError } from "../base/errors.ts";
import { ControlClient } from "../peer/control/control-client.ts";
import { generatePeerId, SignatureVerifier } from "../peer/membership/credentials.ts";
import { TicketVerifier } from "../peer/membership/tickets.ts";
import type { Source } from "../protocol/control-messages.ts";
import type { PeerId } from "../protocol/ids.ts";
import type { SupernodeConfig } from "./config.ts";
import { startSupernode, type Supernode } from "./supernode.ts";

const log = pino({ level: "silent" });
const freshness = { revalidateMs: 1_000, staleMs: undefined, staleTagMs: undefined };
const limits = { downloadBytesPerSecond: undefined, uploadBytesPerSecond: undefined, originBytesPerSecond: undefined };

/** A web server with one file under every path. */
async function startWeb(t: TestContext, content: Buffer, intercept: (request: IncomingMessage, response: ServerResponse) => boolean = () => false) {
  const requests: string[] = [];
  const server = createServer((request, response) => {
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    requests.push(`${request.method}${range === null ? "" : ` ${range[0]}`}`);
    if (intercept(request, response)) return;
    const start = Number(range?.[1] ?? 0);
    const end = range?.[2] ? Number(range[2]) + 1 : content.length;
    const partial = range === null ? {} : { "content-range": `bytes ${start}-${end - 1}/${content.length}` };
    response.writeHead(range === null ? 200 : 206, { etag: '"v1"', "accept-ranges": "bytes", "content-length": end - start, ...partial });
    response.end(request.method === "HEAD" ? undefined : content.subarray(start, end));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = (): void => {
    server.closeAllConnections();
    server.close();
  };
  t.after(close);
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/file`, requests, close };
}

function dataDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-supernode-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

async function start(t: TestContext, directory: string, changes: Partial<SupernodeConfig> = {}): Promise<{ supernode: Supernode; config: SupernodeConfig; shown: string[]; stop: () => Promise<void> }> {
  const shown: string[] = [];
  const config: SupernodeConfig = {
    version: "0.0.1",
    listen: { host: "127.0.0.1", port: 0 },
    advertiseHost: undefined,
    grants: { grantMs: 300_000, outageGrantMs: 0 },
    joinToken: { kind: "file", file: join(directory, "join-token") },
    network: PLAIN_NETWORK,
    cache: { dataDirectory: directory, quotaBytes: undefined, reservedFreeBytes: 0, scrubBytesPerSecond: 0 },
    limits,
    freshness,
    leasePeerCountMax: 3,
    leaseBelowBytesPerSecond: undefined,
    originBudgets: [],
    networkLabels: [], keepers: [],
    labels: {},
    logLevel: "silent",
    ...changes,
  };
  const supernode = await startSupernode(config, { log, showToken: (token) => shown.push(token) });
  let stopping: Promise<void> | undefined;
  const stop = (): Promise<void> => (stopping ??= supernode.close());
  t.after(stop);
  return { supernode, config, shown, stop };
}

async function connectPeer(t: TestContext, { address }: Supernode, token: string | undefined, peerId: PeerId = generatePeerId(hostname())) {
  let client: ControlClient | undefined;
  const lengths: number[] = [];
  const failures: { code: string; discard: boolean }[] = [];
  const publicKey = await new Promise<Uint8Array>((resolve) => {
    client = new ControlClient({
      supernodes: [address],
      token,
      peerId,
      host: { address: "", port: 1, name: "test", program: "dfdaemon", version: "0", labels: {} },
      log,
      random: Math.random,
      handlers: {
        onRegistered: resolve,
        onNeighbours: () => {},
        onImports: () => {},
        onLength: (_taskId, lengthBytes) => lengths.push(lengthBytes),
        onTaskFailed: ({ code, discard }) => failures.push({ code, discard }),
        onLease: () => {},
        onLeaseRevoked: () => {},
        onDisconnected: () => {},
      },
    });
  });
  t.after(() => client?.close());
  const { signal } = new AbortController();
  const ask = (source: Source, download = true): ReturnType<ControlClient["join"]> => (client as ControlClient).join(source, { download, signal });
  return { client: client as ControlClient, ask, publicKey, peerId, lengths, failures };
}

async function untilComplete({ address }: Supernode, taskId: string): Promise<void> {
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- polls
    const task = (await (await fetch(`http://127.0.0.1:${address.port}/v1/tasks/${taskId}`)).json()) as { complete: boolean };
    if (task.complete) return;
    // oxlint-disable-next-line no-await-in-loop -- polls
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test("a thousand joins of twenty peers: one question to the origin, one read, a ticket and the seed for each", async (t) => {
  const content = randomBytes(3_000_000);
  const web = await startWeb(t, content);
  // All are to have asked before it is time for another question, on a busy machine, too.
  const { supernode, shown } = await start(t, dataDirectory(t), { freshness: { ...freshness, revalidateMs: 60_000 } });
  const peers = await Promise.all(Array.from({ length: 20 }, () => connectPeer(t, supernode, shown[0])));
  const joined = await Promise.all(peers.flatMap((peer) => Array.from({ length: 50 }, async () => ({ peer, answer: await peer.ask({ url: web.url, headers: {} }) }))));
  assert.equal(joined.length, 1000);
  for (const { peer, answer } of joined) {
    const { task, ticket, neighbours, lengthSignature } = answer;
    assert.equal(task.lengthBytes, content.length);
    const verifier = new SignatureVerifier(peer.publicKey);
    new TicketVerifier(verifier).verify(ticket as string, task.taskId, peer.peerId);
    assert.ok(verifier.verifyLength(task.taskId, content.length, Buffer.from(lengthSignature as string, "base64")));
    const seed = neighbours.find((neighbour) => neighbour.seed);
    assert.deepEqual([seed?.address, seed?.port], ["127.0.0.1", supernode.address.port]);
  }
  await untilComplete(supernode, joined[0]?.answer.task.taskId as string);
  // The last one asks whether it is still the same file.
  assert.deepEqual(web.requests, ["HEAD", `GET bytes=0-${content.length - 1}`, "HEAD"]);
});

test("one layer in two repositories and two registries is read once; a registry that only says it has it opens nothing", async (t) => {
  const content = randomBytes(3_000_000);
  const path = `blobs/sha256:${createHash("sha256").update(content).digest("hex")}`;
  const [first, second] = [await startWeb(t, content), await startWeb(t, content)];
  const impostor = await startWeb(t, content, ({ method }, response) => {
    if (method === "GET") response.writeHead(404, { "content-length": 0 }).end();
    return method === "GET";
  });
  const { supernode, shown } = await start(t, dataDirectory(t));
  const peer = await connectPeer(t, supernode, shown[0]);
  const taskAt = async (web: { readonly url: string }, repository: string): Promise<string> =>
    (await peer.ask({ url: new URL(`/v2/${repository}/${path}`, web.url).href, headers: {} })).task.taskId;
  const taskId = await taskAt(first, "one");
  await untilComplete(supernode, taskId);
  assert.deepEqual(first.requests, ["HEAD", `GET bytes=0-${content.length - 1}`]);
  first.requests.length = 0;
  assert.equal(await taskAt(first, "two"), taskId);
  assert.equal(await taskAt(second, "one"), taskId);
  for (const { requests } of [first, second]) {
    assert.equal(requests[0], "HEAD");
    const bytes = requests.slice(1).map((request) => /bytes=(\d+)-(\d+)/.exec(request)).map((range) => Number(range?.[2]) + 1 - Number(range?.[1]));
    assert.deepEqual(bytes, Array.from({ length: 4 }, () => 16_384));
  }
  assert.notEqual(await taskAt(impostor, "one"), taskId);
});

test("small content comes in the answer, is read once, and outlives a restart and the origin", async (t) => {
  const content = randomBytes(5000);
  const web = await startWeb(t, content);
  const directory = dataDirectory(t);
  const source = { url: web.url, headers: {}, digest: `sha256:${createHash("sha256").update(content).digest("hex")}` };
  const first = await start(t, directory);
  const peer = await connectPeer(t, first.supernode, first.shown[0]);
  const answers = await Promise.all(Array.from({ length: 10 }, () => peer.ask(source)));
  for (const answer of answers) assert.ok(Buffer.from(answer.inline as string, "base64").equals(content));
  assert.deepEqual(web.requests, ["HEAD", "GET"]);
  peer.client.close();
  await first.stop();
  web.close();

  const second = await start(t, directory);
  assert.deepEqual(second.shown, []);
  const again = await connectPeer(t, second.supernode, first.shown[0]);
  const stale = await again.ask(source);
  assert.ok(Buffer.from(stale.inline as string, "base64").equals(content));
  assert.equal(stale.task.headers["warning"], undefined, "content known by digest cannot be stale");
  assert.equal(stale.task.headers["etag"], '"v1"');
});

test("a small file with a wrong digest is refused, and asked for without download is only described", async (t) => {
  const web = await startWeb(t, randomBytes(5000));
  const { supernode, shown } = await start(t, dataDirectory(t));
  const peer = await connectPeer(t, supernode, shown[0]);
  const described = await peer.ask({ url: web.url, headers: {} }, false);
  assert.deepEqual([described.task.lengthBytes, described.inline, described.ticket], [5000, null, null]);
  assert.deepEqual(web.requests, ["HEAD"]);
  await assert.rejects(peer.ask({ url: web.url, headers: {}, digest: `sha256:${"0".repeat(64)}` }), { code: "DIGEST_MISMATCH" });
});

test("a large file whose digest is wrong: members are told to throw it away", async (t) => {
  const web = await startWeb(t, randomBytes(2_000_000));
  const { supernode, shown } = await start(t, dataDirectory(t));
  const peer = await connectPeer(t, supernode, shown[0]);
  await peer.ask({ url: web.url, headers: {}, digest: `sha256:${"0".repeat(64)}` });
  while (peer.failures.length === 0) {
    // oxlint-disable-next-line no-await-in-loop -- polls
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.deepEqual(peer.failures, [{ code: "DIGEST_MISMATCH", discard: true }]);
});

test("what the origin refuses is refused, with the origin's words", async (t) => {
  const web = await startWeb(t, randomBytes(10), (_request, response) => {
    response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end();
    return true;
  });
  const { supernode, shown } = await start(t, dataDirectory(t));
  const peer = await connectPeer(t, supernode, shown[0]);
  await assert.rejects(
    peer.ask({ url: web.url, headers: {} }),
    (error: AppError) => error.code === "ORIGIN_UNAUTHORIZED" && error.details["wwwAuthenticate"] === 'Basic realm="x"',
  );
  await assert.rejects(peer.ask({ url: "nonsense", headers: {} }), { code: "URL_INVALID" });
  await assert.rejects(peer.ask({ url: "ftp://h/f", headers: {} }), { code: "SCHEME_UNSUPPORTED" });
});

test("after a restart in mid-read only the rest is read, for the peers that come back", async (t) => {
  const content = randomBytes(4_000_000);
  let held: ServerResponse | undefined;
  let isSlow = true;
  const web = await startWeb(t, content, (request, response) => {
    if (!isSlow || request.method === "HEAD") return false;
    held = response;
    response.writeHead(206, { etag: '"v1"', "content-length": content.length, "content-range": `bytes 0-${content.length - 1}/${content.length}` });
    response.write(content.subarray(0, 2_000_000));
    return true;
  });
  const directory = dataDirectory(t);
  const first = await start(t, directory);
  const peer = await connectPeer(t, first.supernode, first.shown[0]);
  const { task } = await peer.ask({ url: web.url, headers: {} });
  const pieces = Math.floor(2_000_000 / task.pieceLengthBytes);
  for (let held = 0; held < pieces; ) {
    // oxlint-disable-next-line no-await-in-loop -- polls
    const view = await (await fetch(`http://127.0.0.1:${first.supernode.address.port}/v1/tasks/${task.taskId}`)).json();
    held = (view as { heldPieces: number }).heldPieces;
  }
  peer.client.close();
  await first.stop();
  held?.destroy();
  isSlow = false;
  web.requests.length = 0;

  const second = await start(t, directory);
  const back = await connectPeer(t, second.supernode, first.shown[0], peer.peerId);
  const rejoined = await back.client.join(
    { url: web.url, headers: {} },
    { taskId: task.taskId, have: new Uint8Array([1]), download: true, signal: new AbortController().signal },
  );
  assert.equal(rejoined.task.taskId, task.taskId);
  assert.deepEqual(back.publicKey, peer.publicKey);
  await untilComplete(second.supernode, task.taskId);
  assert.deepEqual(web.requests, ["HEAD", `GET bytes=${pieces * task.pieceLengthBytes}-${content.length - 1}`, "HEAD"]);
});

test("the join token is made at the first start, shown once, and needed", async (t) => {
  const directory = dataDirectory(t);
  const first = await start(t, directory);
  const [token] = first.shown;
  assert.equal(readFileSync(join(directory, "join-token"), "utf8"), `${token}\n`);
  assert.equal(statSync(join(directory, "join-token")).mode & 0o777, 0o600);
  await connectPeer(t, first.supernode, token);
  const stranger = new ControlClient({
    supernodes: [first.supernode.address],
    token: undefined,
    peerId: generatePeerId("x"),
    host: { address: "", port: 0, name: "", program: "dfget", version: "0", labels: {} },
    log,
    random: Math.random,
    handlers: { onRegistered: unwanted, onNeighbours: unwanted, onImports: unwanted, onLength: unwanted, onTaskFailed: unwanted, onLease: unwanted, onLeaseRevoked: unwanted, onDisconnected: unwanted },
  });
  t.after(() => stranger.close());
  const { signal } = new AbortController();
  await assert.rejects(stranger.join({ url: "http://h/f", headers: {} }, { download: true, signal }), { code: "TOKEN_REFUSED" });
});

function unwanted(): never {
  assert.fail("a stranger was served");
}

test("a port that is taken is a clear error, and nothing stays open", async (t) => {
  const { supernode } = await start(t, dataDirectory(t));
  const directory = dataDirectory(t);
  const config = { listen: { host: "127.0.0.1", port: supernode.address.port } };
  await assert.rejects(start(t, directory, config), { code: "LISTEN_FAILED", message: /another supernode/ });
  await start(t, directory);
});

test("new limits take effect without a restart", async (t) => {
  const directory = dataDirectory(t);
  const { supernode, config } = await start(t, directory, { joinToken: { kind: "none" } });
  const peer = await connectPeer(t, supernode, undefined);
  supernode.reload({ ...config, limits: { ...limits, originBytesPerSecond: 1_000_000 } });
  const web = await startWeb(t, randomBytes(300_000));
  const startedMs = performance.now();
  const { task } = await peer.ask({ url: web.url, headers: {} });
  await untilComplete(supernode, task.taskId);
  const tookMs = performance.now() - startedMs;
  assert.ok(tookMs >= 200, `${tookMs} ms for 300 ms of bytes less a burst`);
});

test("peers are shown with their labels and where these come from, also after the networks' labels have changed", async (t) => {
  const { supernode, config } = await start(t, dataDirectory(t), { joinToken: { kind: "none" }, labels: { zone: "s" }, networkLabels: [{ network: "127.0.0.1", labels: { rack: "r1" } }] });
  const { peerId } = await connectPeer(t, supernode, undefined);
  const shown = async (): Promise<Record<string, unknown>> => {
    const { peers } = (await (await fetch(`http://127.0.0.1:${supernode.address.port}/v1/peers`)).json()) as { peers: { peerId: string; seed: boolean; labels: unknown; labelSources: unknown }[] };
    return Object.fromEntries(peers.map(({ seed, peerId: id, labels, labelSources }) => [seed ? "seed" : id, [labels, labelSources]]));
  };
  const seed = [{ zone: "s" }, { zone: "host" }];
  assert.deepEqual(await shown(), { seed, [peerId]: [{ rack: "r1" }, { rack: "127.0.0.1" }] });
  supernode.reload({ ...config, networkLabels: [{ network: "127.0.0.0/8", labels: { rack: "r2" } }] });
  const expected = JSON.stringify({ rack: "r2" });
  // oxlint-disable-next-line no-await-in-loop -- polls
  while (JSON.stringify(((await shown())[peerId] as unknown[] | undefined)?.[0]) !== expected) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.deepEqual(await shown(), { seed, [peerId]: [{ rack: "r2" }, { rack: "127.0.0.0/8" }] });
});
