/** Downloads that outlast their ticket: renewed, let go on, or not cut by a supernode that is away. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { setTimeout } from "node:timers/promises";
import { fetchAnswer, type Answer } from "../../src/dfdaemon/mirror/lab.test.ts";
import { startSite, type TestHost, type TestSite } from "./site.test.ts";

const MIB = 1024 * 1024;
const GRANT_MS = 4_000;

interface Slow extends TestSite {
  readonly bytes: Buffer;
  readonly rest: string;
  pull(host: TestHost): Promise<Answer>;
}

/** A blob that takes several times as long as a ticket of its lasts; the registry itself is fast. */
async function slowSite(t: TestContext): Promise<Slow> {
  const site = await startSite(t, { hosts: 2, grantMs: GRANT_MS, uploadBytesPerSecond: 2 * MIB });
  const image = site.registry.putImage("alice/app", "v1", [12 * MIB]);
  site.registry.rights.set("alice", new Set(["alice/app"]));
  const [, layer] = image.layers;
  const rest = `blobs/${layer?.digest}`;
  const pull = (host: TestHost): Promise<Answer> => host.get(`/v2/alice/app/${rest}?ns=reg.test`, site.registry.bearer("alice"));
  return { ...site, bytes: layer?.bytes as Buffer, rest, pull };
}

function heads({ registry, rest }: Slow): number {
  return registry.seen.filter(({ method, path }) => method === "HEAD" && path.endsWith(rest)).length;
}

/** To other peers, by a host. */
async function uploadedBytes({ mirrorPort }: TestHost): Promise<number> {
  const metrics = (await fetchAnswer(mirrorPort, "/metrics")).body.toString();
  return Number(/^dragonfly_peer_upload_bytes_total (\d+)$/m.exec(metrics)?.[1] ?? assert.fail(metrics));
}

test("M14: a download that outlasts its ticket renews it, which asks the registry, and never notices", { timeout: 60_000 }, async (t) => {
  const site = await slowSite(t);
  const [host] = site.hosts as [TestHost];
  const startMs = performance.now();
  const answer = await site.pull(host);
  assert.ok(answer.body.equals(site.bytes));
  assert.ok(performance.now() - startMs > GRANT_MS, "it took longer than a grant");
  assert.ok(heads(site) > 2, `${heads(site)} HEADs: by dfdaemon, by the join, by renewals`);
  assert.equal(site.registry.reads(site.rest), 1);
});

test("a token that runs out in mid-download does not end it: what began may end", { timeout: 60_000 }, async (t) => {
  const site = await slowSite(t);
  const [host] = site.hosts as [TestHost];
  const pulling = site.pull(host);
  while (site.registry.reads(site.rest) === 0) await setTimeout(20);
  await setTimeout(600);
  site.registry.intercept = (_request, response) => {
    response.writeHead(401, { "www-authenticate": 'Bearer realm="http://x.test/token",error="invalid_token"' }).end();
    return true;
  };
  assert.ok((await pulling).body.equals(site.bytes));
  assert.equal(site.registry.reads(site.rest), 1);
  await setTimeout(GRANT_MS);
  assert.equal((await site.pull(host)).status, 401, "but nothing new begins");
});

test("a registry so slow that the token runs out while it is read does not fail the download: all is asked for in the beginning", { timeout: 60_000 }, async (t) => {
  const { hosts, registry } = await startSite(t, { hosts: 1 });
  // Long enough to be read by several streams, which share it in more portions than there are streams when they may.
  const image = registry.putImage("alice/app", "v1", [82 * MIB]);
  registry.rights.set("alice", new Set(["alice/app"]));
  const [, layer] = image.layers;
  const rest = `blobs/${layer?.digest}`;
  // Long enough to ask for all of it, on a busy machine, too; and not to read it.
  registry.tokenLifeMs = 5_000;
  registry.bytesPerSecond = 3 * MIB;
  const startMs = performance.now();
  const answer = await (hosts[0] as TestHost).get(`/v2/alice/app/${rest}?ns=reg.test`, registry.bearer("alice"));
  assert.ok(performance.now() - startMs > registry.tokenLifeMs, "it took longer than the token was good");
  assert.equal(answer.status, 200);
  assert.ok(answer.body.equals(layer?.bytes as Buffer));
  const sent = registry.seen.filter(({ method, path }) => method === "GET" && path.endsWith(rest)).reduce((sum, { sentBytes }) => sum + sentBytes, 0);
  assert.equal(sent, layer?.bytes.length, "and no byte is read twice");
});

test("nor does a signed address that runs out", { timeout: 60_000 }, async (t) => {
  const site = await slowSite(t);
  const [host] = site.hosts as [TestHost];
  // One byte to learn what it is, and the content; nothing is left for renewals.
  const address = site.registry.signedAddress(`alice/app/${site.rest}`, 2);
  const answer = await site.hosts[0]?.local(address);
  assert.ok(answer?.body.equals(site.bytes));
  const refused = site.registry.seen.filter(({ at, method, status }) => at === "store" && method === "GET" && status === 403);
  assert.ok(refused.length > 0, "a renewal was refused");
  assert.equal(site.registry.reads(site.rest), 2);
  await setTimeout(GRANT_MS);
  assert.equal((await host.local(address)).status, 403, "but nothing new begins");
});

test("with the supernode away peers go on giving each other what they were let have", { timeout: 60_000 }, async (t) => {
  const site = await slowSite(t);
  const [first, second] = site.hosts as [TestHost, TestHost];
  assert.ok((await site.pull(first)).body.equals(site.bytes));
  const pulling = site.pull(second);
  while ((await uploadedBytes(first)) === 0) await setTimeout(20);
  await site.stopSupernode();
  const startMs = performance.now();
  assert.ok((await pulling).body.equals(site.bytes));
  assert.ok(performance.now() - startMs > GRANT_MS / 2, "it went on past its ticket");
  assert.equal(site.registry.reads(site.rest), 1);
});
