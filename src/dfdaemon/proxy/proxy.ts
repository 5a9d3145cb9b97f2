import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { TLSSocket } from "node:tls";
import type { Logger } from "pino";
import { toAppError } from "../../base/errors.ts";
import type { OriginNetwork } from "../../origin/origin-clients.ts";
import { isLoopbackHost } from "../../origin/proxy-routes.ts";
import type { ContentOpener } from "../../peer/content.ts";
import type { ProxyConfig } from "../config.ts";
import type { Mirror } from "../mirror/mirror.ts";
import type { Registries } from "../mirror/registries.ts";
import { Authority } from "./authority.ts";
import { Clients, isLocalAddress } from "./clients.ts";
import { forward, refuse } from "./forward.ts";
import { LocalNames, type Resolve } from "./local-names.ts";
import { isLoop } from "./message-headers.ts";
import { HostList, UrlGlobs } from "./patterns.ts";
import { ProxyMetrics, ProxyRecord, type ProxyKind } from "./proxy-record.ts";
import { asRegistryRequest } from "./registry-requests.ts";
import { isForSwarm, serveFile } from "./swarm-file.ts";
import { parseAbsolute, parseAuthority, parseInner, type ProxiedRequest } from "./targets.ts";
import { Tunnels } from "./tunnels.ts";
import { forwardUpgrade, refuseSocket } from "./upgrade.ts";
import { originOf, Upstreams, type Target } from "./upstreams.ts";

export interface ProxyDeps {
  readonly config: ProxyConfig;
  readonly network: OriginNetwork;
  readonly mirror: Mirror;
  readonly registries: Registries;
  readonly opener: ContentOpener;
  /** May this host read an origin itself when the swarm cannot deliver? What is only passed on is not asked. */
  readonly backToSource: boolean;
  readonly log: Logger;
  /** The system's where absent. */
  readonly resolve?: Resolve;
}

/**
 * The forward proxy of this host: for requests with a whole URL, and CONNECT.
 *
 * CONNECT is a tunnel whose bytes nobody reads, unless the host is listed: then TLS ends here, with a certificate of
 * this host's own authority, and begins anew to the server, whose certificate is always verified. What can be read and
 * is a registry's blob or manifest is answered by the mirror; a file listed by URL comes through the swarm; all else is
 * passed on as it is.
 */
export class Proxy {
  readonly metrics = new ProxyMetrics();
  readonly #deps: ProxyDeps;
  readonly #clients: Clients;
  readonly #intercepted: HostList;
  readonly #files: UrlGlobs;
  readonly #authority: Authority | undefined;
  /** For clients of this machine, and for others. */
  readonly #upstreams: { readonly local: Upstreams; readonly remote: Upstreams };
  readonly #localNames: LocalNames;
  readonly #tunnels = new Tunnels();
  /** In `Via`: tells a request that comes back to us from others'. */
  readonly #pseudonym = `dfdaemon-${randomBytes(6).toString("hex")}`;
  /** Connections whose TLS ends here: where the client was going, and whether he is on this machine. */
  readonly #opened = new WeakMap<object, { readonly target: Target; readonly isRemote: boolean }>();
  #isDraining = false;

  /** @throws AppError as Authority, when hosts are to be intercepted */
  constructor(deps: ProxyDeps) {
    const { config, network } = deps;
    const pseudonym = this.#pseudonym;
    this.#deps = deps;
    this.#clients = new Clients({ networks: config.clientNetworks, credentials: config.credentials });
    this.#intercepted = new HostList(config.interceptedHosts);
    this.#files = new UrlGlobs(config.swarmUrls);
    this.#localNames = new LocalNames(deps.resolve);
    this.#authority = config.interceptedHosts.length === 0 ? undefined : new Authority(config.authorityDirectory);
    this.#upstreams = {
      local: new Upstreams({ network, pseudonym }),
      remote: new Upstreams({ network, pseudonym, mayReach: (address) => !isLocalAddress(address) }),
    };
  }

  /** The certificate that clients have to trust; undefined when no host is intercepted. */
  get authorityPem(): string | undefined {
    return this.#authority?.certificatePem;
  }

  /** Where that certificate lies. */
  get authorityFile(): string | undefined {
    return this.#authority?.certificateFile;
  }

  /** True for a request that is the proxy's: for a whole URL, or on a connection whose TLS ended here. */
  handles(request: IncomingMessage): boolean {
    const target = request.url ?? "";
    return this.#opened.has(request.socket) || (!target.startsWith("/") && target !== "*");
  }

  /** Answers a request that {@link handles}, whatever happens. */
  handle(request: IncomingMessage, response: ServerResponse): void {
    const read = this.#read(request);
    if ("status" in read) this.#refuse(request, response, read);
    else this.#survive(this.#route(request, response, read, this.#isRemote(request)), response);
  }

  /**
   * A CONNECT: a tunnel, or the end of the client's TLS.
   *
   * @param serve takes a connection on which the client goes on to speak HTTP
   */
  handleConnect(request: IncomingMessage, client: Duplex, head: Buffer, serve: (opened: Duplex) => void): void {
    client.on("error", () => client.destroy());
    const target = this.#opened.has(request.socket) ? undefined : parseAuthority(request.url ?? "");
    const isFull = this.#tunnels.isFull || this.#isDraining;
    const refusal = this.#refusalFor(request)
      ?? (target === undefined ? BAD_TARGET : this.#isRefused(target, request) ? LOCAL_TARGET : isFull ? BUSY : undefined);
    if (refusal !== undefined || target === undefined) return this.#refuseSocket(request, client, refusal ?? BAD_TARGET);
    if (head.length > 0) client.unshift(head);
    if (this.#authority !== undefined && this.#intercepted.has(target.host, target.port)) {
      client.write(ESTABLISHED);
      this.#endTls(this.#authority, target, client, this.#isRemote(request), serve);
    } else {
      this.#survive(this.#tunnel(request, target, client), client);
    }
  }

  /** A request that {@link handles}, to speak another protocol. */
  handleUpgrade(request: IncomingMessage, client: Duplex, head: Buffer): void {
    const read = this.#read(request);
    const isFull = this.#tunnels.isFull || this.#isDraining;
    const refusal = "status" in read ? read : this.#isRefused(read.target, request) ? LOCAL_TARGET : isFull ? BUSY : undefined;
    if ("status" in read || refusal !== undefined) return this.#refuseSocket(request, client, refusal ?? BAD_TARGET);
    const record = this.#record("upgrade", request, `${originOf(read.target)}${read.path}`);
    const deps = { ...this.#forwardDeps(this.#isRemote(request)), tunnels: this.#tunnels };
    this.#survive(forwardUpgrade(deps, request, client, head, read, record).then(() => record.finish()), client);
  }

  /** Cuts tunnels on which nothing moves, lets the others go on for `graceMs`, then cuts them. */
  async close(graceMs: number): Promise<void> {
    this.#isDraining = true;
    const endMs = performance.now() + graceMs;
    for (;;) {
      const isOver = performance.now() >= endMs;
      this.#tunnels.cut(isOver ? 0 : QUIET_MS);
      if (isOver || this.#tunnels.size === 0) break;
      // oxlint-disable-next-line no-await-in-loop -- until they are gone
      await delay(CHECK_MS);
    }
  }

  /** Lets go of the servers, once no client is left. */
  disconnect(): void {
    this.#upstreams.local.close();
    this.#upstreams.remote.close();
  }

  #read(request: IncomingMessage): ProxiedRequest | Refusal {
    const opened = this.#opened.get(request.socket);
    if (opened !== undefined) {
      if (isLoop(request.rawHeaders, this.#pseudonym)) return LOOP;
      return parseInner(opened.target, request.url ?? "") ?? BAD_TARGET;
    }
    return this.#refusalFor(request) ?? parseAbsolute(request.url ?? "") ?? BAD_TARGET;
  }

  /** Why a client gets nothing, whatever he wants. */
  #refusalFor(request: IncomingMessage): Refusal | undefined {
    const verdict = this.#clients.check(request);
    if (verdict === 407) return LOGIN;
    if (verdict === 403) return STRANGER;
    return isLoop(request.rawHeaders, this.#pseudonym) ? LOOP : undefined;
  }

  async #route(request: IncomingMessage, response: ServerResponse, proxied: ProxiedRequest, fromRemote: boolean): Promise<void> {
    const { target, path, host } = proxied;
    if (this.#isRefused(target, request)) return this.#refuse(request, response, LOCAL_TARGET);
    const { registries, mirror } = this.#deps;
    const isItsHost = host !== undefined || URL.parse(`https://${request.headers.host}`)?.host === new URL(originOf(target)).host;
    const registry = isItsHost ? asRegistryRequest(registries, request, target, path) : undefined;
    const url = new URL(`${originOf(target)}${path}`);
    const isFile = registry === undefined && isItsHost && isForSwarm(request) && this.#files.has(url);
    // What is only passed on is looked at when it is connected. Mirror and swarm ask as this host, or from elsewhere.
    if (fromRemote && (registry !== undefined || isFile) && (await this.#localNames.leadsHere(target.host))) return this.#refuse(request, response, LOCAL_TARGET);
    if (registry !== undefined) {
      request.url = registry.url;
      return mirror.handle(request, response, registry.upstream);
    }
    if (isFile) {
      const isOver = await this.#file(request, response, url);
      if (isOver) return;
    }
    const record = this.#record("forward", request, url.href);
    await forward(this.#forwardDeps(fromRemote), request, response, proxied, record);
    record.finish();
  }

  /** @returns false when nothing was sent, and the server itself may be asked */
  async #file(request: IncomingMessage, response: ServerResponse, url: URL): Promise<boolean> {
    const { opener, backToSource } = this.#deps;
    const record = this.#record("file", request, url.href);
    const failure = await serveFile({ opener, backToSource }, request, response, url, record);
    if (failure !== undefined) {
      record.error = failure;
      // What the origin said, it says better itself: with its own body, its own challenge.
      const isForbidden = failure.code === "BACK_SOURCE_FORBIDDEN" || (!backToSource && !failure.code.startsWith("ORIGIN_"));
      if (isForbidden) refuse(response, failure.httpStatus, failure.message, record);
      record.finish();
      return isForbidden;
    }
    record.finish();
    return true;
  }

  async #tunnel(request: IncomingMessage, target: Target, client: Duplex): Promise<void> {
    const url = `https://${request.url}`;
    const record = this.#record("tunnel", request, url);
    try {
      const server = await this.#upstreamsFor(this.#isRemote(request)).tunnel(target);
      record.status = 200;
      client.write(ESTABLISHED);
      await this.#tunnels.join(client, server, record);
    } catch (thrown) {
      const error = toAppError(thrown);
      record.error = error;
      refuseSocket(client, error.httpStatus, error.message, record);
    }
    record.finish();
  }

  #endTls(authority: Authority, target: Target, client: Duplex, fromRemote: boolean, serve: (opened: Duplex) => void): void {
    const opened = new TLSSocket(client, {
      isServer: true,
      secureContext: authority.contextFor(target.host),
      ALPNProtocols: ["http/1.1"],
    });
    this.#opened.set(opened, { target, isRemote: fromRemote });
    const timer = setTimeout(() => opened.destroy(), HANDSHAKE_MS_MAX);
    opened.once("close", () => clearTimeout(timer));
    opened.once("secure", () => {
      clearTimeout(timer);
      serve(opened);
    });
    opened.on("error", (error) => {
      this.#deps.log.debug({ host: target.host, error: error.message }, "a client's TLS failed; does it trust our authority?");
      opened.destroy();
    });
  }

  #isRemote(request: IncomingMessage): boolean {
    return this.#opened.get(request.socket)?.isRemote ?? !isLoopbackHost(request.socket.remoteAddress ?? "");
  }

  /** By what is written; names are looked at when they are looked up. */
  #isRefused({ host }: Target, request: IncomingMessage): boolean {
    return this.#isRemote(request) && (isLoopbackHost(host) || isLocalAddress(host));
  }

  /** A fault of our own costs its client his connection, and nobody else anything. */
  #survive(work: Promise<void>, client: { destroy(): unknown }): void {
    work.catch((fault: unknown) => {
      this.#deps.log.error({ err: fault }, "proxy request failed by a fault of our own");
      client.destroy();
    });
  }

  #forwardDeps(fromRemote: boolean): { readonly upstreams: Upstreams; readonly pseudonym: string } {
    return { upstreams: this.#upstreamsFor(fromRemote), pseudonym: this.#pseudonym };
  }

  #upstreamsFor(fromRemote: boolean): Upstreams {
    return fromRemote ? this.#upstreams.remote : this.#upstreams.local;
  }

  #refuse(request: IncomingMessage, response: ServerResponse, { status, message, challenge }: Refusal): void {
    const record = this.#record("refused", request, request.url ?? "");
    refuse(response, status, message, record, challenge === undefined ? {} : { "proxy-authenticate": challenge });
    record.finish();
  }

  #refuseSocket(request: IncomingMessage, client: Duplex, { status, message, challenge }: Refusal): void {
    const record = this.#record("refused", request, request.method === "CONNECT" ? `https://${request.url}` : (request.url ?? ""));
    refuseSocket(client, status, message, record, challenge === undefined ? [] : [`Proxy-Authenticate: ${challenge}`]);
    record.finish();
  }

  #record(kind: ProxyKind, request: IncomingMessage, url: string): ProxyRecord {
    return new ProxyRecord({ log: this.#deps.log, metrics: this.metrics }, kind, { method: request.method ?? "", url });
  }
}

interface Refusal {
  readonly status: number;
  readonly message: string;
  readonly challenge?: string;
}

const LOGIN: Refusal = { status: 407, message: "this proxy wants credentials", challenge: 'Basic realm="dfdaemon"' };
const STRANGER: Refusal = { status: 403, message: "this proxy is not for you: proxyClients in its configuration lists for whom it is" };
const LOOP: Refusal = { status: 508, message: "this request came from here: a proxy on its way leads back to this one" };
const BAD_TARGET: Refusal = { status: 400, message: "this is no request for a proxy: http and https URLs, and CONNECT host:port" };
const BUSY: Refusal = { status: 503, message: "too many connections, or on its way down" };
const LOCAL_TARGET: Refusal = { status: 403, message: "addresses of this machine are for clients on it" };

const ESTABLISHED = "HTTP/1.1 200 Connection established\r\n\r\n";

/** A client that has asked for TLS and then says nothing is gone. */
const HANDSHAKE_MS_MAX = 10_000;

/** A tunnel on which nothing moved for so long carries no answer that has begun. */
const QUIET_MS = 1_000;
const CHECK_MS = 100;
