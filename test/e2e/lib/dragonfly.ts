import { join } from "node:path";

import type { Host } from "./cluster.ts";
import { freePort } from "../../lib/ports.ts";
import { answersHttp, type Finished, type Lab, type Service, type SpawnOptions, waitFor } from "./processes.ts";

/** The programs under test: this tree's, or those of a package in `E2E_BIN_DIR`. */
function bin(program: "dfdaemon" | "dfget" | "supernode"): string {
  return join(process.env["E2E_BIN_DIR"] ?? join(import.meta.dirname, "../../../bin"), program);
}

/** A supernode and the word of how to reach it. */
export class Supernode {
  readonly listen: string;
  readonly dataDir: string;
  readonly tokenFile: string;
  readonly #lab: Lab;
  readonly #host: string;
  readonly #flags: readonly string[];
  readonly #name: string;
  #service: Service | undefined;

  private constructor(lab: Lab, host: string, listen: string, flags: readonly string[], name: string) {
    this.#lab = lab;
    this.#host = host;
    this.#flags = flags;
    this.#name = name;
    this.listen = listen;
    this.dataDir = lab.path(`${name}-data`);
    this.tokenFile = `${this.dataDir}/join-token`;
  }

  /** @param host the address it listens on and is reached at, of this machine's own network namespace */
  static async start(lab: Lab, host: string, flags: readonly string[] = [], name = "supernode"): Promise<Supernode> {
    const port = host === "127.0.0.1" ? await freePort() : 8002;
    const supernode = new Supernode(lab, host, `${host}:${port}`, flags, name);
    await supernode.restart();
    return supernode;
  }

  get service(): Service {
    if (this.#service === undefined) throw new Error("the supernode was never started");
    return this.#service;
  }

  /** Starts it, with the same address and data as before. */
  async restart(): Promise<void> {
    this.#service = this.#lab.start(this.#name, [
      bin("supernode"),
      "--listen", this.listen, "--data-dir", this.dataDir, ...this.#flags,
    ]);
    await waitFor("the supernode is ready", this.isReady.bind(this), { services: [this.#service] });
  }

  async isReady(): Promise<boolean> {
    return await answersHttp(`http://${this.listen}/readyz`);
  }

  /** For a test that speaks to the port itself. */
  get address(): { readonly host: string; readonly port: number } {
    return { host: this.#host, port: Number(this.listen.split(":").at(-1)) };
  }
}

/** A host's peer. */
export interface Dfdaemon {
  readonly service: Service;
  readonly name: string;
  /** Base URL of the mirror, as the host's own programs reach it. */
  readonly mirror: string;
  readonly peer: { readonly host: string; readonly port: number };
  readonly socket: string;
  readonly dataDir: string;
}

/** A dfdaemon on a host of a cluster, on the ports an administrator would get. */
export async function startHostDaemon(
  lab: Lab,
  host: Host,
  supernode: Supernode,
  registry: { readonly name: string; readonly url: string },
  flags: readonly string[] = [],
): Promise<Dfdaemon> {
  return await startDaemon(lab, `dfdaemon-${host.name}`, supernode, {
    mirror: "127.0.0.1:65001",
    peerListen: "0.0.0.0:65002",
    peer: { host: host.address, port: 65_002 },
    flags: ["--registry", `${registry.name}=${registry.url}`, ...flags],
    netns: host.netns,
  });
}

/** A dfdaemon among others on the loopback. */
export async function startLoopbackDaemon(
  lab: Lab,
  name: string,
  supernode: Supernode,
  flags: readonly string[] = [],
): Promise<Dfdaemon> {
  const port = await freePort();
  return await startDaemon(lab, name, supernode, {
    mirror: `127.0.0.1:${await freePort()}`,
    peerListen: `127.0.0.1:${port}`,
    peer: { host: "127.0.0.1", port },
    flags,
  });
}

async function startDaemon(
  lab: Lab,
  name: string,
  supernode: Supernode,
  options: {
    readonly mirror: string;
    readonly peerListen: string;
    readonly peer: { readonly host: string; readonly port: number };
    readonly flags: readonly string[];
    readonly netns?: string;
  },
): Promise<Dfdaemon> {
  const dataDir = lab.path(`${name}-data`);
  const socket = lab.path(`${name}.sock`);
  const where: SpawnOptions = options.netns === undefined ? {} : { netns: options.netns };
  const service = lab.start(
    name,
    [
      bin("dfdaemon"),
      "--listen", options.mirror, "--peer-listen", options.peerListen, "--advertise", options.peer.host,
      "--supernode", supernode.listen, "--join-token-file", supernode.tokenFile,
      "--data-dir", dataDir, "--socket", socket, ...options.flags,
    ],
    where,
  );
  const mirror = `http://${options.mirror}`;
  const isReady = async (): Promise<boolean> => {
    if (options.netns === undefined) return await answersHttp(`${mirror}/readyz`);
    return (await lab.run(["curl", "-sf", "-m", "10", "-o", "/dev/null", `${mirror}/readyz`], where)).code === 0;
  };
  await waitFor(`${name} is ready`, isReady, { services: [service] });
  return { service, name, mirror, peer: options.peer, socket, dataDir };
}

/** Runs dfget. */
export async function dfget(lab: Lab, args: readonly string[], timeoutMs = 300_000): Promise<Finished> {
  return await lab.run([bin("dfget"), ...args], { timeoutMs });
}

/** Starts dfget, for a test that does something to it. */
export function startDfget(lab: Lab, args: readonly string[]): Service {
  return lab.start("dfget", [bin("dfget"), ...args]);
}

/** Runs one of the services, for the way it ends. */
export async function command(lab: Lab, name: "supernode" | "dfdaemon", args: readonly string[]): Promise<Finished> {
  return await lab.run([bin(name), ...args], { timeoutMs: 120_000 });
}
