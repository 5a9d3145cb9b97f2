import assert from "node:assert/strict";
import { once } from "node:events";
import { Duplex } from "node:stream";
import { test } from "node:test";
import { encodeDataHeader, encodeFrame } from "../../protocol/link-frames.ts";
import type { TaskId } from "../../protocol/ids.ts";
import { RateGate } from "../rate-gate.ts";
import { Link } from "./link.ts";

const KIB = 1024;

/** A link that has no socket: bytes are put where it wants the next ones read to. */
function linkInto(place: Uint8Array): { next: () => Uint8Array; came: (bytes: number) => void; cameBytes: (bytes: Uint8Array) => void; ended: () => boolean } {
  let hasEnded = false;
  const link: Link = new Link(1, true, {
    events: {
      frame: () => undefined,
      payloadTarget: (_link, _channel, _piece, offset, length) => place.subarray(offset, offset + length),
      payload: (_link, _channel, _piece, _bytes, ended) => (hasEnded = ended),
      closed: (_link, why) => assert.fail(why),
    },
    nowMs: () => 0,
    uploadLimit: { pass: () => undefined, cancel: () => undefined, chunkBytes: () => Infinity },
    downloadLimit: { readBytes: () => Infinity, pay: () => true, count: () => undefined },
  });
  const { buffer, callback } = link.onread((chunk) => link.received(chunk));
  let into = buffer();
  const came = (bytes: number): void => {
    callback(bytes);
    into = buffer();
  };
  return {
    next: () => into,
    came,
    cameBytes: (bytes) => {
      into.set(bytes);
      came(bytes.length);
    },
    ended: () => hasEnded,
  };
}

test("a long payload is read into its place, and what comes between two does not take the second's bytes along", () => {
  const place = new Uint8Array(512 * KIB);
  const { next, came, cameBytes, ended } = linkInto(place);
  assert.equal(next().length, 256 * KIB, "nothing is known of what comes");
  cameBytes(encodeDataHeader(1, 0, 0, 500 * KIB));
  assert.equal(next().buffer, place.buffer);
  assert.equal(next().length, 500 * KIB);
  came(490 * KIB);
  assert.notEqual(next().buffer, place.buffer, "the last bytes are few: read along with what follows");
  assert.equal(next().length, 14 * KIB);
  cameBytes(new Uint8Array(10 * KIB).fill(7));
  assert.ok(ended());
  assert.equal(place[500 * KIB - 1], 7);
  assert.equal(next().length, 4 * KIB, "the next header, and little of its payload");
});

test("short payloads are read many at a time", () => {
  const place = new Uint8Array(64 * KIB);
  const { next, cameBytes, ended } = linkInto(place);
  const header = encodeDataHeader(1, 0, 0, 64 * KIB);
  cameBytes(Buffer.concat([header, new Uint8Array(64 * KIB)]));
  assert.ok(ended());
  assert.equal(next().length, 256 * KIB);
});

interface LinkLab {
  readonly link: Link;
  readonly socket: Duplex;
  readonly clock: { nowMs: number };
  /** What reached the driver. */
  readonly heard: string[];
  /** Called off by the download limit: what lets it read on. */
  readonly held: (() => void)[];
}

/** A link on a socket without a descriptor, whose limits hold all payload back. */
function attachedLink(): LinkLab {
  const clock = { nowMs: 0 };
  const heard: string[] = [];
  const held: (() => void)[] = [];
  const link: Link = new Link(1, true, {
    events: {
      frame: (_link, { type }) => {
        heard.push(type);
        if (type === "leave") link.close("for a test");
      },
      payloadTarget: (_link, _channel, _piece, _offset, length) => new Uint8Array(length),
      payload: (_link, _channel, piece, bytes) => heard.push(`${bytes} of ${piece}`),
      closed: (_link, why) => heard.push(`closed: ${why}`),
    },
    nowMs: () => clock.nowMs,
    uploadLimit: { pass: (flow, bytes, go) => ({ flow, bytes, go }), cancel: () => undefined, chunkBytes: () => Infinity },
    downloadLimit: { readBytes: () => Infinity, pay: (_link, _bytes, go) => (held.push(go), false), count: () => undefined },
  });
  const socket = new Duplex({ read: () => undefined, write: (_chunk, _encoding, done: () => void) => done() });
  link.attach(Object.assign(socket, { setNoDelay: () => undefined, connecting: false }) as never);
  return { link, socket, clock, heard, held };
}

test("a link that its limit holds back is not read until it may, and its silence meanwhile is ours", () => {
  const { link, socket, clock, held } = attachedLink();
  socket.resume();
  link.received(Buffer.concat([encodeDataHeader(1, 0, 0, 100), new Uint8Array(100)]));
  assert.deepEqual([link.isHeld, socket.isPaused(), held.length], [true, true, 1]);
  clock.nowMs = 10_000;
  held[0]?.();
  assert.deepEqual([link.isHeld, socket.isPaused(), link.heardMs], [false, false, 10_000]);
});

test("what comes behind the frame that ended a link reaches nobody", () => {
  const { link, heard } = attachedLink();
  const payload = Buffer.concat([encodeDataHeader(1, 0, 0, 100), new Uint8Array(100)]);
  link.received(Buffer.concat([encodeFrame({ type: "leave", channel: 1 }), encodeFrame({ type: "ping" }), payload]));
  link.received(payload);
  assert.deepEqual(heard, ["leave", "closed: for a test"]);
});

test("bytes that are no frames end the link", () => {
  const { link, heard } = attachedLink();
  link.received(new Uint8Array(64).fill(0xff));
  assert.equal(link.closed, true);
  assert.match(heard.join(), /^closed: a link frame claims \d+ bytes$/);
});

test("when the other side ends it, all that was being sent is let go of, and the socket with it", async () => {
  const { link, socket, heard } = attachedLink();
  let released = 0;
  const flow = new RateGate(undefined).flow("normal");
  link.writer.sendPiece({ flow, channel: 1, piece: 0, fileFd: -1, fileOffset: 0, lengthBytes: 100, progressed: () => undefined, ended: () => undefined, released: () => released++ });
  link.writer.sendPiece({ flow, channel: 1, piece: 1, fileFd: -1, fileOffset: 0, lengthBytes: 100, progressed: () => undefined, ended: () => undefined, released: () => released++ });
  socket.resume();
  socket.push(null);
  await once(socket, "end");
  assert.deepEqual([heard, released, socket.destroyed], [["closed: the other side closed it"], 2, true]);
});

test("a task joined on a second channel is named by that one, also once the first is closed", () => {
  const { link } = attachedLink();
  const task = "a".repeat(64) as TaskId;
  link.setRemoteChannel(1, task);
  link.setRemoteChannel(2, task);
  link.closeRemoteChannel(1);
  assert.deepEqual([link.remoteChannel(task), link.taskOf(1, "remote"), link.taskOf(2, "remote")], [2, undefined, task]);
  link.closeRemoteChannel(2);
  assert.equal(link.remoteChannel(task), undefined);
});

test("a flood of joins ends the link before it costs much memory", () => {
  const { link, heard } = attachedLink();
  for (let channel = 1; channel <= 4_096; channel++) link.setRemoteChannel(channel, `${channel}` as TaskId);
  assert.deepEqual(heard, []);
  link.setRemoteChannel(4_097, "one more" as TaskId);
  assert.deepEqual(heard, ["closed: it joined too many tasks"]);
});
