import { Agent, request, type AgentOptions, type ClientRequest } from "node:http";
import type { Duplex } from "node:stream";
import { createSecureContext, type SecureContext } from "node:tls";
import { trusted } from "../../origin/http-dispatcher.ts";
import type { OriginNetwork } from "../../origin/origin-clients.ts";
import { ProxyRoutes } from "../../origin/proxy-routes.ts";
import { CONNECTION_LIMITS, IDLE_MS_MAX } from "../connection-limits.ts";
import { openTunnel, proxyAuthorization, secured } from "../../origin/tunnel.ts";

/** A server that a client wants to reach through us. */
export interface Target {
  readonly isTls: boolean;
  /** Lower case; a name, or an address without brackets. */
  readonly host: string;
  readonly port: number;
}

export interface UpstreamsOptions {
  readonly network: OriginNetwork;
  /** Our name in `Via`. */
  readonly pseudonym: string;
  /** False for addresses that this user of the proxy may not reach; absent: all. */
  readonly mayReach?: (address: string) => boolean;
}

/** Connections to servers that we pass things on to as they are: tunnels, and requests over kept connections. */
export class Upstreams {
  readonly #options: UpstreamsOptions;
  readonly #routes: ProxyRoutes;
  /** By origin, of servers with an authority of their own. */
  readonly #contexts: ReadonlyMap<string, SecureContext>;
  readonly #plain = new OpeningAgent((host, port) => this.#open(host, port, undefined));
  readonly #tls = new OpeningAgent((host, port) => this.#openTls(host, port));
  readonly #viaProxy = new OpeningAgent((host, port) => this.#openProxy(host, port));

  constructor(options: UpstreamsOptions) {
    this.#options = options;
    this.#routes = new ProxyRoutes(options.network.proxies);
    const ownAuthority = options.network.servers.filter(({ caCertificates }) => caCertificates.length > 0);
    this.#contexts = new Map(ownAuthority.map(({ origin, caCertificates }) => [origin, createSecureContext(trusted(caCertificates))]));
  }

  /** Bytes to and from a host, whatever they mean. @throws AppError as openTunnel */
  tunnel({ host, port }: Target): Promise<Duplex> {
    // CONNECT is for TLS as a rule: the proxy for https is the one for it.
    return this.#open(host, port, this.#routes.proxyFor(new URL(originOf({ isTls: true, host, port }))));
  }

  /**
   * Begins a request; what goes wrong is an event of it.
   *
   * @param path with the query
   * @param rawHeaders complete but for what frames the connection
   */
  request(target: Target, method: string, path: string, rawHeaders: readonly string[]): ClientRequest {
    const proxy = this.plainProxyFor(target);
    const { maxHeaderSize } = CONNECTION_LIMITS;
    const asked = { method, headers: rawHeaders, timeout: IDLE_MS_MAX, maxHeaderSize };
    if (proxy === undefined) {
      const { host, port } = target;
      return request({ ...asked, host, port, path, agent: target.isTls ? this.#tls : this.#plain });
    }
    const authorization = proxyAuthorization(proxy);
    const headers = authorization === undefined ? rawHeaders : [...rawHeaders, "Proxy-Authorization", authorization];
    return request({
      ...asked,
      headers,
      host: proxy.hostname,
      port: proxy.port || (proxy.protocol === "https:" ? 443 : 80),
      path: `${originOf(target)}${path}`,
      agent: this.#viaProxy,
    });
  }

  /** The proxy that is asked for requests to `target` in the clear: what it answers may be its own word. */
  plainProxyFor(target: Target): URL | undefined {
    return target.isTls ? undefined : this.#routes.proxyFor(new URL(originOf(target)));
  }

  /** Hangs up on everyone. */
  close(): void {
    for (const agent of [this.#plain, this.#tls, this.#viaProxy]) agent.destroy();
  }

  #open(host: string, port: number, proxy: URL | undefined): Promise<Duplex> {
    const { mayReach, pseudonym } = this.#options;
    const proxyHeaders = { via: `1.1 ${pseudonym}` };
    return openTunnel({ host, port, proxy, mayReach, proxyHeaders, timeoutMs: CONNECT_TIMEOUT_MS });
  }

  async #openTls(host: string, port: number): Promise<Duplex> {
    const origin = originOf({ isTls: true, host, port });
    const socket = await this.#open(host, port, this.#routes.proxyFor(new URL(origin)));
    return secured(socket, { host, port, timeoutMs: CONNECT_TIMEOUT_MS, secureContext: this.#contexts.get(origin) });
  }

  async #openProxy(host: string, port: number): Promise<Duplex> {
    const { httpUrl } = this.#options.network.proxies;
    // The operator's own: wherever it is.
    const socket = await openTunnel({ host, port, timeoutMs: CONNECT_TIMEOUT_MS });
    return httpUrl?.startsWith("https:") === true ? secured(socket, { host, port, timeoutMs: CONNECT_TIMEOUT_MS }) : socket;
  }
}

/** `URL.origin` of a target: a default port is left out. */
export function originOf({ isTls, host, port }: Target): string {
  return new URL(`${isTls ? "https" : "http"}://${host.includes(":") ? `[${host}]` : host}:${port}`).origin;
}

/** Keeps connections that are opened some other way than by a plain connect. */
class OpeningAgent extends Agent {
  readonly #open: (host: string, port: number) => Promise<Duplex>;

  constructor(open: (host: string, port: number) => Promise<Duplex>) {
    super({ keepAlive: true, timeout: KEEP_ALIVE_MS, maxTotalSockets: SOCKETS_MAX, scheduling: "lifo" });
    this.#open = open;
  }

  override createConnection(options: AgentOptions & { host?: string; port?: number }, callback?: (error: Error | null, socket: Duplex) => void): undefined {
    this.#open(options.host ?? "", Number(options.port)).then(
      (socket) => callback?.(null, socket),
      (error: unknown) => callback?.(error as Error, undefined as never),
    );
  }
}

const CONNECT_TIMEOUT_MS = 10_000;
/** As the pools of origins. */
const KEEP_ALIVE_MS = 15_000;
const SOCKETS_MAX = 1024;
