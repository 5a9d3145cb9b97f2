import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { test } from "node:test";
import { Clients, isLocalAddress, type ClientRules } from "./clients.ts";
import { isNetwork } from "./patterns.ts";

function check(rules: Partial<ClientRules>, remoteAddress: string | undefined, proxyAuthorization?: string): ReturnType<Clients["check"]> {
  const headers = proxyAuthorization === undefined ? {} : { "proxy-authorization": proxyAuthorization };
  const request = { socket: { remoteAddress }, headers } as unknown as IncomingMessage;
  return new Clients({ networks: ["127.0.0.0/8", "::1"], credentials: undefined, ...rules }).check(request);
}

test("only clients of the networks listed get in, whichever way their address is written", () => {
  assert.equal(check({}, "127.0.0.1"), "allowed");
  assert.equal(check({}, "::ffff:127.0.0.1"), "allowed");
  assert.equal(check({}, "::1"), "allowed");
  assert.equal(check({}, "10.0.0.1"), 403);
  assert.equal(check({}, "fd00::1"), 403);
  assert.equal(check({}, undefined), 403);
  assert.equal(check({ networks: [] }, "127.0.0.1"), 403);
  assert.equal(check({ networks: ["10.0.0.0/8"] }, "10.255.0.1"), "allowed");
});

test("credentials are wanted besides the address, not instead", () => {
  const credentials = { username: "me", password: "pw" };
  assert.equal(check({ credentials }, "127.0.0.1"), 407);
  assert.equal(check({ credentials }, "127.0.0.1", `Basic ${btoa("me:no")}`), 407);
  assert.equal(check({ credentials }, "127.0.0.1", `Basic ${btoa("me:pw")}`), "allowed");
  assert.equal(check({ credentials }, "10.0.0.1", `Basic ${btoa("me:pw")}`), 403);
});

test("networks and local addresses are told from others", () => {
  for (const good of ["10.0.0.0/8", "10.0.0.1", "fd00::/8", "::1"]) assert.ok(isNetwork(good), good);
  for (const bad of ["10.0.0.0/33", "a.test", "10.0.0.0/8/8", "10.0.0.0/", "fd00::/129"]) assert.ok(!isNetwork(bad), bad);
  for (const local of ["127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "0.0.0.0", "fe80::1%eth0", "::1"]) assert.ok(isLocalAddress(local), local);
  for (const far of ["10.0.0.1", "8.8.8.8", "fd00::1"]) assert.ok(!isLocalAddress(far), far);
});
