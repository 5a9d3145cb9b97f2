import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeDataHeader } from "../../protocol/link-frames.ts";
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
