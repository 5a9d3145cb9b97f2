import assert from "node:assert/strict";
import { closeSync, fstatSync, openSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { loadLibc } from "../libc.ts";
import { temporaryDirectory } from "./fixture.test.ts";
import { type Fallocate, Preallocation, systemPreallocation } from "./preallocation.ts";

const MIB = 1024 * 1024;

test("a piece of a MiB has its room before it is written, at its place, and the file keeps its length", { skip: loadLibc() === undefined ? "needs koffi" : false }, (t) => {
  const fd = openSync(join(temporaryDirectory(t), "data"), "w+");
  t.after(() => closeSync(fd));
  systemPreallocation().room(fd, 3 * MIB, MIB);
  const { size, blocks } = fstatSync(fd);
  assert.deepEqual([size, blocks * 512 >= MIB, blocks * 512 < 2 * MIB], [0, true, true]);
});

test("short pieces have none", () => {
  const calls: unknown[] = [];
  const preallocation = new Preallocation((...values) => calls.push(values), () => 0);
  preallocation.room(3, 0, MIB / 2);
  preallocation.room(3, MIB, MIB);
  assert.deepEqual(calls, [[3, 1, MIB, MIB]]);
});

test("a device that takes long over it is left alone for a minute", () => {
  let nowMs = 0;
  let tookMs = 5;
  let calls = 0;
  const slow: Fallocate = () => {
    calls++;
    nowMs += tookMs;
  };
  const preallocation = new Preallocation(slow, () => nowMs);
  const ask = (): number => {
    preallocation.room(3, 0, MIB);
    return calls;
  };
  assert.deepEqual([ask(), ask()], [1, 2]);
  tookMs = 6;
  assert.deepEqual([ask(), ask()], [3, 3]);
  nowMs += 60_000;
  tookMs = 1;
  assert.deepEqual([ask(), ask()], [4, 5]);
});

test("where the call cannot be had, nothing is done", () => {
  new Preallocation(undefined, () => 0).room(3, 0, MIB);
});
