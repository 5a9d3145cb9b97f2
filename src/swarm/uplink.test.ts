import assert from "node:assert/strict";
import { test } from "node:test";
import type { LinkQueue } from "./contract.ts";
import { Uplink } from "./uplink.ts";

const KIB = 1024;

/** A host whose kernel takes what it is given, and lets it out at `bytesPerMs`. */
class Host {
  nowMs = 0;
  handedBytes = 0;
  heldBytes = 0;
  roundTripMs = 81;
  leastRoundTripMs = 1;
  /** Of further links. */
  others: readonly LinkQueue[] = [];
  readonly uplink = new Uplink();
  readonly #bytesPerMs: number;

  constructor(bytesPerMs: number) {
    this.#bytesPerMs = bytesPerMs;
  }

  hand(bytes: number): void {
    this.handedBytes += bytes;
    this.heldBytes += bytes;
  }

  /** A sample after so long. @returns what is said then */
  wait(ms: number): number {
    this.nowMs += ms;
    this.heldBytes = Math.max(0, this.heldBytes - this.#bytesPerMs * ms);
    const { heldBytes, roundTripMs, leastRoundTripMs } = this;
    const own = heldBytes === 0 ? [] : [{ heldBytes, roundTripMs, leastRoundTripMs }];
    this.uplink.sampled({ handedBytes: this.handedBytes, links: [...own, ...this.others] }, this.nowMs);
    return this.uplink.leavesInMs;
  }

  /** Until its speed is known. */
  saturate(): number {
    this.wait(0);
    this.hand(600 * KIB);
    this.wait(60);
    this.hand(100 * KIB);
    return this.wait(60);
  }
}

test("what the kernel holds leaves within its length over the speed at which it has left, less what is on its way", () => {
  const host = new Host(1_000);
  assert.equal(Math.round(host.saturate()), Math.round(host.heldBytes / 1_000) - 1);
  host.hand(500 * KIB);
  assert.equal(Math.round(host.wait(60)), Math.round(host.heldBytes / 1_000) - 1);
});

test("where one link's bytes hardly wait, it is not the uplink that is slow; before it was looked at nobody knows", () => {
  const host = new Host(1_000);
  assert.equal(host.uplink.isFree, false);
  Object.assign(host, { roundTripMs: 205, leastRoundTripMs: 200 });
  host.saturate();
  assert.equal(host.uplink.isFree, true);
  host.roundTripMs = 240;
  host.hand(100 * KIB);
  host.wait(10);
  assert.equal(host.uplink.isFree, false);
});

test("a long way without a queue is no slow uplink", () => {
  const host = new Host(1_000);
  Object.assign(host, { roundTripMs: 205, leastRoundTripMs: 200 });
  assert.equal(host.saturate(), 0);
  host.roundTripMs = 400;
  assert.equal(Math.round(host.wait(60)), Math.round(host.heldBytes / 1_000) - 200);
});

test("where one link's bytes do not wait, it is the others' receivers that are slow", () => {
  const host = new Host(1_000);
  assert.ok(host.saturate() > 0);
  host.others = [{ heldBytes: 10 * KIB, roundTripMs: 2, leastRoundTripMs: 1 }];
  assert.equal(host.wait(60), 0);
});

test("an uplink that may have been idle is not slow for that, and what is known of it is not forgotten at once", () => {
  const idle = new Host(10_000);
  for (let i = 0; i < 20; i++) {
    idle.wait(300);
    idle.hand(128 * KIB);
    assert.equal(idle.wait(0), 0);
  }
  const host = new Host(1_000);
  const before = host.saturate();
  host.wait(800);
  host.hand(600 * KIB);
  assert.ok(host.wait(60) > before / 2);
});

test("an uplink that was idle until just before the look is not slow for what it was given then", () => {
  const host = new Host(10_000);
  host.wait(0);
  for (let i = 0; i < 5; i++) {
    host.wait(300);
    host.hand(600 * KIB);
    host.wait(10);
    assert.equal(host.uplink.leavesInMs, 0, "500 KiB are held, 100 went in 310 ms");
    host.wait(300);
  }
});

test("an uplink that was busy throughout is known by that, though less is left than went", () => {
  const host = new Host(1_000);
  host.wait(0);
  host.hand(600 * KIB);
  host.wait(1);
  assert.ok(host.wait(400) > 0);
});

test("after seconds without a transfer its speed is to be learnt anew", () => {
  const host = new Host(10);
  assert.ok(host.saturate() > 0);
  assert.equal(host.wait(5_000), 0);
});

test("where the kernel does not say how long bytes wait, nothing is said", () => {
  const host = new Host(1_000);
  Object.assign(host, { roundTripMs: 0, leastRoundTripMs: 0 });
  assert.equal(host.saturate(), 0);
});

test("many control frames, which are held and not handed over, are not taken for a speed below nothing", () => {
  const host = new Host(1_000);
  host.saturate();
  host.heldBytes += 2_000 * KIB;
  assert.ok(host.wait(60) > 0);
  assert.ok(Number.isFinite(host.wait(60)));
});
