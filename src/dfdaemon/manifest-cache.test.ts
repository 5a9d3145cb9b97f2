import assert from "node:assert/strict";
import { test } from "node:test";
import type { Digest } from "../protocol/ids.ts";
import { ManifestCache } from "./manifest-cache.ts";
import type { Manifest } from "./manifest-content.ts";

function manifest(digest: string, sizeBytes: number): Manifest {
  return { bytes: new Uint8Array(sizeBytes), contentType: "a/b", digest: digest as Digest, children: [] };
}

void test("the least recently used manifests go first when the bytes run out", () => {
  const cache = new ManifestCache(100);
  cache.add(manifest("a", 40));
  cache.add(manifest("b", 40));
  assert.ok(cache.get("a" as Digest));
  cache.add(manifest("c", 40));
  assert.equal(cache.get("b" as Digest), undefined);
  assert.ok(cache.get("a" as Digest) && cache.get("c" as Digest));
  assert.equal(cache.sizeBytes, 80);
});

void test("a manifest added twice counts once; one beyond the bound is not kept; a bound of 0 keeps nothing", () => {
  const cache = new ManifestCache(100);
  cache.add(manifest("a", 40));
  cache.add(manifest("a", 40));
  assert.equal(cache.sizeBytes, 40);
  cache.add(manifest("big", 101));
  assert.equal(cache.get("big" as Digest), undefined);
  assert.ok(cache.get("a" as Digest));
  const off = new ManifestCache(0);
  off.add(manifest("a", 1));
  assert.equal(off.sizeBytes, 0);
});
