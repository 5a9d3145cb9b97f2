import type { Credentials, Engine } from "./engine.ts";
import type { EngineHost } from "./engine-host.ts";
import { type Finished, type Lab, type Service, waitFor } from "./processes.ts";

const CLI = "/usr/bin/docker";
const HUB = "https://index.docker.io/v1/";

/** A dockerd of one host, configured by `/etc/docker/daemon.json`. */
export class Docker implements Engine {
  readonly name: string;
  readonly #lab: Lab;
  readonly #engineHost: EngineHost;

  private constructor(lab: Lab, engineHost: EngineHost, version: string, store: string) {
    this.#lab = lab;
    this.#engineHost = engineHost;
    this.name = `Docker ${version}, ${store}`;
  }

  /** @param settings of daemon.json, beside what a host of a lab needs */
  static async start(
    lab: Lab,
    engineHost: EngineHost,
    settings: Readonly<Record<string, unknown>>,
    env: Readonly<Record<string, string>> = {},
  ): Promise<Docker> {
    const features = { ...(settings["features"] as object | undefined) };
    const own = { bridge: "none", iptables: false, ip6tables: false, "exec-opts": ["native.cgroupdriver=cgroupfs"] };
    engineHost.configure("/etc/docker/daemon.json", JSON.stringify({ ...own, ...settings, features }));
    const assignments = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    const service: Service = engineHost.start("dockerd", ["env", ...assignments, "dockerd"]);
    const version = async (): Promise<Finished> => await engineHost.run([CLI, "version", "--format", "{{.Server.Version}}"]);
    await waitFor("dockerd answers", async () => (await version()).code === 0, { services: [service] });
    const driver = await engineHost.run([CLI, "info", "--format", "{{.Driver}}"]);
    return new Docker(lab, engineHost, (await version()).stdout.trim(), driver.stdout.trim());
  }

  async pull(reference: string, credentials?: Credentials): Promise<Finished> {
    return await this.#docker(["pull", "--quiet", reference], credentials, reference);
  }

  async run(reference: string): Promise<Finished> {
    return await this.#docker(["run", "--rm", "--pull", "never", "--network", "host", reference]);
  }

  async forget(reference: string): Promise<Finished> {
    return await this.#docker(["rmi", "--force", reference]);
  }

  /**
   * BuildKit makes an image of a Dockerfile. Gives what the build printed.
   *
   * @param login credentials, and the registry that `docker login` was told
   */
  async build(dockerfile: string, tag: string, login?: { readonly registry: string; readonly credentials: Credentials }): Promise<Finished> {
    const context = this.#lab.makeDir(`build-${tag}`);
    this.#lab.writeFile(`build-${tag}/Dockerfile`, dockerfile);
    const args = ["build", "--no-cache", "--progress", "plain", "--network", "host", "--tag", tag, context];
    return await this.#docker(args, login?.credentials, login?.registry, { DOCKER_BUILDKIT: "1" });
  }

  /** A command of preparation. */
  async must(args: readonly string[]): Promise<void> {
    const done = await this.#docker(args);
    if (done.code !== 0) throw new Error(`docker ${args.join(" ")}: ${done.stderr}`);
  }

  async #docker(
    args: readonly string[],
    credentials?: Credentials,
    reference = "",
    env: Readonly<Record<string, string>> = {},
  ): Promise<Finished> {
    const registry = reference.split("/")[0] ?? "";
    const config = this.#lab.makeDir(`docker-config-${credentials?.name ?? "nobody"}-${credentials?.password ?? ""}-${registry}`);
    const auth = Buffer.from(`${credentials?.name}:${credentials?.password}`).toString("base64");
    const auths = credentials === undefined ? {} : { [registry === "docker.io" ? HUB : registry]: { auth } };
    this.#lab.writeFile(`${config.slice(this.#lab.dir.length + 1)}/config.json`, JSON.stringify({ auths }));
    return await this.#engineHost.run([CLI, "--config", config, ...args], { env });
  }
}
