import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { HttpOrigin } from "./http-origin.ts";
import { failure, serve } from "./local-server.test.ts";
import type { OriginInfo } from "./origin.ts";
import { withRetries } from "./retry.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;
const CONTENT = Buffer.from("0123456789");
const SIGNAL = new AbortController().signal;
const EXPECTED: OriginInfo = { lengthBytes: CONTENT.length, ranges: true, etag: undefined, lastModified: undefined, contentType: undefined, headers: {} };

/** A registry that sends to a store by signed addresses, each good for `uses` requests. */
async function stores(t: TestContext, uses: number) {
  let signatures = 0;
  const left = new Map<string, number>();
  const store = await serve(t, (request, response) => {
    const signature = new URL(request.url ?? "", "http://x").searchParams.get("sig") ?? "";
    const remaining = left.get(signature) ?? 0;
    if (remaining <= 0) return void response.writeHead(403, { "www-authenticate": "Basic realm=store" }).end();
    left.set(signature, remaining - 1);
    const [, from = "0"] = /bytes=(\d+)-/.exec(request.headers.range ?? "") ?? [];
    const body = CONTENT.subarray(Number(from));
    response.writeHead(request.headers.range === undefined ? 200 : 206, {
      "content-length": body.length, "content-range": `bytes ${from}-${CONTENT.length - 1}/${CONTENT.length}`,
    });
    response.end(request.method === "HEAD" ? undefined : body);
  });
  const registry = await serve(t, (request, response) => {
    if (request.headers.authorization !== "Bearer good") return void response.writeHead(401).end();
    left.set(String(++signatures), uses);
    response.writeHead(307, { location: `${store.base}/x?sig=${signatures}` }).end();
  });
  const clock = { nowMs: 0 };
  const origin = new HttpOrigin({ nowMs: () => clock.nowMs });
  t.after(() => origin.close());
  const request = { url: `${registry.base}/v2/team/app/blobs/${DIGEST}`, headers: { authorization: "Bearer good" } };
  const readFrom = async (startByte: number, isFirst = false, asked = request): Promise<string> => {
    const { body } = await origin.open(asked, { startByte, endByte: undefined }, isFirst ? undefined : EXPECTED, SIGNAL);
    const chunks: Buffer[] = [];
    for await (const chunk of body as AsyncIterable<Buffer>) chunks.push(chunk);
    return Buffer.concat(chunks).toString();
  };
  return { registry, store, clock, request, readFrom, origin };
}

test("the rest of a blob is read where its registry sent us before, and by another address when that one is over", async (t) => {
  const { registry, store, clock, readFrom } = await stores(t, 2);
  assert.equal(await readFrom(0), "0123456789");
  assert.equal(await readFrom(4), "456789");
  assert.equal(registry.seen.length, 1);
  assert.equal(await readFrom(8), "89");
  assert.equal(registry.seen.length, 2, "the signature was used up: a new one was had through the original URL");
  assert.equal(await readFrom(9), "9");
  clock.nowMs = 10 * 60_000;
  assert.equal(await readFrom(9), "9");
  assert.equal(registry.seen.length, 3, "too old");
  assert.ok(store.seen.every(({ headers }) => headers.authorization === undefined));
});

test("an address that is good still is left ten minutes after its last use, and not because a reader hung up", async (t) => {
  const { registry, clock, request, readFrom, origin } = await stores(t, 9);
  assert.equal(await readFrom(0), "0123456789");
  await failure(origin.open(request, { startByte: 4, endByte: undefined }, EXPECTED, AbortSignal.abort()), "ABORTED");
  clock.nowMs = 10 * 60_000 - 1;
  assert.equal(await readFrom(4), "456789");
  assert.equal(registry.seen.length, 1);
  clock.nowMs += 10 * 60_000;
  assert.equal(await readFrom(4), "456789");
  assert.equal(registry.seen.length, 2);
});

test("an address is the caller's own, and opens nothing to who begins to read", async (t) => {
  const { registry, request, readFrom } = await stores(t, 9);
  assert.equal(await readFrom(0), "0123456789");
  await failure(readFrom(4, false, { ...request, headers: { authorization: "Bearer bad" } }), "ORIGIN_UNAUTHORIZED");
  assert.equal(await readFrom(0, true), "0123456789");
  assert.equal(registry.seen.length, 3);
});

test("what is no blob is asked for by its own address each time: another file may be behind it by now", async (t) => {
  const { registry, request, readFrom } = await stores(t, 9);
  const file = { ...request, url: request.url.replace(DIGEST, "latest") };
  assert.equal(await readFrom(0, true, file), "0123456789");
  assert.equal(await readFrom(4, false, file), "456789");
  assert.equal(registry.seen.length, 2);
});

test("a store that refuses a signed address says nothing of the caller: it is a trouble that another attempt may mend", async (t) => {
  const { registry, readFrom } = await stores(t, 0);
  const error = await failure(readFrom(0), "ORIGIN_BUSY");
  assert.equal(error.details["wwwAuthenticate"], undefined);
  assert.doesNotMatch(error.message, /sig=/);
  const attempt = withRetries(() => readFrom(0), { attempts: 3, signal: SIGNAL, sleep: () => Promise.resolve(), random: () => 0 });
  await failure(attempt, "ORIGIN_BUSY");
  assert.equal(registry.seen.length, 4, "each time through the original URL");
});

test("M8: an origin that answers 429 is left alone for as long as it says, by the same caller", async (t) => {
  let isLimited = true;
  const server = await serve(t, (_request, response) => {
    if (isLimited) response.writeHead(429, { "retry-after": "7" }).end();
    else response.writeHead(200, { "content-length": 1, "accept-ranges": "bytes" }).end("x");
  });
  const clock = { nowMs: 0 };
  const origin = new HttpOrigin({ nowMs: () => clock.nowMs });
  t.after(() => origin.close());
  const ask = (authorization: string) => origin.stat({ url: `${server.base}/file`, headers: { authorization } }, SIGNAL);
  await failure(ask("a"), "ORIGIN_BUSY");
  isLimited = false;
  clock.nowMs = 4_000;
  assert.equal((await failure(ask("a"), "ORIGIN_BUSY")).details["retryAfterMs"], 3_000);
  assert.equal(server.seen.length, 1);
  await ask("b");
  clock.nowMs = 7_000;
  await ask("a");
  assert.equal(server.seen.length, 3);
});

test("an origin that wishes for an hour is asked again after a minute, and one that is busy over one file (503) at once", async (t) => {
  let status = 503;
  const server = await serve(t, (_request, response) => void response.writeHead(status, { "retry-after": "3600" }).end());
  const clock = { nowMs: 0 };
  const origin = new HttpOrigin({ nowMs: () => clock.nowMs });
  t.after(() => origin.close());
  const ask = () => failure(origin.stat({ url: `${server.base}/file`, headers: {} }, SIGNAL), "ORIGIN_BUSY");
  await ask();
  await ask();
  assert.equal(server.seen.length, 2);
  status = 429;
  await ask();
  clock.nowMs = 57_999;
  await ask();
  assert.equal(server.seen.length, 3);
  clock.nowMs = 60_000;
  await ask();
  assert.equal(server.seen.length, 4);
});
