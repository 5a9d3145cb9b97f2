import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { AppError } from "../base/errors.ts";
import { ask, failure, httpOrigin, idle, serve, textOf } from "./local-server.test.ts";
import type { LocalServer } from "./local-server.test.ts";
import type { Origin } from "./origin.ts";
import { NOBODY, RegistryOrigin } from "./registry-auth.ts";
import { RegistryTokens } from "./registry-tokens.ts";
import type { RegistryOriginOptions } from "./registry-auth.ts";

const ALL = { startByte: 0, endByte: undefined };
const BLOB = "/v2/library/app/blobs/sha256:0";

interface Registry {
  readonly registry: LocalServer;
  readonly tokens: LocalServer;
}

/** A registry that lets in who has the newest token, and its token service, which numbers the tokens. */
async function registryWithTokens(
  t: TestContext,
  service: (request: IncomingMessage, count: number) => object | undefined = (_request, count) => ({ token: `t${count}` }),
): Promise<Registry> {
  let count = 0;
  const tokens = await serve(t, (request, response) => {
    count += 1;
    const answer = service(request, count);
    response.writeHead(answer === undefined ? 401 : 200).end(JSON.stringify(answer ?? {}));
  });
  const registry = await serve(t, (request, response) => {
    if (request.headers.authorization === `Bearer t${count}` && count > 0) {
      response.end(request.method === "HEAD" ? undefined : "blob");
      return;
    }
    const challenge = `Bearer realm="${tokens.base}/token?x=1",service="reg, one",scope="repository:library/app:pull a:b:c"`;
    response.writeHead(401, { "www-authenticate": challenge }).end();
  });
  return { registry, tokens };
}

function registryOrigin(t: TestContext, options?: RegistryOriginOptions): RegistryOrigin {
  return new RegistryOrigin(httpOrigin(t), options);
}

async function read(origin: Origin, url: string, headers: Record<string, string> = {}): Promise<string> {
  return textOf((await origin.open(ask(url, headers), ALL, undefined, idle())).body);
}

test("an anonymous caller gets in with a token, which serves the whole repository at once", async (t) => {
  const { registry, tokens } = await registryWithTokens(t);
  const origin = registryOrigin(t);
  assert.equal(await read(origin, registry.base + BLOB), "blob");
  assert.equal(await read(origin, `${registry.base}/v2/library/app/manifests/latest`), "blob");
  assert.deepEqual(tokens.seen.map(({ url }) => url), [
    "/token?x=1&service=reg%2C+one&scope=repository%3Alibrary%2Fapp%3Apull&scope=a%3Ab%3Ac",
  ]);
  assert.equal(tokens.seen[0]?.headers.authorization, undefined);
  assert.equal(registry.seen.length, 3);
});

test("many who ask at once fetch one token, and one who leaves does not take it from the others", async (t) => {
  const { registry, tokens } = await registryWithTokens(t);
  const origin = registryOrigin(t);
  const leaving = new AbortController();
  const left = origin.open(ask(registry.base + BLOB), ALL, undefined, leaving.signal);
  const texts = Promise.all([1, 2, 3].map(() => read(origin, registry.base + BLOB)));
  setImmediate(() => leaving.abort());
  await failure(left, "ABORTED");
  assert.deepEqual(await texts, ["blob", "blob", "blob"]);
  assert.equal(tokens.seen.length, 1);
});

test("a token is renewed 10 s before it expires, and when the registry refuses it early", async (t) => {
  let nowMs = 0;
  const { registry, tokens } = await registryWithTokens(t, (_request, count) => ({ access_token: `t${count}`, expires_in: 30 }));
  const origin = registryOrigin(t, { nowMs: () => nowMs });
  const url = registry.base + BLOB;
  await read(origin, url);
  nowMs = 19_999;
  await read(origin, url);
  assert.equal(tokens.seen.length, 1);
  nowMs = 20_000;
  await read(origin, url);
  assert.equal(tokens.seen.length, 2);
  await fetch(`${tokens.base}/token`);
  assert.equal(await read(origin, url), "blob");
  assert.equal(tokens.seen.length, 4);
});

test("a caller with credentials of his own is relayed what the registry says, and the realm never sees them", async (t) => {
  const { registry, tokens } = await registryWithTokens(t);
  const origin = registryOrigin(t);
  const error = await failure(read(origin, registry.base + BLOB, { Authorization: "Bearer mine" }), "ORIGIN_UNAUTHORIZED");
  assert.match(String(error.details["wwwAuthenticate"]), /^Bearer realm=/);
  await failure(read(origin, registry.base.replace("//", "//a:b@") + BLOB), "ORIGIN_UNAUTHORIZED");
  assert.equal(tokens.seen.length, 0);
});

test("configured credentials go to the realm of their registry, and to a Basic challenge", async (t) => {
  const { registry, tokens } = await registryWithTokens(t);
  const basic = await serve(t, (request, response) => {
    if (request.headers.authorization === `Basic ${btoa("me:pw")}`) response.end("basic");
    else response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end();
  });
  const me = { username: "me", password: "pw" };
  const hosts = [registry, basic].map(({ base }) => [base, me] as const);
  const origin = registryOrigin(t, { credentials: new Map(hosts) });
  assert.equal(await read(origin, registry.base + BLOB), "blob");
  assert.equal(tokens.seen[0]?.headers.authorization, `Basic ${btoa("me:pw")}`);
  assert.equal(await read(origin, basic.base + BLOB), "basic");
  await failure(read(registryOrigin(t), basic.base + BLOB), "ORIGIN_UNAUTHORIZED");
});

test("who says that he is nobody is opened nothing by what is configured, nor by the token that it had before", async (t) => {
  const { registry, tokens } = await registryWithTokens(t);
  const basic = await serve(t, (request, response) => {
    if (request.headers.authorization === `Basic ${btoa("me:pw")}`) response.end("basic");
    else response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end();
  });
  const me = { username: "me", password: "pw" };
  const origin = registryOrigin(t, { credentials: new Map([registry, basic].map(({ base }) => [base, me] as const)) });
  const nobody = { authorization: NOBODY };
  assert.deepEqual([await read(origin, registry.base + BLOB), await read(origin, basic.base + BLOB)], ["blob", "basic"]);
  assert.equal(await read(origin, registry.base + BLOB, nobody), "blob");
  assert.deepEqual(tokens.seen.map(({ headers }) => headers.authorization), [`Basic ${btoa("me:pw")}`, undefined]);
  assert.deepEqual(registry.seen.map(({ headers }) => headers.authorization), [undefined, "Bearer t1", undefined, "Bearer t2"]);
  await failure(read(origin, basic.base + BLOB, nobody), "ORIGIN_UNAUTHORIZED");
});

test("a login that comes with the request is used in place of what is configured, and its tokens are its own", async (t) => {
  let nowMs = 0;
  const { registry, tokens } = await registryWithTokens(t, (_request, count) => ({ token: `t${count}`, expires_in: 3600 }));
  const basic = await serve(t, (request, response) => {
    if (request.headers.authorization === `Basic ${btoa("alice:a")}`) response.end("basic");
    else response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end();
  });
  const origin = registryOrigin(t, { credentials: new Map([[registry.base, { username: "me", password: "pw" }]]), nowMs: () => nowMs });
  const authorizationOf = (username: string, base = registry.base, password = username.slice(0, 1)): Promise<string | undefined> =>
    origin.authorizationFor({ ...ask(base + BLOB), login: { username, password } }, idle());
  assert.deepEqual([await authorizationOf("alice"), await authorizationOf("bob"), await authorizationOf("alice")], ["Bearer t1", "Bearer t2", "Bearer t1"]);
  assert.deepEqual(tokens.seen.map(({ headers }) => headers.authorization), [`Basic ${btoa("alice:a")}`, `Basic ${btoa("bob:b")}`]);
  assert.deepEqual(tokens.seen.map(({ url = "" }) => new URL(url, "http://x").searchParams.get("account")), ["alice", "bob"]);
  assert.ok(registry.seen.every(({ headers }) => headers.authorization?.startsWith("Basic") !== true), "the registry was shown a password");
  nowMs = 29_999;
  assert.equal(await authorizationOf("alice"), "Bearer t1");
  nowMs = 30_000;
  assert.equal(await authorizationOf("alice"), "Bearer t3", "a caller's token stands for what he may for some seconds only");
  assert.equal(await authorizationOf("alice", basic.base), `Basic ${btoa("alice:a")}`);
  assert.equal(await authorizationOf("alice", registry.base, "guessed"), "Bearer t4", "her name alone opens nothing");
  assert.equal(tokens.seen.at(-1)?.headers.authorization, `Basic ${btoa("alice:guessed")}`);
});

test("a token is of one scope and service, one password, and kept as long as the caller's may be", async () => {
  let fetched = 0;
  const inner = {
    open: () => Promise.resolve({ body: Readable.from([Buffer.from(`{"token":"t${++fetched}","expires_in":3600}`)]) }),
  } as unknown as Origin;
  const tokens = new RegistryTokens(inner, () => 0);
  const credentials = { username: "u", password: "p" };
  const one = { realm: "http://auth.test/token", service: "s", scope: "repository:a:pull", credentials };
  const others = [{ ...one, scope: "repository:b:pull" }, { ...one, service: "other" }, { ...one, credentials: { ...credentials, password: "q" } }, { ...one, credentials: undefined }, { ...one, keptMs: 5 }];
  const found: string[] = [];
  for (const scope of [one, ...others, one]) found.push(await tokens.get(scope, idle()));
  assert.deepEqual(found, ["Bearer t1", "Bearer t2", "Bearer t3", "Bearer t4", "Bearer t5", "Bearer t6", "Bearer t1"]);
});

test("of very many callers the tokens that were fetched first are forgotten", async () => {
  let fetched = 0;
  const inner = {
    open: () => Promise.resolve({ body: Readable.from([Buffer.from(`{"token":"t${++fetched}"}`)]) }),
  } as unknown as Origin;
  const tokens = new RegistryTokens(inner, () => 0);
  const get = (user: number): Promise<string> =>
    tokens.get({ realm: "http://auth.test/token", service: undefined, scope: undefined, credentials: { username: `u${user}`, password: "x" } }, idle());
  for (let user = 0; user <= 1024; user++) await get(user);
  assert.deepEqual([await get(1), fetched], ["Bearer t2", 1025]);
  assert.equal(await get(0), "Bearer t1026");
});

test("a repository that wanted nothing is asked again after a minute what it wants", async (t) => {
  let nowMs = 0;
  let isOpen = true;
  const registry = await serve(t, (request, response) => {
    if (isOpen || request.headers.authorization !== undefined) response.end();
    else response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end();
  });
  const origin = registryOrigin(t, { credentials: new Map([[registry.base, { username: "me", password: "pw" }]]), nowMs: () => nowMs });
  const authorization = (): Promise<string | undefined> => origin.authorizationFor(ask(registry.base + BLOB), idle());
  assert.equal(await authorization(), undefined);
  isOpen = false;
  nowMs = 59_999;
  const before = registry.seen.length;
  assert.deepEqual([await authorization(), registry.seen.length], [undefined, before]);
  nowMs = 60_000;
  assert.equal(await authorization(), `Basic ${btoa("me:pw")}`);
});

test("a token service that refuses, or talks nonsense, is told apart", async (t) => {
  const refused = await registryWithTokens(t, () => undefined);
  const error = await failure(read(registryOrigin(t), refused.registry.base + BLOB), "ORIGIN_UNAUTHORIZED");
  assert.match(String(error.details["wwwAuthenticate"]), /^Bearer realm=/);
  for (const answer of [{}, { token: "" }, { token: "a\r\nb: c" }, { token: 5 }, { token: "x".repeat(300_000) }]) {
    const { registry } = await registryWithTokens(t, () => answer);
    await failure(read(registryOrigin(t), registry.base + BLOB), "ORIGIN_PROTOCOL");
  }
});

test("a token that is refused at once is not fetched for ever", async (t) => {
  const { registry, tokens } = await registryWithTokens(t, () => ({ token: "wrong" }));
  await failure(read(registryOrigin(t), registry.base + BLOB), "ORIGIN_UNAUTHORIZED");
  assert.deepEqual([registry.seen.length, tokens.seen.length], [2, 1]);
});

test("a redirected host's challenge is not followed: it could ask for our password", async (t) => {
  const { registry: stranger, tokens } = await registryWithTokens(t);
  const registry = await serve(t, (_request, response) => response.writeHead(307, { location: `${stranger.base}/x` }).end());
  const credentials = new Map([[registry.base, { username: "me", password: "pw" }]]);
  await failure(read(registryOrigin(t, { credentials }), registry.base + BLOB), "ORIGIN_UNAUTHORIZED");
  assert.equal(tokens.seen.length, 0);
});

test("where there is no registry, a realm is a name for people, and the 401 is told as it is", async () => {
  const details = { wwwAuthenticate: 'Bearer realm="files"' };
  const inner: Origin = {
    stat: () => Promise.reject(new AppError("ORIGIN_UNAUTHORIZED", "log in", { details })),
    open: () => Promise.reject(new Error("asked again")),
  };
  const error = await failure(new RegistryOrigin(inner).stat(ask("https://web.example/file"), idle()), "ORIGIN_UNAUTHORIZED");
  assert.equal(error.message, "log in");
});

test("an https registry may not send us to an http realm, nor anyone to what is no address", async () => {
  const asked: string[] = [];
  const inner = (realm: string): Origin => ({
    stat(request) {
      asked.push(request.url);
      const details = { wwwAuthenticate: `Bearer realm="${realm}"` };
      return Promise.reject(new AppError("ORIGIN_UNAUTHORIZED", "no", { details }));
    },
    open: () => Promise.reject(new Error("asked the realm")),
  });
  for (const realm of ["http://auth.example/token", "ftp://auth.example/", "https://a:b@auth.example/", "nowhere"]) {
    const origin = new RegistryOrigin(inner(realm));
    const error = await failure(origin.stat(ask(`https://reg.example${BLOB}`), idle()), "ORIGIN_PROTOCOL");
    assert.doesNotMatch(error.message, /a:b/);
  }
  assert.equal(asked.length, 4);
});
