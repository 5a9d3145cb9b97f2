import assert from "node:assert/strict";
import { test } from "node:test";
import { peerToSupernodeSchema, supernodeToPeerSchema, ticketClaimsSchema } from "./control-messages.ts";

const TASK = "a".repeat(64);
const PEER = "host-0123456789abcdef";
const HOST = { address: "", port: 65_002, name: "host", program: "dfdaemon", version: "0.1.0", labels: { zone: "a" } };
const SOURCE = { url: "http://origin.test/f", headers: { authorization: "Bearer x" } };
const NEIGHBOUR = { peerId: PEER, address: "10.0.0.1", port: 65_002, seed: true };
const TASK_INFO = { taskId: TASK, lengthBytes: 1, pieceLengthBytes: 65_536, contentType: null, digest: null, headers: {} };
const JOINED = { type: "joined", requestId: 1, task: TASK_INFO, inline: null, ticket: "t.s", neighbours: [NEIGHBOUR], imports: [{ distance: 2, own: -1, backup: 0 }], lengthSignature: "AA==" };
const SOURCES = { seedBytes: 1, peerBytes: 2, originBytes: 0 };

type Message = Readonly<Record<string, unknown>>;

const FROM_PEER: Readonly<Record<string, Message>> = {
  register: { type: "register", host: HOST },
  "register of a keeper": { type: "register", host: { ...HOST, keeper: true } },
  join: { type: "join", requestId: 1, source: SOURCE, download: true },
  "join on invitation": { type: "join", requestId: 1, source: { url: "http://origin.test/f", headers: {}, invited: true }, taskId: TASK, download: true },
  "join with pieces": { type: "join", requestId: 1, source: { ...SOURCE, digest: `sha256:${TASK}`, priority: "preheat" }, taskId: TASK, have: "AQ==", download: true },
  progress: { type: "progress", taskId: TASK, pieceCount: 3, complete: false, sources: SOURCES },
  needNeighbours: { type: "needNeighbours", taskId: TASK, lost: [PEER] },
  accuse: { type: "accuse", taskId: TASK, peerId: PEER, piece: 3 },
  leave: { type: "leave", taskId: TASK },
};

const FROM_SUPERNODE: Readonly<Record<string, Message>> = {
  registered: { type: "registered", publicKey: "AAAA", address: "10.0.0.2", unixMs: 1 },
  "registered, told where it stands": { type: "registered", publicKey: "AAAA", address: "10.0.0.2", unixMs: 1, place: { zone: "a", rack: "r" } },
  joined: JOINED,
  "joined, length unknown": { ...JOINED, task: { ...TASK_INFO, lengthBytes: null }, lengthSignature: null },
  "joined, content inline": { ...JOINED, inline: "AAAA", ticket: null, neighbours: [] },
  joinFailed: { type: "joinFailed", requestId: 1, code: "ORIGIN_NOT_FOUND", message: "no such file", details: { status: 404 } },
  invite: { type: "invite", taskId: TASK, url: "http://origin.test/f" },
  imports: { type: "imports", taskId: TASK, imports: [{ distance: 1, own: 5, backup: -8 }] },
  neighbours: { type: "neighbours", taskId: TASK, add: [NEIGHBOUR], drop: [PEER] },
  length: { type: "length", taskId: TASK, lengthBytes: 0, signature: "AA==" },
  taskFailed: { type: "taskFailed", taskId: TASK, code: "ORIGIN_CHANGED", message: "changed", details: {}, discard: true },
};

for (const [name, message] of Object.entries(FROM_PEER)) {
  test(`from a peer: ${name} is accepted; what a later version adds is dropped; each field is needed or checked`, () => {
    assert.deepEqual(peerToSupernodeSchema.parse({ ...message, later: 1 }), message);
    for (const key of Object.keys(message)) {
      assert.ok(!peerToSupernodeSchema.safeParse({ ...message, [key]: Symbol("wrong") }).success, key);
    }
  });
}

for (const [name, message] of Object.entries(FROM_SUPERNODE)) {
  test(`from a supernode: ${name} is accepted; what a later version adds is dropped; each field is needed or checked`, () => {
    assert.deepEqual(supernodeToPeerSchema.parse({ ...message, later: 1 }), message);
    for (const key of Object.keys(message)) {
      assert.ok(!supernodeToPeerSchema.safeParse({ ...message, [key]: Symbol("wrong") }).success, key);
    }
  });
}

test("values that would do harm are refused from a peer", () => {
  const refused: readonly Message[] = [
    { ...FROM_PEER["register"], host: { ...HOST, port: 65_536 } },
    { ...FROM_PEER["register"], host: { ...HOST, program: "dfcache" } },
    { ...FROM_PEER["register"], host: { ...HOST, labels: { zone: "x".repeat(257) } } },
    { ...FROM_PEER["join"], requestId: -1 },
    { ...FROM_PEER["join"], taskId: "../../etc/passwd" },
    { ...FROM_PEER["join"], have: "not base64!" },
    { ...FROM_PEER["join"], source: { ...SOURCE, url: "x".repeat(16 * 1024 + 1) } },
    { ...FROM_PEER["join"], source: { ...SOURCE, headers: { a: 1 } } },
    { ...FROM_PEER["progress"], pieceCount: 1.5 },
    { ...FROM_PEER["progress"], sources: { ...SOURCES, peerBytes: -1 } },
    { ...FROM_PEER["needNeighbours"], lost: Array.from({ length: 257 }, () => PEER) },
    { ...FROM_PEER["accuse"], peerId: "a b" },
    { type: "registered", publicKey: "AAAA", address: "", unixMs: 1 },
    { type: "unknown" },
  ];
  for (const message of refused) assert.ok(!peerToSupernodeSchema.safeParse(message).success, JSON.stringify(message).slice(0, 200));
});

test("values that would do harm are refused from a supernode", () => {
  const refused: readonly Message[] = [
    { ...JOINED, task: { ...TASK_INFO, pieceLengthBytes: 65_537 } },
    { ...JOINED, task: { ...TASK_INFO, pieceLengthBytes: 2 ** 40 } },
    { ...JOINED, task: { ...TASK_INFO, lengthBytes: -1 } },
    { ...JOINED, task: { ...TASK_INFO, lengthBytes: 2 ** 60 } },
    { ...JOINED, neighbours: [{ ...NEIGHBOUR, port: 0 }] },
    { ...JOINED, ticket: "t".repeat(4_097) },
    { ...FROM_SUPERNODE["neighbours"], add: Array.from({ length: 257 }, () => NEIGHBOUR) },
    { ...FROM_SUPERNODE["length"], signature: "??" },
    { ...FROM_SUPERNODE["joinFailed"], details: { nested: {} } },
  ];
  for (const message of refused) assert.ok(!supernodeToPeerSchema.safeParse(message).success, JSON.stringify(message).slice(0, 200));
});

test("a ticket names one task, one peer and an end", () => {
  const claims = { taskId: TASK, peerId: PEER, expiresUnixMs: 1, outageUnixMs: 2 };
  assert.deepEqual(ticketClaimsSchema.parse(claims), claims);
  for (const wrong of [{ ...claims, taskId: "a" }, { ...claims, peerId: "" }, { ...claims, expiresUnixMs: "1" }, { ...claims, expiresUnixMs: 1.5 }]) {
    assert.ok(!ticketClaimsSchema.safeParse(wrong).success);
  }
});
