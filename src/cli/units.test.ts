import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseDuration, parseRate, parseSize, printDuration, printSize, showBytes, showDuration } from "./units.ts";

test("sizes: MiB is binary, MB decimal, a bare letter binary as in Dragonfly 1.0", () => {
  const sizes: Readonly<Record<string, number | undefined>> = {
    "0": 0,
    "4096": 4096,
    "7B": 7,
    "10MiB": 10 << 20,
    "10MB": 10_000_000,
    "10M": 10 << 20,
    "10m": 10 << 20,
    "2k": 2048,
    "1g": 1 << 30,
    "1.5 GiB": 1.5 * 2 ** 30,
    "1T": 2 ** 40,
    "8191T": 8191 * 2 ** 40,
    "": undefined,
    "-1": undefined,
    M: undefined,
    "1Q": undefined,
    "1 M B": undefined,
    "0x10": undefined,
    "1e3": undefined,
    "8192T": undefined,
    "99999999999999999999": undefined,
    "10M/s": undefined,
  };
  for (const [text, bytes] of Object.entries(sizes)) assert.equal(parseSize(text), bytes, text);
  assert.equal(parseRate("10MiB/s"), 10 << 20);
  assert.equal(parseRate("10MiB"), 10 << 20);
});

test("durations: units joined, a bare number is seconds", () => {
  const durations: Readonly<Record<string, number | undefined>> = {
    "500ms": 500,
    "10s": 10_000,
    "5m": 300_000,
    "2h": 7_200_000,
    "1d": 86_400_000,
    "1h30m": 5_400_000,
    "5m0s": 300_000,
    "30": 30_000,
    "1.5": 1500,
    "0": 0,
    "": undefined,
    s: undefined,
    "5x": undefined,
    "5 m": undefined,
    "-5s": undefined,
  };
  for (const [text, ms] of Object.entries(durations)) assert.equal(parseDuration(text), ms, text);
});

test("what is printed reads back as the same number", () => {
  fc.assert(fc.property(fc.nat({ max: Number.MAX_SAFE_INTEGER }), (value) => parseSize(printSize(value)) === value));
  fc.assert(fc.property(fc.nat({ max: 2 ** 40 }), (value) => parseDuration(printDuration(value)) === value));
  assert.equal(printSize(10 << 20), "10MiB");
  assert.equal(printSize(0), "0B");
  assert.equal(printDuration(90_000), "90s");
});

test("figures for a reader have three digits", () => {
  assert.deepEqual([0, 999, 1000, 1536, 10_240, 104_857_600, 2 ** 40].map(showBytes), [
    "0 B",
    "999 B",
    "0.98 KiB",
    "1.50 KiB",
    "10.0 KiB",
    "100 MiB",
    "1.00 TiB",
  ]);
  assert.deepEqual([0, 400, 9949, 42_000, 59_600, 185_000, 7_620_000].map(showDuration), [
    "0.0s",
    "0.4s",
    "9.9s",
    "42s",
    "1m00s",
    "3m05s",
    "2h07m",
  ]);
});
