/** In whose name registries are asked: `access` of the config, against a registry with a token service. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import type { RegistryAccess } from "../config.ts";
import { errorCode, eventually, fetchAnswer, openLab, patterned, type Lab } from "./lab.test.ts";

const PASSWORD = "planted-password";
const BASIC = `Basic ${Buffer.from(`robot:${PASSWORD}`).toString("base64")}`;

interface TokenLab extends Lab {
  readonly path: string;
  readonly bytes: Buffer;
  tokenRequests: number;
}

/**
 * A registry that takes tokens of its service, which gives `token-<user>` to robot, and to nobody when `isPublic`.
 *
 * @param password dfdaemon has it for robot, whatever the access
 */
async function openTokenLab(t: TestContext, access: RegistryAccess, password: string, isPublic = false): Promise<TokenLab> {
  const lab = await openLab(t, {}, { registry: { access }, credentials: { username: "robot", password } });
  const bytes = patterned(1000);
  const layer = lab.registry.putBlob("team/app", bytes);
  lab.registry.putManifest("team/app", "v1", { config: { digest: layer }, layers: [] });
  lab.registry.mayRead = (authorization) => authorization === "Bearer token-robot" || (isPublic && authorization === "Bearer token-nobody");
  const built = { ...lab, path: `/v2/team/app/blobs/${layer}`, bytes, tokenRequests: 0 };
  lab.registry.intercept = ({ url = "", headers }, response) => {
    if (!url.startsWith("/token")) return false;
    built.tokenRequests++;
    const user = headers.authorization === BASIC ? "robot" : headers.authorization === undefined ? "nobody" : undefined;
    if (user === undefined) response.writeHead(401).end();
    else response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ token: `token-${user}`, expires_in: 300 }));
    return true;
  };
  return built;
}

void test("own-credentials: callers need none, what they send is ignored, the registry's tokens are fetched once", async (t) => {
  const lab = await openTokenLab(t, "own-credentials", PASSWORD);
  const ping = await lab.ask("/v2/");
  assert.equal(ping.status, 200);
  for (const headers of [{}, { authorization: "Bearer nonsense" }]) {
    assert.equal((await lab.ask("/v2/team/app/manifests/v1", { headers })).status, 200);
    assert.deepEqual((await lab.ask(lab.path, { headers })).body, lab.bytes);
  }
  lab.registry.files.set("/v2/team/app/tags/list", { bytes: Buffer.from("{}"), contentType: "application/json" });
  assert.equal((await lab.ask("/v2/team/app/tags/list")).status, 200);
  assert.equal(lab.tokenRequests, 1);
  for (const { headers } of lab.opener.opened) assert.equal(headers["authorization"], "Bearer token-robot");
});

void test("own-credentials: what is not there, and a registry that is down, are told as what they are", async (t) => {
  const lab = await openTokenLab(t, "own-credentials", PASSWORD);
  assert.equal((await lab.ask("/v2/team/app/manifests/none")).status, 404);
  assert.equal((await lab.ask(`/v2/team/app/blobs/sha256:${"0".repeat(64)}`)).status, 404);
  lab.registry.down = true;
  assert.equal((await lab.ask("/v2/team/other/manifests/v1")).status, 502);
});

void test("own-credentials that the registry refuses are the operator's matter: a 403 without a challenge, and without the password", async (t) => {
  const lab = await openTokenLab(t, "own-credentials", "planted-other");
  const answer = await lab.ask("/v2/team/app/manifests/v1", { headers: { authorization: BASIC } });
  assert.equal(answer.status, 403);
  assert.equal(answer.headers["www-authenticate"], undefined);
  assert.equal(errorCode(answer), "DENIED");
  assert.match(answer.body.toString(), /check access, username and passwordFile/);
  await eventually(() => lab.lines.length === 1, "a line of log");
  assert.doesNotMatch(JSON.stringify(lab.lines) + answer.body.toString(), /planted/);
});

void test("public: everybody is nobody, for whom the registry's tokens are fetched; what callers send stays here", async (t) => {
  const lab = await openTokenLab(t, "public", PASSWORD, true);
  assert.equal((await lab.ask("/v2/")).status, 200);
  const headers = { authorization: "Bearer of-alice" };
  // As the supernode does for who comes without credentials.
  const read = lab.registry.read.bind(lab.registry);
  lab.registry.read = (source) => read({ ...source, headers: { authorization: source.headers["authorization"] || "Bearer token-nobody" } });
  assert.deepEqual((await lab.ask(lab.path, { headers })).body, lab.bytes);
  lab.registry.files.set("/v2/team/app/tags/list", { bytes: Buffer.from("{}"), contentType: "application/json" });
  assert.equal((await lab.ask("/v2/team/app/tags/list", { headers })).status, 200);
  const sent = new Set(lab.registry.requests.map((request) => request.headers.authorization));
  assert.deepEqual(sent, new Set([undefined, "Bearer token-nobody"]));
  const closed = await openTokenLab(t, "public", PASSWORD);
  assert.equal((await closed.ask(closed.path, { headers })).status, 403);
});

void test("passthrough: dfdaemon answers a challenge with no credentials of its own, though it has some for this registry", async (t) => {
  const lab = await openTokenLab(t, "passthrough", PASSWORD);
  const refused = await lab.ask(lab.path);
  assert.equal(refused.status, 401);
  assert.equal(refused.headers["www-authenticate"], lab.registry.challenge);
  assert.equal((await lab.ask("/v2/team/app/manifests/v1")).status, 401);
  assert.equal((await lab.ask("/v2/team/app/tags/list")).status, 401);
  assert.deepEqual((await lab.ask(lab.path, { headers: { authorization: "Bearer token-robot" } })).body, lab.bytes);
});

/** As Podman, skopeo, buildah and CRI-O ask. */
const CONTAINERS_IMAGE = { "docker-distribution-api-version": "registry/2.0" };

void test("M9: who decides at /v2/ how to authenticate everywhere is asked for a login, and gets in at each registry as that one wants it", async (t) => {
  const lab = await openTokenLab(t, "passthrough", "planted-other");
  for (const path of ["/v2/", "/v2"]) {
    const ping = await fetchAnswer(lab.port, path, "GET", CONTAINERS_IMAGE);
    assert.deepEqual([ping.status, ping.headers["www-authenticate"]], [401, 'Basic realm="dragonfly"']);
  }
  const headers = { ...CONTAINERS_IMAGE, authorization: BASIC };
  assert.equal((await fetchAnswer(lab.port, "/v2/", "GET", headers)).status, 200, "as podman login asks");
  assert.equal(lab.registry.requests.length, 0, "no registry was named");
  for (const form of ["/v2/reg.test/team/app", "/v2/team/app"]) {
    assert.equal((await fetchAnswer(lab.port, `${form}/manifests/v1`, "GET", headers)).status, 200);
    const blob = lab.path.replace("/v2/team/app", form);
    assert.deepEqual((await fetchAnswer(lab.port, blob, "GET", headers)).body, lab.bytes);
  }
  lab.registry.files.set("/v2/team/app/tags/list", { bytes: Buffer.from("{}"), contentType: "application/json" });
  assert.equal((await fetchAnswer(lab.port, "/v2/reg.test/team/app/tags/list", "GET", headers)).status, 200);
  assert.equal(lab.tokenRequests, 1);
  for (const opened of lab.opener.opened) assert.equal(opened.headers["authorization"], "Bearer token-robot");
  const shown = lab.registry.requests.filter(({ headers: { authorization } }) => authorization === BASIC).map(({ url }) => url.split("?")[0]);
  assert.deepEqual(shown, ["/token"], "the password went elsewhere");
});

void test("M9: a login without name and password is nobody's", async (t) => {
  const lab = await openTokenLab(t, "passthrough", PASSWORD);
  const headers = { ...CONTAINERS_IMAGE, authorization: `Basic ${btoa(":")}` };
  const refused = await fetchAnswer(lab.port, "/v2/reg.test/team/app/manifests/v1", "GET", headers);
  assert.deepEqual([refused.status, refused.headers["www-authenticate"], lab.tokenRequests], [401, lab.registry.challenge, 0]);
  lab.registry.mayRead = (authorization) => authorization === undefined;
  assert.deepEqual((await fetchAnswer(lab.port, lab.path, "GET", headers)).body, lab.bytes);
});

void test("M14: a password for the mirror is taken to no registry that its operator has not named", async (t) => {
  const lab = await openTokenLab(t, "passthrough", PASSWORD);
  const elsewhere = new URL(lab.registry.challenge.split('"')[1] ?? "").host.replace(":", "_");
  const headers = { ...CONTAINERS_IMAGE, authorization: BASIC };
  const answer = await fetchAnswer(lab.port, `/v2/${elsewhere}/team/app/manifests/v1`, "GET", headers);
  assert.equal(answer.status, 401);
  assert.equal((await fetchAnswer(lab.port, lab.path.replace("/v2", `/v2/${elsewhere}`), "GET", headers)).status, 401);
  const sent = [...lab.registry.requests.map((request) => request.headers.authorization), ...lab.opener.opened.map((source) => source.headers["authorization"] || undefined)];
  assert.deepEqual(new Set(sent), new Set([undefined, "Bearer token-nobody"]));
});

void test("a login counts for nothing where dfdaemon has credentials of its own", async (t) => {
  const lab = await openTokenLab(t, "own-credentials", PASSWORD);
  const headers = { ...CONTAINERS_IMAGE, authorization: `Basic ${btoa("robot:planted-wrong")}` };
  assert.equal((await fetchAnswer(lab.port, "/v2/reg.test/team/app/manifests/v1", "GET", headers)).status, 200);
  assert.deepEqual((await fetchAnswer(lab.port, lab.path, "GET", headers)).body, lab.bytes);
});

void test("a password that comes by the proxy is the registry's own, whoever brings it", async (t) => {
  const lab = await openTokenLab(t, "passthrough", PASSWORD);
  const upstream = { name: "elsewhere.test", baseUrl: new URL(lab.registry.challenge.split('"')[1] ?? "").origin, access: "passthrough" } as const;
  const server = createServer((request, response) => void lab.mirror.handle(request, response, upstream));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const path = "/v2/team/app/manifests/v1?ns=elsewhere.test";
  await fetchAnswer((server.address() as AddressInfo).port, path, "GET", { ...CONTAINERS_IMAGE, authorization: BASIC });
  assert.deepEqual(lab.opener.opened.map((source) => source.headers["authorization"]), [BASIC]);
});

void test("M14: a wrong password is the registry's refusal, and is in no answer and no log", async (t) => {
  const lab = await openTokenLab(t, "passthrough", PASSWORD);
  const headers = { ...CONTAINERS_IMAGE, authorization: `Basic ${btoa("robot:planted-wrong")}` };
  assert.equal((await fetchAnswer(lab.port, lab.path, "GET", { ...headers, authorization: BASIC })).status, 200);
  // In memory by now, and granted to who has the right password.
  const { digest } = lab.registry.putManifest("team/app", "v2", { config: {}, layers: [] });
  const byDigest = `/v2/reg.test/team/app/manifests/${digest}`;
  assert.equal((await fetchAnswer(lab.port, byDigest, "GET", { ...headers, authorization: BASIC })).status, 200);
  for (const path of [byDigest, "/v2/reg.test/team/app/manifests/v1", lab.path]) {
    const refused = await fetchAnswer(lab.port, path, "GET", headers);
    assert.deepEqual([refused.status, refused.headers["www-authenticate"], errorCode(refused)], [401, lab.registry.challenge, "UNAUTHORIZED"]);
    assert.doesNotMatch(refused.body.toString(), /planted/);
  }
  await eventually(() => lab.lines.length === 5, "five lines of log");
  assert.doesNotMatch(JSON.stringify(lab.lines), /planted/);
});
