import assert from "node:assert/strict";
import { BlockList } from "node:net";
import { test } from "node:test";
import fc from "fast-check";
import { parseAddress, parseNetwork } from "./ip-network.ts";
import { PlaceMap } from "./place-map.ts";

const MAP = new PlaceMap([
  { network: "10.0.0.0/8", labels: { region: "eu", zone: "a" } },
  { network: "10.1.0.0/16", labels: { zone: "b" } },
  { network: "10.1.2.0/24", labels: { rack: "r2", switch: "s2" } },
  { network: "10.1.2.7", labels: { rack: "alone" } },
  { network: "2001:db8::/32", labels: { region: "us" } },
  { network: "2001:db8:1::/48", labels: { zone: "u1" } },
]);

test("each label comes from the longest network that has it, of the address's own family", () => {
  const at = (address: string): unknown => MAP.placeOf({}, address).topology;
  assert.deepEqual(at("10.9.9.9"), { region: "eu", zone: "a" });
  assert.deepEqual(at("10.1.9.9"), { region: "eu", zone: "b" });
  assert.deepEqual(at("10.1.2.255"), { region: "eu", zone: "b", rack: "r2", switch: "s2" });
  assert.deepEqual(at("10.1.2.7"), { region: "eu", zone: "b", rack: "alone", switch: "s2" });
  assert.deepEqual(at("::ffff:10.1.9.9"), { region: "eu", zone: "b" });
  assert.deepEqual(at("::ffff:a01:909"), { region: "eu", zone: "b" });
  assert.deepEqual(at("2001:db8:1:2::3"), { region: "us", zone: "u1" });
  assert.deepEqual(at("2001:DB8:0:0::1%eth0"), { region: "us" });
  for (const elsewhere of ["11.0.0.1", "2001:db9::1", "::a01:203", "", "host.example"]) assert.deepEqual(at(elsewhere), {}, elsewhere);
  assert.deepEqual(new PlaceMap([{ network: "0.0.0.0/0", labels: { zone: "4" } }, { network: "::/0", labels: { zone: "6" } }]).placeOf({}, "::1").topology, { zone: "6" });
});

test("it is said where each label comes from", () => {
  assert.deepEqual(MAP.placeOf({ switch: "own", room: "7" }, "10.1.2.3"), {
    topology: { region: "eu", zone: "b", rack: "r2", switch: "own" },
    sources: { region: "10.0.0.0/8", zone: "10.1.0.0/16", rack: "10.1.2.0/24", switch: "host" },
  });
});

test("what a host says of itself stands, and where it contradicts its network nothing nearer is taken from there", () => {
  const at = (labels: Record<string, string>): unknown => MAP.placeOf(labels, "10.1.2.3").topology;
  assert.deepEqual(at({ rack: "r9" }), { region: "eu", zone: "b", rack: "r9" });
  assert.deepEqual(at({ zone: "b" }), { region: "eu", zone: "b", rack: "r2", switch: "s2" });
  assert.deepEqual(at({ region: "us" }), { region: "us" });
  assert.deepEqual(at({ region: "us", rack: "x" }), { region: "us", rack: "x" });
  assert.deepEqual(at({ region: "" }), { region: "eu", zone: "b", rack: "r2", switch: "s2" });
});

test("new networks take the place of the former", () => {
  const map = new PlaceMap([{ network: "10.0.0.0/8", labels: { zone: "a" } }]);
  map.setNetworks([{ network: "10.0.0.0/9", labels: { rack: "r" } }]);
  assert.deepEqual(map.placeOf({}, "10.0.0.1").topology, { rack: "r" });
  assert.deepEqual(map.placeOf({}, "10.200.0.1").topology, {});
});

test("what is no network is told apart, and why", () => {
  for (const [text, why] of [
    ["10.1.0.0/33", /prefix length from 0 to 32/],
    ["10.1.0.0/", /prefix length/],
    ["10.1.0.0/-1", /prefix length/],
    ["2001:db8::/129", /prefix length from 0 to 128/],
    ["10.1.2.0/16", /bits set beyond its first 16/],
    ["2001:db8::1/64", /bits set beyond its first 64/],
    ["::ffff:10.0.0.0/104", /write it as 10\.1\.0\.0\/16/],
    ["10.1.0.0/16/2", /is not a network/],
    ["10.1.0/24", /is not a network/],
    ["fe80::%eth0/64", /is not a network/],
    ["rack-1", /is not a network/],
    ["", /is not a network/],
  ] as const) {
    const network = parseNetwork(text);
    assert.equal(typeof network, "string", text);
    assert.match(network as string, why, text);
  }
});

test("addresses and prefixes are read as Node reads them", () => {
  const address = fc.oneof(fc.ipV4(), fc.ipV6());
  fc.assert(
    fc.property(address, address, fc.nat(128), (inside, other, length) => {
      const { width, value } = parseAddress(inside) ?? assert.fail(inside);
      const bits = Math.min(length, width);
      const rest = BigInt(width - bits);
      const family = width === 32 ? "ipv4" : "ipv6";
      const list = new BlockList();
      list.addSubnet(inside, bits, family);
      const parsed = parseAddress(other) ?? assert.fail(other);
      if (parsed.width !== width) return;
      assert.equal(parsed.value >> rest === value >> rest, list.check(other, family), `${other} in ${inside}/${bits}`);
    }),
    { numRuns: 2_000 },
  );
});
