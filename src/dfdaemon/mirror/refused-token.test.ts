import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { openLab, patterned } from "./lab.test.ts";

const BASIC = `Basic ${Buffer.from("robot:pw").toString("base64")}`;

/** As Harbor, GitLab, Docker Hub: the token service gives whoever logs in a token, with the rights that he has at that moment. */
async function openLogin(t: TestContext) {
  const lab = await openLab(t, {}, { registry: { access: "own-credentials" }, credentials: { username: "robot", password: "pw" } });
  const layer = lab.registry.putBlob("team/app", patterned(1000));
  lab.registry.putManifest("team/app", "v1", { config: { digest: layer }, layers: [] });
  const state = { generation: 1, mayRead: true, tokenRequests: 0 };
  lab.registry.mayRead = (authorization) => authorization === `Bearer rights-${state.generation}`;
  lab.registry.intercept = ({ url = "", headers }, response) => {
    if (!url.startsWith("/token")) return false;
    state.tokenRequests++;
    assert.equal(headers.authorization, BASIC);
    const token = state.mayRead ? `rights-${state.generation}` : "rights-none";
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ token, expires_in: 1800 }));
    return true;
  };
  return { login: lab, registry: lab.registry, state, layer };
}

test("own-credentials: once the account has the right it is let in, though it was asked for before that", async (t) => {
  const { login, state } = await openLogin(t);
  state.mayRead = false;
  assert.equal((await login.ask("/v2/team/app/manifests/v1")).status, 403);
  state.mayRead = true;
  assert.equal((await login.ask("/v2/team/app/manifests/v1")).status, 200);
});

test("own-credentials: a token that the registry no longer takes (its key is another one) is fetched anew", async (t) => {
  const { login, state } = await openLogin(t);
  assert.equal((await login.ask("/v2/team/app/manifests/v1")).status, 200);
  state.generation++;
  assert.equal((await login.ask("/v2/team/app/manifests/v1")).status, 200);
});

test("own-credentials: likewise for a blob, while the grant lasts, and for a list of tags", async (t) => {
  const { login, state, layer, registry } = await openLogin(t);
  registry.files.set("/v2/team/app/tags/list", { bytes: Buffer.from("{}"), contentType: "application/json" });
  assert.equal((await login.ask("/v2/team/app/manifests/v1")).status, 200);
  state.generation++;
  assert.equal((await login.ask("/v2/team/app/tags/list")).status, 200);
  state.generation++;
  assert.equal((await login.ask(`/v2/team/app/blobs/${layer}`)).status, 200);
});
