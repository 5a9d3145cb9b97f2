import { createSecretKey } from "node:crypto";
import assert from "node:assert/strict";
import { test } from "node:test";
import type { OriginInfo } from "../../origin/origin.ts";
import type { Source } from "../../protocol/control-messages.ts";
import { identifySource, versionTaskId } from "./task-identity.ts";

const secret = createSecretKey(new Uint8Array(32).fill(1));
const hex = "ab".repeat(32);
const info: OriginInfo = {
  lengthBytes: 1000,
  ranges: true,
  etag: '"v1"',
  lastModified: "Tue, 01 Sep 2026 00:00:00 GMT",
  contentType: undefined,
  headers: {},
};

function taskOf(source: Partial<Source>, version: Partial<OriginInfo> = {}, nonce = ""): string {
  const identity = identifySource({ url: "http://h/f", headers: {}, ...source }, secret);
  return identity.content?.placeTaskId ?? versionTaskId(identity, { ...info, ...version }, nonce);
}

const signed = "http://h/f?X-Amz-Algorithm=A&X-Amz-Credential=c&X-Amz-Date=d&X-Amz-Expires=5&X-Amz-Signature=s&X-Amz-SignedHeaders=host";

const blob = `http://r/v2/a/b/blobs/sha256:${hex}`;

const same: Record<string, readonly [ReturnType<typeof taskOf>, ReturnType<typeof taskOf>]> = {
  "the same question": [taskOf({}), taskOf({})],
  "a fragment": [taskOf({}), taskOf({ url: "http://h/f#x" })],
  "spelling of the host": [taskOf({}), taskOf({ url: "HTTP://H:80/f" })],
  "an S3 signature": [taskOf({}), taskOf({ url: signed })],
  "another S3 signature": [taskOf({ url: signed }), taskOf({ url: signed.replace("Signature=s", "Signature=t") })],
  "a GCS signature": [taskOf({ url: "http://h/f?a=1" }), taskOf({ url: "http://h/f?a=1&X-Goog-Signature=s&X-Goog-Date=d" })],
  "an Azure signature": [taskOf({}), taskOf({ url: "http://h/f?sv=1&sp=r&se=2026&sr=b&sig=x" })],
  "an OSS signature": [taskOf({}), taskOf({ url: "http://h/f?OSSAccessKeyId=k&Expires=1&Signature=s" })],
  "an old S3 signature": [taskOf({}), taskOf({ url: "http://h/f?AWSAccessKeyId=k&Expires=1&Signature=s" })],
  "an old GCS signature": [taskOf({}), taskOf({ url: "http://h/f?GoogleAccessId=k&Expires=1&Signature=s" })],
  "an OSS signature, version 4": [taskOf({}), taskOf({ url: "http://h/f?x-oss-credential=c&x-oss-date=d&x-oss-expires=5&x-oss-signature=s&x-oss-signature-version=OSS4" })],
  "an OBS signature": [taskOf({}), taskOf({ url: "http://h/f?AccessKeyId=k&Expires=1&Signature=s" })],
  "an OBS signature, version 4": [taskOf({}), taskOf({ url: "http://h/f?X-Obs-Algorithm=a&X-Obs-Credential=c&X-Obs-Date=d&X-Obs-Expires=5&X-Obs-SignedHeaders=host&X-Obs-Signature=s" })],
  "a COS signature": [taskOf({}), taskOf({ url: "http://h/f?q-ak=k&q-signature=s&q-sign-time=1" })],
  "a CloudFront signature": [taskOf({}), taskOf({ url: "http://h/f?Expires=1&Signature=s&Key-Pair-Id=k" })],
  "a filtered parameter": [taskOf({}), taskOf({ url: "http://h/f?t=1", filteredQueryParameters: ["t"] })],
  "harmless headers": [taskOf({}), taskOf({ headers: { "user-agent": "x", accept: "*/*", range: "bytes=0-1" } })],
  "another form of it that is wanted, as long as its version is the same": [taskOf({}), taskOf({ headers: { accept: "text/html", "accept-language": "de" } })],
  "what says by which way a request came": [
    taskOf({ headers: { "x-api-key": "a", "x-forwarded-for": "10.0.0.1", "x-amzn-trace-id": "Root=1", "sec-fetch-mode": "cors", referer: "http://h/" } }),
    taskOf({ headers: { "x-api-key": "a", "x-forwarded-for": "10.0.0.2", "x-amzn-trace-id": "Root=2" } }),
  ],
  "a number of the request's own, as cloud clients and package managers send": [
    taskOf({ headers: { "amz-sdk-invocation-id": "1", "x-goog-api-client": "gccl-invocation-id/1", "x-ms-client-request-id": "1", "x-nuget-session-id": "1", "npm-session": "1", "x-zypp-anonymousid": "1" } }),
    taskOf({ headers: { "amz-sdk-invocation-id": "2", "x-goog-api-client": "gccl-invocation-id/2", "x-ms-client-request-id": "2", "x-nuget-session-id": "2", "npm-session": "2", "x-zypp-anonymousid": "2" } }),
  ],
  "another Last-Modified under one strong ETag": [taskOf({}), taskOf({}, { lastModified: "other" })],
  "a digest in two spellings": [taskOf({ digest: `sha256:${hex}` }), taskOf({ digest: `SHA256:${hex}` })],
  "a digest and two versions": [taskOf({ digest: `sha256:${hex}` }), taskOf({ digest: `sha256:${hex}` }, { etag: '"v2"' })],
  "a digest and two signatures": [taskOf({ url: signed, digest: `sha256:${hex}` }), taskOf({ url: signed.replace("Signature=s", "Signature=t"), digest: `sha256:${hex}` })],
  "a blob and two callers": [taskOf({ url: blob }), taskOf({ url: blob, headers: { authorization: "Bearer x" } })],
  "a blob whose digest is given, too": [taskOf({ url: blob }), taskOf({ url: blob, digest: `sha256:${hex}` })],
};

for (const [name, [left, right]] of Object.entries(same)) {
  test(`${name}: one task`, () => assert.equal(left, right));
}

const different: Record<string, readonly [string, string]> = {
  "another path": [taskOf({}), taskOf({ url: "http://h/g" })],
  "another parameter": [taskOf({}), taskOf({ url: "http://h/f?a=1" })],
  "parameters that only look like a signature's": [taskOf({ url: "http://h/f?sp=1&Expires=2" }), taskOf({ url: "http://h/f?sp=2&Expires=3" })],
  "half of an Azure signature": [taskOf({ url: "http://h/f?sv=1" }), taskOf({ url: "http://h/f?sv=2" })],
  "a signature of nobody's": [taskOf({ url: "http://h/f?signature=1" }), taskOf({ url: "http://h/f?signature=2" })],
  "a filter that names another parameter": [taskOf({ url: "http://h/f?t=1", filteredQueryParameters: ["u"] }), taskOf({ url: "http://h/f?t=2", filteredQueryParameters: ["u"] })],
  "another ETag": [taskOf({}), taskOf({}, { etag: '"v2"' })],
  "another length": [taskOf({}), taskOf({}, { lengthBytes: 1001 })],
  "another Last-Modified under a weak ETag": [taskOf({}, { etag: 'W/"1"' }), taskOf({}, { etag: 'W/"1"', lastModified: "other" })],
  "another Last-Modified without ETag": [taskOf({}, { etag: undefined }), taskOf({}, { etag: undefined, lastModified: "other" })],
  "versions without a name": [taskOf({}, { etag: undefined, lastModified: undefined }, "1"), taskOf({}, { etag: undefined, lastModified: undefined }, "2")],
  "two callers": [taskOf({ headers: { authorization: "Bearer x" } }), taskOf({ headers: { authorization: "Bearer y" } })],
  "a caller and nobody": [taskOf({}), taskOf({ headers: { cookie: "a=b" } })],
  "user info and nobody": [taskOf({}), taskOf({ url: "http://u:p@h/f" })],
  "a tag": [taskOf({}), taskOf({ tag: "x" })],
  "an application": [taskOf({ tag: "x" }), taskOf({ application: "x" })],
  "a tag on a digest": [taskOf({ digest: `sha256:${hex}` }), taskOf({ digest: `sha256:${hex}`, tag: "x" })],
  // Each a place of its own, until it has shown that it holds the content.
  "a blob of two registries": [taskOf({ url: blob }), taskOf({ url: blob.replace("//r/", "//evil/") })],
  "a blob under two schemes": [taskOf({ url: blob }), taskOf({ url: blob.replace("http:", "https:") })],
  "a blob on two ports": [taskOf({ url: blob }), taskOf({ url: blob.replace("//r/", "//r:81/") })],
  "a blob of two repositories": [taskOf({ url: blob }), taskOf({ url: blob.replace("/a/b/", "/a/c/") })],
  "a blob of two namespaces of a mirror": [taskOf({ url: `${blob}?ns=x` }), taskOf({ url: `${blob}?ns=evil` })],
  "a blob and a query that the caller calls volatile": [taskOf({ url: blob }), taskOf({ url: `${blob}?ns=evil`, filteredQueryParameters: ["ns"] })],
  "a blob and another's place, as the caller says": [taskOf({ url: blob }), taskOf({ url: blob.replaceAll("ab", "cd"), digest: `sha256:${hex}` })],
  "a blob and a header that may lead elsewhere": [taskOf({ url: blob }), taskOf({ url: blob, headers: { "x-forwarded-host": "evil" } })],
  "a digest under two URLs": [taskOf({ digest: `sha256:${hex}` }), taskOf({ url: "http://evil/g", digest: `sha256:${hex}` })],
  "a digest under a URL that means something else to each caller": [
    taskOf({ digest: `sha256:${hex}`, headers: { authorization: "Bearer x" } }),
    taskOf({ digest: `sha256:${hex}`, headers: { authorization: "Bearer y" } }),
  ],
  "two API keys": [taskOf({ headers: { "x-api-key": "ann" } }), taskOf({ headers: { "x-api-key": "bob" } })],
  "an API key and none": [taskOf({}), taskOf({ headers: { "x-api-key": "ann" } })],
  "an API key beside one authorization": [
    taskOf({ headers: { authorization: "Bearer x", "private-token": "ann" } }),
    taskOf({ headers: { authorization: "Bearer x", "private-token": "bob" } }),
  ],
  "two virtual hosts, as a header says": [taskOf({}), taskOf({ headers: { "x-forwarded-host": "other" } })],
  "a weak digest, which checks but does not name": [taskOf({}), taskOf({ digest: `md5:${"a".repeat(32)}` })],
  "a weak digest under two URLs": [taskOf({ digest: `md5:${"a".repeat(32)}` }), taskOf({ url: "http://h/g", digest: `md5:${"a".repeat(32)}` })],
};

for (const [name, [left, right]] of Object.entries(different)) {
  test(`${name}: two tasks`, () => assert.notEqual(left, right));
}

test("content is the same wherever it is; a tag or an application keeps it apart, a weak digest does not name it", () => {
  const contentOf = (source: Partial<Source>) => identifySource({ url: "http://h/f", headers: {}, ...source }, secret).content;
  const digest = `sha256:${hex}`;
  const keyOf = (source: Partial<Source>): string | undefined => contentOf(source)?.contentKey;
  assert.notEqual(keyOf({ url: blob }), undefined);
  for (const url of [blob.replace("//r/", "//other/"), blob.replace("/a/b/", "/a/c/"), "http://h/g"]) {
    assert.equal(keyOf({ url, digest }), keyOf({ url: blob }), url);
    assert.notEqual(contentOf({ url, digest })?.placeKey, contentOf({ url: blob })?.placeKey, url);
  }
  assert.notEqual(keyOf({ url: blob, tag: "x" }), keyOf({ url: blob }));
  assert.notEqual(keyOf({ url: blob, application: "x" }), keyOf({ url: blob }));
  assert.notEqual(keyOf({ digest: `sha512:${hex}${hex}` }), keyOf({ digest }));
  assert.equal(contentOf({ digest: `md5:${"a".repeat(32)}` }), undefined);
  assert.equal(contentOf({ digest: `sha1:${"a".repeat(40)}` }), undefined);
});

test("a question is the same for those who would put it in the same words", () => {
  const keyOf = (source: Partial<Source>): string => identifySource({ url: "http://h/f", headers: {}, ...source }, secret).accessKey;
  assert.equal(keyOf({}), keyOf({ headers: { "user-agent": "x" } }));
  assert.notEqual(keyOf({}), keyOf({ headers: { authorization: "x" } }));
  assert.notEqual(keyOf({}), keyOf({ headers: { "private-token": "x" } }));
  assert.notEqual(keyOf({}), keyOf({ headers: { "x-forwarded-host": "x" } }));
  assert.equal(keyOf({}), keyOf({ headers: { accept: "*/*" } }));
  assert.notEqual(keyOf({}), keyOf({ headers: { accept: "text/html" } }), "another form of the file may be the answer");
  assert.notEqual(keyOf({}), keyOf({ headers: { "accept-language": "de" } }));
  assert.equal(keyOf({ url: blob }), keyOf({ url: blob, headers: { accept: "application/octet-stream" } }), "of what its digest names there is one form");
  assert.notEqual(keyOf({ url: signed }), keyOf({ url: signed.replace("Signature=s", "Signature=t") }));
});

test("what is shown of a source holds no secret, and what is stored is not its hash alone", () => {
  const source = { url: "http://user:pass@h/f?X-Amz-Signature=s", headers: { authorization: "Bearer s3cret" } };
  const identity = identifySource(source, secret);
  assert.equal(identity.displayUrl, "http://h/f?…");
  assert.notEqual(identity.accessKey, identifySource(source, createSecretKey(new Uint8Array(32))).accessKey);
});

for (const [url, code] of [["nonsense", "URL_INVALID"], ["gopher://h/f", "SCHEME_UNSUPPORTED"]] as const) {
  test(`${url} is refused as ${code}`, () => assert.throws(() => taskOf({ url }), { code }));
}

test("a digest that is none is refused", () => {
  assert.throws(() => taskOf({ digest: "sha256:abc" }), { code: "USAGE" });
});
