import type { IncomingMessage } from "node:http";
import { isDistributionTarget, parseDistributionTarget } from "../../protocol/distribution.ts";
import type { Registries, Upstream } from "../mirror/registries.ts";
import { originOf, type Target } from "./upstreams.ts";

/** A request that the mirror answers better than the server it was meant for. */
export interface RegistryRequest {
  readonly upstream: Upstream;
  /** For the mirror: names the registry. */
  readonly url: string;
}

/**
 * Recognises what a registry client asks of a registry: blobs, which their digest gives away; manifests, when the client
 * says that it understands some; and the ping of a registry that is configured. Everything else is no business of the
 * mirror's: uploads, tags, tokens, and other servers that happen to have a `/v2/`. HEAD of a blob is part of an upload:
 * it has to be told the truth of this moment.
 *
 * @param path with the query, as it came
 */
export function asRegistryRequest(
  registries: Registries,
  { method, headers }: IncomingMessage,
  target: Target,
  path: string,
): RegistryRequest | undefined {
  if ((method !== "GET" && method !== "HEAD") || !isDistributionTarget(path)) return undefined;
  // Meant for a mirror of others, which knows what to make of it.
  if (/[?&]ns=/.test(path)) return undefined;
  const name = nameOf(target);
  const url = `${path}${path.includes("?") ? "&" : "?"}ns=${encodeURIComponent(name)}`;
  const parsed = parseDistributionTarget(url);
  if ("status" in parsed) return undefined;
  const { upstream, isConfigured } = upstreamAt(registries, target, name);
  const { type } = parsed.resource;
  const isWanted = (type === "blob" && method === "GET") || (type === "manifest" && MANIFEST_TYPE.test(headers.accept ?? "")) || (type === "root" && isConfigured);
  return isWanted ? { upstream, url } : undefined;
}

/**
 * The registry that lives at `target`. One that is not where its name says gets its origin for a name: what was granted
 * by one server must not open what came from another.
 */
function upstreamAt(registries: Registries, target: Target, name: string): { readonly upstream: Upstream; readonly isConfigured: boolean } {
  const known = registries.resolve(name);
  const origin = originOf(target);
  if (known !== undefined && registries.configured().includes(known)) return { upstream: known, isConfigured: true };
  const isThere = known !== undefined && new URL(known.baseUrl).origin === origin;
  return { upstream: isThere ? known : { name: origin, baseUrl: origin, access: "passthrough" }, isConfigured: false };
}

/** As in image references. */
function nameOf(target: Target): string {
  return new URL(originOf(target)).host;
}

const MANIFEST_TYPE = /application\/vnd\.(?:oci\.image|docker\.distribution)\.[a-z.]+\.v[12]\+(?:json|prettyjws)/;
