import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import { type Answer, errorCode, eventually, fetchAnswer, LabRegistry, openLab, patterned, sha256 } from "./lab.test.ts";

const DIGEST = sha256("x");

void test("M7: a request that names no registry is a 404 at once", async (t) => {
  const lab = await openLab(t, {}, { sole: false });
  for (const path of ["/v2/team/app/manifests/v1", `/v2/team/app/blobs/${DIGEST}`, "/v2/team/app/tags/list", "/v2/_catalog"]) {
    const startMs = performance.now();
    const answer = await fetchAnswer(lab.port, path);
    assert.ok(performance.now() - startMs < 5_000, path);
    assert.equal(answer.status, 404);
    assert.equal(errorCode(answer), "NAME_UNKNOWN");
    assert.equal(answer.headers["content-type"], "application/json");
  }
  assert.equal(lab.opener.opened.length, 0);
});

void test("M7: a registry that nobody can reach is an error soon, with the specification's body", async (t) => {
  const lab = await openLab(t, {}, { sole: false });
  lab.opener.open = () => Promise.reject(new AppError("HOST_UNRESOLVABLE", "no such host"));
  const answer = await fetchAnswer(lab.port, "/v2/team/app/manifests/v1?ns=other.test");
  assert.equal(answer.status, 502);
  assert.equal(errorCode(answer), "UNAVAILABLE");
});

void test("M10: the registry by ns, by path, or the only one there is; OCI-Namespace says which", async (t) => {
  const lab = await openLab(t);
  const bytes = patterned(10);
  const digest = lab.registry.putBlob("team/app", bytes);
  const byQuery = await fetchAnswer(lab.port, `/v2/team/app/blobs/${digest}?ns=reg.test`);
  assert.equal(byQuery.headers["oci-namespace"], "reg.test");
  const byPath = await fetchAnswer(lab.port, `/v2/reg.test/team/app/blobs/${digest}`);
  assert.equal(byPath.headers["oci-namespace"], "reg.test");
  const unnamed = await fetchAnswer(lab.port, `/v2/team/app/blobs/${digest}`);
  assert.equal(unnamed.headers["oci-namespace"], undefined);
  for (const answer of [byQuery, byPath, unnamed]) assert.deepEqual(answer.body, bytes);
  assert.equal(new Set(lab.opener.opened.map(({ url }) => url)).size, 1);
});

void test("a Docker that names no registry means docker.io, never another that is the only one here", async (t) => {
  const lab = await openLab(t);
  const digest = lab.registry.putBlob("team/app", patterned(10));
  lab.registry.mayRead = (authorization) => authorization !== undefined;
  const asDocker = { "user-agent": "docker/20.10.24 go/go1.19" };
  const ping = await fetchAnswer(lab.port, "/v2/", "GET", asDocker);
  assert.equal(ping.status, 200, "a challenge of the other would send it docker.io's credentials");
  const opened: string[] = [];
  lab.opener.open = ({ source }) => {
    opened.push(source.url);
    return Promise.reject(new AppError("ORIGIN_UNREACHABLE", "no network"));
  };
  await fetchAnswer(lab.port, `/v2/team/app/manifests/${digest}`, "GET", asDocker);
  assert.deepEqual(lab.registry.requests, []);
  assert.deepEqual(opened, [`https://registry-1.docker.io/v2/team/app/manifests/${digest}`]);
});

void test("a Docker that has docker.io's token for all it asks of this host gets what anybody may have of other registries", async (t) => {
  const lab = await openLab(t, {}, { registry: { host: "docker.io" } });
  lab.registry.putManifest("team/app", "v1", { config: {}, layers: [] });
  const digest = lab.registry.putBlob("team/app", patterned(10));
  const elsewhere = new URL(lab.registry.challenge.split('"')[1] ?? "").host.replace(":", "_");
  const get = async (rest: string, userAgent: string): Promise<number> =>
    (await fetchAnswer(lab.port, `/v2/${elsewhere}/team/app/${rest}`, "GET", { "user-agent": userAgent, authorization: "Bearer of-docker.io" })).status;
  lab.registry.mayRead = (authorization) => authorization === undefined;
  for (const rest of ["manifests/v1", `blobs/${digest}`]) {
    assert.equal(await get(rest, "docker/20.10.24 go/go1.19"), 200, rest);
    assert.equal(await get(rest, "containerd/2.1"), 401, rest);
    // With containerd's store it has asked the registry itself for its token.
    const byNamespace = `/v2/team/app/${rest}?ns=${elsewhere.replace("_", ":")}`;
    const headers = { "user-agent": "docker/28.5.2", authorization: "Bearer of-docker.io" };
    assert.equal((await fetchAnswer(lab.port, byNamespace, "GET", headers)).status, 401, rest);
  }
  lab.registry.mayRead = () => false;
  assert.equal(await get("manifests/v1", "docker/20.10.24 go/go1.19"), 401);
  const without = await openLab(t);
  without.registry.putManifest("team/app", "v1", { config: {}, layers: [] });
  without.registry.mayRead = (authorization) => authorization === undefined;
  const asDocker = { "user-agent": "docker/20.10.24 go/go1.19", authorization: "Bearer mine" };
  assert.equal((await fetchAnswer(without.port, "/v2/reg.test/team/app/manifests/v1", "GET", asDocker)).status, 401, "docker.io's challenge was never relayed");
});

void test("M13: manifests/sha256:garbage is a 400, without a question upstream", async (t) => {
  const lab = await openLab(t);
  const answer = await lab.ask("/v2/team/app/manifests/sha256:garbage");
  assert.equal(answer.status, 400);
  assert.equal(errorCode(answer), "DIGEST_INVALID");
  assert.equal(lab.registry.requests.length + lab.opener.opened.length, 0);
});

void test("M8: a registry's 429 reaches no client as 429", async (t) => {
  const lab = await openLab(t);
  lab.opener.open = () => Promise.reject(new AppError("ORIGIN_BUSY", "busy", { details: { status: 429, retryAfterMs: 3000 } }));
  const manifest = await lab.ask("/v2/team/app/manifests/v1");
  assert.equal(manifest.status, 503);
  assert.equal(manifest.headers["retry-after"], "3");
  lab.registry.intercept = (_request, response) => {
    response.writeHead(429, { "retry-after": "7" }).end("{}");
    return true;
  };
  const tags = await lab.ask("/v2/team/app/tags/list");
  assert.equal(tags.status, 503);
  assert.equal(tags.headers["retry-after"], "7");
});

void test("M9: the upstream's challenge is relayed on /v2/, and asked for again only after a while", async (t) => {
  const clock = { nowMs: 0 };
  const lab = await openLab(t, { pingTtlMs: 1000, nowMs: () => clock.nowMs });
  lab.registry.mayRead = (authorization) => authorization === "Bearer good";
  for (const path of ["/v2/", "/v2/?ns=reg.test", "/v2", "/v2/reg.test/"]) {
    const answer = await fetchAnswer(lab.port, path);
    assert.equal(answer.status, 401);
    assert.equal(answer.headers["www-authenticate"], lab.registry.challenge);
    assert.equal(answer.headers["docker-distribution-api-version"], "registry/2.0");
    assert.equal(errorCode(answer), "UNAUTHORIZED");
  }
  assert.equal(lab.registry.requests.length, 1);
  clock.nowMs = 1000;
  await fetchAnswer(lab.port, "/v2/");
  assert.equal(lab.registry.requests.length, 2);
  const asLate = (): Promise<Answer> => fetchAnswer(lab.port, "/v2/", "GET", { authorization: "Bearer late" });
  assert.equal((await asLate()).status, 401);
  lab.registry.mayRead = (authorization) => authorization !== undefined;
  assert.equal((await asLate()).status, 200, "allowed the moment the upstream allows it");
  const authorized = await fetchAnswer(lab.port, "/v2/", "GET", { authorization: "Bearer good" });
  assert.equal(authorized.status, 200);
  assert.equal(authorized.body.toString(), "{}");
});

void test("M9: without a challenge, a registry or an answer /v2/ is 200", async (t) => {
  const lab = await openLab(t);
  assert.equal((await fetchAnswer(lab.port, "/v2/")).status, 200);
  const down = await openLab(t);
  down.registry.down = true;
  assert.equal((await fetchAnswer(down.port, "/v2/")).status, 200);
  const several = await openLab(t, {}, { sole: false });
  const head = await fetchAnswer(several.port, "/v2/", "HEAD");
  assert.equal(head.status, 200);
  assert.equal(head.headers["content-length"], "2");
  assert.equal(several.registry.requests.length, 0);
});

void test("M9: a challenge on a manifest is relayed too, and the answer to it goes upstream", async (t) => {
  const lab = await openLab(t);
  lab.registry.putManifest("team/app", "v1", { config: {}, layers: [] });
  lab.registry.mayRead = (authorization) => authorization === "Bearer good";
  const refused = await lab.ask("/v2/team/app/manifests/v1");
  assert.equal(refused.status, 401);
  assert.equal(refused.headers["www-authenticate"], lab.registry.challenge);
  assert.equal((await lab.ask("/v2/team/app/manifests/v1", { headers: { authorization: "Bearer good" } })).status, 200);
});

void test("M9: a challenge of a host that the registry redirected to reaches no client", async (t) => {
  const lab = await openLab(t);
  const other = new LabRegistry();
  other.mayRead = () => false;
  other.challenge = 'Bearer realm="http://thief.test/token"';
  const server = createServer((request, response) => other.answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const elsewhere = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  lab.registry.intercept = (request, response) => {
    response.writeHead(307, { location: `${elsewhere}${request.url}` }).end();
    return true;
  };
  const ping = await fetchAnswer(lab.port, "/v2/");
  assert.deepEqual([ping.status, ping.headers["www-authenticate"]], [200, undefined]);
  const digest = lab.registry.putBlob("team/app", patterned(10));
  for (const method of ["GET", "HEAD"]) {
    const refused = await lab.ask(`/v2/team/app/blobs/${digest}`, { method });
    assert.deepEqual([refused.status, refused.headers["www-authenticate"]], [403, undefined], method);
  }
  assert.equal(other.requests.length, 3);
});

void test("pushing is refused in the specification's words", async (t) => {
  const lab = await openLab(t);
  for (const [method, path] of [
    ["POST", "/v2/team/app/blobs/uploads/"], ["PATCH", "/v2/team/app/blobs/uploads/1"], ["PUT", "/v2/team/app/manifests/v1"],
    ["DELETE", `/v2/team/app/blobs/${DIGEST}`], ["GET", "/v2/team/app/blobs/uploads/1"],
  ] as const) {
    const answer = await lab.ask(path, { method });
    assert.equal(answer.status, 405);
    assert.equal(errorCode(answer), "UNSUPPORTED");
    assert.equal(answer.headers.allow, "GET, HEAD");
  }
});

void test("trouble between us and the supernode is never a 401 to an engine; a fault of ours is a 500 that says so", async (t) => {
  const lab = await openLab(t);
  lab.opener.open = () => Promise.reject(new AppError("TOKEN_REFUSED", "wrong join token"));
  assert.equal((await lab.ask("/v2/team/app/manifests/v1")).status, 503);
  lab.opener.open = () => Promise.reject(new TypeError("secret of the house"));
  const fault = await lab.ask("/v2/team/app/manifests/v1");
  assert.equal(fault.status, 500);
  assert.doesNotMatch(fault.body.toString(), /secret/);
});

void test("no log line, metric or error holds what a caller authorises himself with", async (t) => {
  const lab = await openLab(t);
  const authorization = "Basic cGxhbnRlZDpzZWNyZXQ=";
  lab.registry.putManifest("team/app", "v1", { config: {}, layers: [] });
  const answers = [
    await lab.ask("/v2/team/app/manifests/v1", { headers: { authorization } }),
    await lab.ask("/v2/team/app/manifests/none", { headers: { authorization } }),
    await lab.ask(`/v2/team/app/blobs/${DIGEST}`, { headers: { authorization } }),
    await lab.ask("/v2/team/app/tags/list", { headers: { authorization } }),
  ];
  await eventually(() => lab.lines.length === 4, "four lines of log");
  const told = [JSON.stringify(lab.lines), await lab.mirror.metrics.registry.metrics(), ...answers.map(({ headers, body }) => JSON.stringify(headers) + body.toString())];
  for (const text of told) assert.doesNotMatch(text, /cGxhbnRlZDpzZWNyZXQ|planted/);
});
