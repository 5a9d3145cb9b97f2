/** Pieces on their way out: whose turn it is, what of a file goes where, and when its descriptor is let go of. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { test, type TestContext } from "node:test";
import type { Priority } from "../../base/priority.ts";
import type { RateRequest } from "../../base/rate-budget.ts";
import { RateGate } from "../rate-gate.ts";
import { connected } from "./connection-fixture.test.ts";
import { LinkReader } from "./link-reader.ts";
import { CONTROL_QUEUE_BYTES_MAX, LinkWriter, type UploadLimit } from "./link-writer.ts";
import { nativeSocket } from "./native-socket.ts";

const KIB = 1024;
const BLOCK_BYTES = 128 * KIB;

function openFile(t: TestContext, lengthBytes: number): { readonly fd: number; readonly bytes: Buffer } {
  const directory = mkdtempSync(join(tmpdir(), "link-writer-"));
  const bytes = randomBytes(lengthBytes);
  writeFileSync(join(directory, "data"), bytes);
  const fd = openSync(join(directory, "data"), "r");
  t.after(() => {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });
  return { fd, bytes };
}

/** A socket without a descriptor. While it is full, what is written waits in it. */
class FakeSocket extends Duplex {
  readonly connecting = false;
  /** What was written, as it is when the socket takes it. */
  readonly taken: Buffer[] = [];
  isFull = false;
  #goOn: (() => void) | undefined;

  constructor() {
    super({ read: () => undefined });
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    const take = (): void => {
      this.taken.push(Buffer.from(chunk));
      done();
    };
    if (this.isFull) this.#goOn = take;
    else take();
  }

  goOn(): void {
    this.isFull = false;
    this.#goOn?.();
    this.#goOn = undefined;
  }
}

/** Grants by hand, in any order. */
class FakeLimit implements UploadLimit {
  readonly waiting: RateRequest[] = [];
  readonly #gate = new RateGate(undefined);

  flow(priority: Priority): RateRequest["flow"] {
    return this.#gate.flow(priority);
  }

  chunkBytes(): number {
    return Infinity;
  }

  pass(flow: RateRequest["flow"], bytes: number, go: () => void): RateRequest {
    const request = { flow, bytes, go };
    this.waiting.push(request);
    return request;
  }

  cancel(request: RateRequest): void {
    this.waiting.splice(this.waiting.indexOf(request), 1);
  }

  grant(): void {
    (this.waiting.shift() ?? assert.fail("nobody waits")).go();
  }
}

interface Lab {
  readonly writer: LinkWriter;
  readonly socket: FakeSocket;
  readonly limit: FakeLimit;
  /** What happened to each piece, and why the link failed. */
  readonly said: string[];
  readonly send: (piece: number, lengthBytes: number, priority?: Priority) => void;
  /** Pieces of the payload blocks taken, in their order; what they hold is compared with the file. */
  readonly blocks: () => readonly string[];
}

/** @param blockMs how long a block takes: with the usual one, blocks stay as they are */
function openLab(t: TestContext, fileBytes = 1024 * KIB, blockMs = 10): Lab {
  const { fd, bytes } = openFile(t, fileBytes);
  const socket = new FakeSocket();
  const limit = new FakeLimit();
  const said: string[] = [];
  let nowMs = 0;
  const writer = new LinkWriter(socket as unknown as Socket, { limit, nowMs: () => (nowMs += blockMs), failed: (why) => said.push(`failed: ${why}`) });
  assert.equal(writer.payloadPath, "pooled");
  t.after(() => socket.destroy());
  const send = (piece: number, lengthBytes: number, priority: Priority = "normal"): void =>
    writer.sendPiece({
      flow: limit.flow(priority), channel: 1, piece, fileFd: fd, fileOffset: piece * 10, lengthBytes,
      progressed: () => undefined,
      ended: (whole) => said.push(`${piece} ended ${whole}`),
      released: () => said.push(`${piece} released`),
    });
  const blocks = (): readonly string[] => {
    const heard: string[] = [];
    const reader = new LinkReader({
      frame: ({ type }) => heard.push(type),
      payloadTarget: (_channel, piece, offset, length) => {
        const into = Buffer.alloc(length);
        targets.set(piece, { into, offset });
        return into;
      },
      payload: (_channel, piece, _bytes, ended) => {
        const { into, offset } = targets.get(piece) ?? assert.fail("no target");
        if (!ended) return;
        const from = piece * 10 + offset;
        assert.ok(into.equals(bytes.subarray(from, from + into.length)), `wrong bytes at ${offset} of piece ${piece}`);
        heard.push(`${piece}: ${into.length / KIB}`);
      },
    });
    const targets = new Map<number, { readonly into: Buffer; readonly offset: number }>();
    for (const chunk of socket.taken) reader.push(chunk);
    return heard;
  };
  return { writer, socket, limit, said, send, blocks };
}

/** Turns of the loop, until it is so. */
async function until(isSo: () => boolean): Promise<void> {
  const endMs = performance.now() + 20_000;
  while (!isSo()) {
    assert.ok(performance.now() < endMs, "it never is");
    // oxlint-disable-next-line no-await-in-loop -- until it is so
    await new Promise(setImmediate);
  }
}

test("pieces take turns by the block, those of a higher priority first, also while another waits for the limit", async (t) => {
  const { limit, send, blocks, said } = openLab(t);
  send(1, 2 * BLOCK_BYTES);
  send(2, BLOCK_BYTES);
  send(3, BLOCK_BYTES, "interactive");
  assert.deepEqual(limit.waiting.map(({ flow }) => flow.priority), ["interactive"], "the other is asked for no longer");
  for (let block = 1; block <= 4; block++) {
    limit.grant();
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await until(() => limit.waiting.length === 1 || said.filter((line) => line.endsWith("released")).length === 3);
  }
  assert.deepEqual(blocks(), ["3: 128", "1: 128", "2: 128", "1: 128"]);
  assert.deepEqual(said, ["3 ended true", "3 released", "2 ended true", "2 released", "1 ended true", "1 released"]);
});

test("what is read from the file is not read over before the socket has taken it", async (t) => {
  const { socket, limit, send, blocks, said } = openLab(t, 2048 * KIB, 0);
  send(1, 7 * BLOCK_BYTES);
  // Blocks of one, two and four times the length: the last is read in two parts.
  for (let block = 1; block <= 2; block++) {
    limit.grant();
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await until(() => limit.waiting.length === 1);
  }
  limit.grant();
  await new Promise(setImmediate);
  socket.isFull = true;
  await until(() => socket.writableLength >= 256 * KIB);
  for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
  assert.ok(socket.writableLength < 300 * KIB, "one read at a time");
  socket.goOn();
  await until(() => said.length === 2);
  assert.equal(blocks().length, 3);
});

test("control frames go while payload waits for the limit, and never into the middle of a block", async (t) => {
  const { writer, socket, limit, send, blocks } = openLab(t);
  send(1, 2 * BLOCK_BYTES);
  writer.send({ type: "ping" });
  await until(() => socket.taken.length === 1);
  assert.deepEqual(blocks(), ["ping"]);
  // One that is about to be flushed as the block begins, and one that comes while it is on its way.
  writer.send({ type: "pong" });
  limit.grant();
  writer.send({ type: "ping" });
  await until(() => limit.waiting.length === 1);
  assert.deepEqual(blocks(), ["ping", "pong", "1: 128", "ping"], "nor do they wait for the limit after it");
});

test("a piece that is called off while it waits is let go of at once, and asks for nothing any more", (t) => {
  const { writer, limit, send, said } = openLab(t);
  send(1, BLOCK_BYTES);
  send(2, BLOCK_BYTES);
  assert.equal(writer.cancelPiece(1, 1), true);
  assert.deepEqual([said, limit.waiting.length], [["1 released"], 1], "the other's turn has come");
  writer.cancelChannel(1);
  assert.deepEqual([said, limit.waiting.length], [["1 released", "2 released"], 0]);
  assert.equal(writer.cancelPiece(1, 1), false);
});

test("a piece that is called off and sent anew while a block of it is on its way can be called off again", async (t) => {
  const { writer, limit, send, said, blocks } = openLab(t);
  send(1, 2 * BLOCK_BYTES);
  limit.grant();
  writer.cancelPiece(1, 1);
  send(1, 2 * BLOCK_BYTES);
  writer.cancelPiece(1, 1);
  await until(() => said.length > 0 || limit.waiting.length > 0);
  assert.deepEqual([said, limit.waiting.length], [["1 released", "1 released"], 0]);
  assert.deepEqual(blocks(), ["1: 128"]);
});

test("a piece that was called off with its last block on its way does not end", async (t) => {
  const { writer, limit, send, said } = openLab(t);
  send(1, BLOCK_BYTES);
  limit.grant();
  writer.cancelPiece(1, 1);
  await until(() => said.length > 0);
  assert.deepEqual(said, ["1 released"]);
});

test("the end of a link lets go of all pieces once: one whose bytes are being read, when they are", async (t) => {
  const { writer, limit, send, said } = openLab(t);
  send(1, BLOCK_BYTES);
  send(2, BLOCK_BYTES);
  limit.grant();
  writer.close();
  assert.deepEqual(said, ["2 released"], "the descriptor of the first is at work");
  await until(() => said.length > 1);
  assert.deepEqual(said, ["2 released", "1 released"]);
  send(3, BLOCK_BYTES);
  assert.deepEqual(said.splice(2), ["3 released"], "and one that comes after it");

  const waiting = openLab(t);
  waiting.send(1, BLOCK_BYTES);
  waiting.writer.close();
  assert.deepEqual([waiting.said, waiting.limit.waiting.length], [["1 released"], 0]);
});

test("a piece that its file does not hold ends the link, for its bytes were promised", async (t) => {
  const { limit, send, said } = openLab(t, 100 * KIB);
  send(1, BLOCK_BYTES);
  limit.grant();
  await until(() => said.length > 0);
  assert.deepEqual(said, ["1 ended false", "failed: a piece could not be read from disk while it was being sent"]);
});

test("who does not read what he is told loses the link before it costs much memory", async (t) => {
  const { writer, socket, said } = openLab(t);
  socket.isFull = true;
  const pieces = Array.from({ length: 50_000 }, (_, piece) => piece);
  for (let sent = 0; sent < 1_000 && said.length === 0; sent++) {
    writer.send({ type: "have", channel: 1, pieces });
    // oxlint-disable-next-line no-await-in-loop -- each in a turn of its own
    await new Promise(setImmediate);
  }
  assert.deepEqual(said, ["failed: it does not read what it is told"]);
  assert.ok(socket.writableLength <= CONTROL_QUEUE_BYTES_MAX);
});

test("by sendfile, too, a full socket gets each byte once and in order", { timeout: 60_000, skip: nativeSocket() === undefined }, async (t) => {
  const { fd, bytes } = openFile(t, 24 * 1024 * KIB);
  const { writing, reading } = await connected(t);
  const limit = new RateGate(undefined);
  const writer = new LinkWriter(writing, { limit, nowMs: () => 0, failed: (why) => assert.fail(why) });
  assert.equal(writer.payloadPath, "sendfile");
  const came = Buffer.alloc(bytes.length);
  const half = bytes.length / 2;
  const reader = new LinkReader({
    frame: () => undefined,
    payloadTarget: (_channel, piece, offset, length) => came.subarray(piece * half + offset, piece * half + offset + length),
    payload: () => undefined,
  });
  let released = 0;
  for (const piece of [0, 1]) {
    writer.sendPiece({
      flow: limit.flow("normal"), channel: 1, piece, fileFd: fd, fileOffset: piece * half, lengthBytes: half,
      progressed: () => undefined, ended: (whole) => assert.ok(whole), released: () => released++,
    });
  }
  await until(() => writing.writableLength > 0);
  let left = bytes.length;
  reading.on("data", (chunk: Buffer) => {
    reader.push(chunk);
    left -= chunk.length;
  });
  reading.resume();
  await until(() => left <= 0 && released === 2 && writing.writableLength === 0);
  assert.ok(came.equals(bytes), "the bytes differ");
});
