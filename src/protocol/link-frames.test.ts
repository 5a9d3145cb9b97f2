import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { AppError } from "../base/errors.ts";
import type { TaskId } from "./ids.ts";
import {
  bytesToHex,
  DATA_HEADER_BYTES,
  DATA_TYPE_CODE,
  DECLINE_REASONS,
  decodeFrame,
  encodeDataHeader,
  encodeFrame,
  FRAME_HEADER_BYTES,
  hexToBytes,
  lengthStatement,
  OFFER_PIECES_MAX,
  type LinkFrame,
  PIECE_DIGEST_BYTES,
  PIECE_SIGNATURE_BYTES_MAX,
  pieceStatement,
  SIGNATURE_BYTES,
} from "./link-frames.ts";

const uint32 = fc.nat({ max: 0xffffffff });
const uint16 = fc.nat({ max: 0xffff });
const piece = fc.nat({ max: 2 ** 24 - 1 });
const bytesOf = (length: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ minLength: length, maxLength: length });
const taskId = bytesOf(32).map((bytes) => bytesToHex(bytes) as TaskId);
const ticket = fc.string({ unit: fc.constantFrom(..."abcXYZ019-_.".split("")), maxLength: 500 });
const pieces = fc.array(piece, { maxLength: 200 });
const signature = bytesOf(SIGNATURE_BYTES);

const anyFrame: fc.Arbitrary<LinkFrame> = fc.oneof(
  fc.record({ type: fc.constant("handshake" as const), json: fc.uint8Array({ maxLength: 500 }) }),
  fc.record({ type: fc.constant("join" as const), channel: uint32, taskId, ticket, have: fc.uint8Array({ maxLength: 500 }) }),
  fc.record({ type: fc.constant("leave" as const), channel: uint32 }),
  fc.record({ type: fc.constantFrom("have" as const, "lost" as const, "want" as const), channel: uint32, pieces }),
  fc.record({ type: fc.constant("status" as const), incoming: uint16, capacity: uint16 }),
  fc.record({ type: fc.constant("offer" as const), channel: uint32, pieces: fc.array(piece, { minLength: 1, maxLength: OFFER_PIECES_MAX }) }),
  fc.record({ type: fc.constant("proof" as const), channel: uint32, piece, lengthBytes: uint32, digest: bytesOf(PIECE_DIGEST_BYTES), signature: fc.uint8Array({ minLength: SIGNATURE_BYTES, maxLength: PIECE_SIGNATURE_BYTES_MAX }) }),
  fc.record({ type: fc.constantFrom("accept" as const, "cancel" as const, "withdraw" as const), channel: uint32, piece }),
  fc.record({ type: fc.constant("decline" as const), channel: uint32, piece, reason: fc.constantFrom(...DECLINE_REASONS) }),
  fc.record({ type: fc.constant("length" as const), channel: uint32, lengthBytes: fc.maxSafeNat(), signature }),
  fc.record({ type: fc.constant("ticket" as const), channel: uint32, ticket }),
  fc.record({ type: fc.constant("place" as const), topology: fc.dictionary(fc.constantFrom("region", "zone", "rack", "switch"), fc.string({ minLength: 1, maxLength: 64 }), { noNullPrototype: true }) }),
  fc.record({ type: fc.constant("imports" as const), channel: uint32, buckets: fc.integer() }),
  fc.constantFrom<LinkFrame>({ type: "ping" }, { type: "pong" }),
).map((frame) => ({ ...frame }));

/** Type code and body of an encoded frame, its length field checked. */
function taken(bytes: Uint8Array): readonly [typeCode: number, body: Uint8Array] {
  assert.equal(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0), bytes.length - 4);
  return [bytes[4] as number, bytes.subarray(FRAME_HEADER_BYTES)];
}

test("every frame comes back as it went", () => {
  fc.assert(
    fc.property(anyFrame, (frame) => {
      const [typeCode, body] = taken(encodeFrame(frame));
      assert.deepEqual(decodeFrame(typeCode, body), frame);
    }),
    { numRuns: 500 },
  );
});

test("what a later version appends to a frame is skipped", () => {
  fc.assert(
    fc.property(anyFrame, fc.uint8Array({ minLength: 1, maxLength: 3 }), (frame, more) => {
      // These two end in what is as long as the frame.
      if (frame.type === "handshake" || frame.type === "join") return;
      const [typeCode, body] = taken(encodeFrame(frame));
      assert.deepEqual(decodeFrame(typeCode, Uint8Array.from([...body, ...more])), frame);
    }),
  );
});

test("a type of a later version is skipped, its reason for declining understood as unwanted", () => {
  for (const typeCode of [0, 99, 200, 255]) assert.equal(decodeFrame(typeCode, new Uint8Array(50)), undefined);
  const [typeCode, body] = taken(encodeFrame({ type: "decline", channel: 1, piece: 2, reason: "busy" }));
  body[8] = 99;
  assert.deepEqual(decodeFrame(typeCode, body), { type: "decline", channel: 1, piece: 2, reason: "unwanted" });
});

test("arbitrary bytes decode to a frame, to nothing, or to one of our errors", () => {
  fc.assert(
    fc.property(fc.nat({ max: 255 }), fc.uint8Array({ maxLength: 300 }), (typeCode, body) => {
      try {
        decodeFrame(typeCode, body);
      } catch (thrown) {
        assert.ok(thrown instanceof AppError && thrown.code === "PROTOCOL_VIOLATION", String(thrown));
      }
    }),
    { numRuns: 3_000 },
  );
});

test("a frame cut short anywhere is refused, or is a shorter frame", () => {
  fc.assert(
    fc.property(anyFrame, fc.nat(), (frame, cut) => {
      const [typeCode, body] = taken(encodeFrame(frame));
      try {
        decodeFrame(typeCode, body.subarray(0, cut % (body.length + 1)));
      } catch (thrown) {
        assert.ok(thrown instanceof AppError && thrown.code === "PROTOCOL_VIOLATION", String(thrown));
      }
    }),
  );
});

/*
 * The story: an offer's digest was taken with `slice`, which on a Node Buffer is a view. The proof was kept until the
 * piece had come; by then the link's receive buffer held other bytes, so good pieces failed their digest, and the
 * neighbours that had sent them were isolated.
 */
test("the digest was a view on the receive buffer: what outlives the call is a copy, of a Buffer too", () => {
  const copied = anyFrame.filter(({ type }) => type !== "handshake" && type !== "join");
  fc.assert(
    fc.property(copied, (frame) => {
      const [typeCode, body] = taken(encodeFrame(frame));
      const received = Buffer.from(body);
      const decoded = decodeFrame(typeCode, received);
      received.fill(0xee);
      assert.deepEqual(decoded, frame);
      for (const value of Object.values(decoded ?? {})) {
        if (value instanceof Uint8Array) assert.notEqual(value.buffer, received.buffer);
      }
    }),
  );
});

test("handshake and have-set alone refer to the input, as documented: they are read within the call", () => {
  for (const frame of [
    { type: "handshake", json: Uint8Array.of(1, 2) },
    { type: "join", channel: 1, taskId: "a".repeat(64) as TaskId, ticket: "t", have: Uint8Array.of(1, 2) },
  ] satisfies LinkFrame[]) {
    const [typeCode, body] = taken(encodeFrame(frame));
    const views = Object.values(decodeFrame(typeCode, body) ?? {}).filter((value) => value instanceof Uint8Array);
    assert.deepEqual(views.map((view) => view.buffer === body.buffer), [true]);
  }
});

test("a piece index beyond the largest file and an impossible length are refused", () => {
  for (const type of ["accept", "withdraw"] as const) {
    const [typeCode, body] = taken(encodeFrame({ type, channel: 1, piece: 2 ** 24 }));
    assert.throws(() => decodeFrame(typeCode, body), { code: "PROTOCOL_VIOLATION" });
  }
  const [typeCode, body] = taken(encodeFrame({ type: "length", channel: 1, lengthBytes: 1, signature: new Uint8Array(64) }));
  body.fill(0xff, 4, 12);
  assert.throws(() => decodeFrame(typeCode, body), { code: "PROTOCOL_VIOLATION" });
});

test("what claims more than is there is refused, as are an empty offer and a signature that is none", () => {
  const refused = (typeCode: number, body: Uint8Array): void => assert.throws(() => decodeFrame(typeCode, body), { code: "PROTOCOL_VIOLATION" });
  const join = taken(encodeFrame({ type: "join", channel: 1, taskId: "a".repeat(64) as TaskId, ticket: "abc", have: new Uint8Array() }));
  refused(join[0], join[1].subarray(0, -1));
  const newer = taken(encodeFrame({ type: "ticket", channel: 1, ticket: "abc" }));
  refused(newer[0], newer[1].subarray(0, -1));
  const proof = (signatureBytes: number): readonly [number, Uint8Array] =>
    taken(encodeFrame({ type: "proof", channel: 1, piece: 2, lengthBytes: 3, digest: new Uint8Array(PIECE_DIGEST_BYTES), signature: new Uint8Array(signatureBytes) }));
  const [typeCode, body] = proof(SIGNATURE_BYTES + 1);
  assert.ok(decodeFrame(typeCode, body));
  refused(typeCode, body.subarray(0, -1));
  body[12 + PIECE_DIGEST_BYTES] = SIGNATURE_BYTES - 1;
  refused(typeCode, body);
  refused(...proof(PIECE_SIGNATURE_BYTES_MAX + 1));
  refused(...taken(encodeFrame({ type: "offer", channel: 1, pieces: [] })));
});

test("of an offer that is longer than any may be the first pieces are read, and of places labels that are short", () => {
  const pieces = Array.from({ length: OFFER_PIECES_MAX + 1 }, (_, index) => index);
  const offer = decodeFrame(...taken(encodeFrame({ type: "offer", channel: 1, pieces })));
  assert.deepEqual(offer, { type: "offer", channel: 1, pieces: pieces.slice(0, -1) });
  const place = decodeFrame(...taken(encodeFrame({ type: "place", topology: { zone: "z".repeat(257), rack: "r".repeat(256) } })));
  assert.deepEqual(place, { type: "place", topology: { rack: "r".repeat(256) } });
});

test("the header of payload names channel, piece, offset, and counts what follows", () => {
  fc.assert(
    fc.property(uint32, piece, uint32, fc.nat({ max: 2 ** 20 }), (channel, index, offset, payloadBytes) => {
      const bytes = encodeDataHeader(channel, index, offset, payloadBytes);
      const view = new DataView(bytes.buffer);
      assert.equal(bytes.length, FRAME_HEADER_BYTES + DATA_HEADER_BYTES);
      assert.equal(view.getUint32(0), 1 + DATA_HEADER_BYTES + payloadBytes);
      assert.deepEqual([bytes[4], view.getUint32(5), view.getUint32(9), view.getUint32(13)], [DATA_TYPE_CODE, channel, index, offset]);
    }),
  );
});

/* Pieces signed by one version are kept on disk and verified by the next: these bytes may never change. */
test("what is signed is written down here, byte for byte", () => {
  const task = "0102".repeat(16) as TaskId;
  const digest = new Uint8Array(32).fill(0xdd);
  const name = (text: string): string => Buffer.from(text).toString("hex");
  assert.equal(bytesToHex(pieceStatement(task, 7, 65_536, digest)), `${name("dragonfly/piece1")}${task}0000000700010000${"dd".repeat(32)}`);
  assert.equal(bytesToHex(lengthStatement(task, 2 ** 40)), `${name("dragonfly/lengt1")}${task}0000010000000000`);
});

test("hex and bytes are each other's inverse", () => {
  fc.assert(fc.property(fc.uint8Array(), (bytes) => assert.deepEqual(hexToBytes(bytesToHex(bytes)), bytes)));
});
