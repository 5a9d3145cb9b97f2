/** Real engines, each configured as its administrator does, with original image names. */
import { test, type TestContext } from "node:test";

import { ContainersImage } from "./lib/containers-image.ts";
import { CriContainerd, hostsToml } from "./lib/containerd.ts";
import { Docker } from "./lib/docker.ts";
import { assertPulls } from "./lib/engine-pulls.ts";
import { Lab } from "./lib/processes.ts";
import { REGISTRY_NAME, Site } from "./lib/site.ts";
import { newerDebian } from "./lib/tools.ts";

void test("Kubernetes pulls and runs through containerd", async (t) => {
  await withSite(t, "cri", async (site, lab) => {
    const pauseImage = await site.pushPause();
    for (const root of [undefined, newerDebian()]) {
      const { engineHost, daemon } = await site.addHost(REGISTRY_NAME, root);
      const cri = await CriContainerd.start(lab, engineHost, {
        registry: REGISTRY_NAME, mirror: daemon.mirror, server: site.registry.url, pauseImage,
        ...(root === undefined ? {} : { layerFetchBufferBytes: 1 << 20 }),
      });
      await assertPulls(t, site, cri, await site.push(root === undefined ? "cri" : "cri-newer"), { pullsPublicAnonymously: true });
    }
  });
});

void test("Podman pulls and runs", async (t) => {
  await withSite(t, "podman", async (site, lab) => {
    for (const root of [undefined, newerDebian()]) {
      const { engineHost, daemon } = await site.addHost(REGISTRY_NAME, root);
      const tools = new ContainersImage(lab, engineHost, { registry: REGISTRY_NAME, mirror: daemon.mirror });
      await assertPulls(t, site, await tools.podman(), await site.push(root === undefined ? "podman" : "podman-newer"), { pullsPublicAnonymously: false });
    }
  });
});

void test("Docker pulls and runs what is on Docker Hub, with the classic store", async (t) => {
  await withSite(t, "docker", async (site, lab) => {
    const { engineHost, daemon } = await site.addHost("docker.io");
    const docker = await Docker.start(lab, engineHost, { "registry-mirrors": [daemon.mirror] });
    const images = await site.push("docker");
    await assertPulls(t, site, docker, images, { registryName: "docker.io", pullsPublicAnonymously: false });
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
  });
});

async function withSite(t: TestContext, name: string, body: (site: Site, lab: Lab) => Promise<void>): Promise<void> {
  const lab = new Lab(name);
  await lab.use(async () => await body(await Site.start(lab), lab));
}
