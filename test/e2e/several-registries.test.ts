/**
 * One dfdaemon before several registries, each with a token service of its own, and an engine that decides at `/v2/`
 * once for all how to authenticate: the library of Podman and CRI-O, configured in the ways that CRI-O's users do.
 */
import assert from "node:assert/strict";
import { test } from "node:test";

import { ContainersImage, mirrored } from "./lib/containers-image.ts";
import { assertNothingWentPast } from "./lib/engine-pulls.ts";
import { Lab } from "./lib/processes.ts";
import { Registry } from "./lib/registry.ts";
import { Site } from "./lib/site.ts";
import { TokenServer, USER } from "./lib/token-server.ts";
import { newerDebian } from "./lib/tools.ts";

const OTHER_NAME = "other.test";
const OTHER_USER = { name: "bert", password: "planted-secret-of-bert" };
const HUB = "docker.io";

void test("Podman pulls public and private images of several registries, each by the password that it has for the mirror there", async () => {
  const lab = new Lab("several");
  await lab.use(async () => {
    const site = await Site.start(lab);
    // Of the same images: what differs is who may read.
    const tokens = await TokenServer.start(lab, site.cluster.address, 5003, OTHER_USER);
    const other = await Registry.start(lab, site.cluster.address, 5002, tokens);
    const registries = [{ name: HUB, registry: site.registry }, { name: OTHER_NAME, registry: other }];
    const aliased = await site.push("aliased");
    for (const root of [undefined, newerDebian()]) {
      // Who names no registry means docker.io: its challenge is none that the other's images are had by.
      const { engineHost, daemon } = await site.addHost(HUB, root, ["--registry", `${OTHER_NAME}=${other.url}`]);
      const tools = new ContainersImage(lab, engineHost, { registries: [HUB, OTHER_NAME], mirror: daemon.mirror });
      const mirror = new URL(daemon.mirror).host;
      engineHost.configure(
        "/etc/containers/registries.conf.d/60-site.conf",
        `unqualified-search-registries = ["${OTHER_NAME}"]\nshort-name-mode = "permissive"\n[aliases]\n"our-app" = "${OTHER_NAME}/public/aliased"\n` +
          mirrored("pinned.test", `127.0.0.1:1`, `${mirror}/${OTHER_NAME}`, 'pull-from-mirror = "digest-only"'),
      );
      const { open, secret } = await site.push(root === undefined ? "app" : "app-newer");
      const pull = async (reference: string, auth: readonly string[] = tools.authFileFlags({})): Promise<string> => {
        await tools.runPodman(["rmi", "--all", "--force"]);
        for (const { registry } of registries) registry.log.clear();
        const pulled = await tools.runPodman(["pull", "--quiet", ...auth, reference]);
        for (const { registry } of registries) assertNothingWentPast({ registry }, reference);
        return pulled.code === 0 ? "pulled" : pulled.stderr;
      };
      // By skopeo, which does not try again.
      const isRefused = async (reference: string, auth: readonly string[] = tools.authFileFlags({})): Promise<boolean> => {
        const inspected = await engineHost.run(["skopeo", "inspect", "--no-tags", ...auth, `docker://${reference}`]);
        return inspected.code !== 0;
      };
      const passwords = tools.authFileFlags({ [`/${HUB}`]: USER });
      const { name, password } = OTHER_USER;
      const login = await tools.runPodman(["login", "--tls-verify=false", ...passwords, "-u", name, "-p", password, `${mirror}/${OTHER_NAME}`]);
      assert.equal(login.code, 0, login.stderr);
      for (const { name } of registries) {
        assert.equal(await pull(`${name}/${open.repository}:v1`), "pulled");
        assert.ok(await isRefused(`${name}/${secret.repository}:v1`), "for nobody");
        assert.equal(await pull(`${name}/${secret.repository}:v1`, passwords), "pulled");
        assert.ok(await isRefused(`${name}/${secret.repository}:v1`), "for nobody, cached");
        assert.equal(await isRefused(`${name}/${open.repository}:v1`, passwords), false);
      }
      assert.ok(await isRefused(`${OTHER_NAME}/${secret.repository}:v1`, tools.authFileFlags({ "": USER })), "by another registry's password");
      for (const { registry } of registries) {
        const shown = registry.log.entries.filter(({ authorization }) => authorization?.startsWith("Basic") === true);
        assert.deepEqual(shown, [], "a password went to a registry that takes tokens");
      }

      assert.equal(await pull(`${open.repository}:v1`), "pulled", "a short name");
      assert.equal(await pull("our-app:v1"), "pulled", "an alias");
      assert.equal(await pull(`pinned.test/${open.repository}@${open.indexDigest}`), "pulled", "by digest from a mirror for digests only");
      assert.ok(await isRefused(`pinned.test/${aliased.open.repository}:v1`), "by tag from a mirror for digests only");
    }
  });
});
