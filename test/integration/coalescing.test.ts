/** However many pull a cold image at once, each with a token of its own, the registry is read once. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startSite, type TestHost } from "./site.test.ts";
import type { Image, TokenRegistry } from "./token-registry.test.ts";

const NS = "?ns=reg.test";

/** As containerd pulls. */
async function pull(host: TestHost, { repository, digest, manifest, layers }: Image, authorization: string): Promise<void> {
  const head = await host.get(`/v2/${repository}/manifests/v1${NS}`, authorization, {}, "HEAD");
  assert.equal(head.headers["docker-content-digest"], digest);
  const got = await host.get(`/v2/${repository}/manifests/${digest}${NS}`, authorization);
  assert.ok(got.body.equals(manifest));
  await Promise.all(layers.map(async (layer) => {
    const blob = await host.get(`/v2/${repository}/blobs/${layer.digest}${NS}`, authorization);
    assert.equal(blob.status, 200);
    assert.ok(blob.body.equals(layer.bytes));
  }));
}

function assertReadOnce(registry: TokenRegistry, { digest, manifest, layers }: Image): void {
  assert.equal(registry.reads("manifests/v1") + registry.reads(`manifests/${digest}`), 1, "the manifest, under whatever name");
  for (const { digest: layer, bytes } of layers) {
    assert.equal(registry.reads(`blobs/${layer}`), 1);
    const sentBytes = registry.seen.filter(({ path }) => path.endsWith(layer)).reduce((sum, seen) => sum + seen.sentBytes, 0);
    assert.equal(sentBytes, bytes.length);
  }
  assert.ok(manifest.length > 0);
}

test("a thousand simultaneous pulls of a cold private image through one dfdaemon are one read of each blob and manifest", { timeout: 120_000 }, async (t) => {
  const { hosts, registry } = await startSite(t, { hosts: 1 });
  const image = registry.putImage("alice/app", "v1", [70_000]);
  registry.rights.set("alice", new Set(["alice/app"]));
  const [host] = hosts as [TestHost];
  await Promise.all(Array.from({ length: 1_000 }, (_, number) => pull(host, image, registry.bearer("alice", number % 100))));
  assertReadOnce(registry, image);
});

test("and so are those through several dfdaemons", { timeout: 120_000 }, async (t) => {
  const { hosts, registry } = await startSite(t, { hosts: 4 });
  const image = registry.putImage("alice/app", "v1", [2_000_000, 200_000, 5_000]);
  registry.rights.set("alice", new Set(["alice/app"]));
  await Promise.all(hosts.flatMap((host, index) => Array.from({ length: 50 }, (_, number) => pull(host, image, registry.bearer("alice", index * 10 + (number % 10))))));
  assertReadOnce(registry, image);
});

test("a caller is asked for once per repository while his grant holds, however many blobs he pulls", { timeout: 60_000 }, async (t) => {
  const { hosts, registry } = await startSite(t, { hosts: 1 });
  const image = registry.putImage("alice/app", "v1", Array.from({ length: 20 }, (_, index) => 70_000 + index));
  registry.rights.set("alice", new Set(["alice/app"]));
  const [host] = hosts as [TestHost];
  await pull(host, image, registry.bearer("alice"));
  const headsBefore = registry.seen.filter(({ method }) => method === "HEAD").length;
  // One per blob and one for the tag by the supernode, to learn what they are; none by dfdaemon.
  assert.ok(headsBefore <= image.layers.length + 2, `${headsBefore} HEADs`);
  for (let again = 0; again < 3; again++) {
    await Promise.all(image.layers.map(({ digest }) => host.get(`/v2/alice/app/blobs/${digest}${NS}`, registry.bearer("alice"))));
  }
  assert.equal(registry.seen.filter(({ method }) => method === "HEAD").length, headsBefore);
});
