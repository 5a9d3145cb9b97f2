import assert from "node:assert/strict";
import { test } from "node:test";
import { parseAbsolute, parseAuthority, parseInner } from "./targets.ts";

test("a whole URL gives server, path as it was written, and host; user info goes nowhere", () => {
  assert.deepEqual(parseAbsolute("http://Me:pw@Reg.test:80/a/../%2f?b=c#d"), {
    target: { isTls: false, host: "reg.test", port: 80 }, path: "/a/../%2f?b=c", host: "reg.test",
  });
  assert.deepEqual(parseAbsolute("https://[FD00::1]:8443"), { target: { isTls: true, host: "fd00::1", port: 8443 }, path: "/", host: "[fd00::1]:8443" });
  assert.deepEqual(parseAbsolute("http://a.test?x"), { target: { isTls: false, host: "a.test", port: 80 }, path: "/?x", host: "a.test" });
  for (const bad of ["ftp://a.test/", "http:///x", "http://a b/", "http://a.test:99999/", "a.test:80", "http:a.test", "*", "http://a.test/\u0001"]) {
    assert.equal(parseAbsolute(bad), undefined, bad);
  }
});

test("CONNECT takes host:port and nothing else", () => {
  assert.deepEqual(parseAuthority("Reg.test:443"), { isTls: true, host: "reg.test", port: 443 });
  assert.deepEqual(parseAuthority("[fd00::1]:5000"), { isTls: true, host: "fd00::1", port: 5000 });
  // As every client of ours would write it.
  assert.deepEqual(parseAuthority("0x7f.1:80")?.host, "127.0.0.1");
  for (const bad of ["reg.test", "reg.test:", "reg.test:0", "reg.test:99999", "u@reg.test:1", "reg.test:1/x", "http://a:1", ":1", "[::1:2"]) {
    assert.equal(parseAuthority(bad), undefined, bad);
  }
});

test("inside of a connection only paths are asked for", () => {
  const target = { isTls: true, host: "a.test", port: 443 };
  assert.deepEqual(parseInner(target, "/x?y"), { target, path: "/x?y", host: undefined });
  for (const bad of ["http://b.test/", "*", ""]) assert.equal(parseInner(target, bad), undefined, bad);
});
