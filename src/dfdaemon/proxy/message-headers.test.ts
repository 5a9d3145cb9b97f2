import assert from "node:assert/strict";
import { test } from "node:test";
import { endToEnd, fieldOf, isLoop } from "./message-headers.ts";

test("fields of one connection and those for a proxy stay here, all others go on as they came", () => {
  const raw = [
    "Host", "a.test", "Connection", "keep-alive, X-Mine", "X-Mine", "1", "Proxy-Authorization", "Basic c2VjcmV0", "Proxy-Connection", "keep-alive",
    "TE", "trailers", "Transfer-Encoding", "chunked", "Upgrade", "h2c", "HTTP2-Settings", "x", "Keep-Alive", "timeout=5",
    "X-Twice", "1", "x-twice", "2", "Authorization", "Bearer t", "Trailer", "X-Sum",
  ];
  assert.deepEqual(endToEnd(raw, { pseudonym: "me" }), [
    "Host", "a.test", "X-Twice", "1", "x-twice", "2", "Authorization", "Bearer t", "Trailer", "X-Sum", "Via", "1.1 me",
  ]);
});

test("Via grows, and tells a message that was here before", () => {
  const raw = ["Via", "1.0 first", "via", "HTTP/1.1 second (x)"];
  assert.deepEqual(endToEnd(raw, { pseudonym: "me" }), ["Via", "1.0 first, HTTP/1.1 second (x), 1.1 me"]);
  assert.ok(isLoop(endToEnd(raw, { pseudonym: "me" }), "me"));
  assert.ok(!isLoop(raw, "me"));
  assert.ok(!isLoop(["Via", "1.1 me2, 1.1 notme"], "me"));
});

test("Connection cannot take off what frames a message or says whose it is", () => {
  const raw = ["Connection", "content-length, Authorization, close", "Content-Length", "5", "Authorization", "x"];
  assert.deepEqual(endToEnd(raw, { pseudonym: "me", replaced: ["host"] }), ["Content-Length", "5", "Authorization", "x", "Via", "1.1 me"]);
  assert.equal(fieldOf(raw, "content-length"), "5");
  assert.equal(fieldOf(raw, "host"), undefined);
});
