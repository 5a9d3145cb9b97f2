import assert from "node:assert/strict";
import { test } from "node:test";
import { answerBytes, type BytesAnswer, type BytesRequest } from "./ranges.ts";

const OF = { lengthBytes: 1000, contentType: "application/octet-stream", etag: "sha256:aa" };

function ask(request: Partial<BytesRequest>, of: Parameters<typeof answerBytes>[1] = OF): BytesAnswer {
  return answerBytes({ method: "GET", range: undefined, ifRange: undefined, ifNoneMatch: undefined, ...request }, of);
}

void test("without a range the answer is the file", () => {
  assert.deepEqual(ask({}), {
    status: 200,
    headers: { etag: '"sha256:aa"', "accept-ranges": "bytes", "content-type": "application/octet-stream" },
    parts: [{ type: "content", startByte: 0, endByte: 1000 }],
    bodyBytes: 1000,
  });
});

void test("M3: an open-ended range is answered 206 to the end of the file", () => {
  const answer = ask({ range: "bytes=900-" });
  assert.equal(answer.status, 206);
  assert.equal(answer.headers["content-range"], "bytes 900-999/1000");
  assert.deepEqual(answer.parts, [{ type: "content", startByte: 900, endByte: 1000 }]);
  assert.equal(answer.bodyBytes, 100);
});

void test("a range outside the file is 416, a malformed one is none", () => {
  const answer = ask({ range: "bytes=1000-" });
  assert.equal(answer.status, 416);
  assert.equal(answer.headers["content-range"], "bytes */1000");
  assert.equal(ask({ range: "bytes=x-" }).status, 200);
  assert.equal(ask({ range: "bytes=0-" }, { ...OF, lengthBytes: 0 }).status, 200);
});

void test("several ranges are one multipart body of the length it says", () => {
  const answer = ask({ range: "bytes=0-9, 100-119,-5" });
  assert.equal(answer.status, 206);
  const boundary = /^multipart\/byteranges; boundary=(.+)$/.exec(answer.headers["content-type"] ?? "")?.[1];
  assert.ok(boundary !== undefined);
  const text = answer.parts
    .map((part) => (part.type === "text" ? part.text : ".".repeat((part.endByte ?? 0) - part.startByte)))
    .join("");
  assert.equal(text.length, answer.bodyBytes);
  assert.equal(text.split(`--${boundary}`).length, 5);
  for (const range of ["bytes 0-9/1000", "bytes 100-119/1000", "bytes 995-999/1000"]) assert.ok(text.includes(`Content-Range: ${range}\r\n\r\n`));
  assert.ok(text.endsWith(`\r\n--${boundary}--\r\n`));
});

void test("ranges that together outweigh the file are answered with the file", () => {
  assert.equal(ask({ range: "bytes=0-,0-,1-" }).status, 200);
});

void test("conditions: If-None-Match gives 304, an If-Range of another version gives the file", () => {
  for (const ifNoneMatch of ['"sha256:aa"', 'W/"sha256:aa"', '"x", "sha256:aa"', "*"]) assert.equal(ask({ ifNoneMatch }).status, 304);
  assert.equal(ask({ ifNoneMatch: '"sha256:bb"' }).status, 200);
  assert.equal(ask({ range: "bytes=1-", ifRange: '"sha256:aa"' }).status, 206);
  assert.equal(ask({ range: "bytes=1-", ifRange: '"sha256:bb"' }).status, 200);
});

void test("HEAD ignores ranges; without a length there are none", () => {
  assert.equal(ask({ method: "HEAD", range: "bytes=1-" }).status, 200);
  const answer = ask({ range: "bytes=1-" }, { ...OF, lengthBytes: undefined });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers["accept-ranges"], "none");
  assert.equal(answer.bodyBytes, undefined);
});
