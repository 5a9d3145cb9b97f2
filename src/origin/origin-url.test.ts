import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../base/errors.ts";
import { parseOriginUrl, redactUrl, takeUserinfo } from "./origin-url.ts";

test("a printed URL has no userinfo, no query, no fragment", () => {
  assert.equal(redactUrl("https://me:pw@host:8443/a/b?X-Amz-Signature=s&y#z"), "https://host:8443/a/b?…");
  assert.equal(redactUrl(new URL("http://host/a")), "http://host/a");
  assert.equal(redactUrl("host/a?sig=1"), "host/a?…");
  assert.equal(redactUrl("http://me:p w@ho st/a\u001b[2J"), "ho st/a[2J");
  assert.equal(redactUrl("x".repeat(500)).length, 200);
});

test("only whole http and https URLs are taken", () => {
  const codeOf = (text: string): string => {
    try {
      return parseOriginUrl(text).href;
    } catch (error) {
      return error instanceof AppError ? error.code : "";
    }
  };
  assert.equal(codeOf("HTTPS://Host:443/a b#c"), "https://host/a%20b");
  assert.equal(codeOf("host/a"), "URL_INVALID");
  assert.equal(codeOf("host:80/a"), "SCHEME_UNSUPPORTED");
  assert.equal(codeOf("file:///etc/passwd"), "SCHEME_UNSUPPORTED");
});

test("userinfo is taken out of a URL, decoded", () => {
  const url = new URL("http://m%3Ae:@host/");
  assert.equal(takeUserinfo(url), `Basic ${btoa("m:e:")}`);
  assert.equal(url.href, "http://host/");
  assert.equal(takeUserinfo(url), undefined);
});
