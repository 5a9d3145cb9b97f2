/** Addresses as people write them: `host:port`, `[v6]:port`, `host[:port][=weight]`. */
import { isIPv6 } from "node:net";
import type { ListenAddress, SupernodeAddress } from "../peer/config.ts";

const SUPERNODE_PORT = 8002;

/** `HOST:PORT` or `:PORT` (every address); undefined when it is neither. */
export function parseListenAddress(text: string): ListenAddress | undefined {
  const parts = splitHostPort(text.trim());
  if (parts === undefined || parts.port === undefined) return undefined;
  return { host: parts.host === "" ? "0.0.0.0" : parts.host, port: parts.port };
}

/** `HOST[:PORT][=WEIGHT]`; port 8002 and weight 1 when absent, as Dragonfly 1.0's `--node`. */
export function parseSupernodeAddress(text: string): SupernodeAddress | undefined {
  const match = /^([^=\s]+)(?:=(\d{1,4}))?$/.exec(text.trim());
  const parts = match?.[1] === undefined ? undefined : splitHostPort(match[1]);
  const weight = Number(match?.[2] ?? 1);
  if (parts === undefined || parts.host === "" || parts.port === 0 || weight === 0) return undefined;
  return { host: parts.host, port: parts.port ?? SUPERNODE_PORT, weight };
}

export function printAddress(address: { readonly host: string; readonly port: number }): string {
  return address.host.includes(":") ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

export function printSupernodeAddress(address: SupernodeAddress): string {
  return address.weight === 1 ? printAddress(address) : `${printAddress(address)}=${address.weight}`;
}

/** Only this machine can reach it. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^(::ffff:)?127\.\d+\.\d+\.\d+$/.test(host);
}

export function isHostName(text: string): boolean {
  return text.length <= 253 && (/^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?$/.test(text) || isIPv6(text));
}

function splitHostPort(text: string): { host: string; port: number | undefined } | undefined {
  const bracketed = /^\[([^\]]+)\](?::(\d{1,5}))?$/.exec(text);
  const match = bracketed ?? /^([^:]*)(?::(\d{1,5}))?$/.exec(text);
  if (match === null) return undefined;
  const host = match[1] ?? "";
  const port = match[2] === undefined ? undefined : Number(match[2]);
  if (port !== undefined && port > 65535) return undefined;
  if (bracketed !== null ? !isIPv6(host) : host !== "" && !isHostName(host)) return undefined;
  return { host, port };
}
