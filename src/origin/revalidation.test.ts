/** Asking whether a file is still the one that is here. */
import assert from "node:assert/strict";
import type { IncomingMessage, ServerResponse } from "node:http";
import { test } from "node:test";
import { ask, failure, httpOrigin, idle, serve } from "./local-server.test.ts";
import type { OriginInfo } from "./origin.ts";

const DATE = "Thu, 01 Jan 2026 00:00:00 GMT";
const KNOWN: OriginInfo = { lengthBytes: 20, ranges: true, etag: '"v1"', lastModified: DATE, contentType: undefined, headers: {} };

/** In the words of a test: method, and which of our conditions and ranges it has. */
function said({ method, headers }: IncomingMessage): string {
  const words = [method];
  for (const name of ["range", "if-none-match", "if-modified-since", "if-match", "if-unmodified-since"]) {
    if (headers[name] !== undefined) words.push(`${name}: ${String(headers[name])}`);
  }
  return words.join(", ");
}

const CONDITIONS = `if-none-match: "v1", if-modified-since: ${DATE}`;

/** HEAD is refused; GET gets what `answer` says. */
const onlyGet = (answer: (request: IncomingMessage, response: ServerResponse) => void) => (request: IncomingMessage, response: ServerResponse): void => {
  if (request.method === "HEAD") response.writeHead(405).end();
  else answer(request, response);
};

test("304 confirms what is known, asked by HEAD, or by one byte where HEAD is refused", async (t) => {
  const server = await serve(t, (request, response) => {
    if (request.url === "/get" && request.method === "HEAD") response.writeHead(405).end();
    else response.writeHead(304, { etag: '"v1"' }).end();
  });
  const origin = httpOrigin(t);
  for (const path of ["/head", "/get"]) assert.equal(await origin.stat(ask(server.base + path), idle(), KNOWN), KNOWN);
  assert.deepEqual(server.seen.map(said), [`HEAD, ${CONDITIONS}`, `HEAD, ${CONDITIONS}`, `GET, range: bytes=0-0, ${CONDITIONS}`]);
});

test("of two validators the one that there is is sent", async (t) => {
  const server = await serve(t, (_request, response) => void response.writeHead(304).end());
  const origin = httpOrigin(t);
  await origin.stat(ask(server.base), idle(), { ...KNOWN, etag: undefined });
  await origin.stat(ask(server.base), idle(), { ...KNOWN, lastModified: undefined });
  assert.deepEqual(server.seen.map(said), [`HEAD, if-modified-since: ${DATE}`, 'HEAD, if-none-match: "v1"']);
});

test("a 304 of another version contradicts itself: asked again without conditions, by HEAD and by one byte", async (t) => {
  const server = await serve(t, (request, response) => {
    if (request.headers["if-none-match"] !== undefined) response.writeHead(request.method === "HEAD" && request.url === "/get" ? 405 : 304, { etag: '"v2"' }).end();
    else if (request.method === "HEAD") response.writeHead(200, { etag: '"v2"', "content-length": 9, "accept-ranges": "bytes" }).end();
    else response.writeHead(206, { etag: '"v2"', "content-range": "bytes 0-0/9" }).end("x");
  });
  const origin = httpOrigin(t);
  for (const path of ["/head", "/get"]) {
    const { etag, lengthBytes } = await origin.stat(ask(server.base + path), idle(), KNOWN);
    assert.deepEqual([etag, lengthBytes], ['"v2"', 9]);
  }
  assert.deepEqual(server.seen.map(said), [`HEAD, ${CONDITIONS}`, "HEAD", `HEAD, ${CONDITIONS}`, `GET, range: bytes=0-0, ${CONDITIONS}`, "GET, range: bytes=0-0"]);
});

test("a 304 that nobody asked for, and a 401, are no reason to ask in another way", async (t) => {
  const server = await serve(t, (request, response) => void response.writeHead(request.url === "/304" ? 304 : 401).end());
  await failure(httpOrigin(t).stat(ask(`${server.base}/304`), idle()), "ORIGIN_STATUS");
  await failure(httpOrigin(t).stat(ask(`${server.base}/401`), idle()), "ORIGIN_UNAUTHORIZED");
  assert.equal(server.seen.length, 2);
});

test("who asks for one byte and is sent everything hangs up", async (t) => {
  const gone = Promise.withResolvers<void>();
  const server = await serve(t, onlyGet((_request, response) => {
    response.on("close", gone.resolve);
    response.writeHead(200, { "content-length": 1_000_000_000 }).write("x");
  }));
  const { lengthBytes, ranges } = await httpOrigin(t).stat(ask(server.base), idle());
  assert.deepEqual([lengthBytes, ranges], [1_000_000_000, false]);
  await gone.promise;
});

test("one byte asked for: another one does not show that there are ranges, and a coded one says nothing", async (t) => {
  const server = await serve(t, onlyGet((request, response) => {
    const coded = request.url === "/coded" ? { "content-encoding": "gzip" } : {};
    response.writeHead(206, { "content-range": request.url === "/coded" ? "bytes 0-0/20" : "bytes 5-5/20", ...coded }).end("x");
  }));
  const { lengthBytes, ranges } = await httpOrigin(t).stat(ask(`${server.base}/other`), idle());
  assert.deepEqual([lengthBytes, ranges], [undefined, false]);
  await failure(httpOrigin(t).stat(ask(`${server.base}/coded`), idle()), "ORIGIN_PROTOCOL");
});

test("a read names the version that it wants: by a strong ETag, else by its date", async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(206, { "content-range": "bytes 10-19/20", "last-modified": DATE, ...(request.headers["if-match"] === undefined ? {} : { etag: '"v1"' }) }).end("0123456789");
  });
  const origin = httpOrigin(t);
  const range = { startByte: 10, endByte: undefined };
  for (const expected of [KNOWN, { ...KNOWN, etag: 'W/"v1"' }, { ...KNOWN, etag: undefined }]) {
    (await origin.open(ask(server.base), range, expected, idle())).body.destroy();
  }
  const byDate = `GET, range: bytes=10-, if-unmodified-since: ${DATE}`;
  assert.deepEqual(server.seen.map(said), ['GET, range: bytes=10-, if-match: "v1"', byDate, byDate]);
});
