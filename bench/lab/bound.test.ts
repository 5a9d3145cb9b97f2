import assert from "node:assert/strict";
import { test } from "node:test";
import { directSeconds, lowerBoundSeconds } from "./bound.ts";

const MIB = 1024 * 1024;
const links = (count: number, rate: number, seedUp: number) => ({
  seedUp,
  up: Array.from({ length: count }, () => rate),
  down: Array.from({ length: count }, () => rate),
});

test("with equal links the bound is one file at link speed, headers included", () => {
  assert.equal(lowerBoundSeconds(50 * MIB, links(16, 50e6, 50e6)).toFixed(2), "8.45");
});

test("a slow seed sets the bound", () => {
  assert.equal(lowerBoundSeconds(50 * MIB, links(16, 50e6, 25e6)).toFixed(2), "16.90");
});

test("slow uplinks set the bound when their sum is what is short", () => {
  const mixed = { ...links(4, 100e6, 10e6), up: [0, 0, 0, 10e6] };
  assert.equal(lowerBoundSeconds(1e6, mixed).toFixed(3), "1.612");
});

test("a rack's link carries one copy of the file at least, and all copies come from the seed and from racks", () => {
  const racks = (count: number, rate: number) => ({ ...links(16, 50e6, 50e6), racks: { count, rate } });
  assert.equal(lowerBoundSeconds(50 * MIB, racks(4, 50e6)).toFixed(2), "8.45");
  assert.equal(lowerBoundSeconds(50 * MIB, racks(4, 25e6)).toFixed(2), "16.90");
  assert.equal(lowerBoundSeconds(1e6, { ...racks(4, 10e6), seedUp: 1e6 }).toFixed(3), "8.059");
  assert.equal(lowerBoundSeconds(1e6, { seedUp: 10e6, up: [0, 0, 100e6, 100e6], down: [100e6, 100e6, 100e6, 100e6], racks: { count: 4, rate: 10e6 } }).toFixed(3), "0.806");
});

test("direct delivery costs one file per host on the seed's link", () => {
  assert.equal(directSeconds(50 * MIB, links(16, 50e6, 50e6)).toFixed(0), "135");
});
