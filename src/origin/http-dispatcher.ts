import { type ConnectionOptions, getCACertificates } from "node:tls";
import { Agent, buildConnector, Dispatcher, Pool, ProxyAgent } from "undici";
import { NO_PROXIES, ProxyRoutes } from "./proxy-routes.ts";
import type { ProxySettings } from "./proxy-routes.ts";

/** A server that is not where its name says. */
export interface OriginPlace {
  readonly host: string;
  readonly port: number;
  /** Asked for each connection. */
  readonly tls: () => Omit<ConnectionOptions, "port">;
}

/** What concerns the connections to origins. */
export interface DispatcherOptions {
  /** Authorities to trust beside the default ones, PEM. */
  readonly caCertificates?: readonly string[];
  /** Name lookup, TCP and TLS together. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /** Further exchanges with the same host wait for their turn. Default 64. */
  readonly connectionsPerHostMax?: number;
  /** Where the server really is, whatever its URL says, and how its TLS is checked; never through a proxy. */
  readonly place?: OriginPlace | undefined;
  /** Default: none. */
  readonly proxies?: ProxySettings;
}

/**
 * Makes the pools of keep-alive connections of one HttpOrigin, HTTP/1.1, a pool per host, through proxies where told.
 *
 * @returns owned by the caller, who destroys it
 */
export function createDispatcher(options: DispatcherOptions): Dispatcher {
  if (options.place !== undefined) return new Agent({ ...HTTP1, keepAliveTimeout: KEEP_ALIVE_MS, connect: connectorTo(options.place) });
  const connect = { timeout: options.connectTimeoutMs ?? 10_000, ...trusted(options.caCertificates ?? []) };
  const pool = { ...HTTP1, connections: options.connectionsPerHostMax ?? 64, keepAliveTimeout: KEEP_ALIVE_MS, connect };
  const { proxies = NO_PROXIES } = options;
  const direct = new Agent(pool);
  if (proxies.httpUrl === undefined && proxies.httpsUrl === undefined) return direct;
  return new RoutedDispatcher(new ProxyRoutes(proxies), direct, (proxy) =>
    new ProxyAgent({
      ...pool,
      uri: proxy.href,
      proxyTls: connect,
      requestTls: connect,
      // Plain http is asked of the proxy itself: many proxies allow CONNECT to port 443 only.
      proxyTunnel: false,
      clientFactory: (origin, given) => new Pool(origin, { ...given, headersTimeout: connect.timeout }),
    }),
  );
}

function connectorTo({ host, port, tls }: OriginPlace): buildConnector.connector {
  return (asked, callback) => {
    const connect = buildConnector({ ...HTTP1, ...tls(), timeout: PLACE_TIMEOUT_MS });
    // undici names the server by the URL, unless the options have said how.
    const { servername: _byUrl, ...rest } = asked;
    connect({ ...rest, host, hostname: host, port: String(port) }, callback);
  };
}

/** What TLS is told so that it trusts `caCertificates` beside the default authorities. */
export function trusted(caCertificates: readonly string[]): { readonly ca?: string[] } {
  // `ca` replaces the default authorities, so they are named again.
  return caCertificates.length === 0 ? {} : { ca: [...getCACertificates("default"), ...caCertificates] };
}

/** Sends each exchange through the proxy that its origin asks for; undici's own chooser knows no networks (CIDR). */
class RoutedDispatcher extends Dispatcher {
  readonly #routes: ProxyRoutes;
  readonly #direct: Dispatcher;
  readonly #agentOf: (proxy: URL) => Dispatcher;
  readonly #byProxy = new Map<string, Dispatcher>();

  constructor(routes: ProxyRoutes, direct: Dispatcher, agentOf: (proxy: URL) => Dispatcher) {
    super();
    this.#routes = routes;
    this.#direct = direct;
    this.#agentOf = agentOf;
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const proxy = this.#routes.proxyFor(new URL(String(options.origin)));
    return (proxy === undefined ? this.#direct : this.#via(proxy)).dispatch(options, handler);
  }

  override async close(): Promise<void> {
    await Promise.all(this.#all().map((each) => each.close()));
  }

  override async destroy(): Promise<void> {
    await Promise.all(this.#all().map((each) => each.destroy()));
  }

  #via(proxy: URL): Dispatcher {
    let agent = this.#byProxy.get(proxy.href);
    if (agent === undefined) {
      agent = this.#agentOf(proxy);
      this.#byProxy.set(proxy.href, agent);
    }
    return agent;
  }

  #all(): readonly Dispatcher[] {
    return [this.#direct, ...this.#byProxy.values()];
  }
}

/**
 * undici offers HTTP/2 unless told: then all exchanges with a host share one connection, and its window of 512 KiB per round trip.
 */
const HTTP1 = { allowH2: false } as const;
/** Shorter than what common servers keep (nginx 75 s, Go and Apache less or no limit), which may hint at less. */
const KEEP_ALIVE_MS = 15_000;
/** To a supernode: it is near. */
const PLACE_TIMEOUT_MS = 5_000;
