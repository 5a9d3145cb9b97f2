import type { Host } from "./cluster.ts";
import { type Finished, type Lab, type Service, waitFor } from "./processes.ts";

/** A containerd of one host: own state, socket and mounts, and registry hosts as an administrator writes them. */
export class Containerd {
  readonly #lab: Lab;
  readonly #service: Service;
  readonly #socket: string;
  readonly #hostsDir: string;

  private constructor(lab: Lab, service: Service, socket: string, hostsDir: string) {
    this.#lab = lab;
    this.#service = service;
    this.#socket = socket;
    this.#hostsDir = hostsDir;
  }

  /**
   * @param registry the registry's name in image references; it need not resolve
   * @param mirror where it is asked first
   * @param server where the registry is: what the engine falls back to
   */
  static async start(
    lab: Lab,
    host: Host,
    options: { readonly registry: string; readonly mirror: string; readonly server: string },
  ): Promise<Containerd> {
    const name = `containerd-${host.name}`;
    const dir = lab.makeDir(name);
    const hostsDir = lab.makeDir(name, "certs.d");
    lab.makeDir(name, "certs.d", options.registry);
    lab.writeFile(
      `${name}/certs.d/${options.registry}/hosts.toml`,
      [
        `server = "${options.server}"`,
        `[host."${options.mirror}"]`,
        '  capabilities = ["pull", "resolve"]',
        "",
      ].join("\n"),
    );
    const socket = `${dir}/containerd.sock`;
    const config = lab.writeFile(
      `${name}/config.toml`,
      [
        "version = 2",
        `root = "${dir}/root"`,
        `state = "${dir}/state"`,
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
        "[grpc]",
        `  address = "${socket}"`,
        "",
      ].join("\n"),
    );
    // Shims and FIFOs live under /run/containerd, whatever `state` says: every host gets a directory of its own there.
    const script = [
      "mkdir -p /run/containerd",
      "mount -t tmpfs tmpfs /run/containerd",
      `exec containerd --log-level warn --config '${config}'`,
    ].join(" && ");
    const service = lab.start(name, ["sh", "-c", script], { netns: host.netns, ownMounts: true });
    const containerd = new Containerd(lab, service, socket, hostsDir);
    await waitFor(`${name} answers`, async () => (await containerd.#ctr(["version"])).code === 0, {
      services: [service],
    });
    return containerd;
  }

  async pull(image: string): Promise<Finished> {
    return await this.#ctr(["images", "pull", "--hosts-dir", this.#hostsDir, image]);
  }

  /** Runs the image's own command and gives its output. */
  async run(image: string): Promise<Finished> {
    return await this.#ctr(["run", "--rm", "--snapshotter", "overlayfs", image, "e2e"]);
  }

  /** In the daemon's namespaces: `ctr` itself talks to the registry, and shares FIFOs with the shim. */
  async #ctr(args: readonly string[]): Promise<Finished> {
    return await this.#lab.run(["ctr", "--address", this.#socket, ...args], { inside: this.#service.pid });
  }
}
