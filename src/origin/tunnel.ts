import { lookup as systemLookup } from "node:dns";
import { request as plainRequest } from "node:http";
import { request as tlsRequest } from "node:https";
import { connect, isIP, type LookupFunction, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTls, type SecureContext, type TLSSocket } from "node:tls";
import { AppError } from "../base/errors.ts";
import { fromNodeError } from "./http-failure.ts";
import { basicAuthorization } from "./origin-url.ts";

/** A connection to a host, as bytes. */
export interface TunnelOptions {
  /** A name, or an address without brackets. */
  readonly host: string;
  readonly port: number;
  /** Asked to connect for us, by CONNECT. */
  readonly proxy?: URL | undefined;
  /** Name lookup and TCP, and the proxy's answer. */
  readonly timeoutMs: number;
  /** Asked for each address that the name has; false = not to be reached. A proxy finds addresses by itself. */
  readonly mayReach?: ((address: string) => boolean) | undefined;
  /** Fields for the proxy. */
  readonly proxyHeaders?: Readonly<Record<string, string>>;
}

/**
 * Connects to a host, directly or through a proxy.
 *
 * @returns half-open is left to the caller, who owns it and listens for its errors
 * @throws AppError HOST_UNRESOLVABLE, ORIGIN_UNREACHABLE, TLS_FAILED (the proxy's own), TIMEOUT; ORIGIN_FORBIDDEN when
 *   `mayReach` says no
 */
export async function openTunnel(options: TunnelOptions): Promise<Duplex> {
  const { host, port, proxy, timeoutMs } = options;
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    return await (proxy === undefined ? connectDirectly(options, signal) : connectBy(proxy, options, signal));
  } catch (thrown) {
    throw fromNodeError(thrown, { url: urlOf(host, port), phase: "headers", signal });
  }
}

/**
 * TLS over a connection, the certificate verified for `host`.
 *
 * @param socket owned from here on
 * @throws AppError TLS_FAILED, ORIGIN_UNREACHABLE, TIMEOUT
 */
export async function secured(
  socket: Duplex,
  options: { readonly host: string; readonly port: number; readonly timeoutMs: number; readonly secureContext?: SecureContext | undefined },
): Promise<TLSSocket> {
  const { host, port, secureContext, timeoutMs } = options;
  const servername = isIP(host) === 0 ? { servername: host } : {};
  const tls = connectTls({ socket, host, ...servername, ALPNProtocols: ["http/1.1"], secureContext });
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    await settled(tls, "secureConnect", signal);
    return tls;
  } catch (thrown) {
    tls.on("error", () => {}).destroy();
    socket.on("error", () => {}).destroy();
    throw fromNodeError(thrown, { url: urlOf(host, port), phase: "headers", signal });
  }
}

/** The value of `Proxy-Authorization` for a proxy whose URL holds credentials. */
export function proxyAuthorization(proxy: URL): string | undefined {
  if (proxy.username === "") return undefined;
  return basicAuthorization(decodeURIComponent(proxy.username), decodeURIComponent(proxy.password));
}

async function connectDirectly({ host, port, mayReach }: TunnelOptions, signal: AbortSignal): Promise<Socket> {
  if (mayReach !== undefined && isIP(host) !== 0 && !mayReach(host)) throw forbidden(host);
  const lookup = mayReach === undefined ? {} : { lookup: guardedLookup(mayReach) };
  const socket = connect({ host, port, allowHalfOpen: true, noDelay: true, ...lookup });
  await settled(socket, "connect", signal);
  return socket;
}

async function connectBy(proxy: URL, { host, port, proxyHeaders }: TunnelOptions, signal: AbortSignal): Promise<Duplex> {
  const path = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  const authorization = proxyAuthorization(proxy);
  const request = (proxy.protocol === "https:" ? tlsRequest : plainRequest)({
    method: "CONNECT",
    host: proxy.hostname.replace(/^\[(.+)\]$/, "$1"),
    port: proxy.port || (proxy.protocol === "https:" ? 443 : 80),
    path,
    agent: false,
    signal,
    headers: { host: path, ...proxyHeaders, ...(authorization === undefined ? {} : { "proxy-authorization": authorization }) },
  });
  const { promise, resolve, reject } = Promise.withResolvers<Duplex>();
  request.once("error", reject);
  request.once("connect", (response, socket, head) => {
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) {
      if (head.length > 0) socket.unshift(head);
      return resolve(socket);
    }
    socket.destroy();
    const why = status === 407 ? "wants credentials; write them into its URL" : `refused with HTTP ${status}; see its rules`;
    reject(new AppError("ORIGIN_UNREACHABLE", `the proxy ${proxy.host} on the way to ${path} ${why}`));
  });
  request.end();
  return promise;
}

async function settled(socket: Socket, event: "connect" | "secureConnect", signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = (): void => reject(signal.reason as Error);
  const onClose = (): void => reject(new Error("the connection was closed"));
  signal.addEventListener("abort", onAbort, { once: true });
  socket.once(event, resolve).once("error", reject).once("close", onClose);
  try {
    await promise;
  } catch (thrown) {
    socket.on("error", () => {}).destroy();
    throw thrown;
  } finally {
    signal.removeEventListener("abort", onAbort);
    socket.off(event, resolve).off("error", reject).off("close", onClose);
  }
}

function guardedLookup(mayReach: (address: string) => boolean): LookupFunction {
  return (hostname, options, callback) => {
    systemLookup(hostname, options, (error, address, family) => {
      const found = typeof address === "string" ? [address] : (address ?? []).map((each) => each.address);
      if (error === null && !found.every(mayReach)) callback(forbidden(hostname), address, family);
      else callback(error, address, family);
    });
  };
}

function forbidden(host: string): AppError {
  return new AppError("ORIGIN_FORBIDDEN", `${host} is an address of this machine or its link, which other machines may not reach through it`);
}

function urlOf(host: string, port: number): URL {
  return new URL(`tcp://${host.includes(":") ? `[${host}]` : host}:${port}`);
}
