import assert from "node:assert/strict";
import { Duplex } from "node:stream";
import { test } from "node:test";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import { PieceSet } from "../protocol/piece-set.ts";
import { Link } from "./link/link.ts";
import { SwarmDriver } from "./swarm-driver.ts";
import type { TaskSession } from "./task-session.ts";

const NEIGHBOUR = "neighbour" as PeerId;
const PIECE_BYTES = 64 * 1024;
const none = (): undefined => undefined;

interface Lab {
  readonly link: Link;
  readonly driver: SwarmDriver;
  /** Why the link was closed. */
  readonly closedBecause: () => string | undefined;
  /** Each time that a length became known: whether the file is whole by that. */
  readonly known: readonly boolean[];
  readonly open: (taskId: TaskId) => TaskSession;
  readonly close: (session: TaskSession) => void;
}

/** One link to one neighbour, over a socket on which nothing is heard of what is sent. */
function openLab(): Lab {
  let why: string | undefined;
  const known: boolean[] = [];
  const link = new Link(1, true, {
    nowMs: () => 0,
    uploadLimit: { pass: none, cancel: none, chunkBytes: () => Infinity },
    downloadLimit: { readBytes: () => Infinity, pay: () => true, count: none },
    events: { frame: none, payloadTarget: none, payload: none, closed: (_link, reason) => void (why = reason) },
  });
  link.peerId = NEIGHBOUR;
  const socket = new Duplex({ read: none, write: (_chunk, _encoding, done: () => void) => done() });
  link.attach(Object.assign(socket, { setNoDelay: none, connecting: false }) as never);
  const sessions = new Map<TaskId, TaskSession>();
  const links = { byId: () => link, *[Symbol.iterator]() { yield link; } };
  const driver = new SwarmDriver({
    links: links as never, nowMs: () => 0, topology: {}, seed: 1, session: (taskId) => sessions.get(taskId), openFromDisk: () => Promise.resolve(undefined),
    isSeed: () => false, log: { warn: none, debug: none }, needNeighbours: none, accuse: none, stored: none, lengthKnown: ({ stored }) => void known.push(stored.complete), lost: none,
  });
  driver.linkOpened(link, NEIGHBOUR);
  const account = new Proxy({}, { get: () => none });
  const open = (taskId: TaskId): TaskSession => {
    const stored = { complete: false, have: new PieceSet(), record: {} };
    const session = { taskId, ticket: "", account, pieceCount: 2, pieceLengthBytes: PIECE_BYTES, fits: () => true, refusesUntilMs: 0, neighbours: new Map([[NEIGHBOUR, {}]]), stored };
    sessions.set(taskId, session as unknown as TaskSession);
    driver.openTask(session as unknown as TaskSession, "normal");
    driver.join(link, session as unknown as TaskSession);
    return session as unknown as TaskSession;
  };
  const close = (session: TaskSession): void => {
    driver.closeTask(session);
    sessions.delete(session.taskId);
  };
  return { link, driver, closedBecause: () => why, known, open, close };
}

const idOf = (n: number): TaskId => n.toString(16).padStart(64, "0") as TaskId;

test("tasks that this side has left first do not count against their link", (t) => {
  const { link, driver, closedBecause, open, close } = openLab();
  t.after(() => driver.close());
  for (let n = 1; n <= 5_000 && closedBecause() === undefined; n++) {
    const session = open(idOf(n));
    driver.frame(link, { type: "join", channel: n, taskId: session.taskId, ticket: "", have: new Uint8Array(0) });
    // The other side takes it for the end of its own part, too, and says nothing.
    close(session);
  }
  assert.equal(closedBecause(), undefined);
});

test("a neighbour that joins again on another channel leaves nothing behind on the first", (t) => {
  const { link, driver, open } = openLab();
  t.after(() => driver.close());
  const { taskId } = open(idOf(1));
  const proof = { digest: new Uint8Array(32), signature: new Uint8Array(64) };
  for (let channel = 1; channel <= 20; channel++) {
    driver.frame(link, { type: "join", channel, taskId, ticket: "", have: new Uint8Array([0b1100_0000]) });
    driver.frame(link, { type: "offer", channel, pieces: [0] });
    driver.frame(link, { type: "proof", channel, piece: 0, lengthBytes: PIECE_BYTES, ...proof });
    // Whoever breaks his word twice is not taken at it again.
    assert.equal(driver.receivingBytes, channel <= 2 ? PIECE_BYTES : 0, `on its channel ${channel}`);
  }
});

test("a file whose pieces were all here before its length was known is told to be whole once it is", async (t) => {
  const { driver, known, open } = openLab();
  t.after(() => driver.close());
  const session = open(idOf(1));
  const stored = { ...session.stored, complete: false, setLength: async () => void (await Promise.resolve(), Object.assign(stored, { complete: true })) };
  Object.assign(session, { stored, wake: none, failure: undefined });
  await driver.setLength(session, 2 * PIECE_BYTES, new Uint8Array(64));
  assert.deepEqual(known, [true]);
});
