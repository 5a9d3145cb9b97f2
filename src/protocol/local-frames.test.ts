import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { AppError } from "../base/errors.ts";
import { encodeLocalBytesHeader, encodeLocalFrame, encodeLocalHeld, LOCAL_JSON_LENGTH_BYTES_MAX, LocalFrameReader } from "./local-frames.ts";

const joined = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((part) => [...part]));

/** What a reader makes of a stream that is pushed in chunks of these lengths; content is put together again. */
function read(stream: Uint8Array, cuts: readonly number[]): unknown[] {
  const seen: unknown[] = [];
  let content: { startByte: number; bytes: number[] } | undefined;
  const reader = new LocalFrameReader({
    json: (type, json) => {
      content = undefined;
      seen.push([type, [...json]]);
    },
    bytes: (startByte, bytes) => {
      if (content !== undefined && content.startByte + content.bytes.length === startByte) content.bytes.push(...bytes);
      else seen.push((content = { startByte, bytes: [...bytes] }));
    },
    held: (startByte, endByte) => {
      content = undefined;
      seen.push({ startByte, endByte });
    },
  });
  let at = 0;
  for (const cut of [...cuts, stream.length]) {
    reader.push(stream.subarray(at, at + cut));
    at += cut;
  }
  return seen;
}

test("a stream reads the same however it is cut", () => {
  const stream = joined(
    encodeLocalFrame("info", Uint8Array.of(1, 2, 3)),
    encodeLocalBytesHeader(2 ** 40, 4),
    Uint8Array.of(9, 8, 7, 6),
    // A frame of a later version.
    Uint8Array.of(0, 0, 0, 4, 99, 1, 1, 1),
    encodeLocalBytesHeader(7, 0),
    encodeLocalFrame("status", Uint8Array.of(4)),
    encodeLocalHeld(3, 2 ** 41),
    encodeLocalBytesHeader(0, 1),
    Uint8Array.of(5),
    encodeLocalFrame("end", Uint8Array.of(6)),
  );
  const expected = [["info", [1, 2, 3]], { startByte: 2 ** 40, bytes: [9, 8, 7, 6] }, ["status", [4]], { startByte: 3, endByte: 2 ** 41 }, { startByte: 0, bytes: [5] }, ["end", [6]]];
  fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 20 }), (cuts) => assert.deepEqual(read(stream, cuts), expected)));
});

test("a frame that claims too much is refused before memory is taken for it", () => {
  for (const typeCode of [1, 2, 3, 4, 5, 6, 99]) {
    const header = Uint8Array.of(0x7f, 0, 0, 0, typeCode);
    assert.throws(() => read(header, []), (error) => error instanceof AppError && error.code === "MESSAGE_TOO_LARGE");
  }
  const claims = (lengthBytes: number, typeCode: number): unknown[] => read(Uint8Array.of(...new Uint8Array(Uint32Array.of(lengthBytes).buffer).reverse(), typeCode), []);
  for (const [typeCode, bodyBytes] of [[1, LOCAL_JSON_LENGTH_BYTES_MAX], [99, LOCAL_JSON_LENGTH_BYTES_MAX], [3, 8 + 8 * 1024 * 1024]] as const) {
    assert.deepEqual(claims(1 + bodyBytes, typeCode), []);
    assert.throws(() => claims(2 + bodyBytes, typeCode), { code: "MESSAGE_TOO_LARGE" });
  }
  assert.throws(() => read(Uint8Array.of(0, 0, 0, 5, 3), []), { code: "MESSAGE_TOO_LARGE" }, "content without its place");
  assert.throws(() => read(Uint8Array.of(0, 0, 0, 9, 6), []), { code: "PROTOCOL_VIOLATION" }, "half a range");
  assert.throws(() => read(encodeLocalHeld(5, 4), []), { code: "PROTOCOL_VIOLATION" }, "a range that ends before it starts");
});

test("arbitrary bytes are frames, nothing, or one of our errors", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        read(bytes, [3, 5]);
      } catch (error) {
        assert.ok(error instanceof AppError);
      }
    }),
  );
});
