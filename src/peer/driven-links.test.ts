/** The driver between links and brain: memory of pieces on their way in, and what is said of it. */
import assert from "node:assert/strict";
import { Duplex } from "node:stream";
import { test } from "node:test";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import type { LinkFrame } from "../protocol/link-frames.ts";
import { PieceSet } from "../protocol/piece-set.ts";
import { Link } from "./link/link.ts";
import { SwarmDriver } from "./swarm-driver.ts";
import type { TaskSession } from "./task-session.ts";

const MIB = 1024 * 1024;
const none = (): undefined => undefined;
const proof = { digest: new Uint8Array(32), signature: new Uint8Array(64) };

interface Sent {
  readonly linkId: number;
  readonly frame: LinkFrame;
}

function openLab(pieceLengthBytes: number) {
  let nowMs = 0;
  const sent: Sent[] = [];
  const closed = new Map<number, string>();
  const started: string[] = [];
  const links = new Map<number, Link>();
  const linkOf = (linkId: number): Link => {
    const link = new Link(linkId, true, {
      nowMs: () => nowMs,
      uploadLimit: { pass: none, cancel: none, chunkBytes: () => Infinity },
      downloadLimit: { readBytes: () => Infinity, pay: () => true, count: none },
      events: { frame: none, payloadTarget: none, payload: none, closed: (_link: Link, why: string) => void closed.set(linkId, why) },
    });
    link.peerId = `peer-${linkId}` as PeerId;
    const socket = new Duplex({ read: none, write: (_chunk, _encoding, done: () => void) => done() });
    link.attach(Object.assign(socket, { setNoDelay: none, connecting: false }) as never);
    link.send = (frame) => void sent.push({ linkId, frame });
    (link.writer as { sendPiece: unknown }).sendPiece = ({ piece }: { piece: number }) => void started.push(`${linkId}/${piece}`);
    links.set(linkId, link);
    return link;
  };
  const sessions = new Map<TaskId, TaskSession>();
  const driver = new SwarmDriver({
    links: { byId: (id: number) => links.get(id), [Symbol.iterator]: () => links.values() } as never,
    nowMs: () => nowMs, topology: {}, seed: 1, session: (taskId) => sessions.get(taskId), openFromDisk: () => Promise.resolve(undefined),
    isSeed: () => false, log: { warn: none, debug: none }, needNeighbours: none, accuse: none, stored: none, lengthKnown: none, lost: none,
  });
  const account = new Proxy({}, { get: () => none });
  const open = (taskId: TaskId, stored: object = {}): TaskSession => {
    const neighbours = new Map([...links.values()].map(({ peerId }) => [peerId, {}]));
    const session = {
      taskId, ticket: "", account, pieceCount: 64, pieceLengthBytes, fits: () => true, lengthOf: () => pieceLengthBytes, refusesUntilMs: 0, neighbours, count: none, wake: none, pin: none, unpin: none,
      tickets: { verify: () => ({}), remainingMs: () => 1e6 },
      stored: { complete: false, have: new PieceSet(), record: {}, storeVerified(this: { have: PieceSet }, piece: number) { this.have.add(piece); return Promise.resolve("stored"); }, ...stored },
    } as unknown as TaskSession;
    sessions.set(taskId, session);
    driver.openTask(session, "normal");
    return session;
  };
  const wait = (ms: number): void => {
    for (const endMs = nowMs + ms; nowMs < endMs; ) {
      nowMs += 10;
      driver.feed({ type: "deadlineReached" });
    }
  };
  return { linkOf, driver, open, sent, closed, started, wait };
}

const idOf = (n: number): TaskId => n.toString(16).padStart(64, "0") as TaskId;
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("one channel for two tasks costs no memory for ever", (t) => {
  const { linkOf, driver, open, closed, wait } = openLab(8 * MIB);
  t.after(() => driver.close());
  const link = linkOf(1);
  driver.linkOpened(link, "peer-1" as PeerId);
  const [a, b] = [open(idOf(1)), open(idOf(2))];
  for (let piece = 0; piece < 8; piece++) {
    for (const { taskId } of [a, b]) {
      // The same channel, now for the one task, now for the other.
      driver.frame(link, { type: "join", channel: 7, taskId, ticket: "t", have: new Uint8Array(8).fill(255) });
      driver.frame(link, { type: "offer", channel: 7, pieces: [piece] });
      driver.frame(link, { type: "proof", channel: 7, piece, lengthBytes: 8 * MIB, ...proof });
      driver.payloadTarget(link, 7, piece, 0, 1);
      driver.payload(link, 7, piece, 1, true);
    }
  }
  wait(60_000);
  if (!closed.has(1)) link.close("the end");
  driver.linkClosed(link);
  assert.equal(driver.receivingBytes, 0, "the link is gone, all of it was given up, and the memory is taken still");
});

test("who was declined for lack of memory is told when there is some, though others keep us busy", async (t) => {
  const { linkOf, driver, open, sent, wait } = openLab(8 * MIB);
  t.after(() => driver.close());
  const [one, two] = [linkOf(1), linkOf(2)];
  driver.linkOpened(one, "peer-1" as PeerId);
  driver.linkOpened(two, "peer-2" as PeerId);
  const a = open(idOf(1));
  const b = open(idOf(2));
  driver.frame(one, { type: "join", channel: 1, taskId: a.taskId, ticket: "t", have: new Uint8Array(8).fill(255) });
  driver.frame(two, { type: "join", channel: 1, taskId: b.taskId, ticket: "t", have: new Uint8Array(8).fill(255) });
  const begin = (piece: number): void => {
    driver.frame(one, { type: "offer", channel: 1, pieces: [piece] });
    driver.frame(one, { type: "proof", channel: 1, piece, lengthBytes: 8 * MIB, ...proof });
    driver.payloadTarget(one, 1, piece, 0, 4 * MIB);
    driver.payload(one, 1, piece, 4 * MIB, true);
  };
  const end = (piece: number): void => {
    driver.payloadTarget(one, 1, piece, 4 * MIB, 4 * MIB);
    driver.payload(one, 1, piece, 4 * MIB, true);
  };
  for (let piece = 0; piece < 8; piece++) begin(piece);
  assert.equal(driver.receivingBytes, 64 * MIB);
  driver.frame(two, { type: "offer", channel: 1, pieces: [0] });
  const decline = sent.find(({ linkId, frame }) => linkId === 2 && frame.type === "decline");
  assert.equal(decline?.frame.type === "decline" && decline.frame.reason, "busy");
  const before = sent.length;
  // One ends, the next begins: five seconds and more of a long download from elsewhere, with room for others all the time.
  for (let piece = 0; piece < 50; piece++) {
    end(piece);
    await settle();
    if (piece >= 3) begin(piece + 5);
    wait(100);
    // What is here is no more than six pieces from now on.
    if (piece >= 3) assert.ok(driver.receivingBytes < 64 * MIB);
  }
  const told = sent.slice(before).filter(({ linkId, frame }) => linkId === 2 && frame.type === "status");
  assert.ok(told.length > 0, "its sender takes us for full to this moment");
});

test("a piece that is being read back is not sent to who gave it up meanwhile", async (t) => {
  let checked: (() => void) | undefined;
  const { linkOf, driver, open, started, sent } = openLab(MIB);
  t.after(() => driver.close());
  const link = linkOf(1);
  driver.linkOpened(link, "peer-1" as PeerId);
  const have = new PieceSet();
  have.add(0);
  const a = open(idOf(1), { have, isVerified: () => false, proofOf: () => proof, verify: () => new Promise<void>((resolve) => (checked = resolve)) });
  driver.frame(link, { type: "join", channel: 1, taskId: a.taskId, ticket: "t", have: new Uint8Array(0) });
  driver.frame(link, { type: "status", incoming: 0, capacity: 11 });
  const channel = link.ownChannel(a.taskId) as number;
  assert.ok(sent.some(({ frame }) => frame.type === "offer"));
  driver.frame(link, { type: "accept", channel, piece: 0 });
  driver.frame(link, { type: "cancel", channel, piece: 0 });
  checked?.();
  await settle();
  assert.deepEqual(started, []);
});
