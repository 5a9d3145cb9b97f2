/**
 * Which task a source is: one version of one file, however it is spelt and whoever asks.
 *
 * Content known by a strong digest is one task for all places that have shown that they hold it (content-places.ts); until
 * then each place that answers for it (see `placeOf`) has a task of its own. That a caller may have it is checked by asking
 * his place in his name (task-resolver.ts). Anything else is its URL and its version, and callers with credentials, or with whatever else they send that may choose
 * among files (an API key, a tenant), have tasks of their own, for the same URL may mean another file to them.
 */
import { createHash, createHmac, type KeyObject, randomBytes } from "node:crypto";
import { AppError } from "../../base/errors.ts";
import { parseOriginUrl, redactUrl } from "../../origin/origin-url.ts";
import type { OriginInfo } from "../../origin/origin.ts";
import type { Source } from "../../protocol/control-messages.ts";
import { type Digest, digestAlgorithm, parseDigest, type TaskId } from "../../protocol/ids.ts";
import { dropVolatileParameters } from "./volatile-parameters.ts";

export interface SourceIdentity {
  /** The content's digest, of whatever algorithm: what is read is held against it. */
  readonly digest: Digest | undefined;
  /** Set when a strong digest (and tag, application) says what the content is, whatever the version is called. */
  readonly content: ContentIdentity | undefined;
  /** An image's manifest by tag, at a registry. */
  readonly isTag: boolean;
  /** What the origin is asked: equal for callers who would put the very same question. Keyed hash, safe to store. */
  readonly accessKey: string;
  /** The file without its version: equal for callers who mean the same file. Keyed hash, safe to store. */
  readonly fileKey: string;
  /** For people: no user info, no query values. */
  readonly displayUrl: string;
}

/** Content known by its digest, as one place gives it. The keys are keyed hashes, safe to store. */
export interface ContentIdentity {
  /** The task of this place alone. */
  readonly placeTaskId: TaskId;
  /** Equal for callers who ask the same place for the same content. */
  readonly placeKey: string;
  /** Equal for all who ask for the same content, wherever. */
  readonly contentKey: string;
}

/**
 * @param secret keys the hashes, so that neither a task id nor a stored key can be searched for a password
 * @throws AppError URL_INVALID, SCHEME_UNSUPPORTED, USAGE (a digest we do not know); none retriable
 */
export function identifySource(source: Source, secret: KeyObject): SourceIdentity {
  const url = parseOriginUrl(source.url);
  const digest = source.digest === undefined ? digestInUrl(url) : requireDigest(source.digest);
  const separators = [source.tag ?? "", source.application ?? ""];
  const asked = [url.href, headersThatMatter(source.headers), digest ?? "", ...separators, source.filteredQueryParameters ?? [], ...(digest === undefined ? preferences(source.headers) : [])];
  const credentials = [source.headers["authorization"] ?? "", source.headers["cookie"] ?? "", url.username, url.password, ...choosingHeaders(source.headers)];
  const scope = credentials.every((value) => value === "") ? "" : keyedHash(secret, "scope", credentials);
  const file = new URL(url);
  file.username = "";
  file.password = "";
  dropVolatileParameters(file, source.filteredQueryParameters ?? []);
  const isStrong = digest !== undefined && isStrongDigest(digest);
  // A registry answers for the digest in its URL; anywhere else the same URL may mean another file to each caller.
  const place = placeOf(file, source, digestInUrl(url) === digest ? "" : scope);
  return {
    digest,
    content: isStrong
      ? {
          placeTaskId: hashTaskId(["digest", digest, keyedHash(secret, "place", place), ...separators]),
          placeKey: keyedHash(secret, "proof", [digest, place, ...separators]),
          contentKey: keyedHash(secret, "content", [digest, ...separators]),
        }
      : undefined,
    isTag: digest === undefined && /\/v2\/.+\/manifests\/[^/:]+$/.test(url.pathname),
    accessKey: keyedHash(secret, "access", asked),
    fileKey: keyedHash(secret, "file", [file.href, digest ?? "", scope, ...separators]),
    displayUrl: redactUrl(url),
  };
}

/** The task of a version of a URL. `nonce` for versions that the origin gives no name to (see {@link isVersioned}). */
export function versionTaskId(identity: SourceIdentity, info: OriginInfo, nonce: string): TaskId {
  const { etag, lastModified, lengthBytes } = info;
  // Servers behind one name often differ in Last-Modified only; a strong ETag settles it (file-version.ts).
  const isStrongEtag = etag !== undefined && etag.startsWith('"');
  const version = isStrongEtag ? [etag] : [etag ?? "", lastModified ?? "", nonce];
  return hashTaskId(["url", identity.fileKey, ...version, lengthBytes ?? "unknown"]);
}

/** True when the origin would give a changed file another name. Without, sameness cannot be known later. */
export function isVersioned(info: OriginInfo): boolean {
  return info.etag !== undefined || info.lastModified !== undefined;
}

/**
 * What a tag means by what its registry says of it: the manifest under its digest, one task for all callers and tags.
 *
 * @returns undefined when `source` is no tag of a registry's, or the registry does not say
 */
export function sourceByDigest(source: Source, info: OriginInfo): Source | undefined {
  const said = parseDigest(info.headers["docker-content-digest"] ?? "");
  if (said === undefined || source.digest !== undefined || !STRONG_ALGORITHMS.has(digestAlgorithm(said))) return undefined;
  const url = parseOriginUrl(source.url);
  const [, base, reference] = /^(.*\/v2\/.+\/manifests\/)([^/]+)$/.exec(url.pathname) ?? [];
  if (base === undefined || reference?.includes(":") !== false) return undefined;
  url.pathname = `${base}${said}`;
  return { ...source, url: url.href };
}

/** A name for a version that has none. */
export function newVersionNonce(): string {
  return randomBytes(16).toString("hex");
}

/**
 * All that says who is asked for the content. An impostor's server, a repository of his own, a query or a header that lead
 * there, or a parameter declared volatile that is not, each make another place, which has to show that it has the content
 * before it opens what another place gave.
 *
 * @param file the URL without user info and volatile parameters
 */
function placeOf(file: URL, source: Source, scope: string): unknown {
  const headers = headersThatMatter(source.headers).filter(([name]) => name !== "authorization");
  return [file.href, [...(source.filteredQueryParameters ?? [])].sort(), headers, scope];
}

/** Registry URLs name their content: `…/v2/<repository>/blobs/<digest>`. */
function digestInUrl(url: URL): Digest | undefined {
  const match = /\/v2\/.+\/(?:blobs|manifests)\/([a-z0-9]+:[0-9a-f]+)$/.exec(url.pathname);
  return match === null ? undefined : parseDigest(match[1] as string);
}

/** Collisions of md5 and sha1 can be made: they check a file, but do not name it. */
export function isStrongDigest(digest: Digest): boolean {
  return STRONG_ALGORITHMS.has(digestAlgorithm(digest));
}

function requireDigest(text: string): Digest {
  const digest = parseDigest(text);
  if (digest !== undefined) return digest;
  throw new AppError("USAGE", `"${text}" is no digest; write sha256:<64 hex digits>, or sha512, sha1, md5`);
}

/**
 * All that may change the answer, who gives it, or who may have it; without what differs between hosts for no reason and
 * what never reaches the origin (`host`).
 */
function headersThatMatter(headers: Source["headers"]): readonly (readonly [string, string])[] {
  return Object.entries(headers)
    .filter(([name]) => !HARMLESS.test(name))
    .sort(([left], [right]) => (left < right ? -1 : 1));
}

/** What may make the same URL another file, beside the usual credentials: names and values. Empty with most callers. */
function choosingHeaders(headers: Source["headers"]): readonly string[] {
  return headersThatMatter(headers).filter(([name, value]) => value !== "" && !USUAL_CREDENTIALS.has(name) && !OF_THE_WAY.test(name)).flat();
}

/**
 * Which form of a file is wanted. An origin may have several under one URL, so those who want another ask for themselves; which one they
 * are given its version says. Empty for who takes any, which is nearly everybody.
 */
function preferences(headers: Source["headers"]): readonly string[] {
  const wanted = [headers["accept"] ?? "", headers["accept-language"] ?? ""];
  return wanted.every((value) => value === "" || value === "*/*") ? [] : wanted;
}

function hashTaskId(parts: readonly (string | number)[]): TaskId {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex") as TaskId;
}

function keyedHash(secret: KeyObject, purpose: string, value: unknown): string {
  return createHmac("sha256", secret).update(`${purpose}\0${JSON.stringify(value)}`).digest("base64url");
}

const STRONG_ALGORITHMS: ReadonlySet<string> = new Set(["sha256", "sha512"]);

const HARMLESS = new RegExp(
  "^(?:accept|accept-(?:charset|encoding|language)|user-agent|range|if-.*|connection|host|via|" +
    "x-request-id|x-correlation-id|traceparent|tracestate|cache-control|pragma|x-dragonfly-.*)$",
);

const USUAL_CREDENTIALS: ReadonlySet<string> = new Set(["authorization", "cookie"]);

/**
 * Says by which way a request came, where it began, or which of a client's requests it is: differs from host to host or from one
 * request to the next, and may decide who is let in (so each is asked about), but not which file a URL means.
 */
const OF_THE_WAY = new RegExp(
  "^(?:x-forwarded-for|x-real-ip|x-client-ip|referer|origin|from|dnt|te|priority|save-data|upgrade-insecure-requests|sec-.*|" +
    "b3|x-b3-.*|baggage|sentry-trace|uber-trace-id|x-amzn-trace-id|x-cloud-trace-context|x-datadog-.*|newrelic|" +
    "request-id|correlation-context|grpc-trace-bin|x-ot-span-context|x-envoy-.*|" +
    // A number of the request's own, or of the run's: AWS's clients, Google's, Azure's, NuGet, npm, zypper.
    "amz-sdk-.*|x-amz-user-agent|x-goog-api-client|x-ms-client-request-id|x-ms-return-client-request-id|" +
    "x-nuget-.*|npm-(?:session|command|in-ci)|pacote-.*|x-zypp-.*|" +
    // How fresh it is to be: Maven.
    "cache-store|expires)$",
);
