import assert from "node:assert/strict";
import { test } from "node:test";
import { assert as hold, assertNever, AssertionError } from "./assert.ts";
import { AppError, ERROR_TABLE, isErrorCode, toAppError } from "./errors.ts";

test("every code has an error status, and an exit code that is documented", () => {
  for (const [code, { httpStatus, exitCode }] of Object.entries(ERROR_TABLE)) {
    assert.match(code, /^[A-Z]+(?:_[A-Z]+)*$/);
    assert.ok(httpStatus >= 400 && httpStatus <= 599, code);
    assert.ok(exitCode >= 1 && exitCode <= 11, code);
  }
});

test("an error carries the traits of its code, its cause and its details", () => {
  const cause = new Error("socket");
  const error = new AppError("ORIGIN_BUSY", "busy", { cause, details: { retryAfterMs: 5 } });
  assert.deepEqual([error.httpStatus, error.exitCode, error.retriable], [503, 8, true]);
  assert.equal(error.cause, cause);
  assert.equal(error.details["retryAfterMs"], 5);
  assert.equal("cause" in new AppError("USAGE", "x"), false);
});

test("whatever is thrown becomes one of ours, its message kept; what is one stays itself", () => {
  const own = new AppError("TIMEOUT", "late");
  assert.equal(toAppError(own, "USAGE"), own);
  const foreign = toAppError(new Error("boom"), "DISK_FAILED");
  assert.deepEqual([foreign.code, foreign.message], ["DISK_FAILED", "boom"]);
  assert.equal(toAppError("text").code, "INTERNAL");
  assert.equal(toAppError(undefined).message, "undefined");
});

test("codes from the wire are known by the table alone", () => {
  assert.ok(isErrorCode("TIMEOUT"));
  for (const text of ["", "timeout", "toString", "__proto__"]) assert.ok(!isErrorCode(text), text);
});

test("a broken invariant is not an operating error", () => {
  hold(true, "fine");
  assert.throws(() => hold(false, "W1: x"), (thrown) => thrown instanceof AssertionError && !(thrown instanceof AppError));
  assert.throws(() => assertNever({ type: "new" } as never), /unexpected variant: {"type":"new"}/);
});
