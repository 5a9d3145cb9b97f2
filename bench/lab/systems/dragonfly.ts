/** Ours: the supernode on the seed's link; on every host dfget through its dfdaemon, or dfget as a peer of its own. */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { hostAddress, hostNamespace, SEED, SEED_ADDRESS } from "../network.ts";
import { type Options, racksOf } from "../options.ts";
import { FILE_NAME } from "../origin.ts";
import { shippedBin } from "../package.ts";
import type { Program } from "../process.ts";
import type { Stage, System } from "../system.ts";

const SUPERNODE = `${SEED_ADDRESS}:8002`;
const START_SECONDS = 30;
const WARM_UP_NAME = "warm-up.bin";
const WARM_UP_BYTES = 50 * 1024 * 1024;
const CLIENT_FLAGS = ["--json", "--progress", "none"];

/** Warm daemons, a cold cache: the case of a cluster that pulls a new layer. */
export const dragonfly: System = {
  name: "dragonfly",
  missing: () => missing("supernode", "dfdaemon", "dfget"),
  prepare: async (stage) => {
    const tokenFile = await startSupernode(stage);
    const hosts = await Promise.all(
      Array.from({ length: stage.options.hosts }, async (_, host) => {
        const name = `h${host + 1}`;
        const directory = stage.directory(name);
        const socket = join(directory, "d.sock");
        const daemon = stage.programs.start(hostNamespace(host), `dfdaemon-${name}`, [
          bin("dfdaemon"), "--listen", "127.0.0.1:65001", "--peer-listen", "0.0.0.0:65002", "--advertise", hostAddress(host),
          "--supernode", SUPERNODE, "--join-token-file", tokenFile, "--data-dir", join(directory, "data"), "--socket", socket, ...labels(stage.options, host),
        ]);
        await until(daemon, "opens its socket", async () => await accepts(socket));
        return { host, directory, socket, daemon };
      }),
    );
    if (!stage.options.coldStart) await warmUp(stage, hosts);
    return await Promise.all(
      hosts.map(async ({ host, directory, socket, daemon }) => {
        const path = join(directory, FILE_NAME);
        const client = await startClient(stage, host, ["-O", path, "--socket", socket, ...CLIENT_FLAGS]);
        return { path, programs: [client, daemon], go: () => client.release(), done: client.success() };
      }),
    );
  },
};

/** Programs that have run for a while have moved something, and their code is compiled: another file, on all hosts at once. */
async function warmUp({ origin, programs, directory }: Stage, hosts: readonly { readonly host: number; readonly socket: string }[]): Promise<void> {
  writeFileSync(join(dirname(origin.path), WARM_UP_NAME), randomBytes(WARM_UP_BYTES));
  const clients = hosts.map(({ host, socket }) =>
    programs.start(hostNamespace(host), `warm-h${host + 1}`, [
      "env", clientCache(directory, host), bin("dfget"), new URL(WARM_UP_NAME, origin.url).href,
      "-O", join(directory(`h${host + 1}`), WARM_UP_NAME), "--socket", socket, ...CLIENT_FLAGS,
    ]),
  );
  await Promise.all(clients.map((client) => client.success()));
}

/** No daemon: every dfget is a peer while it runs. */
export const dfget: System = {
  name: "dfget",
  missing: () => missing("supernode", "dfget"),
  prepare: async (stage) => {
    const tokenFile = await startSupernode(stage);
    return await Promise.all(
      Array.from({ length: stage.options.hosts }, async (_, host) => {
        const path = join(stage.directory(`h${host + 1}`), FILE_NAME);
        const client = await startClient(stage, host, ["-O", path, "--supernode", SUPERNODE, "--join-token-file", tokenFile, ...labels(stage.options, host)]);
        return { path, programs: [client], go: () => client.release(), done: client.success() };
      }),
    );
  },
};

/** dfget, loaded and held before its first connection; with --cold-start, before it is even executed. */
async function startClient({ options, origin, programs, directory }: Stage, host: number, args: readonly string[]): Promise<Program> {
  const [namespace, name] = [hostNamespace(host), `dfget-h${host + 1}`];
  const command = ["env", clientCache(directory, host), bin("dfget"), origin.url, ...args];
  if (options.coldStart) return programs.startHeld(namespace, name, command);
  const client = programs.start(namespace, name, ["env", `NODE_OPTIONS=--import=${join(import.meta.dirname, "../hold.ts")}`, ...command]);
  await client.line(/^held$/);
  return client;
}

/** Each host's dfget keeps its compiled code in a cache folder of its own. */
function clientCache(directory: Stage["directory"], host: number): string {
  return `XDG_CACHE_HOME=${directory(`h${host + 1}`)}`;
}

function labels(options: Options, host: number): readonly string[] {
  const racks = racksOf(options);
  return racks === undefined || !options.labelled ? [] : ["--label", `rack=r${racks.of(host) + 1}`];
}

async function startSupernode({ programs, directory }: Stage): Promise<string> {
  const dataDirectory = directory("supernode");
  const supernode = programs.start(SEED, "supernode", [bin("supernode"), "--listen", "0.0.0.0:8002", "--data-dir", dataDirectory]);
  const tokenFile = join(dataDirectory, "join-token");
  await until(supernode, "writes its join token", async () => await Promise.resolve(existsSync(tokenFile)));
  const probe = programs.start(SEED, "supernode-probe", [
    "sh", "-c", `until node -e 'require("net").connect(8002, "${SEED_ADDRESS}").on("connect", () => process.exit(0)).on("error", () => process.exit(1))'; do sleep 0.1; done; echo listening`,
  ]);
  await Promise.race([probe.line(/^listening$/), supernode.success(), tooLate(supernode, "listens")]);
  return tokenFile;
}

function bin(name: string): string {
  return join(shippedBin(), name);
}

function missing(...names: string[]): string | undefined {
  const absent = names.filter((name) => spawnSync(bin(name), ["--version"]).status !== 0);
  return absent.length === 0 ? undefined : `bin/${absent.join(", bin/")} will not run`;
}

async function until(program: Program, what: string, reached: () => Promise<boolean>): Promise<void> {
  for (let tries = START_SECONDS * 20; tries > 0; tries--) {
    if (await reached()) return;
    if (!program.running) throw program.failure("ended at its start");
    await sleep(50);
  }
  throw program.failure(`has not got so far in ${START_SECONDS} s that it ${what}`);
}

async function tooLate(program: Program, what: string): Promise<never> {
  await sleep(START_SECONDS * 1000, undefined, { ref: false });
  throw program.failure(`has not got so far in ${START_SECONDS} s that it ${what}`);
}

/** A socket in the file system is reachable from every namespace. */
async function accepts(socketPath: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(socketPath);
    socket.on("connect", () => { socket.destroy(); resolve(true); }).on("error", () => { resolve(false); });
  });
}
