/** Credentials are in memory only: everything that the programs write, say or keep is searched for those that went through. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { fetchAnswer, type Answer } from "../../src/dfdaemon/mirror/lab.test.ts";
import { startSite, type TestHost } from "./site.test.ts";

const MARK = "planted";
const NS = "?ns=reg.test";
/** A client whose password dfdaemon takes to the registry. */
const LOGIN = { "docker-distribution-api-version": "registry/2.0" };

/** As it may be written: as it is, in base64 at any alignment, percent-encoded, in hex. */
function spellings(secret: string): string[] {
  const base64 = [0, 1, 2].map((pad) => Buffer.from(`${"x".repeat(pad)}${secret}`).toString("base64").slice(pad === 0 ? 0 : 4, -4));
  return [secret, ...base64, ...base64.map((text) => text.replaceAll("+", "-").replaceAll("/", "_")), encodeURIComponent(secret), Buffer.from(secret).toString("hex")];
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: "utf8" }).map((name) => join(directory, name)).filter((file) => statSync(file).isFile());
}

test("no log, metric, answer or file of any program holds a credential that went through it", { timeout: 60_000 }, async (t) => {
  const site = await startSite(t, { hosts: 2 });
  const { registry, hosts, directory, lines, supernode } = site;
  const image = registry.putImage("alice/app", "v1", [1_000_000, 10_000]);
  registry.signatureUses = 3;
  // Tokens of the lab are made of the user's name.
  const user = "planted_token_of_alice";
  registry.rights.set(user, new Set(["alice/app"]));
  const good = registry.bearer(user);
  const secrets = [
    `token-${user}-0`, "planted-bad-token", "planted-basic-password", "planted-login-password", "planted-url-password", "planted-cookie-value", "planted-private-token",
    "planted-signature", "planted-query-token",
  ];
  const answers: Answer[] = [];
  const ask = async (answer: Promise<Answer>): Promise<void> => {
    answers.push(await answer.catch((error: unknown) => ({ status: 0, headers: {}, body: Buffer.from(String(error)) })));
  };
  const basic = `Basic ${Buffer.from("me:planted-basic-password").toString("base64")}`;
  const basicLogin = `Basic ${Buffer.from(`${user}:planted-login-password`).toString("base64")}`;
  for (const host of hosts) {
    for (const rest of ["manifests/v1", `blobs/${image.layers[1]?.digest}`, "tags/list"]) await ask(host.get(`/v2/reg.test/alice/app/${rest}`, basicLogin, LOGIN));
    for (const authorization of [good, "Bearer planted-bad-token", basic]) {
      for (const rest of ["manifests/v1", `manifests/${image.digest}`, "manifests/none", `blobs/${image.layers[1]?.digest}`, `blobs/sha256:${"0".repeat(64)}`, "tags/list"]) {
        await ask(host.get(`/v2/alice/app/${rest}${NS}`, authorization));
      }
      await ask(host.get(`/v2/${NS}`, authorization));
      await ask(host.get(`/v2/_catalog${NS}&token=planted-query-token`, authorization));
      await ask(fetchAnswer(host.mirrorPort, `${registry.url}/v2/alice/app/blobs/${image.layers[0]?.digest}`, "GET", { authorization }));
      await ask(host.local(`${registry.url}/v2/alice/app/blobs/${image.layers[2]?.digest}`, authorization));
    }
    const withUser = registry.url.replace("//", "//me:planted-url-password@");
    await ask(host.local(`${withUser}/v2/alice/app/blobs/${image.layers[1]?.digest}`));
    await ask(host.local(`${registry.storeUrl}/x?X-Amz-Signature=planted-signature-x&token=planted-query-token`));
    const headers = { cookie: "s=planted-cookie-value", "private-token": "planted-private-token" };
    await ask(host.localSource({ url: `${registry.url}/v2/alice/app/blobs/${image.layers[1]?.digest}`, headers }));
  }
  // Failures of every kind while credentials are in the game.
  registry.cutAfterBytes = 100_000;
  const broken = registry.putImage("alice/app", "v2", [700_000]);
  await ask((hosts[0] as TestHost).get(`/v2/alice/app/blobs/${broken.layers[1]?.digest}${NS}`, good));
  registry.isDown = true;
  for (const rest of ["manifests/v1", `blobs/${image.layers[1]?.digest}`, "tags/list"]) await ask((hosts[1] as TestHost).get(`/v2/alice/app/${rest}${NS}`, good));
  await setTimeout(200);

  const api = `http://127.0.0.1:${supernode.address.port}`;
  for (const path of ["/v1/tasks", "/v1/peers", "/v1/hosts", "/metrics", "/openapi.json", "/v1/status"]) await ask(plain(`${api}${path}`));
  for (const host of hosts) for (const path of ["/metrics", "/readyz", "/version"]) await ask(fetchAnswer(host.mirrorPort, path));

  assert.ok(answers.some(({ status }) => status === 200) && answers.some(({ status }) => status === 401) && answers.some(({ status }) => status >= 500));
  assert.ok(lines.length > 50, "the logs are there to be searched");
  const places = new Map<string, string>([["logs", lines.join("")]]);
  for (const [index, { headers, body }] of answers.entries()) places.set(`answer ${index}`, JSON.stringify(headers) + body.toString("latin1"));
  const files = filesBelow(directory);
  assert.ok(files.length >= 6, "there are caches to be searched");
  for (const file of files) places.set(file, readFileSync(file, "latin1"));
  for (const secret of secrets) {
    assert.ok(secret.startsWith(MARK) || secret.includes(MARK));
    for (const spelling of spellings(secret)) {
      for (const [place, text] of places) assert.ok(!text.includes(spelling), `${place} holds ${secret} as ${spelling}`);
    }
  }
  // The search finds what is there.
  assert.ok([...places].some(([place, text]) => place === "logs" && text.includes("alice/app")));
});

async function plain(url: string): Promise<Answer> {
  const answer = await fetch(url);
  return { status: answer.status, headers: Object.fromEntries(answer.headers), body: Buffer.from(await answer.arrayBuffer()) };
}
