/**
 * The read part of the OCI distribution protocol as text: paths, references, errors.
 * Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
 */
import { parseDigest, type Digest } from "./ids.ts";

export type Reference =
  | { readonly type: "tag"; readonly tag: string }
  | { readonly type: "digest"; readonly digest: Digest };

/** What a path under `/v2/` names. `repository` is without the registry's host. */
type DistributionResource =
  | { readonly type: "root" }
  | { readonly type: "catalog" }
  | { readonly type: "manifest"; readonly repository: string; readonly reference: Reference }
  | { readonly type: "blob"; readonly repository: string; readonly digest: Digest }
  | { readonly type: "tags"; readonly repository: string }
  | { readonly type: "referrers"; readonly repository: string; readonly digest: Digest }
  | { readonly type: "upload"; readonly repository: string };

export interface DistributionRequest {
  readonly resource: DistributionResource;
  /** The registry that the client means, lower case; undefined when it does not say. */
  readonly registry: string | undefined;
  /** How the client said so: `?ns=`, the path's first segment, or not at all. */
  readonly registryForm: "query" | "path" | "none";
  /** The query as it came, without its `?` and without `ns`. */
  readonly query: string;
}

/** A request that cannot be understood, and the answer it gets. */
export interface DistributionRefusal {
  readonly status: 400 | 404;
  readonly code: DistributionErrorCode;
  readonly message: string;
}

export type DistributionErrorCode =
  | "BLOB_UNKNOWN"
  | "DENIED"
  | "DIGEST_INVALID"
  | "MANIFEST_UNKNOWN"
  | "NAME_INVALID"
  | "NAME_UNKNOWN"
  | "RANGE_INVALID"
  | "TAG_INVALID"
  | "UNAUTHORIZED"
  | "UNAVAILABLE"
  | "UNKNOWN"
  | "UNSUPPORTED";

/**
 * `Accept` of every question for a manifest, all six media types: so that one cached answer fits each client, whatever
 * it lists (Docker shuffles its list on each request).
 */
export const MANIFEST_ACCEPT: string = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
  "application/vnd.docker.distribution.manifest.v2+json",
  "application/vnd.docker.distribution.manifest.v1+prettyjws",
  "application/vnd.docker.distribution.manifest.v1+json",
  "*/*",
].join(", ");

/** The error body of the specification. */
export function distributionErrorBody(code: DistributionErrorCode, message: string): string {
  return `${JSON.stringify({ errors: [{ code, message }] })}\n`;
}

/** True for a target that belongs to the protocol: `/v2`, `/v2/…`, either with a query. */
export function isDistributionTarget(target: string): boolean {
  return /^\/v2(?:[/?]|$)/.test(target);
}

/**
 * Reads a request target for which {@link isDistributionTarget} holds.
 *
 * A first path segment with a dot or a colon, or `localhost`, is the registry's host when at least one more segment of
 * name follows; with `?ns=` the path is all repository, unless it repeats that host. Its port may follow a `_` too: see
 * {@link registrySegment}.
 */
export function parseDistributionTarget(target: string): DistributionRequest | DistributionRefusal {
  const queryAt = target.indexOf("?");
  const path = queryAt === -1 ? target : target.slice(0, queryAt);
  const { namespace, rest } = splitQuery(queryAt === -1 ? "" : target.slice(queryAt + 1));
  if (namespace !== undefined && !isRegistryHost(namespace)) {
    return refusal(400, "NAME_INVALID", `"${printable(namespace)}" in ?ns= is no registry host`);
  }
  const segments = decodeSegments(path.slice("/v2".length));
  if (segments === undefined) return refusal(400, "NAME_INVALID", "the path is not properly percent-encoded");
  const registry = namespace?.toLowerCase();
  const first = hostOfSegment(segments[0]?.toLowerCase() ?? "");
  const hostInPath = registry === undefined ? looksLikeHost(first) && isRegistryHost(first) : first === registry;
  const inner = hostInPath ? parseResource(segments.slice(1)) : undefined;
  if (inner !== undefined && !isEmptyName(inner)) {
    if ("status" in inner) return inner;
    const registryForm = registry === undefined ? "path" : "query";
    return { resource: inner, registry: registry ?? first, registryForm, query: rest };
  }
  const resource = parseResource(segments);
  if ("status" in resource) return resource;
  return { resource, registry, registryForm: registry === undefined ? "none" : "query", query: rest };
}

function parseResource(segments: readonly string[]): DistributionResource | DistributionRefusal {
  if (segments.length === 0) return { type: "root" };
  if (segments.length === 1 && segments[0] === "_catalog") return { type: "catalog" };
  const uploadsAt = segments.at(-1) === "uploads" ? segments.length - 1 : segments.length - 2;
  if (segments[uploadsAt] === "uploads" && segments[uploadsAt - 1] === "blobs") {
    return named(segments.slice(0, uploadsAt - 1), (repository) => ({ type: "upload", repository }));
  }
  const last = segments.at(-1) ?? "";
  const name = segments.slice(0, -2);
  switch (segments.at(-2)) {
    case "manifests":
      return named(name, (repository) => {
        const reference = parseReference(last);
        return "status" in reference ? reference : { type: "manifest", repository, reference };
      });
    case "blobs":
      return named(name, (repository) => withDigest(last, (digest) => ({ type: "blob", repository, digest })));
    case "referrers":
      return named(name, (repository) => withDigest(last, (digest) => ({ type: "referrers", repository, digest })));
    case "tags":
      if (last === "list") return named(name, (repository) => ({ type: "tags", repository }));
      break;
    default:
  }
  return refusal(404, "UNSUPPORTED", "no such resource in the distribution protocol");
}

/** @returns a tag or a digest; what has a colon and is no digest is refused as such */
function parseReference(text: string): Reference | DistributionRefusal {
  if (text.includes(":")) return withDigest(text, (digest) => ({ type: "digest", digest }));
  if (TAG.test(text)) return { type: "tag", tag: text };
  return refusal(400, "TAG_INVALID", `"${printable(text)}" is neither a tag nor a digest`);
}

function named<T>(
  segments: readonly string[],
  then: (repository: string) => T | DistributionRefusal,
): T | DistributionRefusal {
  const repository = segments.join("/");
  if (segments.length === 0) return EMPTY_NAME;
  const isName = repository.length <= REPOSITORY_CHARS_MAX && segments.every((segment) => NAME_COMPONENT.test(segment));
  if (isName) return then(repository);
  return refusal(400, "NAME_INVALID", `"${printable(repository)}" is no repository name`);
}

function withDigest<T>(text: string, then: (digest: Digest) => T): T | DistributionRefusal {
  const digest = parseDigest(text);
  // Upper case is another digest to the specification, and one that no registry has.
  if (digest !== undefined && digest === text && /^sha(?:256|512):/.test(digest)) return then(digest);
  return refusal(400, "DIGEST_INVALID", `"${printable(text)}" is no digest; expected sha256:<64 hex> or sha512:<128 hex>`);
}

/** True for `host`, `host:port` and `[ipv6]:port`, and nothing that would mean more in a URL. */
export function isRegistryHost(text: string): boolean {
  return text.length <= HOST_CHARS_MAX && HOST.test(text);
}

/**
 * A registry's host as the first part of an image's name after the mirror's own: engines take no colon there, and a host
 * has no underscore.
 * Source: https://github.com/distribution/reference (`path-component`)
 */
export function registrySegment(host: string): string {
  return host.replace(/:(\d{1,5})$/, "_$1");
}

function hostOfSegment(segment: string): string {
  const [, host = "", port] = /^([^_]+)_(\d{1,5})$/.exec(segment) ?? [];
  return looksLikeHost(host) ? `${host}:${port}` : segment;
}

function looksLikeHost(segment: string): boolean {
  return segment === "localhost" || segment.includes(".") || segment.includes(":");
}

function isEmptyName(parsed: DistributionResource | DistributionRefusal): boolean {
  return parsed === EMPTY_NAME;
}

function splitQuery(query: string): { readonly namespace: string | undefined; readonly rest: string } {
  let namespace: string | undefined;
  const rest: string[] = [];
  for (const pair of query.split("&")) {
    if (pair.startsWith("ns=")) namespace ??= decode(pair.slice("ns=".length)) ?? "%";
    else if (pair !== "" && pair !== "ns") rest.push(pair);
  }
  return { namespace: namespace === "" ? undefined : namespace, rest: rest.join("&") };
}

function decodeSegments(path: string): string[] | undefined {
  const segments = path.replace(/^\//, "").replace(/\/$/, "");
  if (segments === "") return [];
  const decoded = segments.split("/").map(decode);
  return decoded.includes(undefined) ? undefined : (decoded as string[]);
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

function refusal(status: 400 | 404, code: DistributionErrorCode, message: string): DistributionRefusal {
  return { status, code, message };
}

function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, PRINTED_CHARS_MAX);
}

const EMPTY_NAME: DistributionRefusal = refusal(404, "NAME_UNKNOWN", "the path names no repository");

/** The grammar of the specification, "Pulling manifests". */
const NAME_COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;

const HOST = /^(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?$/i;

/** Many clients hold host and name together to 255 characters. */
const REPOSITORY_CHARS_MAX = 255;
const HOST_CHARS_MAX = 255;
const PRINTED_CHARS_MAX = 100;
