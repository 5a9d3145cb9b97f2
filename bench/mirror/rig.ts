/** Registry, engine and our programs around one host: what the mirror's cost is measured on. */
import { readFileSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";

import { Cluster, type Host } from "../../test/e2e/lib/cluster.ts";
import { Containerd, hostsToml } from "../../test/e2e/lib/containerd.ts";
import { type Dfdaemon, startHostDaemon, Supernode } from "../../test/e2e/lib/dragonfly.ts";
import { EngineHost } from "../../test/e2e/lib/engine-host.ts";
import type { PushedImage } from "../../test/e2e/lib/image.ts";
import { answersHttp, type Lab, type Service, waitFor } from "../../test/e2e/lib/processes.ts";
import { descendantCpuSeconds, machineCpuSeconds } from "../lab/accounting.ts";
import { sentBytes, shape } from "../lab/network.ts";
import { usageOf } from "../process-usage.ts";

export const MIRROR = "http://127.0.0.1:65001";
/** The name under which the engine goes past the mirror. */
export const DIRECT = "direct.test";
/** The name under which it asks the mirror. */
export const MIRRORED = "reg.test";

/** One pull, and what it cost whom. */
export interface Pull {
  readonly seconds: number;
  /** CPU seconds of each program while it ran. */
  readonly cpu: Readonly<Record<string, number>>;
  /** What the registry sent for each byte of the image, frames' headers and repetitions included. */
  readonly registrySent: number;
  /** Cores that the machine spent on anything that is not of this measurement. */
  readonly foreignCores: number;
}

export class Rig {
  readonly engineHost: EngineHost;
  readonly registryUrl: string;
  readonly #lab: Lab;
  readonly #cluster: Cluster;
  readonly #host: Host;
  readonly #registry: Service;
  readonly #registryHost: Host;
  readonly #containerd: Containerd;

  private constructor(lab: Lab, cluster: Cluster, host: Host, engineHost: EngineHost, registryHost: Host, registryUrl: string, registry: Service, containerd: Containerd) {
    this.#lab = lab;
    this.#cluster = cluster;
    this.#host = host;
    this.engineHost = engineHost;
    this.registryUrl = registryUrl;
    this.#registryHost = registryHost;
    this.#registry = registry;
    this.#containerd = containerd;
  }

  /**
   * The registry has a namespace and a cable of its own; supernode and dfdaemon are on the same switch, the engine beside
   * dfdaemon.
   *
   * @param rate of what the registry sends, bit/s; undefined: not shaped
   */
  static async start(lab: Lab, rate: number | undefined): Promise<Rig> {
    process.env["E2E_BIN_DIR"] = await builtPrograms(lab);
    const cluster = new Cluster(lab);
    const registryHost = cluster.addHost();
    const registryUrl = `http://${registryHost.address}:5000`;
    const registry = await startRegistry(lab, registryHost, registryUrl);
    if (rate !== undefined) shape(registryHost.netns, "eth0", rate);
    const host = cluster.addHost();
    const engineHost = await EngineHost.start(lab, host);
    engineHost.configure(`/etc/containerd/certs.d/${DIRECT}/hosts.toml`, hostsToml(registryUrl, registryUrl));
    const containerd = await Containerd.start(lab, engineHost, { registry: MIRRORED, mirror: MIRROR, server: registryUrl });
    return new Rig(lab, cluster, host, engineHost, registryHost, registryUrl, registry, containerd);
  }

  /** A dfdaemon and its supernode, both with nothing in their caches. */
  async startFresh(): Promise<Fresh> {
    const supernode = await Supernode.start(this.#lab, this.#cluster.address);
    return new Fresh(supernode, await startHostDaemon(this.#lab, this.#host, supernode, { name: MIRRORED, url: this.registryUrl }));
  }

  /** The engine pulls, unpacks and forgets the image. */
  async pull(name: string, image: PushedImage, fresh: Fresh): Promise<Pull> {
    const reference = `${name}/${image.repository}:${image.tag}`;
    const pids = { registry: this.#registry.pid, containerd: this.#containerd.service.pid, ...fresh.pids };
    const cpuNow = (): [string, number][] => Object.entries(pids).map(([program, pid]) => [program, usageOf(pid).cpuSeconds]);
    const before = cpuNow();
    const [own, machine] = [descendantCpuSeconds(), machineCpuSeconds()];
    const sent = sentBytes(this.#registryHost.netns);
    const done = await this.#containerd.pull(reference);
    const foreign = machineCpuSeconds() - machine - (descendantCpuSeconds() - own);
    if (done.code !== 0) throw new Error(`pull of ${reference}: ${done.stdout}${done.stderr}`);
    const cpu = Object.fromEntries(cpuNow().map(([program, seconds], i) => [program, rounded(seconds - (before[i]?.[1] ?? 0))]));
    const registrySent = rounded((sentBytes(this.#registryHost.netns) - sent) / image.blobs.reduce((sum, { size }) => sum + size, 0));
    await this.#containerd.forget(reference);
    const seconds = done.ms / 1000;
    return { seconds, cpu, registrySent, foreignCores: rounded(Math.max(0, foreign / seconds)) };
  }
}

/** A dfdaemon and its supernode. */
export class Fresh {
  readonly #supernode: Supernode;
  readonly #daemon: Dfdaemon;

  constructor(supernode: Supernode, daemon: Dfdaemon) {
    this.#supernode = supernode;
    this.#daemon = daemon;
  }

  get pids(): { readonly supernode: number; readonly dfdaemon: number } {
    return { supernode: this.#supernode.service.pid, dfdaemon: this.#daemon.service.pid };
  }

  /** What each has used since its start. */
  cpuSeconds(): Readonly<Record<string, number>> {
    return Object.fromEntries(Object.entries(this.pids).map(([name, pid]) => [name, usageOf(pid).cpuSeconds]));
  }

  /** Largest memory that each has held so far, MiB. */
  peakMebibytes(): Readonly<Record<string, number>> {
    return Object.fromEntries(Object.entries(this.pids).map(([name, pid]) => [name, Math.round(peakKibibytes(pid) / 1024)]));
  }

  async remove(): Promise<void> {
    await Promise.all([this.#daemon.service.stop(), this.#supernode.service.stop()]);
    for (const dir of [this.#daemon.dataDir, this.#supernode.dataDir]) rmSync(dir, { recursive: true });
  }
}

/** The programs as their package brings them: compiled, as TypeScript they take 30 MiB more. @returns their folder */
async function builtPrograms(lab: Lab): Promise<string> {
  const root = join(import.meta.dirname, "../..");
  const made = lab.makeDir("package");
  await lab.must(["cp", "-r", join(root, "bin"), join(root, "package.json"), made]);
  symlinkSync(join(root, "node_modules"), join(made, "node_modules"));
  await lab.must([join(root, "node_modules/.bin/tsc"), "-p", join(root, "tsconfig.build.json"), "--outDir", join(made, "dist")]);
  return join(made, "bin");
}

/** Debian's docker-registry, with nothing before it. */
async function startRegistry(lab: Lab, host: Host, url: string): Promise<Service> {
  const config = lab.writeFile(
    "registry.yml",
    [
      "version: 0.1",
      "log: { level: error, accesslog: { disabled: true } }",
      `storage: { filesystem: { rootdirectory: "${lab.makeDir("registry")}" } }`,
      `http: { addr: "${new URL(url).host}", relativeurls: true }`,
      "",
    ].join("\n"),
  );
  const service = lab.start("docker-registry", ["docker-registry", "serve", config], { netns: host.netns });
  await waitFor("the registry answers", async () => await answersHttp(`${url}/v2/`), { services: [service] });
  return service;
}

function peakKibibytes(pid: number): number {
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(join("/proc", String(pid), "status"), "utf8"))?.[1]);
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}
