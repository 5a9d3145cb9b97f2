import { getCACertificates } from "node:tls";
import { Agent, EnvHttpProxyAgent, Pool } from "undici";
import type { Dispatcher } from "undici";
import { AppError } from "../base/errors.ts";
import { redactUrl } from "./origin-url.ts";

/** What concerns the connections to origins. */
export interface DispatcherOptions {
  /** Authorities to trust beside the default ones, PEM. */
  readonly caCertificates?: readonly string[];
  /** Name lookup, TCP and TLS together. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /** Further exchanges with the same host wait for their turn. Default 64. */
  readonly connectionsPerHostMax?: number;
  /** Proxy for both schemes, `http://user:password@host:port`. TLS goes through it by CONNECT. */
  readonly proxyUrl?: string;
  /** Hosts that are reached without the proxy, as in NO_PROXY: `localhost,.example.org,10.0.0.1:8080` or `*`. */
  readonly noProxy?: string;
}

/**
 * Makes the pools of keep-alive connections of one HttpOrigin, HTTP/1.1, a pool per host, through the proxy if told.
 *
 * @returns owned by the caller, who destroys it
 * @throws AppError CONFIG_INVALID for a `proxyUrl` that is no http or https URL
 */
export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const extra = options.caCertificates ?? [];
  // `ca` replaces the default authorities, so they are named again.
  const ca = extra.length === 0 ? {} : { ca: [...getCACertificates("default"), ...extra] };
  const connect = { timeout: options.connectTimeoutMs ?? 10_000, ...ca };
  const pool = { connections: options.connectionsPerHostMax ?? 64, keepAliveTimeout: KEEP_ALIVE_MS };
  const { proxyUrl } = options;
  if (proxyUrl === undefined) return new Agent({ ...pool, connect });
  const parsed = URL.parse(proxyUrl);
  if (parsed === null || !/^https?:$/.test(parsed.protocol)) {
    throw new AppError(
      "CONFIG_INVALID",
      `the proxy "${redactUrl(proxyUrl)}" is no http or https URL; write it as http://host:port`,
    );
  }
  return new EnvHttpProxyAgent({
    ...pool,
    connect,
    httpProxy: proxyUrl,
    httpsProxy: proxyUrl,
    noProxy: options.noProxy ?? "",
    proxyTls: connect,
    requestTls: connect,
    // Plain http is asked of the proxy itself: many proxies allow CONNECT to port 443 only.
    proxyTunnel: false,
    clientFactory: (origin, given) => new Pool(origin, { ...given, headersTimeout: connect.timeout }),
  });
}

/** Shorter than what common servers keep (nginx 75 s, Go and Apache less or no limit), which may hint at less. */
const KEEP_ALIVE_MS = 15_000;
