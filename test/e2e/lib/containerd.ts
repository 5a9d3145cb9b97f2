import type { EngineHost } from "./engine-host.ts";
import { type Finished, type Lab, type Service, waitFor } from "./processes.ts";
import type { Credentials, Engine } from "./engine.ts";
import { tool } from "./tools.ts";

const CERTS = "/etc/containerd/certs.d";

export interface ContainerdOptions {
  /** The program; the host's own when absent. */
  readonly program?: string;
  /** The registry's name in image references; it need not resolve. */
  readonly registry: string;
  /** Where it is asked first. */
  readonly mirror: string;
  /** Where the registry is: what the engine falls back to. */
  readonly server: string;
  /** With the Kubernetes interface: the image whose container holds a pod. */
  readonly pauseImage?: string;
  /** Bytes of each of the requests in which one layer is fetched at a time; containerd 2.1 and later. */
  readonly layerFetchBufferBytes?: number;
}

/** A containerd of one host, driven by `ctr`: own state and mounts, and registry hosts as an administrator writes them. */
export class Containerd {
  readonly socket: string;
  readonly version: string;
  readonly #engineHost: EngineHost;
  readonly #service: Service;

  private constructor(engineHost: EngineHost, service: Service, socket: string, version: string) {
    this.#engineHost = engineHost;
    this.#service = service;
    this.socket = socket;
    this.version = version;
  }

  static async start(lab: Lab, engineHost: EngineHost, options: ContainerdOptions): Promise<Containerd> {
    const name = `containerd-${engineHost.host.name}`;
    const dir = lab.makeDir(name);
    engineHost.configure(`${CERTS}/${options.registry}/hosts.toml`, hostsToml(options.mirror, options.server));
    const socket = "/run/containerd/containerd.sock";
    const program = options.program ?? "containerd";
    const version = (await engineHost.run([program, "--version"])).stdout.trim().split(" ").at(2) ?? "";
    engineHost.configure("/etc/containerd/config.toml", configToml(dir, socket, /^v?1\./.test(version), options));
    const service = engineHost.start("containerd", [program, "--log-level", "warn"]);
    const containerd = new Containerd(engineHost, service, socket, version);
    await waitFor(`${name} answers`, async () => (await containerd.#ctr(["version"])).code === 0, {
      services: [service],
    });
    return containerd;
  }

  async pull(image: string): Promise<Finished> {
    return await this.#ctr(["images", "pull", "--hosts-dir", CERTS, image]);
  }

  /** Removes the image, and what only it needed. */
  async forget(image: string): Promise<Finished> {
    return await this.#ctr(["images", "rm", "--sync", image]);
  }

  /** Runs the image's own command and gives its output. */
  async run(image: string): Promise<Finished> {
    return await this.#ctr(["run", "--rm", "--snapshotter", "overlayfs", image, "e2e"]);
  }

  async #ctr(args: readonly string[]): Promise<Finished> {
    return await this.#engineHost.run(["ctr", "--address", this.socket, ...args]);
  }

  get service(): Service {
    return this.#service;
  }
}

/** The same as kubelet drives it, through the Kubernetes interface. */
export class CriContainerd implements Engine {
  readonly name: string;
  readonly #engineHost: EngineHost;
  readonly #lab: Lab;
  readonly #logDir: string;

  private constructor(lab: Lab, engineHost: EngineHost, version: string) {
    this.#lab = lab;
    this.#engineHost = engineHost;
    this.name = `CRI, ${version}`;
    this.#logDir = lab.makeDir(`pods-${engineHost.host.name}`);
  }

  static async start(lab: Lab, engineHost: EngineHost, options: ContainerdOptions & { readonly pauseImage: string }): Promise<CriContainerd> {
    const containerd = await Containerd.start(lab, engineHost, options);
    const cri = new CriContainerd(lab, engineHost, `containerd ${containerd.version}`);
    await waitFor("the CRI answers", async () => (await cri.#crictl(["version"])).code === 0, { services: [containerd.service] });
    return cri;
  }

  async pull(reference: string, credentials?: Credentials): Promise<Finished> {
    const creds = credentials === undefined ? [] : ["--creds", `${credentials.name}:${credentials.password}`];
    return await this.#crictl(["pull", ...creds, reference]);
  }

  async forget(reference: string): Promise<Finished> {
    return await this.#crictl(["rmi", reference]);
  }

  /** A pod on the host's network with one container, which runs to its end. */
  async run(reference: string): Promise<Finished> {
    const id = String(Math.round(performance.now()));
    const metadata = { name: `e2e-${id}`, namespace: "default", uid: id, attempt: 1 };
    const linux = { security_context: { namespace_options: { network: 2 } } };
    const pod = this.#lab.writeFile(`pod-${id}.json`, JSON.stringify({ metadata, log_directory: this.#logDir, linux }));
    const container = this.#lab.writeFile(
      `container-${id}.json`,
      JSON.stringify({ metadata: { name: "e2e" }, image: { image: reference }, log_path: `${id}.log`, linux: {} }),
    );
    const began = await this.#crictl(["run", "--no-pull", container, pod]);
    if (began.code !== 0) return began;
    const containerId = began.stdout.trim();
    await waitFor("the container has ended", async () => (await this.#crictl(["inspect", containerId])).stdout.includes("CONTAINER_EXITED"));
    const logs = await this.#crictl(["logs", containerId]);
    await this.#crictl(["rmp", "--force", "--all"]);
    return logs;
  }

  async #crictl(args: readonly string[]): Promise<Finished> {
    return await this.#engineHost.run([tool("crictl"), "--runtime-endpoint", "unix:///run/containerd/containerd.sock", "--timeout", "60s", ...args]);
  }
}

/** A `hosts.toml` as `dfdaemon setup` writes it. */
export function hostsToml(mirror: string, server: string): string {
  return [`server = "${server}"`, `[host."${mirror}"]`, '  capabilities = ["pull", "resolve"]', ""].join("\n");
}

function configToml(dir: string, socket: string, isVersion1: boolean, options: ContainerdOptions): string {
  const { pauseImage, layerFetchBufferBytes } = options;
  const shared = [`root = "${dir}/root"`, `state = "${dir}/state"`];
  const grpc = ["[grpc]", `  address = "${socket}"`];
  if (pauseImage === undefined) {
    return ["version = 2", ...shared, 'disabled_plugins = ["io.containerd.grpc.v1.cri"]', ...grpc, ""].join("\n");
  }
  if (isVersion1) {
    return [
      "version = 2", ...shared, ...grpc,
      '[plugins."io.containerd.grpc.v1.cri"]',
      `  sandbox_image = "${pauseImage}"`,
      "  restrict_oom_score_adj = true",
      "  disable_apparmor = true",
      '[plugins."io.containerd.grpc.v1.cri".registry]',
      `  config_path = "${CERTS}"`,
      "",
    ].join("\n");
  }
  return [
    "version = 3", ...shared, ...grpc,
    "[plugins.'io.containerd.cri.v1.runtime']",
    "  restrict_oom_score_adj = true",
    "  disable_apparmor = true",
    "[plugins.'io.containerd.cri.v1.images'.pinned_images]",
    `  sandbox = "${pauseImage}"`,
    "[plugins.'io.containerd.cri.v1.images'.registry]",
    `  config_path = "${CERTS}"`,
    ...(layerFetchBufferBytes === undefined
      ? []
      : ["[plugins.'io.containerd.transfer.v1.local']", `  concurrent_layer_fetch_buffer = ${layerFetchBufferBytes}`, "  max_concurrent_downloads = 4"]),
    "",
  ].join("\n");
}
