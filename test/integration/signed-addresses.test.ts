/** A registry that keeps its blobs in a store: redirects are followed here, and outlive their signatures. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startSite, type TestHost } from "./site.test.ts";

const MIB = 1024 * 1024;

test("signed addresses that run out in mid-download are renewed, clients never see one, and the store no credentials", { timeout: 60_000 }, async (t) => {
  const { hosts, registry, lines } = await startSite(t, { hosts: 2 });
  const image = registry.putImage("alice/app", "v1", [5 * MIB]);
  registry.rights.set("alice", new Set(["alice/app"]));
  const [, layer] = image.layers;
  // Each address is good once, and each answer breaks off after 2 MiB: the rest needs another address.
  registry.signatureUses = 1;
  registry.cutAfterBytes = 2 * MIB;
  for (const host of hosts as [TestHost, TestHost]) {
    const answer = await host.get(`/v2/alice/app/blobs/${layer?.digest}?ns=reg.test`, registry.bearer("alice"));
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.location, undefined);
    assert.ok(answer.body.equals(layer?.bytes as Buffer));
  }
  const atStore = registry.seen.filter(({ at }) => at === "store");
  assert.ok(atStore.some(({ status }) => status === 403), "an address had run out");
  assert.ok(atStore.filter(({ status }) => status === 206 || status === 200).length >= 3);
  assert.ok(atStore.every(({ authorization }) => authorization === undefined));
  const sentBytes = atStore.reduce((sum, seen) => sum + seen.sentBytes, 0);
  assert.ok(sentBytes < 5 * MIB + 512 * 1024, `${sentBytes} bytes: what had come was not read again`);
  assert.doesNotMatch(lines.join(""), /planted-signature/);
});

test("M8: a registry that answers 429 with Retry-After is waited for, and no client sees the 429", { timeout: 60_000 }, async (t) => {
  const { hosts, registry } = await startSite(t, { hosts: 1 });
  const image = registry.putImage("alice/app", "v1", [200_000]);
  registry.rights.set("alice", new Set(["alice/app"]));
  const [host] = hosts as [TestHost];
  const alice = registry.bearer("alice");
  let limitedUntilMs = performance.now() + 1_000;
  const asked: number[] = [];
  registry.intercept = (request, response) => {
    const isLimited = performance.now() < limitedUntilMs;
    if (isLimited) {
      asked.push(performance.now());
      response.writeHead(429, { "retry-after": "1" }).end();
    }
    return isLimited;
  };
  const manifest = await host.get(`/v2/alice/app/manifests/v1?ns=reg.test`, alice);
  assert.equal(manifest.status, 200, "waited out: a second is not long");
  assert.ok(asked.length <= 2, `${asked.length} questions within the second`);
  limitedUntilMs = performance.now() + 60_000;
  const blob = await host.get(`/v2/other/app/blobs/${image.layers[1]?.digest}?ns=reg.test`, alice);
  assert.equal(blob.status, 503);
  assert.match(String(blob.headers["retry-after"]), /^\d+$/);
});
