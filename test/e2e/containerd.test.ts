/** The main job with real parts: three engines pull one image through Dragonfly, the registry gives each byte once. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { Cluster, type Host } from "./lib/cluster.ts";
import { Containerd } from "./lib/containerd.ts";
import { startHostDaemon, Supernode } from "./lib/dragonfly.ts";
import { EngineHost } from "./lib/engine-host.ts";
import { type PushedImage, pushImage } from "./lib/image.ts";
import { Lab } from "./lib/processes.ts";
import { Registry } from "./lib/registry.ts";
import { bytesSentTwice } from "./lib/requests.ts";

const MIB = 1 << 20;
/** 211 MiB in nine layers with busybox's: around each threshold of piece length and of inline content. */
const LAYER_BYTES = [96 * MIB, 64 * MIB, 40 * MIB, 8 * MIB + 1, 3 * MIB, 200_000, 40_000, 700];
/** Of one host's pull: the tag's HEAD, index and manifest, with as much again for a second look. */
const MAX_MANIFEST_REQUESTS_PER_HOST = 6;

void test("three hosts pull and run an image on one read of the registry, a fourth when it is gone", async (t) => {
  const lab = new Lab("containerd");
  await lab.use(async () => {
    const cluster = new Cluster(lab);
    const registry = await Registry.start(lab, cluster.address, 5000);
    const image = await pushImage(lab, registry.backUrl, {
      repository: "team/app",
      tag: "v1",
      layerBytes: LAYER_BYTES,
    });
    const size = image.blobs.reduce((sum, blob) => sum + blob.size, 0);
    assert.ok(size >= 200e6 && image.blobs.length >= 6, `the image is too small to prove anything: ${size} bytes`);
    const reference = `reg.test/${image.repository}:${image.tag}`;
    const supernode = await Supernode.start(lab, cluster.address);
    const startHost = async (host: Host): Promise<Containerd> => {
      const daemon = await startHostDaemon(lab, host, supernode, { name: "reg.test", url: registry.url });
      const engineHost = await EngineHost.start(lab, host);
      return await Containerd.start(lab, engineHost, { registry: "reg.test", mirror: daemon.mirror, server: registry.url });
    };

    const engines = await Promise.all([cluster.addHost(), cluster.addHost(), cluster.addHost()].map(startHost));
    const pulls = await Promise.all(engines.map(async (engine) => await engine.pull(reference)));
    for (const [i, pulled] of pulls.entries()) {
      assert.equal(pulled.code, 0, `host${i + 1}: ${pulled.stdout}${pulled.stderr}`);
      t.diagnostic(`host${i + 1}: pulled ${(size / 1e6).toFixed(0)} MB in ${(pulled.ms / 1000).toFixed(1)} s`);
    }
    assertReadOnce(registry, image, 3);
    for (const engine of engines) await assertRuns(engine, reference, image);

    await registry.stop();
    registry.log.clear();
    const fourth = await startHost(cluster.addHost());
    const pulled = await fourth.pull(reference);
    assert.equal(pulled.code, 0, `host4, registry stopped: ${pulled.stdout}${pulled.stderr}`);
    t.diagnostic(`host4, registry stopped: pulled in ${(pulled.ms / 1000).toFixed(1)} s`);
    await assertRuns(fourth, reference, image);
    assert.equal(registry.log.entries.length, 0, "the stopped registry answered");
  });
});

function assertReadOnce(registry: Registry, image: PushedImage, hosts: number): void {
  const log = registry.log.toString();
  const path = (digest: string): string => `/v2/${image.repository}/blobs/${digest}`;
  for (const { digest, size } of image.blobs) {
    const intervals = registry.log.intervals(path(digest));
    assert.equal(bytesSentTwice(intervals), 0, `bytes of ${digest} were read twice\n${log}`);
    assert.equal(registry.log.bytes(path(digest)), size, `bytes read of ${digest}, which has ${size}\n${log}`);
  }
  for (const { digest } of image.otherBlobs) {
    assert.equal(registry.log.of(path(digest)).length, 0, `${digest} is of another platform\n${log}`);
  }
  const manifests = registry.log.entries.filter((entry) => entry.path.includes("/manifests/"));
  assert.ok(manifests.length <= MAX_MANIFEST_REQUESTS_PER_HOST * hosts, `too many manifest requests\n${log}`);
}

async function assertRuns(engine: Containerd, reference: string, image: PushedImage): Promise<void> {
  const ran = await engine.run(reference);
  assert.equal(ran.code, 0, ran.stderr);
  assert.equal(ran.stdout, image.output);
}
