import assert from "node:assert/strict";
import { test } from "node:test";
import {
  isLoopback,
  parseListenAddress,
  parseSupernodeAddress,
  printAddress,
  printSupernodeAddress,
} from "./addresses.ts";

test("a listener is HOST:PORT, with IPv6 in brackets and every address when the host is left out", () => {
  assert.deepEqual(parseListenAddress("127.0.0.1:65001"), { host: "127.0.0.1", port: 65001 });
  assert.deepEqual(parseListenAddress("[::1]:0"), { host: "::1", port: 0 });
  assert.deepEqual(parseListenAddress(":80"), { host: "0.0.0.0", port: 80 });
  for (const text of [
    "",
    "host",
    "1.2.3.4:65536",
    "1.2.3.4:x",
    "::1:80",
    "[1.2.3.4]:80",
    "a b:1",
    "[::1]",
    "http://a:1",
  ]) {
    assert.equal(parseListenAddress(text), undefined, text);
  }
});

test("a supernode is HOST[:PORT][=WEIGHT], as in Dragonfly 1.0", () => {
  assert.deepEqual(parseSupernodeAddress("10.0.0.1"), { host: "10.0.0.1", port: 8002, weight: 1 });
  assert.deepEqual(parseSupernodeAddress("sn:9000=3"), { host: "sn", port: 9000, weight: 3 });
  assert.deepEqual(parseSupernodeAddress("[fd00::1]=2"), { host: "fd00::1", port: 8002, weight: 2 });
  for (const text of ["", "=1", "a=0", "a=x", "a:0", "a:1:2", ":8002"])
    assert.equal(parseSupernodeAddress(text), undefined, text);
  assert.equal(printSupernodeAddress({ host: "fd00::1", port: 8002, weight: 2 }), "[fd00::1]:8002=2");
  assert.equal(printAddress({ host: "a", port: 1 }), "a:1");
});

test("loopback is what only this machine reaches", () => {
  assert.deepEqual(["127.0.0.1", "127.9.9.9", "::1", "localhost"].map(isLoopback), [true, true, true, true]);
  assert.deepEqual(["0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example"].map(isLoopback), [false, false, false, false]);
});
