import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import { isPrivateSource, mayHaveRunOut } from "./private-source.ts";

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

test("tokens and signatures run out; other credentials, and rights that a registry has looked at, do not", () => {
  const refusal = (code: AppError["code"], wwwAuthenticate = ""): AppError => new AppError(code, "no", { details: { wwwAuthenticate } });
  const token = { url: URL_PLAIN, headers: { authorization: "Bearer x" } };
  const signed = { url: "https://o.test/f?X-Amz-Signature=1", headers: {} };
  assert.equal(mayHaveRunOut(token, refusal("ORIGIN_UNAUTHORIZED", 'Bearer error="invalid_token"')), true);
  assert.equal(mayHaveRunOut(token, refusal("ORIGIN_UNAUTHORIZED", 'Bearer error="insufficient_scope"')), false);
  assert.equal(mayHaveRunOut(token, refusal("ORIGIN_FORBIDDEN")), false);
  assert.equal(mayHaveRunOut(token, refusal("ORIGIN_NOT_FOUND")), false);
  assert.equal(mayHaveRunOut({ url: URL_PLAIN, headers: { authorization: "Basic x" } }, refusal("ORIGIN_UNAUTHORIZED")), false);
  assert.equal(mayHaveRunOut(signed, refusal("ORIGIN_FORBIDDEN")), true);
  assert.equal(mayHaveRunOut(signed, refusal("ORIGIN_NOT_FOUND")), false);
  assert.equal(mayHaveRunOut({ url: URL_PLAIN, headers: {} }, refusal("ORIGIN_FORBIDDEN")), false);
});
