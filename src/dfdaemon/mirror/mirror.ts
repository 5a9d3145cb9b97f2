import type { IncomingMessage, ServerResponse } from "node:http";
import type { Logger } from "pino";
import { AppError, toAppError } from "../../base/errors.ts";
import type { ContentOpener } from "../../peer/content.ts";
import { isDistributionTarget, parseDistributionTarget, type DistributionRequest } from "../../protocol/distribution.ts";
import { RequestRecord } from "./access-log.ts";
import { ManifestCache } from "./manifest-cache.ts";
import { Manifests } from "./manifests.ts";
import type { GrantConfig } from "../config.ts";
import { MirrorMetrics } from "../metrics.ts";
import { MirrorAccess } from "./access.ts";
import { Blobs } from "./blobs.ts";
import { callerAt, decidesOnceForAll, loggedInCallerAt, LOGIN_CHALLENGE, type Caller } from "./caller.ts";
import { errorAnswer, specAnswer } from "./errors.ts";
import { TagMemory } from "./tag-memory.ts";
import type { UpstreamAsker } from "./passthrough.ts";
import { Pings } from "./ping.ts";
import { answerBytes, type BytesRequest } from "./ranges.ts";
import { relay } from "./relay.ts";
import { sendBytes, sendError } from "./send.ts";
import { describeSources, shareSources } from "./sources.ts";
import { repositoryAt, type Registries, type Upstream } from "./registries.ts";

export interface MirrorDeps {
  readonly opener: ContentOpener;
  readonly registries: Registries;
  readonly asker: UpstreamAsker;
  readonly log: Logger;
  /** May this host read a registry itself when the swarm cannot deliver? */
  readonly backToSource: boolean;
  readonly options?: Partial<MirrorOptions>;
}

/** The mirror's times and bounds; each has a default. */
export interface MirrorOptions {
  readonly grants: GrantConfig;
  /** Memory for manifests by digest, bytes. Default 32 MiB. */
  readonly manifestCacheBytes: number;
  /** How long a caller is told again that something is not there, ms. Default 2 s. */
  readonly absenceMs: number;
  /** How long an upstream's answer to a ping holds, ms. Default 30 s. */
  readonly pingTtlMs: number;
  /** Time for a manifest in all, and until a blob is open, ms. Default 20 s: containerd waits 30 s for headers. */
  readonly openTimeoutMs: number;
  /** A blob's headers leave after this time though no byte is there, ms. Default 4 s. */
  readonly headersWithinMs: number;
  /** Monotonic ms. Default `performance.now`. */
  readonly nowMs: () => number;
}

/**
 * A read-only OCI registry in front of all others: `GET` and `HEAD` under `/v2/`, for any container engine.
 *
 * The registry is named by `?ns=`, by the path's first segment, or not at all (then see `Registries`).
 */
export class Mirror {
  readonly metrics: MirrorMetrics;
  readonly #deps: MirrorDeps;
  readonly #nowMs: () => number;
  readonly #manifests: Manifests;
  readonly #blobs: Blobs;
  readonly #pings: Pings;

  constructor(deps: MirrorDeps) {
    const options: MirrorOptions = { ...DEFAULT_OPTIONS, ...deps.options };
    const { nowMs, openTimeoutMs, grants, absenceMs } = options;
    const cache = new ManifestCache(options.manifestCacheBytes);
    this.metrics = new MirrorMetrics(() => cache.sizeBytes);
    const access = new MirrorAccess({
      grantMs: grants.grantMs,
      outageGrantMs: grants.outageGrantMs,
      absenceMs,
      entriesMax: GRANTS_MAX,
      nowMs,
      onOutcome: (outcome) => this.metrics.accessChecked(outcome),
    });
    this.#deps = deps;
    this.#nowMs = nowMs;
    const { opener, asker, backToSource } = deps;
    const shared = { opener, asker, access, backToSource };
    const tags = new TagMemory({ freshMs: grants.tagMs, staleMs: grants.staleTagMs, nowMs });
    this.#manifests = new Manifests({ ...shared, cache, tags, nowMs, timeoutMs: openTimeoutMs, log: deps.log });
    this.#blobs = new Blobs({ ...shared, openTimeoutMs, headersWithinMs: options.headersWithinMs });
    this.#pings = new Pings({ asker, ttlMs: options.pingTtlMs, nowMs });
  }

  /** True for a request target that is the mirror's. */
  handles(target: string): boolean {
    return isDistributionTarget(target);
  }

  /**
   * Answers a request, whatever happens; resolves when the answer is over, and never rejects.
   *
   * @param upstream where the request was going; undefined: it says so itself
   */
  async handle(request: IncomingMessage, response: ServerResponse, upstream?: Upstream): Promise<void> {
    const record = new RequestRecord(this.#deps.log, this.metrics, this.#nowMs);
    record.method = request.method ?? "";
    record.range = request.headers.range;
    record.userAgent = request.headers["user-agent"];
    response.setHeader("docker-distribution-api-version", "registry/2.0");
    try {
      await this.#route(request, response, record, upstream);
    } catch (thrown) {
      await this.#fail(thrown, response, record);
    } finally {
      record.finish();
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse, record: RequestRecord, given?: Upstream): Promise<void> {
    const parsed = parseDistributionTarget(request.url ?? "");
    if ("status" in parsed) return sendError(response, specAnswer(parsed.status, parsed.code, parsed.message), record);
    const { resource, registry } = parsed;
    if (parsed.registryForm !== "none" && registry !== undefined) response.setHeader("oci-namespace", registry);
    if ("repository" in resource) record.repository = resource.repository;
    const { method } = request;
    if ((method !== "GET" && method !== "HEAD") || resource.type === "upload") return refuseMethod(response, record);

    const { registries } = this.#deps;
    const isDocker = record.userAgent?.startsWith("docker/") === true;
    const named = isDocker && registry === undefined ? registries.resolveForDocker(resource.type === "root") : registries.resolve(registry);
    const upstream = given ?? named;
    record.registry = upstream?.name;
    const { authorization } = request.headers;
    const isLoggedIn = given === undefined && decidesOnceForAll(request.headers);
    if (resource.type === "root") {
      return isLoggedIn && registry === undefined ? askLogin(authorization, response, record) : this.#ping(upstream, authorization, response, record);
    }
    if (upstream === undefined) {
      const message = "which registry? Name it by ?ns=<host>, or by the path /v2/<host>/<repository>/…";
      return sendError(response, specAnswer(404, "NAME_UNKNOWN", message), record);
    }
    const caller = isLoggedIn ? loggedInCallerAt(upstream, registries.configured().includes(upstream), authorization) : callerAt(upstream, authorization);
    const answer = async (as: Caller): Promise<void> => this.#answer(request, method, parsed, upstream, as, response, record);
    try {
      await answer(caller);
    } catch (thrown) {
      // Docker's classic store has a token as our ping had it fetch one: of docker.io, whatever the path names.
      const isTokenOfOther = isDocker && parsed.registryForm === "path" && authorization !== undefined && registries.resolveForDocker(true) !== undefined;
      if (!isTokenOfOther || toAppError(thrown).code !== "ORIGIN_UNAUTHORIZED") throw inOurName(upstream, thrown);
      await answer(callerAt(upstream, undefined)).catch(() => Promise.reject(inOurName(upstream, thrown)));
    }
  }

  async #answer(
    request: IncomingMessage,
    method: "GET" | "HEAD",
    parsed: DistributionRequest,
    upstream: Upstream,
    caller: Caller,
    response: ServerResponse,
    record: RequestRecord,
  ): Promise<void> {
    const { resource, registry } = parsed;
    const { range, "if-none-match": ifNoneMatch, accept } = request.headers;
    // Node joins the fields of this name, as of most, to one text.
    const ifRange = request.headers["if-range"] as string | undefined;
    const bytes: BytesRequest = { method, range, ifRange, ifNoneMatch };
    switch (resource.type) {
      case "manifest": {
        record.kind = "manifest";
        const { repository, reference } = resource;
        record.reference = reference.type === "tag" ? reference.tag : reference.digest;
        const answer = await this.#manifests.get({ upstream, repository, reference, caller });
        record.taskId = answer.taskId;
        record.access = answer.access;
        return sendManifest(answer, bytes, response, record);
      }
      case "blob": {
        record.kind = "blob";
        record.reference = resource.digest;
        const { repository, digest } = resource;
        return this.#blobs.serve({ upstream, repository, digest, caller, bytes }, response, record);
      }
      default: {
        record.kind = "passthrough";
        const pathAndQuery = upstreamPath(upstream, parsed);
        const { registryForm } = parsed;
        return relay(
          this.#deps.asker,
          { upstream, method, pathAndQuery, accept, caller, registry, registryForm },
          response,
          record,
        );
      }
    }
  }

  async #ping(
    upstream: Upstream | undefined,
    authorization: string | undefined,
    response: ServerResponse,
    record: RequestRecord,
  ): Promise<void> {
    record.kind = "ping";
    // Who does not stand for himself has nothing to answer a challenge with.
    const isAsked = upstream?.access === "passthrough";
    const answer = isAsked ? await this.#pings.ask(upstream, callerAt(upstream, authorization)) : undefined;
    const challenge = answer?.wwwAuthenticate;
    if (challenge === undefined) {
      return sendBytes(response, 200, { "content-type": "application/json" }, Buffer.from("{}"), record);
    }
    const message = `${upstream?.name} wants credentials`;
    return sendError(response, specAnswer(401, "UNAUTHORIZED", message, { "www-authenticate": challenge }), record);
  }

  async #fail(thrown: unknown, response: ServerResponse, record: RequestRecord): Promise<void> {
    const error = toAppError(thrown);
    if (response.destroyed || response.closed) {
      record.aborted = true;
      record.status = CLIENT_GONE;
      return;
    }
    record.error = error;
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const answer = errorAnswer(error, record.kind);
    if (answer.status === 500) this.#deps.log.error({ err: thrown }, "mirror request failed by a fault of our own");
    await sendError(response, answer, record);
  }
}

async function sendManifest(
  answer: Awaited<ReturnType<Manifests["get"]>>,
  bytes: BytesRequest,
  response: ServerResponse,
  record: RequestRecord,
): Promise<void> {
  const { manifest } = answer;
  const of = { lengthBytes: manifest.bytes.length, contentType: manifest.contentType, etag: manifest.digest };
  // A manifest is small and wanted whole: of ranges only a single one is worth the trouble.
  const single = bytes.range?.includes(",") === true ? { ...bytes, range: undefined } : bytes;
  const { status, headers, parts } = answerBytes(single, of);
  const [part] = parts;
  const body = part?.type === "content" ? manifest.bytes.subarray(part.startByte, part.endByte) : EMPTY;
  const said = {
    ...answer.headers,
    ...headers,
    "docker-content-digest": manifest.digest,
    "x-dragonfly-sources": describeSources(answer.sources),
    ...(answer.taskId === undefined ? {} : { "x-dragonfly-task-id": answer.taskId }),
  };
  if (status === 416) {
    return sendError(response, specAnswer(416, "RANGE_INVALID", "no byte of this range is in the manifest", headers), record);
  }
  await sendBytes(response, status, said, body, record);
  record.sources = shareSources(answer.sources, record.sentBytes);
}

/**
 * A challenge is for who can answer it: where callers do not stand for themselves, a 401 is for the operator. And it is the
 * registry's: a host that it redirected to has no say in where the client takes its password.
 */
function inOurName({ name, baseUrl, access }: Upstream, thrown: unknown): unknown {
  const error = toAppError(thrown);
  if (error.code !== "ORIGIN_UNAUTHORIZED") return thrown;
  const { origin } = error.details;
  if (access === "passthrough") {
    if (origin === undefined || origin === new URL(baseUrl).origin) return thrown;
    return new AppError("ORIGIN_FORBIDDEN", `${name} sent us to another host, which wants credentials; check the registry`, { cause: error });
  }
  const what = access === "public" ? "wants credentials, and is configured to be asked without" : "refuses dfdaemon's own credentials";
  return new AppError("ORIGIN_FORBIDDEN", `${name} ${what}; check access, username and passwordFile of this registry`, { cause: error });
}

/** The ping of who asks no registry in particular. Whatever he answers is told right or wrong by the registry that he names next. */
function askLogin(authorization: string | undefined, response: ServerResponse, record: RequestRecord): Promise<void> {
  record.kind = "ping";
  if (authorization !== undefined) return sendBytes(response, 200, { "content-type": "application/json" }, Buffer.from("{}"), record);
  const message = "say who you are at the registry that you mean; who is nobody there says so by an empty name and password";
  return sendError(response, specAnswer(401, "UNAUTHORIZED", message, { "www-authenticate": LOGIN_CHALLENGE }), record);
}

function refuseMethod(response: ServerResponse, record: RequestRecord): Promise<void> {
  // A body of an upload is not worth reading to its end.
  const headers = { allow: "GET, HEAD", connection: "close" };
  const message = "this is a mirror for pulling: push to the registry itself";
  return sendError(response, specAnswer(405, "UNSUPPORTED", message, headers), record);
}

function upstreamPath(upstream: Upstream, { resource, query }: DistributionRequest): string {
  const suffix = query === "" ? "" : `?${query}`;
  switch (resource.type) {
    case "tags":
      return `/v2/${repositoryAt(upstream, resource.repository)}/tags/list${suffix}`;
    case "referrers":
      return `/v2/${repositoryAt(upstream, resource.repository)}/referrers/${resource.digest}${suffix}`;
    default:
      return `/v2/_catalog${suffix}`;
  }
}

/** Never sent; in logs as in nginx's. */
const CLIENT_GONE = 499;

const EMPTY = new Uint8Array(0);

/** Some 250 bytes each; an image of 100 layers takes one grant, and 101 things known to be there. */
const GRANTS_MAX = 32 * 1024;

const DEFAULT_OPTIONS: MirrorOptions = {
  grants: { grantMs: 5 * 60_000, outageGrantMs: 0, tagMs: 0, staleTagMs: 60 * 60_000 },
  manifestCacheBytes: 32 * 1024 * 1024,
  absenceMs: 2_000,
  pingTtlMs: 30_000,
  openTimeoutMs: 20_000,
  headersWithinMs: 4_000,
  nowMs: () => performance.now(),
};
