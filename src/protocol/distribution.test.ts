import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { distributionErrorBody, isDistributionTarget, parseDistributionTarget } from "./distribution.ts";

const HEX = "a".repeat(64);
const DIGEST = `sha256:${HEX}`;

function parsed(target: string): unknown {
  const result = parseDistributionTarget(target);
  if ("status" in result) return `${result.status} ${result.code}`;
  const { resource, registry, registryForm, query } = result;
  return { ...resource, registry, registryForm, query };
}

void test("what belongs to the protocol is told by the path", () => {
  for (const target of ["/v2", "/v2/", "/v2?ns=a.b", "/v2/a/manifests/b"]) assert.equal(isDistributionTarget(target), true);
  for (const target of ["/", "/v1/", "/v2x/", "/metrics", "http://a/v2/"]) assert.equal(isDistributionTarget(target), false);
});

void test("each resource of the protocol is understood, the registry named by ns", () => {
  const by = { registry: "docker.io", registryForm: "query", query: "" };
  const repository = "library/nginx";
  assert.deepEqual(parsed("/v2/?ns=docker.io"), { type: "root", ...by });
  assert.deepEqual(parsed("/v2/_catalog?ns=docker.io"), { type: "catalog", ...by });
  assert.deepEqual(parsed(`/v2/${repository}/manifests/1.27?ns=docker.io`), {
    type: "manifest", repository, reference: { type: "tag", tag: "1.27" }, ...by,
  });
  assert.deepEqual(parsed(`/v2/${repository}/manifests/${DIGEST}?ns=docker.io`), {
    type: "manifest", repository, reference: { type: "digest", digest: DIGEST }, ...by,
  });
  assert.deepEqual(parsed(`/v2/${repository}/blobs/${DIGEST}?ns=docker.io`), { type: "blob", repository, digest: DIGEST, ...by });
  assert.deepEqual(parsed(`/v2/${repository}/tags/list?n=2&ns=docker.io&last=a`), {
    type: "tags", repository, ...by, query: "n=2&last=a",
  });
  assert.deepEqual(parsed(`/v2/${repository}/referrers/${DIGEST}?ns=docker.io&artifactType=a%2Fb`), {
    type: "referrers", repository, digest: DIGEST, ...by, query: "artifactType=a%2Fb",
  });
  for (const tail of ["uploads", "uploads/", "uploads/0-1-2"]) {
    assert.deepEqual(parsed(`/v2/${repository}/blobs/${tail}?ns=docker.io`), { type: "upload", repository, ...by });
  }
});

void test("M10: without ns the path's first segment names the registry, if it is a host with a repository behind", () => {
  const tag = { type: "manifest", reference: { type: "tag", tag: "t" }, query: "" };
  const cases: readonly (readonly [string, string, string | undefined, string])[] = [
    ["ghcr.io/org/x", "org/x", "ghcr.io", "path"],
    ["127.0.0.1:5000/x", "x", "127.0.0.1:5000", "path"],
    ["127.0.0.1%3A5000/x", "x", "127.0.0.1:5000", "path"],
    ["localhost/x", "x", "localhost", "path"],
    ["reg.test_5000/x", "x", "reg.test:5000", "path"],
    ["localhost_5000/x", "x", "localhost:5000", "path"],
    ["a_5000/x", "a_5000/x", undefined, "none"],
    ["GHCR.io/x", "x", "ghcr.io", "path"],
    ["[::1]:5000/x", "x", "[::1]:5000", "path"],
    ["my.app", "my.app", undefined, "none"],
    ["library/nginx", "library/nginx", undefined, "none"],
    ["ghcr.io/a/manifests/b", "a/manifests/b", "ghcr.io", "path"],
  ];
  for (const [path, repository, registry, registryForm] of cases) {
    assert.deepEqual(parsed(`/v2/${path}/manifests/t`), { ...tag, repository, registry, registryForm }, path);
  }
  assert.deepEqual(parsed("/v2/ghcr.io/"), { type: "root", registry: "ghcr.io", registryForm: "path", query: "" });
});

void test("with ns a repository may begin like a host, unless it repeats the registry", () => {
  const resource = { type: "tags", registry: "reg.test", registryForm: "query", query: "" };
  assert.deepEqual(parsed("/v2/my.app/x/tags/list?ns=reg.test"), { ...resource, repository: "my.app/x" });
  assert.deepEqual(parsed("/v2/reg.test/x/tags/list?ns=reg.test"), { ...resource, repository: "x" });
});

void test("M13: what is no digest, tag, name or host is refused as such", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["/v2/a/manifests/sha256:garbage", "400 DIGEST_INVALID"],
    ["/v2/a/manifests/sha256:baddigeststring", "400 DIGEST_INVALID"],
    [`/v2/a/manifests/sha256:${HEX.toUpperCase()}`, "400 DIGEST_INVALID"],
    [`/v2/a/manifests/md5:${"a".repeat(32)}`, "400 DIGEST_INVALID"],
    ["/v2/a/blobs/latest", "400 DIGEST_INVALID"],
    ["/v2/a/referrers/sha256:1", "400 DIGEST_INVALID"],
    ["/v2/a/manifests/-x", "400 TAG_INVALID"],
    [`/v2/a/manifests/${"t".repeat(129)}`, "400 TAG_INVALID"],
    ["/v2/UPPER/manifests/x", "400 NAME_INVALID"],
    ["/v2/a/../b/manifests/x", "400 NAME_INVALID"],
    ["/v2/a%2f..%2fb/manifests/x", "400 NAME_INVALID"],
    ["/v2/a//b/manifests/x", "400 NAME_INVALID"],
    [`/v2/${"a".repeat(256)}/manifests/x`, "400 NAME_INVALID"],
    ["/v2/%zz/manifests/x", "400 NAME_INVALID"],
    ["/v2/a/manifests/x?ns=user@host", "400 NAME_INVALID"],
    ["/v2/a/manifests/x?ns=host/path", "400 NAME_INVALID"],
    ["/v2/a/manifests/x?ns=%zz", "400 NAME_INVALID"],
    ["/v2/manifests/x", "404 NAME_UNKNOWN"],
    ["/v2/a/unknown/x", "404 UNSUPPORTED"],
    ["/v2/a", "404 UNSUPPORTED"],
  ];
  for (const [target, refusal] of cases) assert.equal(parsed(target), refusal, target);
});

void test("no target makes the parser throw, and no result holds what would mean more in a URL", () => {
  const text = fc.string({ unit: fc.constantFrom(..."/v2ablobsmanifests:.%?&=ns@[]-_\u00e9 \n#\\".split("")), maxLength: 60 });
  fc.assert(
    fc.property(text, (rest) => {
      const result = parseDistributionTarget(`/v2/${rest}`);
      if ("status" in result) return;
      assert.match(result.registry ?? "a", /^[a-z0-9.:_[\]-]+$/);
      if ("repository" in result.resource) assert.match(result.resource.repository, /^[a-z0-9._/-]+$/);
    }),
  );
});

void test("errors have the body of the specification", () => {
  const body: unknown = JSON.parse(distributionErrorBody("BLOB_UNKNOWN", 'no "blob"'));
  assert.deepEqual(body, { errors: [{ code: "BLOB_UNKNOWN", message: 'no "blob"' }] });
});
