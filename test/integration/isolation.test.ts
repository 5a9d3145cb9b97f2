/** Who may not read a private image is refused it everywhere, on the host that has it and on others. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { setTimeout } from "node:timers/promises";
import { pino } from "pino";
import { fetchAnswer, type Answer } from "../../src/dfdaemon/mirror/lab.test.ts";
import { ControlClient } from "../../src/peer/control/control-client.ts";
import { generatePeerId } from "../../src/peer/membership/credentials.ts";
import { parseTicket } from "../../src/peer/membership/tickets.ts";
import type { PeerId } from "../../src/protocol/ids.ts";
import { JOIN_TOKEN, startSite, type TestHost, type TestSite } from "./site.test.ts";
import { OCI_MANIFEST, type Image } from "./token-registry.test.ts";

const NS = "?ns=reg.test";
const MIB = 1024 * 1024;

interface Tenants extends TestSite {
  readonly image: Image;
  readonly shared: Image;
  readonly alice: string;
  readonly bob: string;
}

/** Alice's private image, pulled by her on the first host; bob may read another repository only. */
async function withTenants(t: TestContext, grantMs?: number): Promise<Tenants> {
  const site = await startSite(t, { hosts: 2, ...(grantMs === undefined ? {} : { grantMs }) });
  const { registry, hosts } = site;
  const image = registry.putImage("alice/app", "v1", [3 * MIB, 20_000]);
  const shared = registry.putImage("bob/app", "v1", [MIB]);
  registry.rights.set("alice", new Set(["alice/app"]));
  registry.rights.set("bob", new Set(["bob/app"]));
  const alice = registry.bearer("alice");
  await pull(hosts[0] as TestHost, image, alice);
  return { ...site, image, shared, alice, bob: registry.bearer("bob") };
}

async function pull(host: TestHost, image: Image, authorization: string): Promise<void> {
  const manifest = await host.get(`/v2/${image.repository}/manifests/v1${NS}`, authorization);
  assert.equal(manifest.status, 200);
  assert.ok(manifest.body.equals(image.manifest));
  for (const { digest, bytes } of image.layers) {
    const blob = await host.get(`/v2/${image.repository}/blobs/${digest}${NS}`, authorization);
    assert.equal(blob.status, 200);
    assert.ok(blob.body.equals(bytes));
  }
}

/** Every way to ask for something of the image, by name. */
function ways(image: Image, registryUrl: string): ReadonlyMap<string, (host: TestHost, authorization: string | undefined) => Promise<Answer>> {
  const found = new Map<string, (host: TestHost, authorization: string | undefined) => Promise<Answer>>();
  const { repository, digest, layers } = image;
  const [config, layer] = layers;
  for (const rest of ["manifests/v1", `manifests/${digest}`, `blobs/${config?.digest}`, `blobs/${layer?.digest}`]) {
    const byNamespace = `/v2/${repository}/${rest}${NS}`;
    for (const path of [byNamespace, `/v2/reg.test/${repository}/${rest}`, `/v2/${repository}/${rest}`]) {
      found.set(`GET ${path}`, (host, authorization) => host.get(path, authorization));
      found.set(`HEAD ${path}`, (host, authorization) => host.get(path, authorization, {}, "HEAD"));
    }
    const inProxy = `${registryUrl}/v2/${repository}/${rest}`;
    found.set(`by proxy: GET ${inProxy}`, (host, authorization) => host.get(inProxy, authorization, { accept: OCI_MANIFEST }));
    for (const range of ["bytes=0-", "bytes=100-199", "bytes=0-1,5-9"]) {
      found.set(`GET ${rest} ${range}`, (host, authorization) => host.get(byNamespace, authorization, { range }));
    }
    found.set(`GET ${rest} if-none-match`, (host, authorization) => host.get(byNamespace, authorization, { "if-none-match": `"${rest.split("/")[1]}"` }));
  }
  return found;
}

test("M14: who has other credentials, bad ones or none is refused a private image by tag, digest and range, in both forms and by the proxy, on every host", { timeout: 60_000 }, async (t) => {
  const { hosts, image, alice, bob, registry } = await withTenants(t);
  for (const authorization of [bob, "Bearer nonsense", "Basic bWU6cHc=", undefined]) {
    for (const [way, ask] of ways(image, registry.url)) {
      for (const host of hosts) {
        const answer = await ask(host, authorization);
        assert.equal(answer.status, 401, `${way} as ${authorization}`);
        assert.match(String(answer.headers["www-authenticate"]), /^Bearer realm="http.*",service="token-registry",scope="repository:alice\/app:pull"/);
        assert.ok(answer.body.length < 2_000);
      }
    }
  }
  await pull(hosts[1] as TestHost, image, alice);
  // Allowed the moment the registry allows it, but for the second that the supernode remembers a refusal.
  registry.rights.get("bob")?.add("alice/app");
  await setTimeout(1_100);
  for (const host of hosts) await pull(host, image, bob);
});

test("M14: knowing a digest opens nothing: neither under a repository of one's own, nor by a server of one's own", { timeout: 60_000 }, async (t) => {
  const { hosts, image, bob, registry, shared } = await withTenants(t);
  registry.open.add("bob/public");
  for (const host of hosts) {
    for (const { digest } of image.layers) {
      for (const repository of ["bob/app", "bob/public"]) {
        assert.equal((await host.get(`/v2/${repository}/blobs/${digest}${NS}`, bob)).status, 404);
        assert.equal((await host.get(`/v2/${repository}/blobs/${digest}${NS}`)).status, repository === "bob/app" ? 401 : 404);
      }
      const own = await host.local(`${registry.url}/v2/bob/app/blobs/${shared.layers[0]?.digest}`, bob, digest);
      assert.notEqual(own.status, 200);
    }
  }
});

test("M14: the local API asks in the caller's name, too", { timeout: 60_000 }, async (t) => {
  const { hosts, image, alice, bob, registry } = await withTenants(t);
  const [, layer] = image.layers;
  const url = `${registry.url}/v2/alice/app/blobs/${layer?.digest}`;
  for (const host of hosts) {
    for (const authorization of [bob, "Bearer nonsense", undefined]) {
      for (const digest of [undefined, layer?.digest]) {
        const answer = await host.local(url, authorization, digest);
        assert.equal(answer.status, 401, `${authorization} ${digest}`);
      }
    }
    const hers = await host.local(url, alice);
    assert.equal(hers.status, 200);
    assert.ok(hers.body.equals(layer?.bytes as Buffer));
  }
});

test("M14: the peer port gives pieces against a ticket for this task and peer only, and for no longer than a grant", { timeout: 60_000 }, async (t) => {
  // A ticket holds for half of it: time to ask all that is asked, on a busy machine, too.
  const grantMs = 10_000;
  const { hosts, image, shared, alice, bob, registry, supernode } = await withTenants(t, grantMs);
  const [host] = hosts as [TestHost];
  const member = await joinAsPeer(t, supernode.address.port);
  const sourceOf = ({ repository, layers }: Image, authorization: string) => ({
    url: `${registry.url}/v2/${repository}/blobs/${layers[1]?.digest}`, headers: { authorization },
  });
  await assert.rejects(member.join(sourceOf(image, bob)), { code: "ORIGIN_UNAUTHORIZED" });
  const other = await member.join(sourceOf(shared, bob));
  const { taskId, ticket } = await member.join(sourceOf(image, alice));
  const answeredUnixMs = Date.now();
  const ask = (withTicket: string | undefined, peerId: string, rest = "pieces/0"): Promise<Answer> =>
    fetchAnswer(host.peerPort, `/v1/tasks/${taskId}/${rest}`, "GET", {
      "x-dragonfly-peer": peerId, ...(withTicket === undefined ? {} : { authorization: `Bearer ${withTicket}` }),
    });
  assert.equal((await ask(ticket, member.peerId)).status, 200);
  assert.equal((await ask(ticket, member.peerId, "content")).status, 200);
  for (const [wrong, peerId] of [[undefined, member.peerId], [other.ticket, member.peerId], [ticket, "someone-else"], ["x.y", member.peerId]] as const) {
    for (const rest of ["pieces/0", "content"]) {
      const answer = await ask(wrong, peerId, rest);
      assert.equal(answer.status, 403);
      assert.match(answer.body.toString(), /TICKET_REFUSED/);
    }
  }
  const { expiresUnixMs = 0 } = parseTicket(ticket) ?? {};
  assert.ok(expiresUnixMs - answeredUnixMs <= grantMs / 2, "the other half is for what the supernode remembers");
  await setTimeout(expiresUnixMs - Date.now() + 50);
  assert.equal((await ask(ticket, member.peerId)).status, 403);
  registry.rights.get("alice")?.delete("alice/app");
  await setTimeout(grantMs / 2 + 50);
  await assert.rejects(member.join(sourceOf(image, alice)), { code: "ORIGIN_UNAUTHORIZED" });
});

test("M14: revoked rights end within a grant's life, on every host and in the local API", { timeout: 60_000 }, async (t) => {
  const grantMs = 3_000;
  const { hosts, image, alice, registry } = await withTenants(t, grantMs);
  for (const host of hosts) await pull(host, image, alice);
  registry.rights.get("alice")?.delete("alice/app");
  const revokedMs = performance.now();
  const [, layer] = image.layers;
  const blob = `/v2/alice/app/blobs/${layer?.digest}${NS}`;
  const url = `${registry.url}/v2/alice/app/blobs/${layer?.digest}`;
  // Asking often must not keep a grant alive.
  while (performance.now() - revokedMs < grantMs) {
    for (const host of hosts) await host.get(`/v2/alice/app/manifests/${image.digest}${NS}`, alice);
    await setTimeout(200);
  }
  await setTimeout(100);
  for (const host of hosts) {
    assert.equal((await host.get(blob, alice)).status, 401);
    assert.equal((await host.get(`/v2/alice/app/manifests/${image.digest}${NS}`, alice)).status, 401);
    assert.equal((await host.get(`/v2/alice/app/manifests/v1${NS}`, alice)).status, 401);
    assert.equal((await host.local(url, alice)).status, 401);
  }
});

interface Member {
  readonly peerId: PeerId;
  join(source: { readonly url: string; readonly headers: Record<string, string> }): Promise<{ readonly taskId: string; readonly ticket: string }>;
}

/** A member of the site that speaks the control protocol by itself, and lies where it helps. */
async function joinAsPeer(t: TestContext, port: number): Promise<Member> {
  const peerId = generatePeerId("mallory");
  const registered = Promise.withResolvers<unknown>();
  const ignore = (): void => {};
  const control = new ControlClient({
    supernodes: [{ host: "127.0.0.1", port }],
    token: JOIN_TOKEN,
    peerId,
    host: { address: "", port: 0, name: "mallory", program: "dfget", version: "1", labels: {} },
    log: pino({ level: "silent" }),
    random: Math.random,
    handlers: { onRegistered: registered.resolve, onNeighbours: ignore, onImports: ignore, onLength: ignore, onTaskFailed: ignore, onLease: ignore, onLeaseRevoked: ignore, onDisconnected: ignore },
  });
  t.after(() => control.close());
  await registered.promise;
  return {
    peerId,
    join: async (source) => {
      const { task, ticket } = await control.join(source, { download: true, signal: AbortSignal.timeout(10_000) });
      return { taskId: task.taskId, ticket: ticket as string };
    },
  };
}
