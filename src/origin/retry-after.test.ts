import assert from "node:assert/strict";
import { test } from "node:test";
import { parseRetryAfter } from "./retry-after.ts";

test("Retry-After is seconds or a date, and nothing else", () => {
  const nowUnixMs = Date.UTC(1994, 10, 6, 8, 49, 0);
  assert.equal(parseRetryAfter("120", nowUnixMs), 120_000);
  assert.equal(parseRetryAfter(" 0 ", nowUnixMs), 0);
  for (const date of ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"]) {
    assert.equal(parseRetryAfter(date, nowUnixMs), 37_000);
    assert.equal(parseRetryAfter(date, nowUnixMs + 60_000), 0);
  }
  for (const text of [undefined, "", "-5", "1.5", "soon", "9999999999"]) {
    assert.equal(parseRetryAfter(text, nowUnixMs), undefined);
  }
});
