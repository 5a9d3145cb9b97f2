import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

import type { Host } from "./cluster.ts";
import { type Finished, type Lab, type Service, type SpawnOptions, waitFor } from "./processes.ts";
import { TOOLS_BIN } from "./tools.ts";

/** Where engines keep what they pulled: of each host its own. */
const STATE_DIRS = ["/var/lib/containers", "/var/lib/containerd", "/var/lib/docker"];

/**
 * A host of a cluster with files of its own, for an engine that is configured where an administrator configures it:
 * `/etc` can be written, `/run` and the engines' state are empty in the beginning, and nothing of it reaches the
 * machine. With a `root` it is a host of another Debian, whose programs it runs.
 */
export class EngineHost {
  readonly host: Host;
  readonly #lab: Lab;
  readonly #holder: Service;

  private constructor(lab: Lab, host: Host, holder: Service) {
    this.#lab = lab;
    this.host = host;
    this.#holder = holder;
  }

  /** @param root a directory with another system's files, which stays as it is */
  static async start(lab: Lab, host: Host, root?: string): Promise<EngineHost> {
    const name = `${host.name}-files`;
    const [upper, work, top, state] = ["upper", "work", "top", "state"].map((part) => lab.makeDir(name, part));
    for (const dir of STATE_DIRS) mkdirSync(`${state}${dir}`, { recursive: true });
    const ready = `${lab.path(name)}/ready`;
    const overlay = (lower: string, at: string): string =>
      `mount -t overlay overlay -o lowerdir=${lower},upperdir=${upper},workdir=${work} ${at}`;
    const ownRoot = root === undefined ? "" : top;
    const script = [
      "set -e",
      ...(root === undefined
        ? [overlay("/etc", "/etc")]
        : [
            overlay(root, `${top}`),
            ...["/proc", "/sys", "/dev"].map((dir) => `mount --rbind ${dir} ${top}${dir}`),
            ...[lab.dir, TOOLS_BIN].map((dir) => `mkdir -p ${top}${dir} && mount --bind ${dir} ${top}${dir}`),
          ]),
      `mount -t tmpfs tmpfs ${ownRoot}/run`,
      ...STATE_DIRS.map((dir) => `mkdir -p ${ownRoot}${dir} && mount --bind ${state}${dir} ${ownRoot}${dir}`),
      `touch ${ready}`,
      `exec ${root === undefined ? "" : `chroot ${top} `}sleep infinity`,
    ];
    const holder = lab.start(name, ["sh", "-c", script.join("\n")], { netns: host.netns, ownMounts: true });
    const made = new EngineHost(lab, host, holder);
    const isReady = async (): Promise<boolean> => (await lab.run(["test", "-e", ready])).code === 0 && (await made.run(["true"])).code === 0;
    await waitFor(`${host.name} has its files`, isReady, { services: [holder] });
    return made;
  }

  /** Writes a file under `/etc` as the host sees it. */
  configure(path: `/etc/${string}`, content: string): void {
    const file = `/proc/${this.#holder.pid}/root${path}`;
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
  }

  /** Runs a program of the host. */
  async run(argv: readonly string[], options: Omit<SpawnOptions, "inside"> & { readonly timeoutMs?: number } = {}): Promise<Finished> {
    return await this.#lab.run(argv, { ...options, inside: this.#holder.pid });
  }

  /** Starts a service of the host. */
  start(name: string, argv: readonly string[]): Service {
    return this.#lab.start(`${name}-${this.host.name}`, argv, { inside: this.#holder.pid });
  }
}
