import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError, ERROR_TABLE, type ErrorCode } from "../../base/errors.ts";
import { errorAnswer } from "./errors.ts";

void test("M8: no error becomes a 429 or 408, and only the registry's own word becomes 401 or 403", () => {
  for (const code of Object.keys(ERROR_TABLE) as ErrorCode[]) {
    const { status } = errorAnswer(new AppError(code, "x"), "blob");
    assert.ok(status >= 400 && status < 600 && status !== 429 && status !== 408 && status !== 499, `${code}: ${status}`);
    if (status === 401) assert.equal(code, "ORIGIN_UNAUTHORIZED");
    if (status === 403) assert.equal(code, "ORIGIN_FORBIDDEN");
  }
});

void test("M9: the registry's challenge goes with its 401, unless it would break the header", () => {
  const challenge = 'Bearer realm="https://auth.test/token",service="s"';
  const relay = (wwwAuthenticate: string): string | undefined =>
    errorAnswer(new AppError("ORIGIN_UNAUTHORIZED", "x", { details: { wwwAuthenticate } }), "manifest").headers["www-authenticate"];
  assert.equal(relay(challenge), challenge);
  assert.equal(relay("Bearer\r\nx: y"), undefined);
});

void test("a missing blob and a missing manifest have codes of their own", () => {
  const missing = new AppError("ORIGIN_NOT_FOUND", "gone");
  assert.match(errorAnswer(missing, "blob").body, /"BLOB_UNKNOWN"/);
  assert.match(errorAnswer(missing, "manifest").body, /"MANIFEST_UNKNOWN"/);
  assert.equal(errorAnswer(missing, "blob").status, 404);
});

void test("a busy registry says when to come back; a fault of ours tells nothing of itself", () => {
  const busy = errorAnswer(new AppError("ORIGIN_BUSY", "x", { details: { retryAfterMs: 1500 } }), "blob");
  assert.equal(busy.status, 503);
  assert.equal(busy.headers["retry-after"], "2");
  assert.equal(errorAnswer(new AppError("ORIGIN_BUSY", "x"), "blob").headers["retry-after"], undefined);
  const beyond = (lengthBytes?: number): unknown =>
    errorAnswer(new AppError("RANGE_NOT_SATISFIABLE", "x", lengthBytes === undefined ? {} : { details: { lengthBytes } }), "blob").headers["content-range"];
  assert.deepEqual([beyond(5), beyond()], ["bytes */5", undefined]);
  assert.doesNotMatch(errorAnswer(new AppError("INTERNAL", "secret thing"), "blob").body, /secret/);
});
