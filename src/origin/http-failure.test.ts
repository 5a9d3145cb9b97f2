import assert from "node:assert/strict";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import type { OriginInfo } from "./origin.ts";
import { ask, failure, httpOrigin, idle, serve, textOf } from "./local-server.test.ts";

const ALL = { startByte: 0, endByte: undefined };

test("statuses become codes, with what they tell in details", async (t) => {
  const server = await serve(t, (request, response) => {
    const headers: Record<string, string> = { "www-authenticate": 'Basic realm="x"' };
    if (request.url === "/503") headers["retry-after"] = "7";
    if (request.url === "/429") headers["retry-after"] = "Thu, 01 Jan 1970 00:00:05 GMT";
    if (request.url === "/416") headers["content-range"] = "bytes */9";
    response.writeHead(Number(request.url?.slice(1)), headers).end("no");
  });
  // One for each: what says 429 is left alone.
  const of = (status: number, code: Parameters<typeof failure>[1]): Promise<{ details: object }> =>
    failure(httpOrigin(t, { nowUnixMs: () => 2000 }).open(ask(`${server.base}/${status}`), ALL, undefined, idle()), code);
  const at = { origin: server.base };
  const unauthorized = await of(401, "ORIGIN_UNAUTHORIZED");
  assert.deepEqual(unauthorized.details, { ...at, status: 401, wwwAuthenticate: 'Basic realm="x"' });
  assert.deepEqual((await of(503, "ORIGIN_BUSY")).details, { ...at, status: 503, retryAfterMs: 7000 });
  assert.deepEqual((await of(429, "ORIGIN_BUSY")).details, { ...at, status: 429, retryAfterMs: 3000 });
  assert.deepEqual((await of(416, "RANGE_NOT_SATISFIABLE")).details, { ...at, status: 416, lengthBytes: 9 });
  for (const status of [408, 500, 502, 504]) assert.deepEqual((await of(status, "ORIGIN_BUSY")).details, { ...at, status });
  for (const [status, code] of [[403, "ORIGIN_FORBIDDEN"], [404, "ORIGIN_NOT_FOUND"], [410, "ORIGIN_NOT_FOUND"], [412, "ORIGIN_STATUS"], [501, "ORIGIN_STATUS"]] as const) {
    await of(status, code);
  }
});

test("an abort ends headers and body with ABORTED, or with the AppError it was given", async (t) => {
  const server = await serve(t, (request, response) => {
    if (request.url === "/body") response.write("0123");
  });
  const origin = httpOrigin(t);
  const early = new AbortController();
  const waiting = origin.open(ask(`${server.base}/silent`), ALL, undefined, early.signal);
  setImmediate(() => early.abort());
  await failure(waiting, "ABORTED");
  const late = new AbortController();
  const opened = await origin.open(ask(`${server.base}/body`), ALL, undefined, late.signal);
  const reading = textOf(opened.body);
  setImmediate(() => late.abort(new Error("enough")));
  await failure(reading, "ABORTED");
  await failure(origin.stat(ask(`${server.base}/f`), AbortSignal.abort()), "ABORTED");
});

test("a body whose chunks make no sense any more broke off: it is worth another attempt", async (t) => {
  const server = await serve(t, (_request, response) => {
    response.write("0123", () => response.socket?.end("no chunk\r\n"));
  });
  const opened = await httpOrigin(t).open(ask(`${server.base}/f`), ALL, undefined, idle());
  assert.equal((await failure(textOf(opened.body), "ORIGIN_CUT")).retriable, true);
});

test("a silent origin times out, before the headers and within the body", async (t) => {
  const server = await serve(t, (request, response) => {
    if (request.url === "/body") response.write("0123");
  });
  await failure(httpOrigin(t, { headersTimeoutMs: 30 }).open(ask(`${server.base}/silent`), ALL, undefined, idle()), "TIMEOUT");
  const opened = await httpOrigin(t, { bodyTimeoutMs: 30 }).open(ask(`${server.base}/body`), ALL, undefined, idle());
  await failure(textOf(opened.body), "TIMEOUT");
});

test("hosts that are not there and URLs that are none", async (t) => {
  const origin = httpOrigin(t);
  const stat = (url: string): Promise<OriginInfo> => origin.stat(ask(url), idle());
  await failure(stat("http://no-such-host.invalid/f"), "HOST_UNRESOLVABLE");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  await failure(stat(`http://127.0.0.1:${port}/f`), "ORIGIN_UNREACHABLE");
  await failure(stat("not a url"), "URL_INVALID");
  await failure(stat("ftp://host/f"), "SCHEME_UNSUPPORTED");
  await failure(stat("http://us%er:p%zz@127.0.0.1/"), "URL_INVALID");
  await failure(origin.stat(ask(`http://127.0.0.1:${port}/`, { "x-a": "b\r\nc: d" }), idle()), "USAGE");
});

test("what is no HTTP is ORIGIN_PROTOCOL; TLS with a plain server is TLS_FAILED", async (t) => {
  const raw = createServer((socket) => void socket.on("error", () => {}).end("220 mail.example ESMTP\r\n"));
  await new Promise<void>((resolve) => raw.listen(0, "127.0.0.1", resolve));
  t.after(() => raw.close());
  const host = `127.0.0.1:${(raw.address() as AddressInfo).port}`;
  await failure(httpOrigin(t).stat(ask(`http://${host}/`), idle()), "ORIGIN_PROTOCOL");
  await failure(httpOrigin(t).stat(ask(`https://${host}/`), idle()), "TLS_FAILED");
});
