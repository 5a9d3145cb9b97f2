import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { test } from "node:test";
import type { OriginInfo } from "./origin.ts";
import { ask, failure, httpOrigin, idle, serve, textOf } from "./local-server.test.ts";

const FILE = Buffer.from("0123456789abcdefghij");
const ALL = { startByte: 0, endByte: undefined };

/** A server as it should be: HEAD, ranges, ETag. */
function honest(method: string | undefined, rangeField: string | undefined, response: ServerResponse): void {
  response.setHeader("accept-ranges", "bytes");
  response.setHeader("etag", '"v1"');
  const match = /^bytes=(\d+)-(\d*)$/.exec(rangeField ?? "");
  if (match === null) {
    response.writeHead(200, { "content-length": FILE.length, "x-note": "hello", "set-cookie": "a=b" });
    response.end(method === "HEAD" ? undefined : FILE);
    return;
  }
  const first = Number(match[1]);
  const last = match[2] === "" ? FILE.length - 1 : Math.min(Number(match[2]), FILE.length - 1);
  if (first >= FILE.length) {
    response.writeHead(416, { "content-range": `bytes */${FILE.length}` }).end();
    return;
  }
  const body = FILE.subarray(first, last + 1);
  response.writeHead(206, { "content-range": `bytes ${first}-${last}/${FILE.length}`, "content-length": body.length });
  response.end(body);
}

function info(more: Partial<OriginInfo>): OriginInfo {
  return {
    lengthBytes: undefined,
    ranges: true,
    etag: undefined,
    lastModified: undefined,
    contentType: undefined,
    headers: {},
    ...more,
  };
}

test("stat reads length, validators and ranges from HEAD alone", async (t) => {
  const server = await serve(t, (request, response) => honest(request.method, request.headers.range, response));
  const found = await httpOrigin(t, { userAgent: "unit/1" }).stat(ask(`${server.base}/f`), idle());
  assert.deepEqual(found, info({ lengthBytes: 20, etag: '"v1"', headers: { "x-note": "hello" } }));
  assert.equal(server.seen.length, 1);
  assert.equal(server.seen[0]?.headers["accept-encoding"], "identity");
  assert.equal(server.seen[0]?.headers["user-agent"], "unit/1");
});

test("stat asks for one byte where HEAD is refused, and believes the 206", async (t) => {
  for (const status of [400, 403, 405, 501]) {
    const server = await serve(t, (request, response) => {
      if (request.method === "HEAD") response.writeHead(status).end();
      else honest(request.method, request.headers.range, response);
    });
    const found = await httpOrigin(t).stat(ask(`${server.base}/f`), idle());
    assert.equal(found.lengthBytes, 20);
    assert.equal(found.ranges, true);
    assert.deepEqual(server.seen.map(({ method, headers }) => [method, headers.range]), [
      ["HEAD", undefined],
      ["GET", "bytes=0-0"],
    ]);
  }
});

test("stat takes a 404 to HEAD for an answer, and the 403 of the probe too", async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(request.url === "/secret" ? 403 : 404).end();
  });
  await failure(httpOrigin(t).stat(ask(`${server.base}/f`), idle()), "ORIGIN_NOT_FOUND");
  assert.equal(server.seen.length, 1);
  await failure(httpOrigin(t).stat(ask(`${server.base}/secret`), idle()), "ORIGIN_FORBIDDEN");
});

test("stat of a chunked answer has no length and no ranges", async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(200);
    response.end(request.method === "HEAD" ? undefined : FILE);
  });
  const found = await httpOrigin(t).stat(ask(`${server.base}/f`), idle());
  assert.deepEqual([found.lengthBytes, found.ranges], [undefined, false]);
  assert.equal(server.seen.length, 2);
});

test("stat probes a large file whose HEAD is silent on ranges, and leaves a small one", async (t) => {
  const server = await serve(t, (request, response) => {
    const lengthBytes = request.url === "/large" ? 5_000_000 : 5000;
    if (request.method === "HEAD") response.writeHead(200, { "content-length": lengthBytes }).end();
    else response.writeHead(206, { "content-range": `bytes 0-0/${lengthBytes}` }).end("x");
  });
  const origin = httpOrigin(t);
  assert.equal((await origin.stat(ask(`${server.base}/large`), idle())).ranges, true);
  assert.equal((await origin.stat(ask(`${server.base}/small`), idle())).ranges, false);
  assert.equal(server.seen.length, 3);
});

test("a HEAD that says 0 bytes, as some frameworks do of every file, is not believed", async (t) => {
  const server = await serve(t, (request, response) => {
    if (request.method === "HEAD") response.writeHead(200, { "content-length": 0 }).end();
    else honest(request.method, request.headers.range, response);
  });
  assert.equal((await httpOrigin(t).stat(ask(`${server.base}/f`), idle())).lengthBytes, 20);
});

test("stat of an empty file", async (t) => {
  const server = await serve(t, (request, response) => {
    if (request.method === "HEAD") response.writeHead(200, { "content-length": 0 }).end();
    else response.writeHead(416, { "content-range": "bytes */0" }).end();
  });
  assert.equal((await httpOrigin(t).stat(ask(`${server.base}/f`), idle())).lengthBytes, 0);
});

test("open sends a range only when one is asked", async (t) => {
  const server = await serve(t, (request, response) => honest(request.method, request.headers.range, response));
  const origin = httpOrigin(t);
  const url = `${server.base}/f`;
  const texts: string[] = [];
  for (const range of [ALL, { startByte: 5, endByte: 8 }, { startByte: 15, endByte: undefined }, { startByte: 18, endByte: 99 }]) {
    const opened = await origin.open(ask(url, { Range: "bytes=1-1", "if-none-match": "*" }), range, undefined, idle());
    assert.equal(opened.startByte, range.startByte);
    assert.equal(opened.info.lengthBytes, 20);
    texts.push(await textOf(opened.body));
  }
  assert.deepEqual(texts, [FILE.toString(), "567", "fghij", "ij"]);
  assert.deepEqual(server.seen.map(({ headers }) => headers.range), [undefined, "bytes=5-7", "bytes=15-", "bytes=18-98"]);
  assert.ok(server.seen.every(({ headers }) => headers["if-none-match"] === undefined));
});

test("open cuts a whole answer at the range's end, and refuses it for a later start", async (t) => {
  const server = await serve(t, (_request, response) => response.end(FILE));
  const origin = httpOrigin(t);
  const opened = await origin.open(ask(`${server.base}/f`), { startByte: 0, endByte: 4 }, undefined, idle());
  assert.equal(await textOf(opened.body), "0123");
  assert.equal(opened.info.ranges, false);
  for (const startByte of [1, 4]) {
    const opening = origin.open(ask(`${server.base}/f`), { startByte, endByte: 8 }, undefined, idle());
    const error = await failure(opening, "ORIGIN_PROTOCOL");
    assert.match(error.message, /ignores ranges/);
    assert.equal(error.details["ranges"], false);
  }
});

test("open refuses a 206 for other bytes than asked", async (t) => {
  const answers = [
    { "content-range": "bytes 0-3/20" },
    { "content-range": "bytes 0-7/20" },
    { "content-range": "bytes 4-5/20" },
    { "content-range": "bytes 4-9/20" },
    { "content-range": "bytes 4-7/20", "content-length": "3" },
    { "content-range": "bytes 4-30/20" },
    { "content-range": "items 4-7/20" },
    {},
  ];
  const server = await serve(t, (request, response) => {
    response.writeHead(206, answers[Number(request.url?.slice(1))]).end("4567".slice(0, 3));
  });
  const origin = httpOrigin(t);
  for (const index of answers.keys()) {
    const opening = origin.open(ask(`${server.base}/${index}`), { startByte: 4, endByte: 8 }, undefined, idle());
    const error = await failure(opening, "ORIGIN_PROTOCOL");
    assert.match(error.message, /other bytes/);
  }
});

test("a body that is coded all the same is refused by stat and open", async (t) => {
  const server = await serve(t, (_request, response) => {
    response.writeHead(200, { "content-encoding": "gzip", "content-length": 3 }).end("gz!");
  });
  const origin = httpOrigin(t);
  const error = await failure(origin.open(ask(`${server.base}/f`), ALL, undefined, idle()), "ORIGIN_PROTOCOL");
  assert.match(error.message, /coded as "gzip"/);
  await failure(origin.stat(ask(`${server.base}/f`), idle()), "ORIGIN_PROTOCOL");
  const plain = await serve(t, (_request, response) => void response.writeHead(200, { "content-encoding": "Identity", "content-length": 3 }).end("abc"));
  assert.equal(await textOf((await origin.open(ask(plain.base), ALL, undefined, idle())).body), "abc");
});

test("a body cut short fails with ORIGIN_CUT, with and without a length", async (t) => {
  const server = await serve(t, (request, response) => {
    if (request.url === "/length") response.writeHead(200, { "content-length": 20 });
    response.write("0123", () => response.destroy());
  });
  const origin = httpOrigin(t);
  for (const path of ["length", "chunked"]) {
    const opened = await origin.open(ask(`${server.base}/${path}`), ALL, undefined, idle());
    const error = await failure(textOf(opened.body), "ORIGIN_CUT");
    assert.equal(error.retriable, true);
  }
});

test("a chunked body is held to the length that is known otherwise", async (t) => {
  const server = await serve(t, (_request, response) => {
    response.write("0123");
    response.end("4567");
  });
  const origin = httpOrigin(t);
  const long = await origin.open(ask(`${server.base}/f`), ALL, info({ lengthBytes: 6 }), idle());
  await failure(textOf(long.body), "ORIGIN_LENGTH_WRONG");
  const short = await origin.open(ask(`${server.base}/f`), ALL, info({ lengthBytes: 10 }), idle());
  await failure(textOf(short.body), "ORIGIN_CUT");
  const right = await origin.open(ask(`${server.base}/f`), ALL, info({ lengthBytes: 8 }), idle());
  assert.equal(await textOf(right.body), "01234567");
});

test("a chunked 206 that runs longer than its range fails with ORIGIN_LENGTH_WRONG", async (t) => {
  const server = await serve(t, (_request, response) => {
    response.writeHead(206, { "content-range": "bytes 4-7/20" });
    response.write("4567");
    response.end("89");
  });
  const opened = await httpOrigin(t).open(ask(`${server.base}/f`), { startByte: 4, endByte: 8 }, undefined, idle());
  await failure(textOf(opened.body), "ORIGIN_LENGTH_WRONG");
});

test("a changed file is refused: by If-Match, by ETag, Last-Modified, length, and by the length of a 416", async (t) => {
  const server = await serve(t, (request, response) => {
    if (request.headers["if-match"] === '"v0"') response.writeHead(412).end();
    else if (request.url === "/416") response.writeHead(416, { "content-range": "bytes */3" }).end();
    else response.writeHead(200, { etag: 'W/"v1"', "last-modified": "now", "content-length": 20 }).end(FILE);
  });
  const origin = httpOrigin(t);
  const cases: [string, OriginInfo][] = [
    ["/f", info({ etag: '"v0"' })],
    ["/f", info({ etag: 'W/"v0"' })],
    ["/f", info({ lastModified: "then" })],
    ["/f", info({ lengthBytes: 21 })],
    ["/416", info({ lengthBytes: 20 })],
  ];
  for (const [path, expected] of cases) {
    await failure(origin.open(ask(server.base + path), ALL, expected, idle()), "ORIGIN_CHANGED");
  }
  assert.deepEqual(server.seen.map(({ headers }) => headers["if-match"]), ['"v0"', undefined, undefined, undefined, undefined]);
  const same = await origin.open(ask(`${server.base}/f`), ALL, info({ etag: 'W/"v1"', lengthBytes: 20 }), idle());
  assert.equal(await textOf(same.body), FILE.toString());
});
