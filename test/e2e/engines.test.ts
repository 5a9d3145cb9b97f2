/** Real engines, each configured as its administrator does, with original image names. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test, type TestContext } from "node:test";

import { pushChunkedImage } from "./lib/chunked-image.ts";
import { ContainersImage } from "./lib/containers-image.ts";
import { CriContainerd, hostsToml } from "./lib/containerd.ts";
import { Docker } from "./lib/docker.ts";
import { assertNothingWentPast, assertPulls } from "./lib/engine-pulls.ts";
import type { Dfdaemon } from "./lib/dragonfly.ts";
import type { PushedImage } from "./lib/image.ts";
import { Lab, linesOf, waitFor } from "./lib/processes.ts";
import { REGISTRY_NAME, Site } from "./lib/site.ts";
import { USER } from "./lib/token-server.ts";
import { newerDebian, tool } from "./lib/tools.ts";

void test("Kubernetes pulls and runs through containerd", async (t) => {
  await withSite(t, "cri", async (site, lab) => {
    const pauseImage = await site.pushPause();
    const parallel = { layerFetchBufferBytes: 1 << 20 };
    for (const { name, root, ...options } of [
      { name: "cri" },
      { name: "cri-newer", root: newerDebian(), ...parallel },
      { name: "cri-newest", root: newerDebian(), program: tool("containerd"), ...parallel },
    ]) {
      const { engineHost, daemon } = await site.addHost(REGISTRY_NAME, root);
      const cri = await CriContainerd.start(lab, engineHost, {
        registry: REGISTRY_NAME, mirror: daemon.mirror, server: site.registry.url, pauseImage, ...options,
      });
      await assertPulls(t, site, cri, await site.push(name), { pullsPublicAnonymously: true });
      if ("layerFetchBufferBytes" in options) assertFetchedInParts(t, daemon);
    }
  });
});

void test("Podman pulls and runs; skopeo copies; buildah builds on what it pulls", async (t) => {
  await withSite(t, "podman", async (site, lab) => {
    for (const root of [undefined, newerDebian()]) {
      const { engineHost, daemon } = await site.addHost(REGISTRY_NAME, root);
      const tools = new ContainersImage(lab, engineHost, { registries: [REGISTRY_NAME], mirror: daemon.mirror });
      const { open, secret } = await site.push(root === undefined ? "podman" : "podman-newer");
      await assertPulls(t, site, await tools.podman(), { open, secret }, { pullsPublicAnonymously: true });

      site.registry.log.clear();
      const [openName, secretName] = [open, secret].map((image) => `${REGISTRY_NAME}/${image.repository}:${image.tag}`) as [string, string];
      const directory = lab.makeDir(`copied-${engineHost.host.name}`);
      const copied = await tools.skopeoCopy(secretName, directory, USER);
      assert.equal(copied.code, 0, copied.stderr);
      const files = readdirSync(directory);
      for (const { digest } of secret.blobs) assert.ok(files.includes(digest.slice("sha256:".length)), `${digest} was not copied`);
      assert.notEqual((await tools.skopeoCopy(secretName, directory)).code, 0, "skopeo copied what nobody may have");
      const inspected = await tools.skopeoInspect(openName);
      assert.equal((JSON.parse(inspected.stdout) as { Digest: string }).Digest, open.indexDigest, inspected.stderr);
      // A newer buildah raises limits for RUN that a virtual machine may not let it raise.
      if (root === undefined) {
        const built = await tools.buildah(dockerfileOn(openName), "built");
        assert.equal(built.code, 0, built.stderr);
        assertPrinted(built.stdout, open);
      }
      assertNothingWentPast(site);
    }
  });
});

void test("Podman fetches of a zstd:chunked image only the files that it has not got, by many ranges at a time", async (t) => {
  await withSite(t, "chunked", async (site, lab) => {
    const { engineHost, daemon } = await site.addHost(REGISTRY_NAME, newerDebian());
    const tools = new ContainersImage(lab, engineHost, { registries: [REGISTRY_NAME], mirror: daemon.mirror });
    const podman = await tools.podman();
    const words = Array.from({ length: 40 }, (_, i) => `${i}`);
    const changed = words.map((word, i) => (i % 4 === 0 ? `${word} anew` : word));
    for (const [tag, files] of [["v1", words], ["v2", changed]] as const) {
      const image = { repository: "public/chunked", tag, files };
      const output = await pushChunkedImage(lab, site.registry.backUrl, image);
      site.registry.log.clear();
      const reference = `${REGISTRY_NAME}/${image.repository}:${tag}`;
      const pulled = await podman.pull(reference);
      assert.equal(pulled.code, 0, pulled.stderr);
      assertNothingWentPast(site);
      const ran = await podman.run(reference);
      assert.equal(ran.code, 0, ran.stderr);
      assert.equal(ran.stdout, output);
    }
    // The first is answered with the registry's challenge.
    const severalRanges = (): readonly MirrorLine[] => mirrorLines(daemon).filter(({ range, status }) => range?.includes(",") === true && status !== 401);
    // A line is written after its answer: the pull may have ended before.
    await waitFor("the log has a request for several ranges", () => severalRanges().length > 0, { timeoutMs: 30_000 });
    const several = severalRanges();
    assert.deepEqual(several.filter(({ status }) => status !== 206), []);
    for (const { sentBytes } of several) t.diagnostic(`several ranges at a time: ${sentBytes} bytes`);
  });
});

void test("Docker pulls and runs what is on Docker Hub, with the classic store", async (t) => {
  await withSite(t, "docker", async (site, lab) => {
    const { engineHost, daemon } = await site.addHost("docker.io", undefined, ["--registry", `${REGISTRY_NAME}=${site.registry.url}`]);
    const docker = await Docker.start(lab, engineHost, { "registry-mirrors": [daemon.mirror] });
    const images = await site.push("docker");
    await assertPulls(t, site, docker, images, { registryName: "docker.io", pullsPublicAnonymously: false });
    site.registry.log.clear();
    const named = await docker.pull(`${new URL(daemon.mirror).host}/${REGISTRY_NAME}/${images.open.repository}:v1`);
    assert.equal(named.code, 0, `dfdaemon named in the image: ${named.stderr}`);
    assertNothingWentPast(site);
    await assertBuilds(site, docker, "docker.io", images.open);
    // BuildKit looks for a mirror's password under the mirror's own name.
    const login = { registry: new URL(daemon.mirror).host, credentials: USER };
    await assertBuilds(site, docker, "docker.io", images.secret, login);
    await assertBuildRefused(site, docker, "docker.io", images.secret);
  });
});

void test("Docker with the classic store pulls and runs from any registry through the proxy", async (t) => {
  await withSite(t, "docker-proxy", async (site, lab) => {
    const { engineHost, daemon } = await site.addHost(REGISTRY_NAME, undefined, ["--proxy-intercept", REGISTRY_NAME]);
    const authority = await engineHost.run(["curl", "-sf", `${daemon.mirror}/proxy-ca.pem`]);
    engineHost.configure(`/etc/docker/certs.d/${REGISTRY_NAME}/dragonfly.crt`, authority.stdout);
    const docker = await Docker.start(lab, engineHost, {}, { HTTPS_PROXY: daemon.mirror });
    await assertPulls(t, site, docker, await site.push("docker-proxy"), { pullsPublicAnonymously: false });
  });
});

void test("Docker with containerd's store pulls and runs from any registry", async (t) => {
  await withSite(t, "docker-containerd", async (site, lab) => {
    // Docker gives a password to the host alone that the image's name begins with.
    const registryName = `${REGISTRY_NAME}:${new URL(site.registry.url).port}`;
    const { engineHost, daemon } = await site.addHost(registryName, newerDebian());
    engineHost.configure("/etc/hosts", `${site.cluster.address} ${REGISTRY_NAME}\n`);
    engineHost.configure(`/etc/docker/certs.d/${registryName}/hosts.toml`, hostsToml(daemon.mirror, `http://${registryName}`));
    const docker = await Docker.start(lab, engineHost, { features: { "containerd-snapshotter": true } });
    const images = await site.push("docker-containerd");
    await assertPulls(t, site, docker, images, { registryName, pullsPublicAnonymously: true, trustsMirror: false });
    await assertBuilds(site, docker, registryName, images.open);
  });
});

/** Layers came by several requests beside each other, each for all from some byte on. */
function assertFetchedInParts(t: TestContext, daemon: Dfdaemon): void {
  const ranged = mirrorLines(daemon).filter(({ kind, range }) => kind === "blob" && range !== undefined);
  const later = ranged.filter(({ range, status }) => range !== "bytes=0-" && status === 206);
  const hungUp = later.filter(({ result }) => result === "aborted");
  t.diagnostic(`${later.length} requests for the rest of a layer, ${hungUp.length} of them hung up on`);
  assert.ok(later.length > 0, `no layer was fetched in parts:\n${ranged.map(({ status, range }) => `${status} ${range}`).join("\n")}`);
}

function mirrorLines(daemon: Dfdaemon): readonly MirrorLine[] {
  const lines = linesOf(daemon.service.logFile).filter((line) => line.includes('"mirror request"'));
  return lines.map((line) => JSON.parse(line) as MirrorLine);
}

/** Of dfdaemon's log, as far as it matters here. */
interface MirrorLine {
  readonly kind: string;
  readonly range?: string;
  readonly result: string;
  readonly status: number;
  readonly sentBytes: number;
}

/** BuildKit, with nothing left of what was pulled before. */
async function assertBuilds(site: Site, docker: Docker, registryName: string, image: PushedImage, login?: Parameters<Docker["build"]>[2]): Promise<void> {
  const reference = `${registryName}/${image.repository}:${image.tag}`;
  await docker.forget(reference);
  site.registry.log.clear();
  const built = await docker.build(dockerfileOn(reference), "built", login);
  assert.equal(built.code, 0, `${docker.name}, build on ${reference}: ${built.stdout}${built.stderr}`);
  assertPrinted(built.stdout + built.stderr, image);
  assertNothingWentPast(site);
}

/** Who has no credentials builds on nothing private, whatever is cached. */
async function assertBuildRefused(site: Site, docker: Docker, registryName: string, image: PushedImage): Promise<void> {
  const reference = `${registryName}/${image.repository}:${image.tag}`;
  await docker.forget(reference);
  await docker.must(["builder", "prune", "--all", "--force"]);
  site.registry.log.clear();
  const built = await docker.build(dockerfileOn(reference), "built");
  assert.notEqual(built.code, 0, `${docker.name} built on ${reference} for nobody: ${built.stdout}`);
  assertNothingWentPast(site);
}

function dockerfileOn(reference: string): string {
  return `FROM ${reference}\nRUN sha256sum /data/*\n`;
}

/** The digests of the image's files, as a command in a container saw them. */
function assertPrinted(text: string, image: PushedImage): void {
  for (const line of image.output.trim().split("\n")) assert.ok(text.includes(line), `${line} is missing in:\n${text}`);
}

async function withSite(t: TestContext, name: string, body: (site: Site, lab: Lab) => Promise<void>): Promise<void> {
  const lab = new Lab(name);
  await lab.use(async () => await body(await Site.start(lab), lab));
}
