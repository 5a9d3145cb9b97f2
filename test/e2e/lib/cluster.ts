import { execFileSync } from "node:child_process";
import { networkInterfaces } from "node:os";

import { isAlive, type Lab, quietly } from "./processes.ts";

const IP = "ip";
const NAME = /^df(\d+)(?:br\d+|h\d+|v\d+)$/;
let clusters = 0;

/** One host of a cluster: a network namespace with an address of its own and a loopback of its own. */
export interface Host {
  readonly name: string;
  readonly netns: string;
  readonly address: string;
}

/**
 * A switch with hosts on it: a bridge that has the first address of an unused /24, where the test itself, the registry
 * and the supernode are, and network namespaces plugged into it. All names carry the test's pid.
 */
export class Cluster {
  readonly address: string;
  readonly #bridge: string;
  readonly #prefix: string;
  #hosts = 0;

  constructor(lab: Lab) {
    removeLeftovers();
    clusters += 1;
    this.#bridge = `df${process.pid}br${clusters}`;
    this.#prefix = unusedPrefix();
    this.address = `${this.#prefix}.1`;
    lab.onClose(() => quietly(IP, "link", "del", this.#bridge));
    ip("link", "add", this.#bridge, "type", "bridge");
    ip("address", "add", `${this.address}/24`, "dev", this.#bridge);
    ip("link", "set", this.#bridge, "up");
    this.#lab = lab;
  }

  readonly #lab: Lab;

  addHost(): Host {
    this.#hosts += 1;
    const number = this.#hosts;
    const netns = `df${process.pid}h${clusters * 100 + number}`;
    const port = `df${process.pid}v${clusters * 100 + number}`;
    const address = `${this.#prefix}.${10 + number}`;
    this.#lab.onClose(() => {
      quietly(IP, "link", "del", port);
      quietly(IP, "netns", "del", netns);
    });
    ip("netns", "add", netns);
    ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", netns);
    ip("link", "set", port, "master", this.#bridge);
    ip("link", "set", port, "up");
    ip("-n", netns, "link", "set", "lo", "up");
    ip("-n", netns, "address", "add", `${address}/24`, "dev", "eth0");
    ip("-n", netns, "link", "set", "eth0", "up");
    return { name: `host${number}`, netns, address };
  }
}

function ip(...args: string[]): void {
  execFileSync(IP, args, { stdio: ["ignore", "ignore", "pipe"] });
}

/** A /24 of the private 10/8 that neither an interface nor a route of this machine touches. */
function unusedPrefix(): string {
  const routes = execFileSync(IP, ["route", "show", "table", "all"], { encoding: "utf8" });
  const addresses = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map((entry) => entry.address));
  const known = [...addresses, ...routes.split(/\s+/)];
  for (let attempt = 0; attempt < 250; attempt += 1) {
    const prefix = `10.${213 + (attempt % 20)}.${(process.pid + attempt) % 250}`;
    if (!known.some((word) => word.startsWith(`${prefix}.`))) return prefix;
  }
  throw new Error("no unused /24 found in 10.213.0.0 to 10.232.255.255");
}

/** Namespaces and links of runs whose process is gone. */
function removeLeftovers(): void {
  const names = (args: string[]): string[] =>
    execFileSync(IP, args, { encoding: "utf8" })
      .split("\n")
      .map((line) => /^(?:\d+: )?([\w-]+)/.exec(line)?.[1] ?? "");
  const isLeftover = (name: string): boolean => {
    const pid = NAME.exec(name)?.[1];
    return pid !== undefined && !isAlive(Number(pid));
  };
  for (const netns of names(["netns", "list"]).filter(isLeftover)) quietly(IP, "netns", "del", netns);
  for (const link of names(["-o", "link", "show"]).filter(isLeftover)) quietly(IP, "link", "del", link);
}
