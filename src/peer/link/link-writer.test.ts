import assert from "node:assert/strict";
import { once } from "node:events";
import { closeSync, openSync, readSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { describe, test, type TestContext } from "node:test";
import { RateGate } from "../rate-gate.ts";
import { connected } from "./connection-fixture.test.ts";
import { LinkReader } from "./link-reader.ts";
import { fdOf, LinkWriter } from "./link-writer.ts";
import { type NativeSocket, nativeSocket } from "./native-socket.ts";

describe("control frames", () => {
  // Three a turn: of the short ones all are joined in the memory that links share, of the long ones too much for that.
  for (const pieceCount of [400, 2_000]) test(`of ${pieceCount * 4} bytes come in order, however full the socket was in between`, { timeout: 60_000 }, async (t) => {
    const { writing, reading } = await connected(t);
    const writer = new LinkWriter(writing, { limit: new RateGate(undefined), nowMs: () => 0, failed: (why) => assert.fail(why) });
    const count = 1_200_000 / pieceCount;
    // 5 MB in all: more than a socket takes, less than may wait for one.
    const pieces = Array.from({ length: pieceCount }, (_, piece) => piece);
    let wasFull = false;
    for (let channel = 1; channel <= count; channel++) {
      writer.send({ type: "have", channel, pieces });
      // oxlint-disable-next-line no-await-in-loop -- each frame in a turn of its own
      if (channel % 3 === 0) await new Promise(setImmediate);
      wasFull ||= writing.writableLength > 0;
    }
    assert.ok(wasFull, "nothing ever waited");

    const channels: number[] = [];
    const reader = new LinkReader({
      frame: (frame) => {
        assert.ok(frame.type === "have" && frame.pieces.length === pieces.length);
        channels.push(frame.channel);
      },
      payloadTarget: () => undefined,
      payload: () => undefined,
    });
    const all = new Promise<void>((resolve) => {
      reading.on("data", (chunk: Uint8Array) => {
        reader.push(chunk);
        if (channels.length === count) resolve();
      });
    });
    reading.resume();
    await all;
    assert.deepEqual(channels, Array.from({ length: count }, (_, at) => at + 1));
  });

  test("to a connection that is gone end it, and nothing else", { timeout: 60_000 }, async (t) => {
    const { writing, reading } = await connected(t);
    const writer = new LinkWriter(writing, { limit: new RateGate(undefined), nowMs: () => 0, failed: () => undefined });
    const closed = new Promise<void>((resolve) => void writing.on("error", () => undefined).once("close", () => resolve()));
    reading.resetAndDestroy();
    const timer = setInterval(() => writer.send({ type: "leave", channel: 1 }), 5);
    await closed;
    clearInterval(timer);
    writer.send({ type: "leave", channel: 1 });
  });
});

test("payload takes the same way on a link that was dialled, whose socket is still connecting, as on one that was accepted", async (t) => {
  const server = createServer();
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const dialling = connect((server.address() as AddressInfo).port, "127.0.0.1");
  const deps = { limit: new RateGate(undefined), nowMs: () => 0, failed: (why: string) => assert.fail(why) };
  const dialled = new LinkWriter(dialling, deps);
  const [[accepted]] = (await Promise.all([once(server, "connection"), once(dialling, "connect")])) as [[Socket], unknown];
  t.after(() => {
    for (const socket of [dialling, accepted]) socket.destroy();
    server.close();
  });
  assert.equal(dialled.payloadPath, new LinkWriter(accepted, deps).payloadPath);
  assert.equal(dialled.payloadPath, nativeSocket() === undefined ? "pooled" : "sendfile");
});

test("what the kernel holds is told until the other side has it", { timeout: 60_000, skip: nativeSocket() === undefined }, async (t) => {
  const { writing, reading } = await connected(t);
  const writer = new LinkWriter(writing, { limit: new RateGate(undefined), nowMs: () => 0, failed: (why) => assert.fail(why) });
  const heldBytes = (): number => (writer.queue ?? assert.fail("the kernel does not say")).heldBytes;
  assert.equal(heldBytes(), 0);
  const pieces = Array.from({ length: 2_000 }, (_, piece) => piece);
  // More than the other side's kernel takes for a process that does not read.
  while (writing.writableLength === 0) {
    writer.send({ type: "have", channel: 1, pieces });
    // oxlint-disable-next-line no-await-in-loop -- until it is full
    await new Promise(setImmediate);
  }
  assert.ok(heldBytes() > 0);
  const { roundTripMs, leastRoundTripMs } = writer.queue ?? assert.fail("the kernel does not say");
  // From µs on a quiet machine to a few ms on a busy one; never 0. The kernel rounds its average down, so it may be 1 µs below.
  assert.ok(leastRoundTripMs > 0 && leastRoundTripMs < 200 && roundTripMs >= leastRoundTripMs - 0.001, `${roundTripMs} ms, at least ${leastRoundTripMs}`);
  reading.resume();
  while (writing.writableLength > 0 || heldBytes() > 0) {
    // oxlint-disable-next-line no-await-in-loop -- until it is empty
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  writing.destroy();
  writer.close();
  assert.equal(writer.queue, undefined);
});

describe("past the stream", { skip: nativeSocket() === undefined }, () => {
  const native = nativeSocket() as NativeSocket;

  interface Sent {
    readonly writer: LinkWriter;
    /** What went by which way, in order. */
    readonly calls: string[];
    /** Types of the frames that have come, in order. */
    readonly heard: readonly string[];
  }

  /** @param takes how many of the bytes a send takes at most */
  async function sending(t: TestContext, takes = Infinity): Promise<Sent> {
    const { writing, reading } = await connected(t);
    const calls: string[] = [];
    const spy: NativeSocket = {
      ...native,
      send: (fd, bytes, isMoreToCome) => {
        calls.push(isMoreToCome ? "send, more to come" : "send");
        return native.send(fd, bytes.subarray(0, takes), isMoreToCome);
      },
      sendfile: (...given) => {
        calls.push("sendfile");
        return native.sendfile(...given);
      },
    };
    const write = writing.write.bind(writing) as (chunk: Uint8Array, written: () => void) => boolean;
    writing.write = ((chunk: Uint8Array, written: () => void) => {
      calls.push("stream");
      return write(chunk, written);
    }) as Socket["write"];
    const writer = new LinkWriter(writing, { limit: new RateGate(undefined), nowMs: () => 0, failed: (why) => assert.fail(why) }, spy);
    const heard: string[] = [];
    const reader = new LinkReader({
      frame: ({ type }) => void heard.push(type),
      payloadTarget: () => undefined,
      payload: (_channel, piece, _bytes, ended) => void (ended && heard.push(`piece ${piece}`)),
    });
    reading.on("data", (chunk: Uint8Array) => reader.push(chunk)).resume();
    writer.send({ type: "leave", channel: 1 });
    while (heard.length < 1 || writing.writableLength > 0) {
      // oxlint-disable-next-line no-await-in-loop -- until it has come
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return { writer, calls, heard };
  }

  async function heardAll({ heard }: Sent, count: number): Promise<readonly string[]> {
    // oxlint-disable-next-line no-await-in-loop -- until it has come
    while (heard.length < count) await new Promise((resolve) => setTimeout(resolve, 1));
    return heard;
  }

  function sendPiece({ writer }: Sent, t: TestContext): void {
    const fd = openSync(import.meta.filename, "r");
    t.after(() => closeSync(fd));
    const flow = new RateGate(undefined).flow("normal");
    writer.sendPiece({ flow, channel: 1, piece: 7, fileFd: fd, fileOffset: 0, lengthBytes: 100, progressed: () => undefined, ended: () => undefined, released: () => undefined });
  }

  test("only the first words of a link go by the stream; a piece's header goes with its payload", { timeout: 60_000 }, async (t) => {
    const sent = await sending(t);
    sent.writer.send({ type: "leave", channel: 2 });
    await new Promise(setImmediate);
    sendPiece(sent, t);
    await heardAll(sent, 3);
    assert.deepEqual(sent.calls, ["stream", "send", "send, more to come", "sendfile"]);
    assert.deepEqual(sent.heard, ["leave", "leave", "piece 7"]);
  });

  test("what a send does not take goes by the stream, and payload after it", { timeout: 60_000 }, async (t) => {
    const sent = await sending(t, 3);
    sent.writer.send({ type: "leave", channel: 2 });
    sendPiece(sent, t);
    await heardAll(sent, 3);
    assert.deepEqual(sent.calls, ["stream", "send, more to come", "stream", "sendfile"]);
    assert.deepEqual(sent.heard, ["leave", "leave", "piece 7"]);
  });

  test("while something waits in the stream all goes behind it, although the kernel has room again", { timeout: 60_000 }, async (t) => {
    const { writing, reading } = await connected(t);
    const writer = new LinkWriter(writing, { limit: new RateGate(undefined), nowMs: () => 0, failed: (why) => assert.fail(why) });
    const heard: string[] = [];
    const reader = new LinkReader({ frame: ({ type }) => void heard.push(type), payloadTarget: () => undefined, payload: () => undefined });
    const pieces = Array.from({ length: 2_000 }, (_, piece) => piece);
    while (writing.writableLength === 0) {
      writer.send({ type: "have", channel: 1, pieces });
      // oxlint-disable-next-line no-await-in-loop -- until it is full
      await new Promise(setImmediate);
    }
    // The kernel is emptied before the loop can hear of it.
    const chunk = Buffer.alloc(64 * 1024);
    try {
      for (;;) reader.push(chunk.subarray(0, readSync(fdOf(reading) as number, chunk)));
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, "EAGAIN");
    }
    assert.ok(writing.writableLength > 0);
    writer.send({ type: "leave", channel: 1 });
    reading.on("data", (bytes: Uint8Array) => reader.push(bytes)).resume();
    // oxlint-disable-next-line no-await-in-loop -- until it has come
    while (heard.at(-1) !== "leave") await new Promise((resolve) => setTimeout(resolve, 1));
    assert.deepEqual(new Set(heard.slice(0, -1)), new Set(["have"]));
  });
});
