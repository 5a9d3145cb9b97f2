import assert from "node:assert/strict";
import { test } from "node:test";
import { manifestContentType, readManifest, type ManifestReading } from "./manifest-content.ts";

const digest = (letter: string): string => `sha256:${letter.repeat(64)}`;

function read(json: unknown): ManifestReading {
  return readManifest(Buffer.from(JSON.stringify(json)));
}

void test("a manifest's children are its config and layers, an index's its manifests", () => {
  const manifest = { config: { digest: digest("a") }, layers: [{ digest: digest("b") }, { digest: digest("b") }, { digest: "x" }, 7] };
  assert.deepEqual(read(manifest).children, [digest("a"), digest("b")]);
  assert.deepEqual(read({ manifests: [{ digest: digest("c") }] }).children, [digest("c")]);
  assert.deepEqual(read({ blobs: [{ digest: digest("d") }] }).children, [digest("d")]);
  assert.deepEqual(read({ schemaVersion: 1, fsLayers: [{ blobSum: digest("e") }] }).children, [digest("e")]);
  assert.deepEqual(read({ subject: { digest: digest("f") } }).children, []);
});

void test("bytes that are no manifest have neither type nor children", () => {
  for (const text of ["", "null", "[]", '"x"', "{", "\u0000\u0001"]) {
    assert.deepEqual(readManifest(Buffer.from(text)), { mediaType: undefined, children: [] });
  }
});

void test("M6: the registry's content type stands; where it says nothing, the content is asked", () => {
  const oci = read({ config: {}, layers: [] });
  const exact = "application/vnd.docker.distribution.manifest.v2+json; charset=utf-8";
  assert.equal(manifestContentType(exact, oci), exact);
  for (const said of [undefined, "", "application/octet-stream", "application/octet-stream; x=y"]) {
    assert.equal(manifestContentType(said, oci), "application/vnd.oci.image.manifest.v1+json");
  }
  assert.equal(manifestContentType(undefined, read({ manifests: [] })), "application/vnd.oci.image.index.v1+json");
  assert.equal(manifestContentType(undefined, read({ mediaType: "application/vnd.x+json" })), "application/vnd.x+json");
  assert.equal(manifestContentType(undefined, read({ mediaType: "a\r\nb" })), "application/octet-stream");
  const signed = read({ schemaVersion: 1, signatures: [] });
  assert.equal(manifestContentType(undefined, signed), "application/vnd.docker.distribution.manifest.v1+prettyjws");
});
