import type { Credentials, Engine } from "./engine.ts";
import type { EngineHost } from "./engine-host.ts";
import type { Finished, Lab } from "./processes.ts";

/** Limits that a container may have on a machine that does not let them be raised. */
const RUN_FLAGS = ["--runtime", "runc", "--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];

/**
 * The programs of the containers/image library on one host (CRI-O uses the same library), with the host's dfdaemon as
 * their mirror in `/etc/containers/registries.conf.d`, in the form that names the registry in the path.
 */
export class ContainersImage {
  readonly #lab: Lab;
  readonly #engineHost: EngineHost;
  readonly #mirrorHost: string;
  #authFiles = 0;

  constructor(lab: Lab, engineHost: EngineHost, options: { readonly registries: readonly string[]; readonly mirror: string }) {
    this.#lab = lab;
    this.#engineHost = engineHost;
    this.#mirrorHost = new URL(options.mirror).host;
    engineHost.configure(
      "/etc/containers/registries.conf.d/50-dragonfly.conf",
      options.registries.map((registry) => mirrored(registry, registry, `${this.#mirrorHost}/${registry}`)).join(""),
    );
    engineHost.configure("/etc/containers/policy.json", JSON.stringify({ default: [{ type: "insecureAcceptAnything" }] }));
    engineHost.configure(
      "/etc/containers/storage.conf",
      ["[storage]", 'driver = "overlay"', 'graphroot = "/var/lib/containers/storage"', 'runroot = "/run/containers/storage"', "[storage.options]", 'pull_options = { enable_partial_images = "true" }', ""].join("\n"),
    );
  }

  async podman(): Promise<Engine> {
    const podman = async (args: readonly string[]): Promise<Finished> => await this.runPodman(args);
    return {
      name: (await podman(["--version"])).stdout.trim(),
      pull: async (reference, credentials) => await podman(["pull", "--quiet", ...this.authFlags(credentials), reference]),
      run: async (reference) => await podman(["run", "--rm", "--pull", "never", ...RUN_FLAGS, reference]),
      forget: async (reference) => await podman(["rmi", "--force", reference]),
    };
  }

  async runPodman(args: readonly string[]): Promise<Finished> {
    return await this.#engineHost.run(["podman", "--cgroup-manager", "cgroupfs", "--events-backend", "none", ...args]);
  }

  /** Copies an image to a directory. */
  async skopeoCopy(reference: string, directory: string, credentials?: Credentials): Promise<Finished> {
    const auth = this.authFlags(credentials);
    return await this.#engineHost.run(["skopeo", "copy", "--quiet", ...auth, `docker://${reference}`, `dir:${directory}`]);
  }

  async skopeoInspect(reference: string): Promise<Finished> {
    return await this.#engineHost.run(["skopeo", "inspect", "--no-tags", `docker://${reference}`]);
  }

  /** Builds an image of a Dockerfile, whose commands run in a container. */
  async buildah(dockerfile: string, tag: string): Promise<Finished> {
    const context = this.#lab.makeDir(`buildah-${tag}-${this.#engineHost.host.name}`);
    this.#lab.writeFile(`buildah-${tag}-${this.#engineHost.host.name}/Dockerfile`, dockerfile);
    return await this.#engineHost.run(["buildah", "bud", "--isolation", "chroot", "--runtime", "runc", "--no-cache", "-t", tag, context]);
  }

  /** Credentials lie under the mirror's name: those of the registry itself are not given to another host. */
  authFlags(credentials: Credentials | undefined): string[] {
    return this.authFileFlags(credentials === undefined ? {} : { "": credentials });
  }

  /** @param credentials by what follows the mirror's name: `/reg.test`, or nothing */
  authFileFlags(credentials: Readonly<Record<string, Credentials>>): string[] {
    const auths = Object.entries(credentials).map(([path, { name, password }]) => {
      return [`${this.#mirrorHost}${path}`, { auth: Buffer.from(`${name}:${password}`).toString("base64") }] as const;
    });
    this.#authFiles += 1;
    const file = this.#lab.writeFile(`auth-${this.#engineHost.host.name}-${this.#authFiles}.json`, JSON.stringify({ auths: Object.fromEntries(auths) }));
    return ["--authfile", file];
  }
}

/** An entry of registries.conf for images whose names begin with `prefix`. */
export function mirrored(prefix: string, location: string, mirror: string, ...settings: readonly string[]): string {
  const registry = ["[[registry]]", `prefix = "${prefix}"`, `location = "${location}"`];
  return [...registry, "[[registry.mirror]]", `location = "${mirror}"`, "insecure = true", ...settings, ""].join("\n");
}
