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

test("direct delivery costs one file per host on the seed's link", () => {
  assert.equal(directSeconds(50 * MIB, links(16, 50e6, 50e6)).toFixed(0), "135");
});
