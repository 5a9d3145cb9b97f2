/**
 * From a source to its task: the hit rule (docs/cache.md).
 *
 * The origin is asked in the caller's name, which settles both what version there is and that this caller may have it.
 * What is here is only confirmed: asked with its ETag and date, the origin answers 304. When the origin cannot be asked,
 * running downloads go on, and what it last said to the same question stands as far as the operator allows.
 */
import type { KeyObject } from "node:crypto";
import type { Logger } from "pino";
import { type AppError, toAppError } from "../../base/errors.ts";
import { isStrongEtag } from "../../origin/file-version.ts";
import type { OriginInfo } from "../../origin/origin.ts";
import type { SigningKey } from "../../peer/membership/credentials.ts";
import type { PieceStore, TaskRecord } from "../../peer/store/piece-store.ts";
import type { Source } from "../../protocol/control-messages.ts";
import { pieceLengthFor } from "../../protocol/geometry.ts";
import type { TaskId } from "../../protocol/ids.ts";
import type { FreshnessConfig, GrantConfig } from "../config.ts";
import type { ContentPlaces } from "./content-places.ts";
import { type KnownVersion, OriginQuestions, type OriginQuestionsDeps } from "./origin-questions.ts";
import { LengthSignatures } from "./length-signatures.ts";
import { isPrivateSource } from "./private-source.ts";
import { identifySource, isVersioned, newVersionNonce, sourceByDigest, type SourceIdentity, versionTaskId } from "./task-identity.ts";
import type { RememberedVersion, VersionMemory } from "./version-memory.ts";

export interface TaskResolverDeps extends OriginQuestionsDeps {
  readonly store: Pick<PieceStore, "find">;
  readonly versions: VersionMemory;
  readonly places: Pick<ContentPlaces, "taskFor">;
  readonly key: SigningKey;
  readonly log: Pick<Logger, "warn">;
  readonly freshness: FreshnessConfig;
  /** Somebody is part of the task right now. */
  readonly isActive: (taskId: TaskId) => boolean;
  readonly unixMs: () => number;
  readonly grants: GrantConfig;
}

export interface ResolvedTask {
  readonly taskId: TaskId;
  readonly source: Source;
  /** What the task's files are to say when they are made now. */
  readonly record: TaskRecord;
  /** What the origin said just now; undefined when it could not be asked. */
  readonly info: OriginInfo | undefined;
  /** Set when the file may have changed since: how long ago the origin last confirmed it. */
  readonly staleMs: number | undefined;
}

export class TaskResolver {
  readonly #deps: TaskResolverDeps;
  readonly #secret: KeyObject;
  readonly #lengths: LengthSignatures;
  readonly #questions: OriginQuestions;
  #freshness: FreshnessConfig;

  constructor(deps: TaskResolverDeps) {
    this.#deps = deps;
    this.#freshness = deps.freshness;
    this.#questions = new OriginQuestions(deps);
    this.#secret = deps.key.deriveSecret("task identity by place");
    this.#lengths = new LengthSignatures(deps.key);
  }

  /** For questions from now on. */
  setFreshness(freshness: FreshnessConfig): void {
    this.#freshness = freshness;
  }

  /**
   * @param hint the task as the caller knows it, which took part before a reconnect or a restart of ours
   * @throws AppError as Origin.stat; URL_INVALID, SCHEME_UNSUPPORTED, USAGE
   */
  async resolve(source: Source, hint: TaskId | undefined): Promise<ResolvedTask> {
    const identity = identifySource(source, this.#secret);
    const remembered = this.#deps.versions.get(identity.accessKey);
    const isByDigest = identity.content !== undefined;
    try {
      const { info, confirmed } = await this.#questions.ask({
        key: identity.accessKey,
        source,
        known: async () => (isByDigest ? undefined : await this.#known(identity, remembered)),
        quick: remembered !== undefined && this.#mayBeStale(identity, remembered, source, hint),
        // Content known by digest cannot change: what is remembered is that this caller may have it.
        rememberMs: isByDigest ? this.#deps.grants.grantMs / 2 : this.#freshness.revalidateMs,
      });
      const byDigest = sourceByDigest(source, info);
      if (byDigest === undefined) {
        const taskId = confirmed ?? (await this.#taskOf(identity, source, info, hint));
        return this.#fresh(identity, source, info, taskId);
      }
      const named = identifySource(byDigest, this.#secret);
      const taskId = await this.#taskOf(named, byDigest, info, hint);
      this.#remember(identity, taskId, info);
      return this.#fresh(named, byDigest, info, taskId);
    } catch (thrown) {
      const error = toAppError(thrown);
      if (!error.retriable || remembered === undefined) throw error;
      const stale = await this.#stale(identity, remembered, source, hint);
      if (stale === undefined) throw error;
      this.#warnStale(stale, error);
      return stale;
    }
  }

  /** The origin no longer has this version: what it said of it is not repeated to the next caller. */
  forget(taskId: TaskId): void {
    this.#questions.forget(taskId);
  }

  close(): void {
    this.#questions.close();
  }

  /**
   * The version to ask about: the one that the same question brought last, if its file is here. For another question of
   * the same file (another signature) a strong ETag is needed, for headers may choose among files of one date.
   */
  async #known(identity: SourceIdentity, remembered: RememberedVersion | undefined): Promise<KnownVersion | undefined> {
    const taskId = remembered?.taskId ?? this.#deps.versions.get(identity.fileKey)?.taskId;
    // What the disk does not give back is not here.
    const stored = taskId === undefined ? undefined : await this.#deps.store.find(taskId).catch(() => undefined);
    if (taskId === undefined || stored === undefined) return undefined;
    const info = versionOf(stored.record);
    stored.release();
    if (!isVersioned(info)) return undefined;
    if (remembered === undefined && !(info.etag !== undefined && isStrongEtag(info.etag))) return undefined;
    return { taskId, info };
  }

  async #taskOf(identity: SourceIdentity, source: Source, info: OriginInfo, hint: TaskId | undefined): Promise<TaskId> {
    if (identity.content !== undefined) return await this.#deps.places.taskFor(identity.content, source, hint);
    return isVersioned(info) ? versionTaskId(identity, info, "") : this.#namelessVersion(identity, info, hint);
  }

  #fresh(identity: SourceIdentity, source: Source, info: OriginInfo, taskId: TaskId): ResolvedTask {
    this.#remember(identity, taskId, info);
    return { taskId, source, record: this.#record(taskId, identity, info), info, staleMs: undefined };
  }

  #remember(identity: SourceIdentity, taskId: TaskId, { lengthBytes }: OriginInfo): void {
    const { versions, unixMs } = this.#deps;
    const version = { taskId, lengthBytes, seenUnixMs: unixMs() };
    versions.set(identity.accessKey, version);
    versions.set(identity.fileKey, version);
    this.#questions.answeredFor(identity.accessKey, taskId);
  }

  /** Without ETag and Last-Modified the same file is only taken for the same while somebody is at it. */
  #namelessVersion(identity: SourceIdentity, info: OriginInfo, hint: TaskId | undefined): TaskId {
    const { versions, isActive, unixMs } = this.#deps;
    const last = versions.get(identity.fileKey);
    const isOngoing =
      last !== undefined &&
      last.lengthBytes === info.lengthBytes &&
      (isActive(last.taskId) || last.taskId === hint || unixMs() - last.seenUnixMs < NAMELESS_MS);
    return isOngoing ? last.taskId : versionTaskId(identity, info, newVersionNonce());
  }

  #record(taskId: TaskId, identity: SourceIdentity, info: OriginInfo): TaskRecord {
    const { lengthBytes, etag, lastModified } = info;
    const headers: Record<string, string> = { ...info.headers };
    if (etag !== undefined) headers["etag"] = etag;
    if (lastModified !== undefined) headers["last-modified"] = lastModified;
    return {
      taskId,
      displayUrl: identity.displayUrl,
      lengthBytes,
      lengthSignature: lengthBytes === undefined ? undefined : this.#lengths.of(taskId, lengthBytes),
      pieceLengthBytes: pieceLengthFor(lengthBytes),
      contentType: info.contentType,
      digest: identity.digest,
      headers,
      publicKey: this.#deps.key.publicKey,
    };
  }

  /**
   * What the origin last said to the very same question. Who took part goes on; to others the file is given if it is
   * whole here or in others' hands, and either cannot have changed or is stale no longer than the operator allows.
   */
  async #stale(
    identity: SourceIdentity,
    remembered: RememberedVersion,
    source: Source,
    hint: TaskId | undefined,
  ): Promise<ResolvedTask | undefined> {
    if (!this.#mayBeStale(identity, remembered, source, hint)) return undefined;
    const { taskId } = remembered;
    const staleMs = identity.content === undefined ? this.#ageMs(remembered) : undefined;
    const stored = await this.#deps.store.find(taskId);
    if (stored === undefined) return undefined;
    try {
      if (!stored.complete && hint !== taskId && !this.#deps.isActive(taskId)) return undefined;
      return { taskId, source, record: stored.record, info: undefined, staleMs };
    } finally {
      stored.release();
    }
  }

  #mayBeStale(identity: SourceIdentity, remembered: RememberedVersion, source: Source, hint: TaskId | undefined): boolean {
    const { grants, isActive } = this.#deps;
    const { staleMs, staleTagMs } = this.#freshness;
    const limitMs = identity.content !== undefined ? GRANT_WHILE_DOWN_MS : identity.isTag ? staleTagMs : staleMs;
    const isHere = hint === remembered.taskId;
    const isYoung = (withinMs: number | undefined): boolean => withinMs !== undefined && this.#ageMs(remembered) <= withinMs;
    if (!isPrivateSource(source)) return isHere || isYoung(limitMs);
    // Who brought credentials is let in by an old answer only while it is a grant, or when he takes part already.
    return (isHere && isActive(remembered.taskId)) || (isYoung(limitMs) && isYoung(grants.grantMs + grants.outageGrantMs));
  }

  #ageMs({ seenUnixMs }: RememberedVersion): number {
    return Math.max(0, this.#deps.unixMs() - seenUnixMs);
  }

  #warnStale({ taskId, staleMs }: ResolvedTask, { code, message }: AppError): void {
    this.#deps.log.warn({ taskId, code, staleMs }, `the origin cannot be asked, what it said before stands: ${message}`);
  }
}

/** What the origin said of the version whose files these are. */
function versionOf({ lengthBytes, contentType, headers }: TaskRecord): OriginInfo {
  // A 304 does not tell of ranges: a read of what is missing finds out, and begins anew where there are none.
  return { lengthBytes, ranges: true, etag: headers["etag"], lastModified: headers["last-modified"], contentType, headers };
}

/** How long public content known by digest is given out though its origin cannot be asked: over a night's outage, but not for ever. */
const GRANT_WHILE_DOWN_MS = 24 * 60 * 60_000;
/** Joins that name a file without a version within this time mean the same one. */
const NAMELESS_MS = 2_000;
