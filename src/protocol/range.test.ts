import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { firstByteOf, formatContentRange, parseContentRange, parseRange } from "./range.ts";

/** Half-open ranges as text, or what else came of it. */
function parsed(header: string | undefined, lengthBytes = 10_000): string {
  const request = parseRange(header, lengthBytes);
  if (request.type !== "ranges") return request.type;
  return request.ranges.map(({ startByte, endByte }) => `${startByte}..${endByte}`).join(" ");
}

// The examples of RFC 9110 §14.1.2, for a file of 10,000 bytes, then the edges of §14.1.1, §14.1.2 and §14.2.
const TABLE: readonly (readonly [header: string | undefined, expected: string])[] = [
  ["bytes=0-499", "0..500"],
  ["bytes=500-999", "500..1000"],
  ["bytes=-500", "9500..10000"],
  ["bytes=9500-", "9500..10000"],
  ["bytes=0-0,-1", "0..1 9999..10000"],
  ["bytes= 0-999, 4500-5499, -1000", "0..1000 4500..5500 9000..10000"],
  ["bytes=500-600,601-999", "500..601 601..1000"],
  ["bytes=500-700,601-999", "500..701 601..1000"],
  [undefined, "whole"],
  ["bytes=0-", "0..10000"],
  ["bytes=9999-20000", "9999..10000"],
  ["bytes=-20000", "0..10000"],
  ["bytes=10000-", "unsatisfiable"],
  ["bytes=10000-10001", "unsatisfiable"],
  ["bytes=-0", "unsatisfiable"],
  ["bytes=20000-,0-1", "0..2"],
  ["bytes=0-1,,5-6", "0..2 5..7"],
  ["Bytes=0-1", "0..2"],
  ["bytes=99999999999999999999-", "unsatisfiable"],
  ["bytes=0-99999999999999999999", "0..10000"],
  ["bytes=5-4", "whole"],
  ["bytes=a-b", "whole"],
  ["bytes=-", "whole"],
  ["bytes=", "whole"],
  ["bytes=1", "whole"],
  ["bytes=1-2-3", "whole"],
  ["bytes=0-1,x", "whole"],
  ["bytes 0-1", "whole"],
  ["items=0-1", "whole"],
  ["", "whole"],
];

for (const [header, expected] of TABLE) {
  test(`Range: ${header ?? "(none)"} → ${expected}`, () => assert.equal(parsed(header), expected));
}

test("where the first range begins is known before the length is", () => {
  const headers = [undefined, "bytes=0-", "bytes=700-", " Bytes = 7-9, 20-30", "bytes=-500", "items=3-", "bytes=9999999999999999-"];
  assert.deepEqual(headers.map(firstByteOf), [0, 0, 700, 7, 0, 0, 0]);
});

test("an empty file satisfies no range", () => {
  for (const header of ["bytes=0-", "bytes=0-0", "bytes=-1"]) assert.equal(parsed(header, 0), "unsatisfiable", header);
});

test("too many ranges get the whole file", () => {
  assert.equal(parsed(`bytes=${Array.from({ length: 64 }, (_, i) => `${i}-${i}`).join(",")}`).split(" ").length, 64);
  assert.equal(parsed(`bytes=${Array.from({ length: 65 }, (_, i) => `${i}-${i}`).join(",")}`), "whole");
});

test("no header makes the parser throw, and each range lies within the file", () => {
  const text = fc.string({ unit: fc.constantFrom(..."bytes=0123456789-, ;*/".split("")), maxLength: 40 });
  fc.assert(
    fc.property(fc.oneof(text, text.map((rest) => `bytes=${rest}`)), fc.nat({ max: 2_000 }), (header, lengthBytes) => {
      const request = parseRange(header, lengthBytes);
      if (request.type !== "ranges") return;
      assert.ok(request.ranges.length > 0);
      for (const { startByte, endByte } of request.ranges) {
        assert.ok(startByte >= 0 && startByte < endByte && endByte <= lengthBytes, `${header}: ${startByte}..${endByte} of ${lengthBytes}`);
      }
    }),
    { numRuns: 1_000 },
  );
});

test("Content-Range is written inclusive and reads back half-open", () => {
  assert.equal(formatContentRange({ startByte: 0, endByte: 500 }, 1_234), "bytes 0-499/1234");
  assert.deepEqual(parseContentRange("bytes 0-499/1234"), { startByte: 0, endByte: 500, totalBytes: 1_234 });
  assert.deepEqual(parseContentRange("bytes 42-1233/*"), { startByte: 42, endByte: 1_234, totalBytes: undefined });
  for (const header of ["bytes */1234", "bytes 5-4/10", "bytes 0-10/10", "bytes 0-1", "0-1/2", "bytes -1/2", ""]) {
    assert.equal(parseContentRange(header), undefined, header);
  }
});
