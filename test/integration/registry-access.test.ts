/** `access` of a registry in the config, with the credentials at hand in all programs. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { RegistryAccess } from "../../src/dfdaemon/config.ts";
import { startSite, type TestSite } from "./site.test.ts";
import type { Image } from "./token-registry.test.ts";

const CREDENTIALS = { username: "robot", password: "pw" };

async function siteWith(t: TestContext, access: RegistryAccess): Promise<TestSite & { readonly image: Image }> {
  const site = await startSite(t, { hosts: 2, access, credentials: CREDENTIALS });
  site.registry.passwords.set("robot", "pw");
  site.registry.rights.set("robot", new Set(["team/app"]));
  return { ...site, image: site.registry.putImage("team/app", "v1", [500_000]) };
}

function paths({ digest, layers }: Image): string[] {
  return ["manifests/v1", `manifests/${digest}`, ...layers.map((layer) => `blobs/${layer.digest}`)].map((rest) => `/v2/team/app/${rest}?ns=reg.test`);
}

test("own-credentials: engines without credentials, and with any, pull what dfdaemon may read, in one read for the site", { timeout: 60_000 }, async (t) => {
  const { hosts, image, registry } = await siteWith(t, "own-credentials");
  for (const host of hosts) {
    for (const authorization of [undefined, "Bearer nonsense"]) {
      assert.equal((await host.get("/v2/?ns=reg.test", authorization)).status, 200);
      for (const path of paths(image)) assert.equal((await host.get(path, authorization)).status, 200, path);
    }
  }
  for (const { digest } of image.layers) assert.equal(registry.reads(`blobs/${digest}`), 1);
  assert.ok(registry.seen.every(({ authorization }) => authorization !== "Bearer nonsense"));
});

test("passthrough and public: the credentials that dfdaemon and the supernode have open nothing to who brings none", { timeout: 60_000 }, async (t) => {
  for (const [access, status] of [["passthrough", 401], ["public", 403]] as const) {
    const { hosts, image } = await siteWith(t, access);
    for (const host of hosts) {
      for (const path of paths(image)) {
        for (const method of ["GET", "HEAD"]) assert.equal((await host.get(path, undefined, {}, method)).status, status, `${access} ${method} ${path}`);
      }
    }
  }
});
