/**
 * What the mirror costs an engine: containerd pulls and unpacks an image straight from its registry, through dfdaemon
 * with no peers and cold caches, and again; the time to the first byte of a cached blob; memory under many pulls.
 *
 * Root, with what `.ci/run` installs. `node bench/mirror/main.ts [--rounds 7] [--megabytes 500] [--out FILE]`
 */
import { appendFileSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { Cluster, type Host } from "../../test/e2e/lib/cluster.ts";
import { Containerd, hostsToml } from "../../test/e2e/lib/containerd.ts";
import { type Dfdaemon, startHostDaemon, Supernode } from "../../test/e2e/lib/dragonfly.ts";
import { EngineHost } from "../../test/e2e/lib/engine-host.ts";
import { type PushedImage, pushImage } from "../../test/e2e/lib/image.ts";
import { answersHttp, Lab, waitFor } from "../../test/e2e/lib/processes.ts";
import { descendantCpuSeconds, machineCpuSeconds, machineFacts } from "../lab/accounting.ts";

const MEGABYTE = 1_000_000;
const LAYERS = 5;
const FIRST_BYTE_SAMPLES = 20;
const PULLS = 50;
const SMALL_LAYERS = 10;
const SMALL_LAYER_BYTES = 4 * MEGABYTE;

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "7" }, megabytes: { type: "string", default: "500" }, out: { type: "string" } },
});
const rounds = Number(values.rounds);
const imageBytes = Number(values.megabytes) * MEGABYTE;

/** A dfdaemon and its supernode, both with nothing in their caches. */
class Fresh {
  readonly supernode: Supernode;
  readonly daemon: Dfdaemon;

  private constructor(supernode: Supernode, daemon: Dfdaemon) {
    this.supernode = supernode;
    this.daemon = daemon;
  }

  static async start(lab: Lab, address: string, host: Host, registryUrl: string): Promise<Fresh> {
    const supernode = await Supernode.start(lab, address);
    return new Fresh(supernode, await startHostDaemon(lab, host, supernode, { name: "reg.test", url: registryUrl }));
  }

  async remove(): Promise<void> {
    await Promise.all([this.daemon.service.stop(), this.supernode.service.stop()]);
    for (const dir of [this.daemon.dataDir, this.supernode.dataDir]) rmSync(dir, { recursive: true });
  }

  /** Largest memory that each has held so far, in bytes. */
  memory(): { readonly dfdaemon: number; readonly supernode: number } {
    return { dfdaemon: peakBytes(this.daemon.service.pid), supernode: peakBytes(this.supernode.service.pid) };
  }
}

const lab = new Lab("bench-mirror");
await lab.use(async () => {
  const cluster = new Cluster(lab);
  const registryUrl = await startRegistry(cluster.address);
  const layerBytes = Array.from({ length: LAYERS }, () => Math.round(imageBytes / LAYERS));
  const image = await pushImage(lab, registryUrl, { repository: "bench/app", tag: "v1", layerBytes });
  const small = await pushImage(lab, registryUrl, {
    repository: "bench/small",
    tag: "v1",
    layerBytes: Array.from({ length: SMALL_LAYERS - 1 }, () => SMALL_LAYER_BYTES),
  });
  const host = cluster.addHost();
  const engineHost = await EngineHost.start(lab, host);
  const mirror = "http://127.0.0.1:65001";
  engineHost.configure("/etc/containerd/certs.d/direct.test/hosts.toml", hostsToml(registryUrl, registryUrl));
  const containerd = await Containerd.start(lab, engineHost, { registry: "reg.test", mirror, server: registryUrl });
  let foreignCores = 0;
  const pull = async (name: string): Promise<number> => {
    const reference = `${name}/${image.repository}:${image.tag}`;
    const [own, machine] = [descendantCpuSeconds(), machineCpuSeconds()];
    const done = await containerd.pull(reference);
    const foreign = machineCpuSeconds() - machine - (descendantCpuSeconds() - own);
    foreignCores = Math.max(foreignCores, foreign / (done.ms / 1000));
    if (done.code !== 0) throw new Error(`pull of ${reference}: ${done.stdout}${done.stderr}`);
    await containerd.forget(reference);
    return done.ms / 1000;
  };

  const facts = machineFacts();
  print({ facts, command: process.argv.slice(1).join(" "), rounds, imageBytes, layers: image.blobs.length - 1 });
  await pull("direct.test");
  foreignCores = 0;
  const times = { direct: [] as number[], cold: [] as number[], warm: [] as number[] };
  for (let round = 0; round < rounds; round += 1) {
    const fresh = await Fresh.start(lab, cluster.address, host, registryUrl);
    const direct = async (): Promise<void> => void times.direct.push(await pull("direct.test"));
    if (round % 2 === 0) await direct();
    times.cold.push(await pull("reg.test"));
    if (round % 2 === 1) await direct();
    times.warm.push(await pull("reg.test"));
    if (round === rounds - 1) print({ firstByteMs: await firstBytes(engineHost, mirror, image) });
    await fresh.remove();
    print({ round, direct: times.direct.at(-1), cold: times.cold.at(-1), warm: times.warm.at(-1), foreignCores });
    foreignCores = 0;
  }
  const [direct, cold, warm] = [times.direct, times.cold, times.warm].map(median) as [number, number, number];
  print({ medianSeconds: { direct, cold, warm }, coldToDirect: cold / direct, warmToDirect: warm / direct });

  const fresh = await Fresh.start(lab, cluster.address, host, registryUrl);
  const puller = [process.execPath, join(import.meta.dirname, "puller.ts"), `${mirror}/v2/reg.test/bench/small`, small.manifestDigest];
  for (const state of ["cold", "warm"]) {
    const done = await engineHost.run([...puller, String(PULLS)]);
    if (done.code !== 0) throw new Error(`${PULLS} pulls: ${done.stdout}${done.stderr}`);
    print({ pulls: PULLS, layers: SMALL_LAYERS, state, seconds: done.ms / 1000, peakRssMiB: mebibytes(fresh.memory()) });
  }
  await fresh.remove();
});

/** Debian's docker-registry on the switch, with nothing before it. @returns its URL */
async function startRegistry(address: string): Promise<string> {
  const url = `http://${address}:5000`;
  const config = lab.writeFile(
    "registry.yml",
    [
      "version: 0.1",
      "log: { level: error, accesslog: { disabled: true } }",
      `storage: { filesystem: { rootdirectory: "${lab.makeDir("registry")}" } }`,
      `http: { addr: "${address}:5000", relativeurls: true }`,
      "",
    ].join("\n"),
  );
  const service = lab.start("docker-registry", ["docker-registry", "serve", config]);
  await waitFor("the registry answers", async () => await answersHttp(`${url}/v2/`), { services: [service] });
  return url;
}

/** From the first packet of a new connection to the answer's first byte, for blobs that are here. */
async function firstBytes(engineHost: EngineHost, mirror: string, image: PushedImage): Promise<{ readonly median: number; readonly max: number }> {
  const samples: number[] = [];
  for (let i = 0; i < FIRST_BYTE_SAMPLES; i += 1) {
    const blob = image.blobs[i % image.blobs.length];
    const url = `${mirror}/v2/reg.test/${image.repository}/blobs/${blob?.digest}`;
    const done = await engineHost.run(["curl", "-sf", "-o", "/dev/null", "-w", "%{time_starttransfer}", url]);
    samples.push(Number(done.stdout) * 1000);
  }
  return { median: median(samples), max: Math.max(...samples) };
}

function peakBytes(pid: number): number {
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}

function mebibytes(bytes: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(bytes).map(([name, value]) => [name, Math.round(value / (1 << 20))]));
}

function median(of: readonly number[]): number {
  return of.toSorted((a, b) => a - b)[of.length >> 1] ?? Number.NaN;
}

function print(line: object): void {
  const text = JSON.stringify(line);
  console.log(text);
  if (values.out !== undefined) appendFileSync(values.out, `${text}\n`);
}
