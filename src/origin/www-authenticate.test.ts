import assert from "node:assert/strict";
import { test } from "node:test";
import { parseWwwAuthenticate } from "./www-authenticate.ts";

function parsed(value: string): unknown {
  return parseWwwAuthenticate(value).map(({ scheme, params }) => [scheme, { ...params }]);
}

test("challenges are read with commas in quoted strings, several schemes, and any spacing", () => {
  assert.deepEqual(parsed('Bearer realm="https://a/t",service="x",scope="r:a/b:pull,push"'), [
    ["bearer", { realm: "https://a/t", service: "x", scope: "r:a/b:pull,push" }],
  ]);
  assert.deepEqual(parsed('Basic realm="say \\"hi\\", friend" , BEARER Realm = https://a/t ,Scope=x'), [
    ["basic", { realm: 'say "hi", friend' }],
    ["bearer", { realm: "https://a/t", scope: "x" }],
  ]);
  assert.deepEqual(parsed("Negotiate, NTLM TlRMTVNTUAAC==, Basic realm=x"), [
    ["negotiate", {}],
    ["ntlm", {}],
    ["basic", { realm: "x" }],
  ]);
});

test("what is malformed is left out, and the first of two parameters wins", () => {
  assert.deepEqual(parsed(""), []);
  assert.deepEqual(parsed("realm=x"), []);
  assert.deepEqual(parsed('Bearer realm="open'), [["bearer", {}]]);
  assert.deepEqual(parsed('Bearer realm="a",realm="b"'), [["bearer", { realm: "a" }]]);
  assert.deepEqual(parsed('Bearer realm="a", ,, service="b",'), [["bearer", { realm: "a", service: "b" }]]);
});

test("a long hostile value takes no long time", () => {
  const startMs = performance.now();
  parseWwwAuthenticate(`Bearer ${'a="\\'.repeat(4000)}`);
  parseWwwAuthenticate(`Bearer ${" a ".repeat(4000)}`);
  parseWwwAuthenticate(`Bearer ${"a".repeat(16_000)} =`);
  assert.ok(performance.now() - startMs < 1000);
});
