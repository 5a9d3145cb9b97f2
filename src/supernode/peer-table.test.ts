import assert from "node:assert/strict";
import { test } from "node:test";
import type { ControlChannel } from "../peer/control/control-channel.ts";
import type { PeerId } from "../protocol/ids.ts";
import { type ConnectedPeer, isLoopback, PeerTable, plainAddress } from "./peer-table.ts";

function peer(id: string, remoteAddress: string, advertised = "", port = 9): ConnectedPeer {
  const host = { address: advertised, port, name: id, program: "dfdaemon", version: "0", labels: {} } as const;
  return { peerId: id as PeerId, host, place: { topology: {}, sources: {} }, keeper: false, remoteAddress, localAddress: "10.0.0.1", connectedUnixMs: 0, channel: {} as ControlChannel };
}

test("a peer is dialled where it says, else where it is seen, on our machine by our own name", () => {
  const table = new PeerTable(() => 0);
  const far = peer("far", "10.0.0.7");
  const near = peer("near", "127.0.0.1");
  for (const each of [far, near, peer("named", "10.0.0.8", "node-8"), peer("mute", "10.0.0.9", "", 0)]) table.add(each);
  const addressOf = (id: string, viewer: ConnectedPeer): string | undefined => table.addressOf(id as PeerId, viewer)?.address;
  assert.equal(addressOf("far", near), "10.0.0.7");
  assert.equal(addressOf("near", near), "127.0.0.1");
  assert.equal(addressOf("near", far), "10.0.0.1");
  assert.equal(addressOf("named", far), "node-8");
  assert.equal(addressOf("mute", far), undefined);
  assert.equal(addressOf("unknown", far), undefined);
});

test("an address outlives its connection for a while, and a replaced connection ends nothing", () => {
  let nowMs = 0;
  const table = new PeerTable(() => nowMs);
  const first = peer("a", "10.0.0.7");
  const second = peer("a", "10.0.0.8");
  table.add(first);
  assert.equal(table.add(second), first);
  assert.equal(table.remove(first), false);
  assert.equal(table.remove(second), true);
  assert.equal(table.size, 0);
  assert.equal(table.addressOf("a" as PeerId, undefined)?.address, "10.0.0.8");
  nowMs = 100_000;
  table.remove((table.add(peer("b", "x")), table.get("b" as PeerId) as ConnectedPeer));
  assert.equal(table.addressOf("a" as PeerId, undefined), undefined);
});

test("addresses are read in all their spellings", () => {
  assert.equal(plainAddress("::ffff:10.0.0.1"), "10.0.0.1");
  assert.equal(plainAddress("fe80::1"), "fe80::1");
  assert.equal(plainAddress(undefined), "");
  for (const address of ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]) assert.ok(isLoopback(address));
  for (const address of ["10.0.0.1", "::2", "", "::ffff:10.0.0.127"]) assert.ok(!isLoopback(address));
});
