/** A supernode and dfdaemons in this process, on real sockets and disks, before a token registry. No tests of its own. */
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { pino } from "pino";
import { PLAIN_NETWORK } from "../../src/origin/origin-clients.ts";
import type { RegistryCredentials } from "../../src/origin/origin.ts";
import type { RegistryAccess } from "../../src/dfdaemon/config.ts";
import type { HostLabels } from "../../src/peer/config.ts";
import { startDfdaemon } from "../../src/dfdaemon/dfdaemon.ts";
import { fetchAnswer, type Answer } from "../../src/dfdaemon/mirror/lab.test.ts";
import type { Source } from "../../src/protocol/control-messages.ts";
import type { NetworkLabels } from "../../src/supernode/config.ts";
import { startSupernode, type Supernode } from "../../src/supernode/supernode.ts";
import { freePort } from "../lib/ports.ts";
import { TokenRegistry } from "./token-registry.test.ts";
import { cacheIn, NO_LIMITS, supernodeConfig } from "./lib/supernode-config.ts";

export const JOIN_TOKEN = "planted-join-token-of-the-site";

export interface TestHost {
  readonly mirrorPort: number;
  readonly peerPort: number;
  readonly socketPath: string;
  readonly directory: string;
  /** Through the mirror, the registry named by `ns`. */
  get(path: string, authorization?: string, headers?: Record<string, string>, method?: string): Promise<Answer>;
  /** Through the local API: a file's bytes or its error. */
  local(url: string, authorization?: string, digest?: string): Promise<Answer>;
  localSource(source: Source): Promise<Answer>;
}

export interface TestSite {
  readonly registry: TokenRegistry;
  readonly supernode: Supernode;
  readonly hosts: readonly TestHost[];
  readonly directory: string;
  /** Lines of all programs. */
  readonly lines: string[];
  stopSupernode(): Promise<void>;
}

export interface SiteOptions {
  readonly hosts: number;
  readonly grantMs?: number;
  readonly access?: RegistryAccess;
  /** What all programs may log in with at the registry. */
  readonly credentials?: RegistryCredentials;
  /** Of each program. */
  readonly uploadBytesPerSecond?: number;
  /** Where each host stands; default: nobody says. */
  readonly labelsOf?: (host: number) => HostLabels;
  /** Where the supernode stands. */
  readonly supernodeLabels?: HostLabels;
  /** What it knows of networks. */
  readonly networkLabels?: readonly NetworkLabels[];
  /** Networks of keepers, and the hosts that want to be ones. */
  readonly keepers?: readonly string[];
  readonly isKeeper?: (host: number) => boolean;
  /** The address, in 127.0.0.0/8, that the supernode sees each host at; default: 127.0.0.1. */
  readonly addressOf?: (host: number) => string;
}

export async function startSite(t: TestContext, options: SiteOptions): Promise<TestSite> {
  const registry = await TokenRegistry.start();
  const { credentials } = options;
  const servers = [{ origin: registry.url, caCertificates: [], credentials }];
  const network = credentials === undefined ? PLAIN_NETWORK : { ...PLAIN_NETWORK, servers };
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-site-"));
  const lines: string[] = [];
  const log = pino({ level: "debug" }, { write: (line: string) => void lines.push(line) });
  const grants = { grantMs: options.grantMs ?? 300_000, outageGrantMs: 0 };
  const common = { version: "1", labels: {}, limits: { ...NO_LIMITS, uploadBytesPerSecond: options.uploadBytesPerSecond }, logLevel: "debug" } as const;
  const cacheOf = (name: string) => cacheIn(join(directory, name));
  const supernode = await startSupernode(
    supernodeConfig(join(directory, "supernode"), { ...common, grants, joinToken: { kind: "given", token: JOIN_TOKEN }, network, labels: options.supernodeLabels ?? {}, networkLabels: options.networkLabels ?? [], keepers: options.keepers ?? [] }),
    { log, showToken: () => {} },
  );
  let isUp = true;
  const stopSupernode = async (): Promise<void> => {
    if (!isUp) return;
    isUp = false;
    await supernode.close();
  };
  const started = await Promise.all(
    Array.from({ length: options.hosts }, async (_, index) => {
      const name = `host${index}`;
      const peerPort = await freePort();
      const socketPath = join(directory, `${name}.sock`);
      const { port } = supernode.address;
      const supernodePort = options.addressOf === undefined ? port : await relayFrom(t, options.addressOf(index), port);
      const daemon = await startDfdaemon(
        {
          ...common, labels: options.labelsOf?.(index) ?? {}, keeper: options.isKeeper?.(index) ?? false, listen: { host: "127.0.0.1", port: 0 }, peerListen: { host: "127.0.0.1", port: peerPort }, advertiseHost: "127.0.0.1",
          socketPath, supernodes: [{ host: "127.0.0.1", port: supernodePort, weight: 1 }], joinToken: JOIN_TOKEN, backToSource: true,
          registries: [{ host: "reg.test", url: registry.url, access: options.access }], network,
          proxy: { clientNetworks: ["127.0.0.1"], credentials: undefined, interceptedHosts: [], authorityDirectory: join(directory, name, "proxy-ca"), swarmUrls: [] },
          grants: { ...grants, tagMs: 0, staleTagMs: 3_600_000 }, cache: cacheOf(name),
        },
        { log },
      );
      const mirrorPort = daemon.mirrorAddress.port;
      const get: TestHost["get"] = (path, authorization, headers = {}, method = "GET") =>
        fetchAnswer(mirrorPort, path, method, { ...headers, ...(authorization === undefined ? {} : { authorization }) });
      const localSource: TestHost["localSource"] = (source) => askLocal(socketPath, source);
      const local: TestHost["local"] = (url, authorization, digest) => {
        const source: Source = { url, headers: authorization === undefined ? {} : { authorization } };
        return localSource(digest === undefined ? source : { ...source, digest });
      };
      return { daemon, host: { mirrorPort, peerPort, socketPath, directory: join(directory, name), get, local, localSource } };
    }),
  );
  t.after(async () => {
    await Promise.all(started.map(({ daemon }) => daemon.close()));
    await stopSupernode();
    registry.close();
    rmSync(directory, { recursive: true, force: true });
  });
  await Promise.all(started.map(({ host }) => untilReady(host)));
  return { registry, supernode, hosts: started.map(({ host }) => host), directory, lines, stopSupernode };
}

/** Bytes of the answer, however it ended. */
function askLocal(socketPath: string, source: Source): Promise<Answer> {
  const requestId = `r${Math.random().toString(36).slice(2)}`;
  const body = JSON.stringify({ requestId, source, backToSource: true });
  return new Promise((resolve, reject) => {
    const sent = httpRequest({ socketPath, method: "POST", path: "/v1/content" }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }));
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

async function untilReady(host: TestHost): Promise<void> {
  while ((await fetchAnswer(host.mirrorPort, "/readyz")).status !== 200) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** @returns the port of a way to `port` on which one is seen at `localAddress` */
export async function relayFrom(t: TestContext, localAddress: string, port: number): Promise<number> {
  const relay = createServer((socket) => {
    const onward = connect({ host: "127.0.0.1", port, localAddress });
    for (const [end, other] of [[socket, onward], [onward, socket]] as const) end.on("error", () => other.destroy()).on("close", () => other.destroy()).pipe(other);
  });
  await new Promise<void>((resolve) => void relay.listen(0, "127.0.0.1", resolve));
  t.after(() => relay.close());
  return (relay.address() as AddressInfo).port;
}
