import assert from "node:assert/strict";
import { test } from "node:test";
import { isCredentialHeader } from "./http-exchange.ts";
import { ask, failure, httpOrigin, idle, serve, textOf } from "./local-server.test.ts";

const ALL = { startByte: 0, endByte: undefined };
const SECRETS = {
  authorization: "Bearer s3cret",
  cookie: "a=b",
  "x-amz-security-token": "t",
  "x-my-token": "t",
  "private-token": "t",
  "x-api-key": "k",
};

test("a redirect to another host loses every credential for good, one within the host keeps them", async (t) => {
  const there = await serve(t, (request, response) => {
    if (request.url === "/1") response.writeHead(307, { location: `${here.base}/end` }).end();
  });
  const here = await serve(t, (request, response) => {
    if (request.url === "/start") response.writeHead(302, { location: "/again#top" }).end("moved");
    else if (request.url === "/again") response.writeHead(308, { location: `${there.base}/1` }).end();
    else response.end("content");
  });
  const opened = await httpOrigin(t).open(
    ask(`${here.base}/start`, { ...SECRETS, "proxy-authorization": "Basic x", accept: "text/x" }),
    { startByte: 0, endByte: 7 },
    undefined,
    idle(),
  );
  assert.equal(await textOf(opened.body), "content");
  assert.deepEqual(here.seen.map(({ url }) => url), ["/start", "/again", "/end"]);
  const secrets = ({ headers }: { headers: object }): string[] => Object.keys(SECRETS).filter((name) => name in headers);
  assert.deepEqual(here.seen.map(secrets), [Object.keys(SECRETS), Object.keys(SECRETS), []]);
  assert.deepEqual(there.seen.map(secrets), [[]]);
  for (const { headers } of [...here.seen, ...there.seen]) {
    assert.equal(headers["proxy-authorization"], undefined);
    assert.equal(headers.accept, "text/x");
    assert.equal(headers.range, "bytes=0-6");
  }
});

test("userinfo becomes Basic for its own host, and appears in no message", async (t) => {
  const there = await serve(t, (_request, response) => response.writeHead(404).end());
  const here = await serve(t, (_request, response) => {
    response.writeHead(301, { location: `${there.base}/f?X-Signature=abc` }).end();
  });
  const url = here.base.replace("//", "//us%C3%A9r:p%40ss@");
  const error = await failure(httpOrigin(t).open(ask(`${url}/f`), ALL, undefined, idle()), "ORIGIN_NOT_FOUND");
  assert.equal(here.seen[0]?.headers.authorization, `Basic ${Buffer.from("usér:p@ss").toString("base64")}`);
  assert.equal(there.seen[0]?.headers.authorization, undefined);
  assert.match(error.message, /\/f\?…/);
  assert.doesNotMatch(error.message, /abc|ss@|us/u);
});

test("userinfo of a redirect is for the host that it names alone, and never in place of what the caller sends there", async (t) => {
  const there = await serve(t, (_request, response) => void response.writeHead(302, { location: `${here.base}/end` }).end());
  const here = await serve(t, (request, response) => {
    const location = request.url === "/start" ? there.base.replace("//", "//u:p@") : here.base.replace("//", "//u:p@");
    if (request.url === "/end" || request.url === "/") response.end("content");
    else response.writeHead(302, { location }).end();
  });
  const origin = httpOrigin(t);
  await textOf((await origin.open(ask(`${here.base}/start`), ALL, undefined, idle())).body);
  await textOf((await origin.open(ask(`${here.base}/own`, { authorization: "Bearer mine" }), ALL, undefined, idle())).body);
  const sent = [...there.seen, ...here.seen].map(({ url, headers }) => [url, headers.authorization]);
  const mine = "Bearer mine";
  assert.deepEqual(sent, [["/", `Basic ${btoa("u:p")}`], ["/start", undefined], ["/end", undefined], ["/own", mine], ["/", mine]]);
});

test("what is named like a secret is one, and what is not is none", () => {
  const secret = ["Authorization", "x-auth", "cookie2", "x-csrf-token", "x-client-secret", "x-password", "x-credential", "x-signature", "x-session-id", "x-jwt-assertion", "apikey", "key"];
  const plain = ["accept", "accept-language", "user-agent", "x-keyboard", "x-tenant", "monkey"];
  assert.deepEqual(secret.filter((name) => !isCredentialHeader(name)), []);
  assert.deepEqual(plain.filter((name) => isCredentialHeader(name)), []);
});

test("a redirect whose body does not end is left, and its place is free for the next request", { timeout: 10_000 }, async (t) => {
  const { promise: left, resolve } = Promise.withResolvers<void>();
  const server = await serve(t, (request, response) => {
    if (request.url === "/end") return void response.end("content");
    response.writeHead(302, { location: "/end" }).write(Buffer.alloc(512 * 1024));
    response.once("close", resolve);
  });
  const opened = await httpOrigin(t, { connectionsPerHostMax: 1 }).open(ask(`${server.base}/start`), ALL, undefined, idle());
  assert.equal(await textOf(opened.body), "content");
  await left;
});

test("redirects end: at the limit, without a target, and at a scheme that is not followed", async (t) => {
  const server = await serve(t, (request, response) => {
    if (request.url === "/file") response.setHeader("location", "file:///etc/passwd");
    if (request.url === "/broken") response.setHeader("location", "http://[");
    if (request.url === "/loop") response.setHeader("location", "/loop");
    response.writeHead(303).end();
  });
  const origin = httpOrigin(t, { maxRedirects: 3 });
  for (const path of ["file", "broken", "none", "loop"]) {
    await failure(origin.stat(ask(`${server.base}/${path}`), idle()), "ORIGIN_PROTOCOL");
  }
  assert.equal(server.seen.filter(({ url }) => url === "/loop").length, 4);
});

test("headers of one connection are not passed on, nor those that Connection names", async (t) => {
  const server = await serve(t, (_request, response) => response.end("x"));
  const headers = { connection: "close, X-Hop", "x-hop": "1", te: "trailers", host: "elsewhere", "X-Mine": "2" };
  const opened = await httpOrigin(t).open(ask(`${server.base}/`, headers), ALL, undefined, idle());
  await textOf(opened.body);
  const seen = server.seen[0]?.headers ?? {};
  assert.deepEqual([seen["x-hop"], seen["te"], seen["x-mine"]], [undefined, undefined, "2"]);
  assert.equal(`http://${seen.host}`, server.base);
});
