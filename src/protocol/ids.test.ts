import assert from "node:assert/strict";
import { test } from "node:test";
import { DIGEST_HEX_LENGTH, digestAlgorithm, digestHex, isPeerId, isTaskId, parseDigest } from "./ids.ts";

test("a task id is 64 lower-case hex digits", () => {
  assert.ok(isTaskId("0123456789abcdef".repeat(4)));
  for (const text of ["", "a".repeat(63), "a".repeat(65), "A".repeat(64), "g".repeat(64), `${"a".repeat(63)}\n`]) assert.ok(!isTaskId(text), text);
});

test("a peer id holds nothing that would mean more in a log, a path or a header", () => {
  for (const text of ["host-0123456789abcdef", "a", "A.b_c-d", "x".repeat(96)]) assert.ok(isPeerId(text), text);
  for (const text of ["", "-a", ".a", "a b", "a/b", "a\n", "é", "x".repeat(97)]) assert.ok(!isPeerId(text), text);
});

test("digests are known by algorithm and length, in any case, and come out lower-case", () => {
  for (const [algorithm, length] of Object.entries(DIGEST_HEX_LENGTH)) {
    const digest = parseDigest(`${algorithm.toUpperCase()}:${"AB".repeat(length / 2)}`);
    assert.equal(digest, `${algorithm}:${"ab".repeat(length / 2)}`);
    if (digest === undefined) continue;
    assert.equal(digestAlgorithm(digest), algorithm);
    assert.equal(digestHex(digest), "ab".repeat(length / 2));
  }
  const sha256 = "a".repeat(64);
  for (const text of ["", sha256, `sha256:${sha256}a`, `sha256:${"g".repeat(64)}`, `sha3:${sha256}`, `toString:${sha256}`, `:${sha256}`]) {
    assert.equal(parseDigest(text), undefined, text);
  }
});
