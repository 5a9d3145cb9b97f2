/** The instruments themselves: without Dragonfly two hosts read every blob twice, and the log says so. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { Cluster } from "./lib/cluster.ts";
import { Containerd } from "./lib/containerd.ts";
import { EngineHost } from "./lib/engine-host.ts";
import { pushImage } from "./lib/image.ts";
import { Lab } from "./lib/processes.ts";
import { Registry } from "./lib/registry.ts";
import { bytesSentTwice } from "./lib/requests.ts";

void test("two hosts that pull straight from the registry read each blob twice, and run the image", async () => {
  const lab = new Lab("harness");
  await lab.use(async () => {
    const cluster = new Cluster(lab);
    const registry = await Registry.start(lab, cluster.address, 5000);
    const image = await pushImage(lab, registry.backUrl, {
      repository: "team/app",
      tag: "v1",
      layerBytes: [4 << 20, 1_000],
    });
    const reference = `reg.test/${image.repository}:${image.tag}`;
    const engines = await Promise.all(
      [cluster.addHost(), cluster.addHost()].map(
        async (host) =>
          await Containerd.start(lab, await EngineHost.start(lab, host), {
            registry: "reg.test", mirror: registry.url, server: registry.url,
          }),
      ),
    );

    for (const pulled of await Promise.all(engines.map(async (engine) => await engine.pull(reference)))) {
      assert.equal(pulled.code, 0, pulled.stderr);
    }
    for (const engine of engines) {
      const ran = await engine.run(reference);
      assert.equal(ran.code, 0, ran.stderr);
      assert.equal(ran.stdout, image.output);
    }

    for (const { digest, size } of image.blobs) {
      const path = `/v2/${image.repository}/blobs/${digest}`;
      assert.equal(registry.log.bytes(path), 2 * size, `${digest}\n${registry.log.toString()}`);
      assert.equal(bytesSentTwice(registry.log.intervals(path)), size);
    }
    for (const { digest } of image.otherBlobs) {
      assert.equal(registry.log.of(`/v2/${image.repository}/blobs/${digest}`).length, 0);
    }
  });
});
