import assert from "node:assert/strict";
import { test } from "node:test";
import type { Digest } from "../../protocol/ids.ts";
import { ManifestCache } from "./manifest-cache.ts";
import type { Manifest } from "./manifest-content.ts";

const PLACE = { registry: "reg.test", repository: "team/app" };

function manifest(digest: string, sizeBytes: number): Manifest {
  return { bytes: new Uint8Array(sizeBytes), contentType: "a/b", digest: digest as Digest, children: [] };
}

void test("the least recently used manifests go first when the bytes run out", () => {
  const cache = new ManifestCache(100);
  cache.add(PLACE, manifest("a", 40));
  cache.add(PLACE, manifest("b", 40));
  assert.ok(cache.get(PLACE, "a" as Digest));
  cache.add(PLACE, manifest("c", 40));
  assert.equal(cache.get(PLACE, "b" as Digest), undefined);
  assert.ok(cache.get(PLACE, "a" as Digest) && cache.get(PLACE, "c" as Digest));
  assert.equal(cache.sizeBytes, 80);
});

void test("a manifest added twice counts once; one beyond the bound is not kept; a bound of 0 keeps nothing", () => {
  const cache = new ManifestCache(100);
  cache.add(PLACE, manifest("a", 40));
  cache.add(PLACE, manifest("a", 40));
  assert.equal(cache.sizeBytes, 40);
  cache.add(PLACE, manifest("big", 101));
  assert.equal(cache.get(PLACE, "big" as Digest), undefined);
  assert.ok(cache.get(PLACE, "a" as Digest));
  const off = new ManifestCache(0);
  off.add(PLACE, manifest("a", 1));
  assert.equal(off.sizeBytes, 0);
});

void test("a manifest is there only for the registry and the repository that gave it", () => {
  const cache = new ManifestCache(100);
  cache.add(PLACE, manifest("a", 40));
  assert.equal(cache.get({ ...PLACE, registry: "impostor.test" }, "a" as Digest), undefined);
  assert.equal(cache.get({ ...PLACE, repository: "team/other" }, "a" as Digest), undefined);
});

void test("a manifest that is kept keeps no memory but its own", () => {
  const cache = new ManifestCache(1000);
  cache.add(PLACE, { ...manifest("a", 0), bytes: new Uint8Array(new ArrayBuffer(65_536), 100, 600).fill(7) });
  const { bytes } = cache.get(PLACE, "a" as Digest) as Manifest;
  assert.deepEqual([bytes.length, bytes.buffer.byteLength, bytes[599]], [600, 600, 7]);
});
