/** What the tests of this folder talk to: a proxy, origins with and without TLS, curl. No tests of its own. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type RequestListener, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { pino } from "pino";
import type { OriginNetwork } from "../../origin/origin-clients.ts";
import { NO_PROXIES, type ProxySettings } from "../../origin/proxy-routes.ts";
import type { ProxyConfig } from "../config.ts";
import { LabOpener, LabRegistry } from "../mirror/lab.test.ts";
import { Mirror } from "../mirror/mirror.ts";
import { HttpUpstreamAsker } from "../mirror/passthrough.ts";
import { Registries } from "../mirror/registries.ts";
import { MirrorServer } from "../mirror/server.ts";
import { Authority } from "./authority.ts";
import type { Resolve } from "./local-names.ts";
import { Proxy } from "./proxy.ts";

export interface LabOrigin {
  readonly port: number;
  /** `localhost:port`. */
  readonly host: string;
  readonly url: string;
  readonly seen: IncomingMessage[];
  readonly server: Server;
}

export interface ProxyLab {
  readonly port: number;
  readonly proxyUrl: string;
  /** PEM file that clients of intercepted hosts trust. */
  readonly caFile: string;
  readonly proxy: Proxy;
  readonly opener: LabOpener;
  readonly registry: LabRegistry;
  /** Lines of the log. */
  readonly lines: Record<string, unknown>[];
  readonly close: () => Promise<void>;
}

/** An authority that is nobody's: origins have certificates of it. */
export class OriginAuthority {
  readonly #authority: Authority;

  constructor(t: TestContext) {
    this.#authority = new Authority(temporary(t));
  }

  get file(): string {
    return this.#authority.certificateFile;
  }

  get pem(): string {
    return this.#authority.certificatePem;
  }

  /** TLS on this machine, for whatever name is asked. */
  serve(t: TestContext, handler: RequestListener): Promise<LabOrigin> {
    const server = createTlsServer({ SNICallback: (name, callback) => callback(null, this.#authority.contextFor(name)) });
    return listening(t, server, handler, "https");
  }
}

export function serveOrigin(t: TestContext, handler: RequestListener): Promise<LabOrigin> {
  return listening(t, createServer(), handler, "http");
}

export async function openProxy(
  t: TestContext,
  given: {
    readonly config?: Partial<ProxyConfig>;
    readonly proxies?: ProxySettings;
    /** Trusted for each of these origins. */
    readonly trust?: { readonly pem: string; readonly origins: readonly string[] };
    readonly backToSource?: boolean;
    readonly host?: string;
    readonly registry?: LabRegistry;
    readonly graceMs?: number;
    /** For names of clients on other machines. */
    readonly resolve?: Resolve;
  } = {},
): Promise<ProxyLab> {
  const lines: Record<string, unknown>[] = [];
  const log = pino({ level: "trace" }, { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) });
  const servers = (given.trust?.origins ?? []).map((origin) => ({ origin, caCertificates: [given.trust?.pem ?? ""], credentials: undefined }));
  const network: OriginNetwork = { servers, proxies: given.proxies ?? NO_PROXIES };
  const registry = given.registry ?? new LabRegistry();
  const opener = new LabOpener(registry);
  const registries = new Registries([]);
  const asker = new HttpUpstreamAsker({ userAgent: "lab", ...network });
  const backToSource = given.backToSource ?? true;
  const mirror = new Mirror({ opener, registries, asker, log, backToSource });
  const config: ProxyConfig = {
    clientNetworks: ["127.0.0.0/8", "::1"],
    credentials: undefined,
    interceptedHosts: [],
    authorityDirectory: join(temporary(t), "proxy-ca"),
    swarmUrls: [],
    ...given.config,
  };
  const proxy = new Proxy({ config, network, mirror, registries, opener, backToSource, log, ...(given.resolve === undefined ? {} : { resolve: given.resolve }) });
  const isReady = (): boolean => true;
  const metricsText = (): Promise<string> => proxy.metrics.registry.metrics();
  const address = { host: given.host ?? "127.0.0.1", port: 0 };
  const server = await MirrorServer.listen(address, { mirror, proxy, version: "1", isReady, metricsText });
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => (closing ??= server.close(given.graceMs ?? 0).then(() => asker.close()));
  t.after(close);
  const { port } = server.address;
  return { port, proxyUrl: `http://127.0.0.1:${port}`, caFile: proxy.authorityFile ?? "", proxy, opener, registry, lines, close };
}

export interface CurlAnswer {
  /** 0 = all well; 22 an error status with --fail; 56, 60 and the like: see curl(1). */
  readonly exitCode: number;
  /** All heads and the body, as curl -i gives them. */
  readonly text: string;
  readonly stderr: string;
}

/** Runs the real curl through the proxy. */
export function curl(lab: { readonly proxyUrl: string }, ...options: string[]): Promise<CurlAnswer> {
  const { promise, resolve } = Promise.withResolvers<CurlAnswer>();
  const all = ["-sS", "-i", "--noproxy", "", "--proxy", lab.proxyUrl, "--max-time", "60", ...options];
  execFile("curl", all, { env: { PATH: process.env["PATH"] }, maxBuffer: 256 * 1024 * 1024, encoding: "latin1" }, (error, stdout, stderr) => {
    resolve({ exitCode: typeof error?.code === "number" ? error.code : 0, text: stdout, stderr });
  });
  return promise;
}

export function temporary(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "dragonfly-proxy-"));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

async function listening(t: TestContext, server: Server, handler: RequestListener, scheme: string): Promise<LabOrigin> {
  const seen: IncomingMessage[] = [];
  server.on("request", (request, response) => {
    seen.push(request);
    handler(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { port, host: `localhost:${port}`, url: `${scheme}://localhost:${port}`, seen, server };
}
