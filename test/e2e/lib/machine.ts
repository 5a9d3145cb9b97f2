import type { Host } from "./cluster.ts";
import { type Finished, type Lab, type Service, waitFor } from "./processes.ts";

const BIN = `${import.meta.dirname}/../../../bin`;

/**
 * A host whose /etc, /run and /var/lib are its own: engines are started on it with nothing but their packages' paths.
 * What is in /etc at first is this machine's.
 */
export class Machine {
  readonly #lab: Lab;
  readonly #keeper: Service;

  private constructor(lab: Lab, keeper: Service) {
    this.#lab = lab;
    this.#keeper = keeper;
  }

  static async start(lab: Lab, host: Host): Promise<Machine> {
    const upper = lab.makeDir(`${host.name}-etc`, "upper");
    const work = lab.makeDir(`${host.name}-etc`, "work");
    const script = [
      `mount -t overlay overlay -o 'lowerdir=/etc,upperdir=${upper},workdir=${work}' /etc`,
      "mount -t tmpfs tmpfs /run",
      "mount -t tmpfs tmpfs /var/lib",
      "echo ready",
      "exec sleep infinity",
    ].join(" && ");
    const keeper = lab.start(`machine-${host.name}`, ["sh", "-c", script], { netns: host.netns, ownMounts: true });
    const machine = new Machine(lab, keeper);
    await waitFor(`${host.name} has its mounts`, async () => (await machine.run(["findmnt", "-n", "/var/lib"])).stdout.includes("tmpfs"), {
      services: [keeper],
    });
    return machine;
  }

  /** A program that goes on running. */
  start(name: string, argv: readonly string[]): Service {
    return this.#lab.start(name, argv, { inside: this.#keeper.pid });
  }

  async run(argv: readonly string[]): Promise<Finished> {
    return await this.#lab.run(argv, { inside: this.#keeper.pid });
  }

  async sh(script: string): Promise<string> {
    return await this.#lab.must(["sh", "-ec", script], { inside: this.#keeper.pid });
  }

  /** One of our programs. */
  async bin(name: "dfdaemon", ...args: readonly string[]): Promise<Finished> {
    return await this.run([`${BIN}/${name}`, ...args]);
  }

  startBin(name: "supernode" | "dfdaemon", ...args: readonly string[]): Service {
    return this.start(name, [`${BIN}/${name}`, ...args]);
  }

  /** Kind, mode, owner and content of every file under directories, in words that can be compared. */
  async listing(...directories: readonly string[]): Promise<string> {
    return await this.sh(
      `for d in ${directories.join(" ")}; do [ -e "$d" ] || continue; find "$d" -printf '%p %y %m %U:%G %l\\n' | sort; find "$d" -type f | sort | xargs -r sha256sum; done`,
    );
  }
}
