/**
 * From a source to its task: asks the origin in the caller's name, which settles both what version there is and that
 * this caller may have it.
 *
 * Questions are coalesced and their answers remembered for a moment, so a thousand joins are one question. When the
 * origin cannot be asked, what it last said to the same question stands, if the whole file is here.
 */
import { setTimeout as sleepFor } from "node:timers/promises";
import type { Logger } from "pino";
import { AppError, toAppError } from "../../base/errors.ts";
import type { Origin, OriginInfo } from "../../origin/origin.ts";
import { withRetries } from "../../origin/retry.ts";
import type { SigningKey } from "../../peer/membership/credentials.ts";
import type { PieceStore, TaskRecord } from "../../peer/store/piece-store.ts";
import type { Source } from "../../protocol/control-messages.ts";
import { pieceLengthFor } from "../../protocol/geometry.ts";
import type { TaskId } from "../../protocol/ids.ts";
import type { GrantConfig } from "../config.ts";
import { identifySource, isVersioned, newVersionNonce, sourceByDigest, type SourceIdentity, versionTaskId } from "./task-identity.ts";
import { isPrivateSource } from "./private-source.ts";
import type { RememberedVersion, VersionMemory } from "./version-memory.ts";

export interface TaskResolverDeps {
  readonly origin: Pick<Origin, "stat">;
  readonly store: Pick<PieceStore, "find">;
  readonly versions: VersionMemory;
  readonly key: SigningKey;
  readonly log: Pick<Logger, "warn">;
  /** Somebody is part of the task right now. */
  readonly isActive: (taskId: TaskId) => boolean;
  /** Monotonic. */
  readonly nowMs: () => number;
  readonly unixMs: () => number;
  readonly random: () => number;
  readonly sleep?: (delayMs: number, signal: AbortSignal) => Promise<void>;
  readonly onStat?: (code: string) => void;
  readonly grants: GrantConfig;
}

export interface ResolvedTask {
  readonly taskId: TaskId;
  readonly source: Source;
  /** What the task's files are to say when they are made now. */
  readonly record: TaskRecord;
  /** What the origin said just now; undefined when it could not be asked. */
  readonly info: OriginInfo | undefined;
}

interface Asked {
  /** Whose version the answer was. */
  taskId: TaskId | undefined;
  readonly answer: Promise<OriginInfo>;
  /** Remembered until then; undefined while the question is out. */
  untilMs: number | undefined;
}

export class TaskResolver {
  readonly #deps: TaskResolverDeps;
  readonly #secret: Uint8Array;
  readonly #asked = new Map<string, Asked>();
  readonly #closing = new AbortController();

  constructor(deps: TaskResolverDeps) {
    this.#deps = deps;
    this.#secret = deps.key.deriveSecret("task identity by place");
  }

  /**
   * @param hint the task as the caller knows it, which took part before a reconnect or a restart of ours
   * @throws AppError as Origin.stat; URL_INVALID, SCHEME_UNSUPPORTED, USAGE
   */
  async resolve(source: Source, hint: TaskId | undefined): Promise<ResolvedTask> {
    const identity = identifySource(source, this.#secret);
    const remembered = this.#deps.versions.get(identity.accessKey);
    try {
      const info = await this.#stat(identity, source, remembered !== undefined);
      const byDigest = sourceByDigest(source, info);
      if (byDigest === undefined) return this.#fresh(identity, source, info, hint);
      const resolved = this.#fresh(identifySource(byDigest, this.#secret), byDigest, info, hint);
      this.#remember(identity, resolved.taskId, info);
      return resolved;
    } catch (thrown) {
      const error = toAppError(thrown);
      if (!error.retriable || remembered === undefined || !this.#isGranted(source, remembered, hint)) throw error;
      const stale = await this.#stale(remembered.taskId, source, hint);
      if (stale === undefined) throw error;
      const { taskId } = stale;
      this.#deps.log.warn({ taskId, code: error.code }, `the origin cannot be asked, what it said before stands: ${error.message}`);
      return stale;
    }
  }

  /** The origin no longer has this version: what it said of it is not repeated to the next caller. */
  forget(taskId: TaskId): void {
    for (const [key, asked] of this.#asked) {
      if (asked.taskId === taskId) this.#asked.delete(key);
    }
  }

  close(): void {
    this.#closing.abort();
  }

  #fresh(identity: SourceIdentity, source: Source, info: OriginInfo, hint: TaskId | undefined): ResolvedTask {
    const taskId = isVersioned(info) || identity.contentTaskId !== undefined
      ? versionTaskId(identity, info, "")
      : this.#namelessVersion(identity, info, hint);
    this.#remember(identity, taskId, info);
    return { taskId, source, record: this.#record(taskId, identity, info), info };
  }

  #remember(identity: SourceIdentity, taskId: TaskId, { lengthBytes }: OriginInfo): void {
    const { versions, unixMs } = this.#deps;
    const version = { taskId, lengthBytes, seenUnixMs: unixMs() };
    versions.set(identity.accessKey, version);
    versions.set(identity.fileKey, version);
    const asked = this.#asked.get(identity.accessKey);
    if (asked !== undefined) asked.taskId = taskId;
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
      lengthSignature: lengthBytes === undefined ? undefined : this.#deps.key.signLength(taskId, lengthBytes),
      pieceLengthBytes: pieceLengthFor(lengthBytes),
      contentType: info.contentType,
      digest: identity.digest,
      headers,
      publicKey: this.#deps.key.publicKey,
    };
  }

  /** Who brought credentials is let in by an old answer only while it is a grant, or when he takes part already. */
  #isGranted(source: Source, { taskId, seenUnixMs }: RememberedVersion, hint: TaskId | undefined): boolean {
    const { grants, unixMs, isActive } = this.#deps;
    if (!isPrivateSource(source) || (hint === taskId && isActive(taskId))) return true;
    return unixMs() - seenUnixMs < grants.grantMs + grants.outageGrantMs;
  }

  /** Complete here, or in the hands of callers who took part already: theirs may be whole together. */
  async #stale(taskId: TaskId, source: Source, hint: TaskId | undefined): Promise<ResolvedTask | undefined> {
    const stored = await this.#deps.store.find(taskId);
    if (stored === undefined) return undefined;
    try {
      if (!stored.complete && hint !== taskId && !this.#deps.isActive(taskId)) return undefined;
      return { taskId, source, record: stored.record, info: undefined };
    } finally {
      stored.release();
    }
  }

  /** @param quick there is something to fall back on: no second attempts, and no long wait */
  #stat(identity: SourceIdentity, source: Source, quick: boolean): Promise<OriginInfo> {
    const { nowMs, onStat, grants } = this.#deps;
    const known = this.#asked.get(identity.accessKey);
    if (known !== undefined && (known.untilMs === undefined || known.untilMs > nowMs())) return known.answer;
    const asked: Asked = { taskId: undefined, answer: this.#ask(source, quick), untilMs: undefined };
    this.#asked.set(identity.accessKey, asked);
    asked.answer.then(
      () => {
        onStat?.("OK");
        // Content known by digest cannot change: what is remembered is that this caller may have it.
        asked.untilMs = nowMs() + (identity.contentTaskId === undefined ? REMEMBER_MS : grants.grantMs / 2);
        this.#forgetOld();
      },
      (error: unknown) => {
        onStat?.(toAppError(error).code);
        asked.untilMs = nowMs() + REMEMBER_MS;
      },
    );
    return asked.answer;
  }

  async #ask(source: Source, quick: boolean): Promise<OriginInfo> {
    const { origin, random, sleep } = this.#deps;
    const timeout = AbortSignal.timeout(quick ? QUICK_STAT_MS : STAT_MS);
    const signal = AbortSignal.any([timeout, this.#closing.signal]);
    try {
      return await withRetries(() => origin.stat({ url: source.url, headers: source.headers }, signal), {
        attempts: quick ? 1 : STAT_ATTEMPTS,
        signal,
        sleep: sleep ?? ((delayMs, stop) => sleepFor(delayMs, undefined, { signal: stop })),
        random,
        maxDelayMs: 10_000,
      });
    } catch (error) {
      if (this.#closing.signal.aborted) throw new AppError("SHUTTING_DOWN", "the supernode is shutting down", { cause: error });
      if (timeout.aborted) throw new AppError("TIMEOUT", "the origin did not say what the file is in time", { cause: error });
      throw error;
    }
  }

  /** Drops answers that are no longer remembered; the oldest of the others when there are too many. */
  #forgetOld(): void {
    const nowMs = this.#deps.nowMs();
    if (nowMs - this.#forgotMs < REMEMBER_MS && this.#asked.size <= ASKED_COUNT_MAX) return;
    this.#forgotMs = nowMs;
    for (const [key, { untilMs }] of this.#asked) {
      const isOver = untilMs !== undefined && (untilMs <= nowMs || this.#asked.size > ASKED_COUNT_MAX);
      if (isOver) this.#asked.delete(key);
    }
  }
  #forgotMs = 0;
}

/** One question per second and file at most. Source: architecture.md (revalidation is coalesced). */
const REMEMBER_MS = 1_000;
const ASKED_COUNT_MAX = 50_000;
/** Joins that name a file without a version within this time mean the same one. */
const NAMELESS_MS = 2_000;
const STAT_ATTEMPTS = 4;
const STAT_MS = 60_000;
const QUICK_STAT_MS = 5_000;
