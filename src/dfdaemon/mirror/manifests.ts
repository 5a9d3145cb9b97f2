import { createHash } from "node:crypto";
import type { Logger } from "pino";
import { AppError, toAppError } from "../../base/errors.ts";
import type { Content, ContentInfo, ContentOpener } from "../../peer/content.ts";
import { MANIFEST_ACCEPT, type Reference } from "../../protocol/distribution.ts";
import { digestAlgorithm, type Digest, type TaskId } from "../../protocol/ids.ts";
import type { ManifestCache } from "./manifest-cache.ts";
import { manifestContentType, readManifest, type Manifest } from "./manifest-content.ts";
import {
  isOutage, isRefusal, refuseUnverified, type AccessVerdict, type MirrorAccess, type Place,
} from "./access.ts";
import type { Caller } from "./caller.ts";
import { withDeadline } from "./deadline.ts";
import { asAuthorized, type UpstreamAsker } from "./passthrough.ts";
import { repositoryAt, resourceUrl, type Upstream } from "./registries.ts";
import type { SourceBytes } from "./sources.ts";
import type { TagMemory } from "./tag-memory.ts";

/** Which manifest, and for whom. */
export interface ManifestRequest {
  readonly upstream: Upstream;
  readonly repository: string;
  readonly reference: Reference;
  readonly caller: Caller;
}

export interface ManifestAnswer {
  readonly manifest: Manifest;
  readonly taskId: TaskId | undefined;
  readonly access: AccessVerdict;
  /** The bytes of this manifest by where they came from. */
  readonly sources: SourceBytes;
  /** What the origin, or the supernode for it, says beside: rate limits, the age of a stale answer. Lower case. */
  readonly headers: Readonly<Record<string, string>>;
}

export interface ManifestsDeps {
  readonly opener: ContentOpener;
  readonly asker: UpstreamAsker;
  readonly access: MirrorAccess;
  readonly cache: ManifestCache;
  readonly tags: TagMemory;
  readonly backToSource: boolean;
  /** Monotonic ms. */
  readonly nowMs: () => number;
  /** Time for one manifest in all, in ms. */
  readonly timeoutMs: number;
  readonly log: Pick<Logger, "warn">;
}

/**
 * Manifests, for each caller what the upstream lets him read.
 *
 * What a tag means is asked upstream (through the supernode, which may answer stale when the registry is down), unless
 * it was a moment ago and the caller has a grant; a digest is served from memory once the caller's right to it is known.
 * Requests alike in everything but the client are one.
 */
export class Manifests {
  readonly #deps: ManifestsDeps;
  readonly #fetching = new Map<string, Promise<ManifestAnswer>>();

  constructor(deps: ManifestsDeps) {
    this.#deps = deps;
  }

  /**
   * @throws AppError as ContentOpener; ORIGIN_NOT_FOUND, DIGEST_MISMATCH, TIMEOUT; ORIGIN_PROTOCOL for a manifest
   *   larger than any client takes
   */
  async get(request: ManifestRequest): Promise<ManifestAnswer> {
    const { reference } = request;
    return reference.type === "tag" ? this.#byTag(request, reference.tag) : this.#byDigest(request, reference.digest);
  }

  async #byTag(request: ManifestRequest, tag: string): Promise<ManifestAnswer> {
    const { tags, access } = this.#deps;
    const place = placeOf(request);
    const meaning = access.hasGrant(request.caller, place, false) ? tags.fresh(place, tag) : undefined;
    const known = meaning === undefined ? undefined : this.#cached(place, meaning.digest);
    if (known !== undefined) return known;
    return this.#once(keyOf(request, tag), async () => {
      try {
        return await this.#askTag(request, tag);
      } catch (thrown) {
        const error = toAppError(thrown);
        if (isRefusal(error)) access.revoke(request.caller, place);
        if (error.code === "ORIGIN_NOT_FOUND") tags.forget(place, tag);
        const stale = isOutage(error) ? this.#stale(request, tag, error) : undefined;
        if (stale === undefined) throw error;
        return stale;
      }
    });
  }

  async #askTag(request: ManifestRequest, tag: string): Promise<ManifestAnswer> {
    const { access, tags, nowMs } = this.#deps;
    const place = placeOf(request);
    const askedMs = nowMs();
    const answer = await this.#fetch(request, undefined, "asked");
    // What the supernode remembers of a registry that it cannot ask is no word of the registry's.
    if (isStale(answer.headers["warning"])) return answer;
    access.grant(request.caller, place, askedMs);
    tags.remember(place, tag, answer.manifest.digest, askedMs);
    return answer;
  }

  /** What the tag last meant, for a caller whom the registry let in before it went away. */
  #stale(request: ManifestRequest, tag: string, error: AppError): ManifestAnswer | undefined {
    const { access, tags, log } = this.#deps;
    const place = placeOf(request);
    const meaning = access.hasGrant(request.caller, place, true) ? tags.stale(place, tag) : undefined;
    const known = meaning === undefined ? undefined : this.#cached(place, meaning.digest);
    if (meaning === undefined || known === undefined) return undefined;
    const ageS = Math.ceil(meaning.ageMs / 1000);
    const why = { ...place, tag, digest: meaning.digest, ageS, code: error.code };
    log.warn(why, "the registry cannot be asked: what the tag last meant is served");
    return { ...known, headers: { age: String(ageS), warning: '110 - "Response is Stale"' } };
  }

  #cached(place: Place, digest: Digest): ManifestAnswer | undefined {
    const manifest = this.#deps.cache.get(place, digest);
    if (manifest === undefined) return undefined;
    return { manifest, taskId: undefined, access: "granted", sources: fromCache(manifest), headers: {} };
  }

  async #byDigest(request: ManifestRequest, digest: Digest): Promise<ManifestAnswer> {
    const { access, asker } = this.#deps;
    const { upstream, caller } = request;
    const target = { ...placeOf(request), digest };
    const verdict = await access.check(caller, target, "manifest", () =>
      asker.stat(upstream, urlOf(request, digest), MANIFEST_ACCEPT, caller, AbortSignal.timeout(ACCESS_TIMEOUT_MS)),
    );
    const cached = verdict === "unverified" ? undefined : this.#cached(target, digest);
    if (cached === undefined) return this.#once(keyOf(request, digest), () => this.#fetch(request, digest, verdict));
    // What it names may have been forgotten before it was.
    access.holds(target, cached.manifest.children);
    return { ...cached, access: verdict };
  }

  #once(key: string, fetch: () => Promise<ManifestAnswer>): Promise<ManifestAnswer> {
    let fetching = this.#fetching.get(key);
    if (fetching === undefined) {
      fetching = fetch().finally(() => this.#fetching.delete(key));
      this.#fetching.set(key, fetching);
    }
    return fetching;
  }

  async #fetch(
    request: ManifestRequest,
    digest: Digest | undefined,
    verdict: AccessVerdict,
  ): Promise<ManifestAnswer> {
    const { opener, asker, access, cache, backToSource, timeoutMs } = this.#deps;
    const { upstream, caller } = request;
    const place = placeOf(request);
    const url = urlOf(request, digest ?? tagOf(request.reference));
    // Bound to no client: whoever asked first may hang up while others wait.
    return withDeadline(timeoutMs, `to fetch the manifest ${url}`, undefined, async (signal) => {
      const content = await asAuthorized(asker, { upstream, url, caller }, () => signal, (authorization) => {
        const headers: Record<string, string> = { accept: MANIFEST_ACCEPT };
        if (authorization !== undefined) headers["authorization"] = authorization;
        const source = digest === undefined ? { url, headers } : { url, headers, digest };
        return opener.open({ source, backToSource, firstByte: 0 }, signal);
      });
      try {
        if (digest !== undefined && verdict === "unverified" && content.sources().cacheBytes > 0) {
          refuseUnverified({ ...place, digest });
        }
        const bytes = await readAll(content, digest, signal);
        const manifest = checkedManifest(bytes, content.info, digest);
        cache.add(place, manifest);
        access.holds(place, [manifest.digest, ...manifest.children]);
        const { seedBytes, peerBytes, originBytes, cacheBytes } = content.sources();
        const sources = { seedBytes, peerBytes, originBytes, cacheBytes };
        return { manifest, taskId: content.info.taskId, access: verdict, sources, headers: relayed(content.info) };
      } finally {
        content.close();
      }
    });
  }
}

async function readAll(content: Content, digest: Digest | undefined, signal: AbortSignal): Promise<Uint8Array> {
  const { lengthBytes } = content.info;
  if (lengthBytes !== undefined && lengthBytes > MANIFEST_BYTES_MAX) throw tooLarge(digest);
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of content.read({ startByte: 0, endByte: undefined }, signal)) {
    sizeBytes += chunk.length;
    if (sizeBytes > MANIFEST_BYTES_MAX) throw tooLarge(digest);
    chunks.push(chunk);
  }
  if (lengthBytes !== undefined && sizeBytes !== lengthBytes) {
    throw new AppError("ORIGIN_CUT", `a manifest of ${lengthBytes} bytes ended after ${sizeBytes}; try again`);
  }
  return Buffer.concat(chunks);
}

function checkedManifest(bytes: Uint8Array, info: ContentInfo, digest: Digest | undefined): Manifest {
  const expected = digest ?? digestSaid(info);
  const found = digestOf(bytes, expected);
  if (expected !== undefined && found !== expected) {
    throw new AppError("DIGEST_MISMATCH", `the manifest ${expected} came with bytes of ${found}; check the registry`);
  }
  const reading = readManifest(bytes);
  const contentType = manifestContentType(info.contentType, reading);
  if (digest !== undefined && reading.mediaType === undefined && contentType === "application/octet-stream") {
    throw new AppError("ORIGIN_NOT_FOUND", `${digest} is a blob, not a manifest; ask for it under blobs/`);
  }
  return { bytes, contentType, digest: found, children: reading.children };
}

/** What a registry says of a tag's manifest; only in an algorithm that it is worth being held to. */
function digestSaid(info: ContentInfo): Digest | undefined {
  const said = info.headers["docker-content-digest"];
  return said !== undefined && /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/.test(said) ? (said as Digest) : undefined;
}

function digestOf(bytes: Uint8Array, like: Digest | undefined): Digest {
  const algorithm = like === undefined ? "sha256" : digestAlgorithm(like);
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}` as Digest;
}

function tooLarge(digest: Digest | undefined): AppError {
  const what = `is larger than the ${MANIFEST_BYTES_MAX} bytes that a manifest may have`;
  return digest === undefined
    ? new AppError("ORIGIN_PROTOCOL", `the registry's answer ${what}; check the registry`)
    : new AppError("ORIGIN_NOT_FOUND", `${digest} ${what}: it is a blob; ask for it under blobs/`);
}

function fromCache(manifest: Manifest): SourceBytes {
  return { cacheBytes: manifest.bytes.length, seedBytes: 0, peerBytes: 0, originBytes: 0 };
}

function relayed(info: ContentInfo): Record<string, string> {
  return Object.fromEntries(Object.entries(info.headers).filter(([name]) => RELAYED.test(name)));
}

/** Warnings of the registry's own (OCI 1.1: code 299) say nothing of the answer's age. Source: RFC 7234 §5.5. */
function isStale(warning: string | undefined): boolean {
  return warning !== undefined && /(?:^|,\s*)11[0-3] /.test(warning);
}

function placeOf({ upstream, repository }: ManifestRequest): Place {
  return { registry: upstream.name, repository: repositoryAt(upstream, repository) };
}

function urlOf({ upstream, repository }: ManifestRequest, reference: string): string {
  return resourceUrl(upstream, repository, `manifests/${reference}`);
}

function tagOf(reference: Reference): string {
  return reference.type === "tag" ? reference.tag : reference.digest;
}

function keyOf({ upstream, repository, caller }: ManifestRequest, reference: string): string {
  return `${caller.scope} ${upstream.name} ${repositoryAt(upstream, repository)} ${reference}`;
}

const RELAYED = /^(?:x-dragonfly-[\w-]+|(?:docker-)?ratelimit-[\w-]+|warning|age)$/;

/** What containerd takes (`MaxManifestSize`). */
const MANIFEST_BYTES_MAX = 4 * 1048 * 1048;

/** A registry that does not answer a HEAD in this time counts as down. */
export const ACCESS_TIMEOUT_MS = 5_000;

