import assert from "node:assert/strict";
import { test } from "node:test";
import { HostList, isHostPattern, UrlGlobs } from "./patterns.ts";

test("a host is listed with its port, 443 when none is said, and a star stands for names below", () => {
  const list = new HostList(["Reg.test", "reg.test:5000", "*.corp.test", "*.any.test:*", "[fd00::1]:8443"]);
  const listed: [string, number, boolean][] = [
    ["reg.test", 443, true], ["reg.test", 5000, true], ["reg.test", 80, false], ["a.reg.test", 443, false],
    ["a.b.corp.test", 443, true], ["corp.test", 443, false], ["evilcorp.test", 443, false], ["a.corp.test", 8443, false],
    ["a.any.test", 8443, true], ["fd00::1", 8443, true], ["fd00::1", 443, false],
  ];
  for (const [host, port, is] of listed) assert.equal(list.has(host, port), is, `${host}:${port}`);
  assert.equal(new HostList([]).has("reg.test", 443), false);
});

test("what is no host is no pattern", () => {
  for (const good of ["a", "a.test", "*.a.test:1", "10.0.0.1:5000", "[::1]:*"]) assert.ok(isHostPattern(good), good);
  for (const bad of ["", "*", "*.", "a*.test", "https://a.test", "a.test/x", "a:b", "a.test:123456", "-a"]) assert.ok(!isHostPattern(bad), bad);
});

test("a glob matches scheme, host and path; the query plays no part", () => {
  const has = (glob: string, url: string): boolean => new UrlGlobs([glob]).has(new URL(url));
  assert.ok(has("https://files.test/**", "https://files.test/a/b.tar?token=x"));
  assert.ok(has("https://*.test/*.whl", "https://files.test/a.whl"));
  assert.ok(!has("https://files.test/*.whl", "https://files.test/a/b.whl"));
  assert.ok(!has("https://files.test/**", "http://files.test/a"));
  assert.ok(!has("https://files.test/**", "https://files.test:8443/a"));
  assert.ok(!has("https://files.test/**", "https://files.test.evil.test/a"));
  assert.ok(has("https://files.test/a.b", "https://files.test/a.b"));
  assert.ok(!has("https://files.test/a.b", "https://files.test/axb"));
  assert.ok(has("**/*.tar", "http://any.test:81/x/y.tar"));
  assert.ok(!new UrlGlobs([]).has(new URL("http://a.test/")));
});

test("no pattern makes a URL take long", () => {
  const glob = `http://a.test/${"**a*".repeat(60)}b`;
  assert.ok(!new UrlGlobs([glob]).has(new URL(`http://a.test/${"a".repeat(4000)}`)));
});
