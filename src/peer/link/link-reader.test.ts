import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { AppError } from "../../base/errors.ts";
import type { TaskId } from "../../protocol/ids.ts";
import {
  DATA_HEADER_BYTES,
  DATA_LENGTH_BYTES_MAX,
  DATA_TYPE_CODE,
  encodeDataHeader,
  encodeFrame,
  FRAME_LENGTH_BYTES_MAX,
  type LinkFrame,
} from "../../protocol/link-frames.ts";
import { LinkReader } from "./link-reader.ts";

/** What a stream said, in order; payload gathered by piece. */
class Listener {
  readonly frames: LinkFrame[] = [];
  readonly payloads: { readonly channel: number; readonly piece: number; readonly offset: number; readonly bytes: Uint8Array }[] = [];
  readonly order: string[] = [];
  #counted = 0;
  readonly reader: LinkReader;

  /** @param wanted false: payload is dropped, and counted only */
  constructor(wanted = true) {
    this.reader = new LinkReader({
      frame: (frame) => {
        this.order.push(frame.type);
        // As the link does: what refers to the chunk is copied within the call.
        if (frame.type === "join") this.frames.push({ ...frame, have: new Uint8Array(frame.have) });
        else if (frame.type === "handshake") this.frames.push({ ...frame, json: new Uint8Array(frame.json) });
        else this.frames.push(frame);
      },
      payloadTarget: (channel, piece, offset, length) => {
        const bytes = new Uint8Array(length);
        this.payloads.push({ channel, piece, offset, bytes });
        return wanted ? bytes : undefined;
      },
      payload: (channel, piece, bytes, ended) => {
        this.#counted += bytes;
        if (!ended) return;
        this.order.push(`payload ${channel} ${piece} ${this.#counted}`);
        this.#counted = 0;
      },
    });
  }

  /** As {@link take}, but two of three reads go straight to the payload's place, as the link does. */
  place(stream: Uint8Array, cuts: readonly number[]): void {
    let at = 0;
    for (let turn = 0; at < stream.length; turn++) {
      const wanted = 1 + ((cuts[turn % Math.max(1, cuts.length)] ?? 0) % 400);
      const place = turn % 3 === 0 ? undefined : this.reader.payloadPlace;
      const bytes = Math.min(wanted, place?.length ?? wanted, stream.length - at);
      const chunk = Buffer.from(stream.subarray(at, at + bytes));
      at += bytes;
      if (place === undefined) {
        this.reader.push(chunk);
        continue;
      }
      place.set(chunk);
      this.reader.placed(bytes);
    }
  }

  /** Feeds the stream cut at `cuts`, each chunk in a buffer that is wiped after the call, as the shared one is reused. */
  take(stream: Uint8Array, cuts: readonly number[]): void {
    const at = [...new Set(cuts.map((cut) => cut % (stream.length + 1)))].toSorted((a, b) => a - b);
    let start = 0;
    for (const end of [...at, stream.length]) {
      const chunk = Buffer.from(stream.subarray(start, end));
      this.reader.push(chunk);
      chunk.fill(0xee);
      start = end;
    }
  }
}

type Item = LinkFrame | { readonly type: "data"; readonly channel: number; readonly piece: number; readonly offset: number; readonly bytes: Uint8Array };

const uint32 = fc.nat({ max: 0xffffffff });
const piece = fc.nat({ max: 2 ** 24 - 1 });
const item: fc.Arbitrary<Item> = fc.oneof(
  fc.record({ type: fc.constant("data" as const), channel: uint32, piece, offset: uint32, bytes: fc.uint8Array({ minLength: 1, maxLength: 300 }) }),
  fc.record({ type: fc.constant("have" as const), channel: uint32, pieces: fc.array(piece, { maxLength: 40 }) }),
  fc.record({
    type: fc.constant("proof" as const),
    channel: uint32,
    piece,
    lengthBytes: uint32,
    digest: fc.uint8Array({ minLength: 32, maxLength: 32 }),
    signature: fc.uint8Array({ minLength: 64, maxLength: 194 }),
  }),
  fc.record({
    type: fc.constant("join" as const),
    channel: uint32,
    taskId: fc.constant("a".repeat(64) as TaskId),
    ticket: fc.constant("ticket.signature"),
    have: fc.uint8Array({ maxLength: 50 }),
  }),
  fc.constantFrom<Item>({ type: "ping" }, { type: "pong" }, { type: "status", incoming: 1, capacity: 3 }),
).map((each) => ({ ...each }));

function encoded(items: readonly Item[]): Uint8Array {
  return Buffer.concat(
    items.map((each) => {
      if (each.type !== "data") return encodeFrame(each);
      return Buffer.concat([encodeDataHeader(each.channel, each.piece, each.offset, each.bytes.length), each.bytes]);
    }),
  );
}

test("however a stream is cut, the same frames and payload come out, in order", () => {
  fc.assert(
    fc.property(fc.array(item, { maxLength: 20 }), fc.array(fc.nat(), { maxLength: 30 }), (items, cuts) => {
      const listener = new Listener();
      listener.take(encoded(items), cuts);
      assert.deepEqual(listener.frames, items.filter(({ type }) => type !== "data"));
      assert.deepEqual(
        listener.payloads,
        items.flatMap((each) => (each.type === "data" ? [{ channel: each.channel, piece: each.piece, offset: each.offset, bytes: each.bytes }] : [])),
      );
      assert.deepEqual(
        listener.order,
        items.map((each) => (each.type === "data" ? `payload ${each.channel} ${each.piece} ${each.bytes.length}` : each.type)),
      );
    }),
    { numRuns: 300 },
  );
});

test("read straight into its place, payload and what follows it are the same", () => {
  fc.assert(
    fc.property(fc.array(item, { maxLength: 20 }), fc.array(fc.nat(), { minLength: 1, maxLength: 30 }), (items, cuts) => {
      const [pushed, placed] = [new Listener(), new Listener()];
      pushed.take(encoded(items), []);
      placed.place(encoded(items), cuts);
      assert.deepEqual([placed.frames, placed.payloads, placed.order], [pushed.frames, pushed.payloads, pushed.order]);
    }),
    { numRuns: 300 },
  );
});

test("byte by byte is a cut as any other", () => {
  const stream = encoded([
    { type: "data", channel: 1, piece: 2, offset: 3, bytes: Uint8Array.of(4, 5, 6) },
    { type: "ping" },
    { type: "have", channel: 1, pieces: [1, 2, 3] },
  ]);
  const listener = new Listener();
  listener.take(stream, Array.from({ length: stream.length }, (_, i) => i));
  assert.deepEqual(listener.order, ["payload 1 2 3", "ping", "have"]);
  assert.deepEqual([...(listener.payloads[0]?.bytes ?? [])], [4, 5, 6]);
});

test("payload nobody wants is skipped, and the stream stays in step", () => {
  const listener = new Listener(false);
  listener.take(encoded([{ type: "data", channel: 1, piece: 2, offset: 0, bytes: new Uint8Array(200).fill(7) }, { type: "ping" }]), [50]);
  assert.deepEqual(listener.order, ["payload 1 2 200", "ping"]);
  assert.deepEqual(new Set(listener.payloads[0]?.bytes), new Set([0]), "and is written nowhere");
});

test("a payload frame without payload, and a frame of a later version, are skipped", () => {
  const listener = new Listener();
  const unknown = Uint8Array.of(0, 0, 0, 4, 99, 1, 2, 3);
  listener.take(Buffer.concat([encodeDataHeader(1, 2, 3, 0), unknown, encodeFrame({ type: "pong" })]), [3, 20]);
  assert.deepEqual(listener.order, ["pong"]);
});

test("a frame that claims too much is refused from its header on, before memory is taken for it", () => {
  const header = (length: number, typeCode: number): Uint8Array => {
    const bytes = new Uint8Array(5);
    new DataView(bytes.buffer).setUint32(0, length);
    bytes[4] = typeCode;
    return bytes;
  };
  const refused: readonly (readonly [length: number, typeCode: number])[] = [
    [0, 4],
    [1 + FRAME_LENGTH_BYTES_MAX + 1, 4],
    [0xffffffff, 4],
    [0xffffffff, 99],
    [0xffffffff, DATA_TYPE_CODE],
    [1 + DATA_HEADER_BYTES - 1, DATA_TYPE_CODE],
    [1 + DATA_HEADER_BYTES + DATA_LENGTH_BYTES_MAX + 1, DATA_TYPE_CODE],
  ];
  for (const [length, typeCode] of refused) {
    assert.throws(() => new Listener().reader.push(header(length, typeCode)), { code: "MESSAGE_TOO_LARGE" }, `${length} of type ${typeCode}`);
  }
  new Listener().reader.push(header(1 + FRAME_LENGTH_BYTES_MAX, 4));
  new Listener().reader.push(header(1 + DATA_HEADER_BYTES + DATA_LENGTH_BYTES_MAX, DATA_TYPE_CODE));
});

test("arbitrary bytes give frames, wait for more, or one of our errors", () => {
  // Short lengths make bodies complete often; the rest is chance.
  const framed = fc.tuple(fc.nat({ max: 20 }), fc.nat({ max: 20 }), fc.uint8Array({ maxLength: 20 })).map(([typeCode, length, body]) =>
    Uint8Array.of(0, 0, 0, length, typeCode, ...body),
  );
  fc.assert(
    fc.property(fc.array(fc.oneof(framed, fc.uint8Array({ maxLength: 40 })), { maxLength: 20 }), (chunks) => {
      const { reader } = new Listener();
      try {
        for (const chunk of chunks) reader.push(chunk);
      } catch (thrown) {
        assert.ok(thrown instanceof AppError, String(thrown));
        assert.ok(thrown.code === "PROTOCOL_VIOLATION" || thrown.code === "MESSAGE_TOO_LARGE", thrown.code);
      }
    }),
    { numRuns: 2_000 },
  );
});
