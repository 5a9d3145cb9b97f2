import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { test, type TestContext } from "node:test";
import { AppError } from "../base/errors.ts";
import type { Origin, OriginInfo } from "../origin/origin.ts";
import type { TaskId } from "../protocol/ids.ts";
import { PieceSet } from "../protocol/piece-set.ts";
import type { PeerTask } from "./peer.ts";
import { SwarmContent } from "./swarm-content.ts";

const PIECE_BYTES = 1000;
const content = randomBytes(10 * PIECE_BYTES);

/** A task that the swarm left with its first pieces. */
function lostTask(pieceCount: number): PeerTask {
  const have = new PieceSet();
  for (let piece = 0; piece < pieceCount; piece++) have.add(piece);
  const read = (at: number, into: Uint8Array): Promise<void> => {
    content.copy(into, 0, at, at + into.length);
    return Promise.resolve();
  };
  const session = {
    lengthBytes: content.length,
    pieceLengthBytes: PIECE_BYTES,
    failure: new AppError("SUPERNODE_UNREACHABLE", "killed"),
    newReaderId: () => 1,
    changed: () => Promise.resolve(),
    onStored: () => () => undefined,
  };
  const sources = () => ({ seedBytes: 0, peerBytes: 0, originBytes: 0, cacheBytes: 0 });
  return { session, stored: { have, read }, readerAt: () => undefined, sources, isHeldBack: () => false } as unknown as PeerTask;
}

/** What a reader of the task gets; with an origin, while the supernode is away. */
function contentOf(task: PeerTask, origin?: Origin, digest: string | null = null): SwarmContent {
  const { lengthBytes = null, pieceLengthBytes } = task.session;
  return new SwarmContent({
    task,
    info: { taskId: "a".repeat(64) as TaskId, lengthBytes, pieceLengthBytes, contentType: null, digest, headers: {} },
    source: { url: "http://origin/file", headers: {} },
    direct: origin === undefined ? undefined : { origin },
    startedMs: performance.now(),
    supernodeConnected: () => origin === undefined,
    closed: () => undefined,
  });
}

test("what the swarm could not finish is read from an origin without ranges, from its start", async () => {
  const info: OriginInfo = { lengthBytes: content.length, ranges: false, etag: undefined, lastModified: undefined, contentType: undefined, headers: {} };
  const opened: number[] = [];
  const origin: Origin = {
    stat: () => Promise.resolve(info),
    open: (_request, { startByte }) => {
      opened.push(startByte);
      if (startByte > 0) return Promise.reject(new AppError("ORIGIN_PROTOCOL", "no ranges", { details: { ranges: false } }));
      return Promise.resolve({ info, startByte, body: Readable.from([content.subarray(0, 9500), content.subarray(9500)]) });
    },
  };
  const swarm = contentOf(lostTask(9), origin);
  const chunks: Uint8Array[] = [];
  for await (const chunk of swarm.read({ startByte: 0, endByte: undefined }, new AbortController().signal)) chunks.push(chunk);
  assert.deepEqual(Buffer.concat(chunks), content);
  assert.deepEqual(opened, [9 * PIECE_BYTES, 0]);
});

test("in place, only what has been seen right is told; what the origin has to give comes as bytes", async () => {
  const task = lostTask(9);
  const verified = new Set([0, 1]);
  const { stored } = task as unknown as { stored: { have: PieceSet; isVerified: unknown; verify: unknown } };
  stored.isVerified = (piece: number) => verified.has(piece);
  stored.verify = ([piece]: number[]) => {
    // Piece 4 is not what was written.
    if (piece === 4) stored.have.delete(4);
    return Promise.resolve(piece === 4 ? [4] : []);
  };
  const info: OriginInfo = { lengthBytes: content.length, ranges: true, etag: undefined, lastModified: undefined, contentType: undefined, headers: {} };
  const origin: Origin = {
    stat: () => Promise.resolve(info),
    open: (_request, { startByte }) => Promise.resolve({ info, startByte, body: Readable.from([content.subarray(startByte)]) }),
  };
  const swarm = contentOf(task, origin);
  const held: [number, number][] = [];
  const come: Buffer[] = [];
  for await (const part of swarm.readInPlace({ startByte: 500, endByte: undefined }, new AbortController().signal)) {
    if (!("bytes" in part)) held.push([part.startByte, part.endByte]);
    else come.push(Buffer.from(part.bytes));
  }
  assert.deepEqual(held, [[500, 1000], [1000, 2000], [2000, 3000], [3000, 4000], [5000, 6000], [6000, 7000], [7000, 8000], [8000, 9000]]);
  assert.deepEqual(Buffer.concat(come), content.subarray(4000));
});

test("in place, what comes is gathered: told once there is much of it, or it is whole", async () => {
  const task = lostTask(1);
  const { stored, session } = task as unknown as {
    stored: { have: PieceSet; complete: boolean; isVerified: () => boolean };
    session: { failure: AppError | undefined; changed: (limitMs: number, signal: AbortSignal, isEnough: () => boolean) => Promise<void> };
  };
  session.failure = undefined;
  stored.complete = false;
  stored.isVerified = () => true;
  const waits: boolean[][] = [];
  session.changed = (_limitMs, _signal, isEnough) => {
    const seen: boolean[] = [];
    for (let piece = stored.have.count; piece < 10; piece++) {
      seen.push(isEnough());
      stored.have.add(piece);
    }
    stored.complete = true;
    waits.push([...seen, isEnough()]);
    return Promise.resolve();
  };
  const swarm = contentOf(task);
  const starts: number[] = [];
  for await (const { startByte } of swarm.readInPlace({ startByte: 0, endByte: undefined }, new AbortController().signal)) starts.push(startByte);
  assert.deepEqual(starts, Array.from({ length: 10 }, (_, piece) => piece * PIECE_BYTES));
  assert.deepEqual(waits, [[false, false, false, false, false, false, false, false, false, true]]);
});

test("a piece that comes while a later one is handed on is handed on next, without another to wake for it", async () => {
  for (const way of ["readUnordered", "readInPlace"] as const) {
    const task = lostTask(10);
    const { stored, session } = task as unknown as {
      stored: { have: PieceSet; complete: boolean; isVerified: () => boolean };
      session: { failure: AppError | undefined; changed: () => Promise<void> };
    };
    session.failure = undefined;
    session.changed = () => Promise.reject(new Error("waits for what is here"));
    stored.have.delete(3);
    stored.isVerified = () => true;
    const swarm = contentOf(task);
    const starts: number[] = [];
    // oxlint-disable-next-line no-await-in-loop -- one way after the other
    for await (const { startByte } of swarm[way]({ startByte: 0, endByte: undefined }, new AbortController().signal)) {
      starts.push(startByte / PIECE_BYTES);
      if (starts.length === 6) {
        stored.have.add(3);
        stored.complete = true;
      }
    }
    assert.deepEqual(starts, [0, 1, 2, 4, 5, 6, 7, 8, 9, 3], way);
  }
});

test("in place, enough that came while a later piece was told of is told next, though some is still missing", async () => {
  const pieceBytes = 8 * 1024 * 1024;
  const task = lostTask(10);
  const { stored, session } = task as unknown as {
    stored: { have: PieceSet; complete: boolean; isVerified: () => boolean };
    session: { failure: AppError | undefined; pieceLengthBytes: number; lengthBytes: number; changed: () => Promise<void> };
  };
  Object.assign(session, { failure: undefined, pieceLengthBytes: pieceBytes, lengthBytes: 10 * pieceBytes });
  Object.assign(stored, { complete: false, isVerified: () => true });
  stored.have.delete(0);
  stored.have.delete(1);
  const starts: (number | string)[] = [];
  session.changed = () => {
    starts.push("waits");
    stored.have.add(1);
    stored.complete = true;
    return Promise.resolve();
  };
  const swarm = contentOf(task);
  for await (const { startByte } of swarm.readInPlace({ startByte: 0, endByte: undefined }, new AbortController().signal)) {
    starts.push(startByte / pieceBytes);
    if (starts.length === 3) stored.have.add(0);
  }
  assert.deepEqual(starts, [2, 3, 4, 5, 6, 7, 8, 9, 0, "waits", 1]);
});

test("a short last piece that comes before the word of the file's length is read once that has come", async () => {
  const task = lostTask(1);
  const lengthBytes = PIECE_BYTES / 2;
  let asked = 0;
  const session = Object.assign(task.session, { lengthBytes: undefined as number | undefined, failure: undefined, changed: () => Promise.resolve(void Object.assign(session, { lengthBytes })) });
  const read = (at: number, into: Uint8Array): Promise<void> => {
    // Whoever asks again and again without a pause would ask for ever: nothing else comes to its turn meanwhile.
    if (++asked > 10) throw new Error("asked again and again");
    if (at + into.length > lengthBytes) throw new AppError("PIECE_UNKNOWN", "shorter");
    content.copy(into, 0, at, at + into.length);
    return Promise.resolve();
  };
  Object.assign(task.stored, { read: (at: number, into: Uint8Array) => Promise.resolve().then(() => read(at, into)) });
  const parts: Uint8Array[] = [];
  for await (const bytes of contentOf(task).read({ startByte: 0, endByte: undefined }, AbortSignal.timeout(10_000))) parts.push(Uint8Array.from(bytes));
  assert.deepEqual(Buffer.concat(parts), content.subarray(0, lengthBytes));
});

test("what came before a reader does was here already for it, wherever it came from", () => {
  const bytes = { seedBytes: 1, peerBytes: 20, originBytes: 300, cacheBytes: 4000 };
  const task = { ...lostTask(4), sources: () => ({ ...bytes }) };
  const swarm = contentOf(task);
  assert.deepEqual(swarm.sources(), { seedBytes: 0, peerBytes: 0, originBytes: 0, cacheBytes: 4321 });
  bytes.originBytes += 5;
  assert.deepEqual(swarm.sources(), { seedBytes: 0, peerBytes: 0, originBytes: 5, cacheBytes: 4321 });
});

test("what a reader waits for is taken as it comes, and not read back; unless it is thrown away at once", async () => {
  for (const lent of [false, true]) {
    const task = lostTask(2);
    const { stored, session } = task as unknown as {
      stored: { have: PieceSet; read: (at: number, into: Uint8Array) => Promise<void> };
      session: { failure: AppError | undefined; changed: () => Promise<void>; onStored: (piece: number, take: (bytes: Uint8Array) => void) => () => void };
    };
    session.failure = undefined;
    const readBack: number[] = [];
    const { read } = stored;
    stored.read = (at, into) => {
      readBack.push(at);
      return read(at, into);
    };
    const takers = new Map<number, (bytes: Uint8Array) => void>();
    session.onStored = (piece, take) => {
      takers.set(piece, take);
      return () => takers.delete(piece);
    };
    let waits = 0;
    session.changed = () => {
      const piece = 2 + Math.max(0, waits - 1);
      waits++;
      const bytes = Uint8Array.from(content.subarray(piece * PIECE_BYTES, (piece + 1) * PIECE_BYTES));
      takers.get(piece)?.(waits === 1 ? bytes.map((byte) => byte ^ 1) : bytes);
      bytes.fill(0);
      // The first is thrown away before anybody looks; it comes again.
      if (waits > 1) stored.have.add(piece);
      return Promise.resolve();
    };
    const parts: Buffer[] = [];
    // oxlint-disable-next-line no-await-in-loop -- one way after the other
    for await (const bytes of contentOf(task).read({ startByte: 500, endByte: 4300, lent }, new AbortController().signal)) parts.push(Buffer.from(bytes));
    assert.deepEqual(Buffer.concat(parts), content.subarray(500, 4300));
    assert.deepEqual(readBack, [500, 1000]);
    assert.equal(takers.size, 0);
  }
});

test("a reader that ends is no longer where the swarm looks, and gives back what it was lent", async () => {
  const pieceBytes = 1 << 20;
  const chunkSizes: number[] = [];
  // More of them than may hold large chunks at a time.
  for (let reader = 0; reader < 40; reader++) {
    const task = lostTask(1);
    const places: (number | undefined)[] = [];
    Object.assign(task.session, { lengthBytes: 2 * pieceBytes, pieceLengthBytes: pieceBytes });
    Object.assign(task.stored, { read: () => Promise.resolve() });
    Object.assign(task, { readerAt: (_id: number, piece: number | undefined) => void places.push(piece) });
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await assert.rejects(async () => {
      for await (const bytes of contentOf(task).read({ startByte: 0, endByte: undefined, lent: true }, new AbortController().signal)) chunkSizes.push(bytes.length);
    }, { code: "SUPERNODE_UNREACHABLE" });
    assert.deepEqual(places, [1, undefined]);
  }
  assert.deepEqual(new Set(chunkSizes), new Set([256 * 1024]));
});

/** Reads all of a task that has its first nine pieces. @returns how often more was waited for, each time a second, and why it ended */
async function waitFor(t: TestContext, { failure, isConnected = true, heldBackTimes = 0 }: { failure?: AppError; isConnected?: boolean; heldBackTimes?: number }) {
  let laterMs = 0;
  const nowMs = performance.now.bind(performance);
  const clock = t.mock.method(performance, "now", () => nowMs() + laterMs);
  const task = lostTask(9);
  let waitCount = 0;
  Object.assign(task.session, {
    failure,
    changed: () => {
      waitCount++;
      laterMs += 1_000;
      return Promise.resolve();
    },
  });
  Object.assign(task, { isHeldBack: () => waitCount < heldBackTimes });
  let openCount = 0;
  const info: OriginInfo = { lengthBytes: content.length, ranges: true, etag: undefined, lastModified: undefined, contentType: undefined, headers: {} };
  const origin: Origin = {
    stat: () => Promise.resolve(info),
    open: (_request, { startByte }) => (openCount++, Promise.resolve({ info, startByte, body: Readable.from([content.subarray(startByte)]) })),
  };
  const swarm = new SwarmContent({
    task, info: { taskId: "a".repeat(64) as TaskId, lengthBytes: content.length, pieceLengthBytes: PIECE_BYTES, contentType: null, digest: null, headers: {} },
    source: { url: "http://origin/file", headers: {} }, direct: { origin }, startedMs: nowMs(), supernodeConnected: () => isConnected, closed: () => undefined,
  });
  const chunks: Uint8Array[] = [];
  const code = await (async (): Promise<string | undefined> => {
    for await (const chunk of swarm.read({ startByte: 0, endByte: undefined }, new AbortController().signal)) chunks.push(chunk);
    return undefined;
  })().catch((error: unknown) => (error as AppError).code);
  clock.mock.restore();
  return { waitCount, openCount, code, isWhole: Buffer.concat(chunks).equals(content) };
}

test("the origin is read after thirty seconds without a byte, after ten while there is no supernode, and at once where the task has failed", async (t) => {
  const whole = { openCount: 1, code: undefined, isWhole: true };
  assert.deepEqual(await waitFor(t, {}), { waitCount: 30, ...whole });
  assert.deepEqual(await waitFor(t, { isConnected: false }), { waitCount: 10, ...whole });
  assert.deepEqual(await waitFor(t, { failure: new AppError("SUPERNODE_UNREACHABLE", "killed") }), { waitCount: 0, ...whole });
});

test("a download that its limit holds back is not given up for being slow", async (t) => {
  assert.deepEqual(await waitFor(t, { heldBackTimes: 50 }), { waitCount: 50 - 1 + 30, openCount: 1, code: undefined, isWhole: true });
});

test("where the origin itself has failed the task, or its bytes are wrong, it is not asked again", async (t) => {
  for (const code of ["ORIGIN_FORBIDDEN", "ORIGIN_CUT", "DIGEST_MISMATCH"] as const) {
    // oxlint-disable-next-line no-await-in-loop -- cases
    assert.deepEqual(await waitFor(t, { failure: new AppError(code, "it said so") }), { waitCount: 0, openCount: 0, code, isWhole: false });
  }
});

test("a rest from the origin is held against a digest only where all before it is here", async () => {
  const task = lostTask(9);
  const { stored } = task as unknown as { stored: { have: PieceSet; read: (at: number, into: Uint8Array) => Promise<void> } };
  stored.have.delete(2);
  const { read } = stored;
  stored.read = (at, into) => (stored.have.has(Math.floor(at / PIECE_BYTES)) && at !== 0 ? read(at, into) : Promise.reject(new AppError("PIECE_UNKNOWN", "read back")));
  const info: OriginInfo = { lengthBytes: content.length, ranges: true, etag: undefined, lastModified: undefined, contentType: undefined, headers: {} };
  const origin: Origin = {
    stat: () => Promise.resolve(info),
    open: (_request, { startByte }) => Promise.resolve({ info, startByte, body: Readable.from([content.subarray(startByte)]) }),
  };
  const chunks: Uint8Array[] = [];
  for await (const chunk of contentOf(task, origin, `sha256:${createHash("sha256").update(content).digest("hex")}`).read({ startByte: 5_000, endByte: undefined }, new AbortController().signal)) chunks.push(chunk);
  assert.deepEqual(Buffer.concat(chunks), content.subarray(5_000));
});
