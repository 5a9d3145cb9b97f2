import type { Forwarded } from "./forward.ts";
import type { Target } from "./upstreams.ts";

/** A request, and the server it is for. */
export type ProxiedRequest = Forwarded;

/**
 * The target of a request with a whole URL. User info in it is dropped, as RFC 9110 §4.2.4 has it; the rest of the path
 * stays as it was written.
 *
 * @returns undefined for what is no http or https URL
 */
export function parseAbsolute(text: string): ProxiedRequest | undefined {
  const [, scheme = "", authority, rest = ""] = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]+)([^#]*)/i.exec(text) ?? [];
  const url = authority === undefined ? null : URL.parse(`${scheme}://${authority}/`);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) return undefined;
  const isTls = url.protocol === "https:";
  const port = url.port === "" ? (isTls ? 443 : 80) : Number(url.port);
  const path = rest.startsWith("/") ? rest : `/${rest}`;
  return isPath(path) ? { target: { isTls, host: bare(url.hostname), port }, path, host: url.host } : undefined;
}

/** The target of `CONNECT host:port`. @returns undefined for anything else */
export function parseAuthority(text: string): Target | undefined {
  const [, host = "", port = ""] = /^([a-z0-9._-]+|\[[0-9a-f:.]+\]):(\d{1,5})$/i.exec(text) ?? [];
  const url = URL.parse(`https://${host}:${port}/`);
  if (host === "" || url === null || Number(port) === 0) return undefined;
  return { isTls: true, host: bare(url.hostname), port: Number(port) };
}

/** A request inside of a connection to `target`. @returns undefined when it is not for a path there */
export function parseInner(target: Target, path: string): ProxiedRequest | undefined {
  return path.startsWith("/") && isPath(path) ? { target, path, host: undefined } : undefined;
}

function bare(hostname: string): string {
  return hostname.replace(/^\[(.+)\]$/, "$1");
}

/** Nothing in it that could end the line. Node's parser lets no more through, and takes no more. */
function isPath(path: string): boolean {
  return /^[\x21-\x7e\x80-\xff]*$/.test(path);
}
