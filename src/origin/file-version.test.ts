import assert from "node:assert/strict";
import { test } from "node:test";
import { isStrongEtag, versionMismatch } from "./file-version.ts";
import type { OriginInfo } from "./origin.ts";

function info(lengthBytes: number | undefined, etag?: string, lastModified?: string): OriginInfo {
  return { lengthBytes, ranges: true, etag, lastModified, contentType: undefined, headers: {} };
}

test("lengths and validators that both sides know must agree", () => {
  assert.match(versionMismatch(info(1), info(2)) ?? "", /length was 1 bytes and is 2/);
  assert.match(versionMismatch(info(1, '"a"'), info(1, '"b"')) ?? "", /ETag/);
  assert.match(versionMismatch(info(1, undefined, "x"), info(1, undefined, "y")) ?? "", /Last-Modified/);
  assert.match(versionMismatch(info(1, 'W/"a"', "x"), info(1, 'W/"a"', "y")) ?? "", /Last-Modified/);
  assert.equal(versionMismatch(info(undefined, '"a"'), info(2)), undefined);
  assert.equal(versionMismatch(info(1, 'W/"a"'), info(1, '"a"')), undefined);
});

test("equal strong ETags outweigh a Last-Modified that differs between servers", () => {
  assert.equal(versionMismatch(info(1, '"a"', "x"), info(1, '"a"', "y")), undefined);
  assert.deepEqual(['"a"', 'W/"a"', "a", ""].map(isStrongEtag), [true, false, false, false]);
});
