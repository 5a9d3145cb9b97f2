import assert from "node:assert/strict";
import { test } from "node:test";
import { Uplink } from "./uplink.ts";

const KIB = 1024;

/** A host whose kernel takes what it is given, and lets it out at `bytesPerMs`. */
class Host {
  nowMs = 0;
  handedBytes = 0;
  heldBytes = 0;
  readonly uplink = new Uplink({ handedBytes: () => this.handedBytes, heldBytes: () => this.heldBytes, nowMs: () => this.nowMs });
  readonly #bytesPerMs: number;

  constructor(bytesPerMs: number) {
    this.#bytesPerMs = bytesPerMs;
  }

  hand(bytes: number): void {
    this.handedBytes += bytes;
    this.heldBytes += bytes;
  }

  wait(ms: number): number {
    this.nowMs += ms;
    this.heldBytes = Math.max(0, this.heldBytes - this.#bytesPerMs * ms);
    return this.uplink.leavesInMs();
  }
}

test("what the kernel holds leaves within its length over the speed at which it has left", () => {
  const host = new Host(1_000);
  host.hand(600 * KIB);
  host.wait(60);
  host.hand(100 * KIB);
  const leavesInMs = host.wait(60);
  assert.equal(Math.round(leavesInMs), Math.round(host.heldBytes / 1_000));
  host.hand(500 * KIB);
  assert.equal(host.uplink.leavesInMs(), leavesInMs, "sockets are not asked for every piece");
  assert.equal(Math.round(host.wait(60)), Math.round(host.heldBytes / 1_000));
});

test("an uplink that may have been idle says nothing of its speed", () => {
  const host = new Host(1_000);
  for (let i = 0; i < 20; i++) {
    host.hand(50 * KIB);
    assert.equal(host.wait(60), 0);
  }
});

test("nor does one that was let alone for seconds", () => {
  const host = new Host(10);
  host.hand(600 * KIB);
  host.wait(60);
  const before = host.wait(60);
  assert.ok(before > 0);
  host.hand(100 * KIB);
  host.wait(5_000);
  assert.equal(Math.round(host.uplink.leavesInMs()), Math.round(host.heldBytes / 10), "at the speed of before");
});

test("many control frames, which are held and not handed over, are not taken for a speed below nothing", () => {
  const host = new Host(1_000);
  host.hand(300 * KIB);
  host.wait(60);
  host.heldBytes += 2_000 * KIB;
  assert.ok(host.wait(60) >= 0);
});
