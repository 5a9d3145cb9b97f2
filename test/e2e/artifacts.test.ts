/** Clients that know no mirror name dfdaemon as their registry: Helm charts, OCI artifacts, indexes. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { pushImage } from "./lib/image.ts";
import { startLoopbackDaemon, Supernode } from "./lib/dragonfly.ts";
import { type Finished, Lab } from "./lib/processes.ts";
import { freePort } from "../lib/ports.ts";
import { Registry } from "./lib/registry.ts";
import { REGISTRY_NAME, Site } from "./lib/site.ts";
import { TokenServer, USER } from "./lib/token-server.ts";
import { tool } from "./lib/tools.ts";

const MEBIBYTE = 1 << 20;

void test("helm pulls and renders a chart that everybody may have, and with its password one that not", async () => {
  const lab = new Lab("helm");
  await lab.use(async () => {
    // helm takes no password to a private address, unless the registry has the same.
    const tokens = await TokenServer.start(lab, "127.0.0.1", await freePort());
    const registry = await Registry.start(lab, "127.0.0.1", await freePort(), tokens);
    const supernode = await Supernode.start(lab, "127.0.0.1");
    const daemon = await startLoopbackDaemon(lab, "dfdaemon", supernode, ["--registry", `reg.test=${registry.url}`]);
    const helm = async (args: readonly string[]): Promise<Finished> => await lab.run([tool("helm"), ...args]);
    const archive = await makeChart(lab);
    for (const repository of ["public", "secret"]) {
      const oci = `oci://${new URL(registry.backUrl).host}/${repository}/charts`;
      await lab.must([tool("helm"), "push", archive, oci, "--plain-http"]);
    }
    const chart = (repository: string): string[] => [`oci://${new URL(daemon.mirror).host}/reg.test/${repository}/charts/web`, "--version", "1.2.3", "--plain-http"];
    const login = ["--username", USER.name, "--password", USER.password];

    const pulled = await helm(["pull", ...chart("public"), "--destination", lab.dir]);
    assert.equal(pulled.code, 0, pulled.stderr);
    const rendered = await helm(["template", "release", ...chart("public")]);
    assert.match(rendered.stdout, /greeting: hello from release/, rendered.stderr);

    const refused = await helm(["pull", ...chart("secret"), "--destination", lab.dir]);
    assert.notEqual(refused.code, 0, "a chart that nobody may have without a password");
    const secret = await helm(["pull", ...chart("secret"), "--destination", lab.makeDir("secret"), ...login]);
    assert.equal(secret.code, 0, secret.stderr);
    assert.deepEqual(readFileSync(lab.path("secret", "web-1.2.3.tgz")), readFileSync(archive));

    registry.log.clear();
    const again = await helm(["pull", ...chart("secret"), "--destination", lab.makeDir("again"), ...login]);
    assert.equal(again.code, 0, again.stderr);
    assert.deepEqual(readFileSync(lab.path("again", "web-1.2.3.tgz")), readFileSync(archive));
    const blobs = registry.log.entries.filter((entry) => entry.path.includes("/blobs/") && entry.bytes > 0 && entry.status < 300);
    assert.deepEqual(blobs, [], "what is here was read again");
  });
});

void test("oras pulls an artifact, what is attached to it, and single blobs", async () => {
  const lab = new Lab("oras");
  await lab.use(async () => {
    const site = await Site.start(lab);
    const { engineHost } = await site.addHost();
    const model = randomBytes(3 * MEBIBYTE);
    lab.writeFile("model.bin", model.toString("base64"));
    lab.writeFile("signature.txt", "signed");
    const pushed = `${new URL(site.registry.backUrl).host}/public/model:v1`;
    const [push, attach] = [["push", pushed], ["attach", pushed]].map((verb) => [tool("oras"), ...verb, "--plain-http", "--artifact-type"]) as [string[], string[]];
    await lab.must([...push, "application/vnd.test.model", "model.bin:application/vnd.test.weights"]);
    await lab.must([...attach, "application/vnd.test.signature", "signature.txt"]);
    const oras = async (...args: readonly string[]): Promise<string> => {
      const done = await engineHost.run([tool("oras"), ...args, "--plain-http"]);
      assert.equal(done.code, 0, `oras ${args.join(" ")}: ${done.stdout}${done.stderr}`);
      return done.stdout;
    };

    const mirrored = `127.0.0.1:65001/${REGISTRY_NAME}/public/model`;
    await oras("pull", `${mirrored}:v1`, "--output", lab.makeDir("pulled"));
    assert.deepEqual(readFileSync(lab.path("pulled", "model.bin")), readFileSync(lab.path("model.bin")));
    const manifest = JSON.parse(await oras("manifest", "fetch", `${mirrored}:v1`)) as { artifactType: string; layers: { digest: string }[] };
    assert.equal(manifest.artifactType, "application/vnd.test.model");
    const digest = manifest.layers[0]?.digest ?? "";
    await oras("blob", "fetch", `${mirrored}@${digest}`, "--output", lab.path("blob"));
    assert.equal(`sha256:${createHash("sha256").update(readFileSync(lab.path("blob"))).digest("hex")}`, digest);
    assert.match(await oras("discover", `${mirrored}:v1`), /application\/vnd\.test\.signature/);
    const repositories = site.registry.log.entries.filter((entry) => !/^(?:dfdaemon|dragonfly)\//.test(entry.userAgent));
    assert.deepEqual(repositories, [], "oras went past dfdaemon");
  });
});

void test("crane checks an image of several platforms byte by byte", async () => {
  const lab = new Lab("crane");
  await lab.use(async () => {
    const registry = await Registry.start(lab, "127.0.0.1", await freePort());
    const supernode = await Supernode.start(lab, "127.0.0.1");
    const daemon = await startLoopbackDaemon(lab, "dfdaemon", supernode, ["--registry", `reg.test=${registry.url}`]);
    const image = await pushImage(lab, registry.backUrl, { repository: "team/app", tag: "v1", layerBytes: [5 * MEBIBYTE, 700] });
    const [direct, mirrored] = [`${new URL(registry.backUrl).host}/team/app:v1`, `${new URL(daemon.mirror).host}/reg.test/team/app:v1`] as const;
    const crane = async (...args: string[]): Promise<string> => await lab.must([tool("crane"), ...args, "--insecure"]);

    assert.equal((await crane("digest", mirrored)).trim(), image.indexDigest);
    assert.equal(await crane("manifest", mirrored), await crane("manifest", direct));
    for (const platform of ["linux/amd64", "linux/arm64"]) {
      assert.match(await crane("validate", "--remote", mirrored, "--platform", platform), /PASS/);
    }
    await crane("pull", "--format", "oci", mirrored, lab.path("layout"));
    for (const { digest } of [...image.blobs, ...image.otherBlobs]) {
      const [algorithm = "", hex = ""] = digest.split(":");
      const bytes = readFileSync(lab.path("layout", "blobs", algorithm, hex));
      assert.equal(createHash(algorithm).update(bytes).digest("hex"), hex);
    }
  });
});

/** A chart whose one template says hello. @returns its archive */
async function makeChart(lab: Lab): Promise<string> {
  lab.makeDir("chart", "web", "templates");
  lab.writeFile("chart/web/Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.2.3\n");
  const template = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: web }\ndata:\n  greeting: hello from {{ .Release.Name }}\n";
  lab.writeFile("chart/web/templates/greeting.yaml", template);
  await lab.must([tool("helm"), "package", lab.path("chart", "web"), "--destination", lab.dir]);
  return lab.path("web-1.2.3.tgz");
}
