import assert from "node:assert/strict";
import { test } from "node:test";
import { isPrivateSource } from "./private-source.ts";

const URL_PLAIN = "https://o.test/f?x=1";

test("what everybody may ask for is public", () => {
  assert.equal(isPrivateSource({ url: URL_PLAIN, headers: {} }), false);
  assert.equal(isPrivateSource({ url: URL_PLAIN, headers: { accept: "*/*", "user-agent": "x", authorization: "" } }), false);
});

test("credentials and signatures make it private", () => {
  for (const name of ["authorization", "cookie", "private-token", "x-amz-security-token"]) {
    assert.equal(isPrivateSource({ url: URL_PLAIN, headers: { [name]: "s" } }), true, name);
  }
  for (const url of ["https://me:pw@o.test/f", "https://o.test/f?X-Amz-Signature=1&X-Amz-Date=2", "https://o.test/f?sv=1&sig=2"]) {
    assert.equal(isPrivateSource({ url, headers: {} }), true, url);
  }
});
