import assert from "node:assert/strict";
import { test } from "node:test";
import { parseContentLength, parseContentRange } from "./content-range.ts";

test("Content-Range is read half-open, and refused when at odds with itself", () => {
  assert.deepEqual(parseContentRange("bytes 4-7/20"), { startByte: 4, endByte: 8, totalBytes: 20 });
  assert.deepEqual(parseContentRange("Bytes 4-7/*"), { startByte: 4, endByte: 8, totalBytes: undefined });
  assert.deepEqual(parseContentRange("bytes */20"), { startByte: undefined, endByte: undefined, totalBytes: 20 });
  for (const text of [undefined, "", "bytes */*", "bytes 7-4/20", "bytes 4-20/20", "items 0-1/2", "bytes 0-9007199254740991/*"]) {
    assert.equal(parseContentRange(text), undefined);
  }
});

test("Content-Length is whole bytes", () => {
  assert.equal(parseContentLength("20"), 20);
  for (const text of [undefined, "", "-1", "1e3", "20, 20", "9999999999999999"]) {
    assert.equal(parseContentLength(text), undefined);
  }
});
