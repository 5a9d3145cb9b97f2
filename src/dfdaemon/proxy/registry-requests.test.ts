import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { test } from "node:test";
import { Registries } from "../mirror/registries.ts";
import { asRegistryRequest, type RegistryRequest } from "./registry-requests.ts";
import { parseAbsolute } from "./targets.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;
const registries = new Registries([
  { host: "moved.test", url: "https://10.0.0.1:5000/base" },
  { host: "docker.io", url: "https://hub.test" },
]);

function recognised(url: string, accept = "*/*", method = "GET"): RegistryRequest | undefined {
  const { target, path } = parseAbsolute(url) ?? assert.fail();
  return asRegistryRequest(registries, { method, headers: { accept } } as IncomingMessage, target, path);
}

test("one name in the clear and by TLS are two registries: neither's word opens what the other gave", () => {
  const names = ["http://reg.test", "https://reg.test", "http://reg.test:5000", "https://reg.test:5000"].map((origin) => {
    const { upstream } = recognised(`${origin}/v2/a/blobs/${DIGEST}`) ?? assert.fail();
    assert.equal(upstream.baseUrl, origin);
    return upstream.name;
  });
  assert.deepEqual(names, ["http://reg.test", "reg.test", "http://reg.test:5000", "reg.test:5000"]);
  // As the mirror knows it: what came by ?ns= is found again.
  assert.equal(recognised(`http://127.0.0.1:5000/v2/a/blobs/${DIGEST}`)?.upstream.name, "127.0.0.1:5000");
});

test("a registry that is configured is where the configuration says", () => {
  assert.equal(recognised(`https://moved.test/v2/a/blobs/${DIGEST}`)?.upstream.baseUrl, "https://10.0.0.1:5000/base");
  assert.equal(recognised(`https://registry-1.docker.io/v2/library/a/blobs/${DIGEST}`)?.upstream.baseUrl, "https://hub.test");
  assert.equal(recognised("https://moved.test/v2/")?.upstream.name, "moved.test");
  assert.equal(recognised("https://reg.test/v2/"), undefined);
});

test("manifests count when the client knows some; nothing but reading does", () => {
  const url = "https://reg.test/v2/a/manifests/1";
  for (const accept of ["application/vnd.oci.image.index.v1+json", "x/y, application/vnd.docker.distribution.manifest.list.v2+json, */*"]) {
    assert.equal(recognised(url, accept)?.url, "/v2/a/manifests/1?ns=reg.test");
  }
  assert.equal(recognised(url), undefined);
  assert.equal(recognised(url, "application/json"), undefined);
  assert.ok(recognised(url, "application/vnd.oci.image.index.v1+json", "HEAD"));
  // Part of an upload: is it there by now?
  assert.equal(recognised(`https://reg.test/v2/a/blobs/${DIGEST}`, "*/*", "HEAD"), undefined);
  for (const method of ["PUT", "DELETE", "POST", "PATCH"]) assert.equal(recognised(`https://reg.test/v2/a/blobs/${DIGEST}`, "*/*", method), undefined);
  for (const path of ["/v2/a/tags/list", "/v2/_catalog", `/v2/a/referrers/${DIGEST}`, "/v2/a/blobs/sha256:short", "/v2x", `/x/v2/a/blobs/${DIGEST}`, `/v2/A/blobs/${DIGEST}`]) {
    assert.equal(recognised(`https://reg.test${path}`), undefined, path);
  }
  assert.equal(recognised(`https://reg.test/v2/a/blobs/${DIGEST}?ns=x.test`), undefined);
  assert.equal(recognised(`http://[fd00::1]:5000/v2/a/blobs/${DIGEST}`)?.url, `/v2/a/blobs/${DIGEST}?ns=%5Bfd00%3A%3A1%5D%3A5000`);
});
