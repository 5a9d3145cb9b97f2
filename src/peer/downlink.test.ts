import assert from "node:assert/strict";
import { test } from "node:test";
import { Downlink } from "./downlink.ts";

test("the downlink is full at 85 % of the fastest interface that a link came up on; never where no speed is told", () => {
  const speeds: Readonly<Record<string, number>> = { "10.0.0.1": 1_000, "10.0.1.1": 10_000 };
  const asked: string[] = [];
  const taken = { recentBytesPerSecond: 1_000_000, bytesPerSecond: undefined };
  const downlink = new Downlink(
    taken,
    (address) => {
      asked.push(address);
      return speeds[address];
    },
  );
  assert.equal(downlink.isFull, false, "no link yet");
  downlink.linkOpened(undefined);
  downlink.linkOpened("127.0.0.1");
  assert.equal(downlink.isFull, false, "the loopback tells no speed");
  downlink.linkOpened("10.0.0.1");
  taken.recentBytesPerSecond = 849;
  assert.equal(downlink.isFull, false);
  taken.recentBytesPerSecond = 850;
  assert.equal(downlink.isFull, true);
  downlink.linkOpened("10.0.1.1");
  downlink.linkOpened("10.0.0.1");
  assert.equal(downlink.isFull, false, "the faster one has room");
  assert.deepEqual(asked, ["127.0.0.1", "10.0.0.1", "10.0.1.1"], "each address is looked up once");
});

test("it is full at 85 % of the host's limit, too, if that is the lower one", () => {
  const taken = { recentBytesPerSecond: 849, bytesPerSecond: 1_000 };
  const downlink = new Downlink(taken, () => 10_000);
  assert.equal(downlink.isFull, false);
  taken.recentBytesPerSecond = 850;
  assert.equal(downlink.isFull, true, "no interface tells its speed");
  downlink.linkOpened("10.0.0.1");
  assert.equal(downlink.isFull, true);
  taken.bytesPerSecond = 100_000;
  assert.equal(downlink.isFull, false);
});
