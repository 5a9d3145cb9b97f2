import assert from "node:assert/strict";
import { test } from "node:test";
import { outputError } from "./output-errors.ts";

test("a full disk is DISK_FULL", () => {
  const error = outputError(Object.assign(new Error("x"), { code: "ENOSPC" }), "F", "DISK_FAILED");
  assert.deepEqual(
    [error.code, error.message],
    ["DISK_FULL", "cannot write F: the disk is full; make room and go on with -c"],
  );
  assert.equal(outputError(Object.assign(new Error("io"), { code: "EIO" }), "F", "DISK_FAILED").code, "DISK_FAILED");
});
