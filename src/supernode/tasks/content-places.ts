/**
 * Which task the callers of a place share: one for all places that hold the content, however many registries,
 * repositories and URLs it has.
 *
 * A place that has not given the content itself is believed to hold it only on proof (place-proof.ts); until then, and
 * when the proof fails, its callers have a task of their own, which that place has to deliver. So knowing a digest and its
 * length opens nothing. See docs/decisions.md §7.
 */
import type { Logger } from "pino";
import { toAppError } from "../../base/errors.ts";
import type { PieceStore, StoredTask } from "../../peer/store/piece-store.ts";
import type { Source } from "../../protocol/control-messages.ts";
import type { TaskId } from "../../protocol/ids.ts";
import type { PlaceProver } from "./place-proof.ts";
import type { ContentIdentity } from "./task-identity.ts";
import type { VersionMemory } from "./version-memory.ts";

export interface ContentPlacesDeps {
  readonly store: Pick<PieceStore, "find">;
  /** Keeps, by content, the task that its places share, and, by place, that it was proven for that task. */
  readonly versions: Pick<VersionMemory, "get" | "set">;
  readonly prover: Pick<PlaceProver, "prove">;
  /** Somebody is part of the task right now. */
  readonly isActive: (taskId: TaskId) => boolean;
  readonly unixMs: () => number;
  readonly log: Pick<Logger, "info" | "warn">;
}

interface Failures {
  /** Places that failed; each may try again once the window is over. */
  readonly placeKeys: Set<string>;
  readonly untilUnixMs: number;
}

export class ContentPlaces {
  readonly #deps: ContentPlacesDeps;
  readonly #proving = new Map<string, Promise<boolean>>();
  /** Proofs under way, by content. */
  readonly #attempts = new Map<string, Set<Promise<boolean>>>();
  readonly #failures = new Map<string, Failures>();
  /** Tasks of places that deliver beside the shared task, by what content. */
  readonly #alones = new Map<TaskId, string>();

  constructor(deps: ContentPlacesDeps) {
    this.#deps = deps;
  }

  /**
   * The caller's right to the content has been asked for at his place before.
   * @param hint the task as the caller knows it, which took part before
   */
  async taskFor(content: ContentIdentity, source: Source, hint: TaskId | undefined): Promise<TaskId> {
    const { placeTaskId, placeKey, contentKey } = content;
    const { versions, isActive } = this.#deps;
    const shared = versions.get(contentKey)?.taskId;
    if (shared === undefined || shared === placeTaskId) return this.#share(contentKey, placeTaskId);
    // A download that runs ends where it began.
    if (hint === placeTaskId) return placeTaskId;
    if (this.#isProven(placeKey, shared)) return shared;
    const isShared = await this.#isWhole(shared);
    if (await this.#isWhole(placeTaskId)) {
      // It has delivered the content itself: nothing shows more.
      return isShared ? this.#proven(placeKey, shared) : this.#share(contentKey, placeTaskId);
    }
    if (isShared && (await this.#prove(content, shared, source))) return this.#proven(placeKey, shared);
    return isShared || isActive(shared) ? this.#alone(content) : this.#share(contentKey, placeTaskId);
  }

  /** A place has delivered: its task is shared from now on, unless another's is whole. */
  async delivered(taskId: TaskId): Promise<void> {
    const contentKey = this.#alones.get(taskId);
    if (contentKey === undefined) return;
    this.#alones.delete(taskId);
    const shared = this.#deps.versions.get(contentKey)?.taskId;
    if (shared === undefined || !(await this.#isWhole(shared))) this.#share(contentKey, taskId);
  }

  #alone({ placeTaskId, contentKey }: ContentIdentity): TaskId {
    this.#alones.set(placeTaskId, contentKey);
    if (this.#alones.size > ALONE_COUNT_MAX) this.#alones.delete(this.#alones.keys().next().value as TaskId);
    return placeTaskId;
  }

  #share(contentKey: string, taskId: TaskId): TaskId {
    this.#deps.versions.set(contentKey, { taskId, lengthBytes: undefined, seenUnixMs: this.#deps.unixMs() });
    return taskId;
  }

  #proven(placeKey: string, shared: TaskId): TaskId {
    this.#deps.versions.set(placeKey, { taskId: shared, lengthBytes: undefined, seenUnixMs: this.#deps.unixMs() });
    return shared;
  }

  #isProven(placeKey: string, shared: TaskId): boolean {
    const proof = this.#deps.versions.get(placeKey);
    return proof !== undefined && proof.taskId === shared && this.#deps.unixMs() - proof.seenUnixMs < PROVEN_MS;
  }

  async #isWhole(taskId: TaskId): Promise<boolean> {
    return (await this.#withWhole(taskId, () => Promise.resolve(true))) ?? false;
  }

  /** Coalesced. Every failure counts, of whatever kind: a place that breaks off has seen which ranges were asked. */
  #prove(content: ContentIdentity, shared: TaskId, source: Source): Promise<boolean> {
    const { placeKey } = content;
    const under = this.#proving.get(placeKey);
    if (under !== undefined) return under;
    const proving = this.#proveInTurn(content, shared, source).finally(() => this.#proving.delete(placeKey));
    this.#proving.set(placeKey, proving);
    return proving;
  }

  /** No more at a time than may fail: places that are all asked at once would have seen as many ranges before the first has failed. */
  async #proveInTurn({ placeKey, contentKey }: ContentIdentity, shared: TaskId, source: Source): Promise<boolean> {
    const untilUnixMs = this.#deps.unixMs() + TURN_MS;
    for (;;) {
      if (!this.#mayTry(contentKey, placeKey)) return false;
      const attempts = this.#attempts.get(contentKey) ?? new Set<Promise<boolean>>();
      if (attempts.size + (this.#failures.get(contentKey)?.placeKeys.size ?? 0) < FAILURE_COUNT_MAX) {
        this.#attempts.set(contentKey, attempts);
        const attempt = this.#attempt(contentKey, placeKey, shared, source).finally(() => {
          attempts.delete(attempt);
          if (attempts.size === 0) this.#attempts.delete(contentKey);
        });
        attempts.add(attempt);
        return await attempt;
      }
      if (this.#deps.unixMs() >= untilUnixMs) return false;
      // oxlint-disable-next-line no-await-in-loop -- in turn; none takes longer than a proof may
      await Promise.race(attempts);
    }
  }

  async #attempt(contentKey: string, placeKey: string, shared: TaskId, source: Source): Promise<boolean> {
    const { log, prover } = this.#deps;
    const isProven = (await this.#withWhole(shared, (stored) => prover.prove(stored, source))) === true;
    if (!isProven) this.#failed(contentKey, placeKey);
    if (isProven) log.info({ taskId: shared }, "another place has shown that it holds this content");
    else log.info({ taskId: shared }, "a place has not shown that it holds this content: it has to deliver it");
    return isProven;
  }

  /** Undefined when the task is not whole here, or the disk does not give it back. */
  async #withWhole<T>(taskId: TaskId, use: (stored: StoredTask) => Promise<T>): Promise<T | undefined> {
    try {
      const stored = await this.#deps.store.find(taskId);
      if (stored === undefined) return undefined;
      try {
        return stored.complete ? await use(stored) : undefined;
      } finally {
        stored.release();
      }
    } catch (error) {
      this.#deps.log.warn({ taskId }, `cannot look into a cached file: ${toAppError(error).message}`);
      return undefined;
    }
  }

  #mayTry(contentKey: string, placeKey: string): boolean {
    const failures = this.#failures.get(contentKey);
    if (failures === undefined) return true;
    if (failures.untilUnixMs > this.#deps.unixMs()) return !failures.placeKeys.has(placeKey) && failures.placeKeys.size < FAILURE_COUNT_MAX;
    this.#failures.delete(contentKey);
    return true;
  }

  #failed(contentKey: string, placeKey: string): void {
    let failures = this.#failures.get(contentKey);
    if (failures === undefined) {
      failures = { placeKeys: new Set(), untilUnixMs: this.#deps.unixMs() + FAILURE_MS };
      this.#failures.set(contentKey, failures);
      // The oldest first.
      if (this.#failures.size > FAILED_CONTENT_COUNT_MAX) this.#failures.delete(this.#failures.keys().next().value as string);
    }
    failures.placeKeys.add(placeKey);
  }
}

/** After that a place has to show again that it holds the content. */
const PROVEN_MS = 7 * 24 * 60 * 60_000;
/**
 * Whoever holds most of some content, but not all, may be lucky in what he is asked. He has this many attempts, with as
 * many places, per content and hour; after them nobody has any, and new places deliver themselves.
 */
const FAILURE_COUNT_MAX = 4;
const FAILURE_MS = 60 * 60_000;
/** A join waits no longer for others' proofs, but for the one that is under way then. */
const TURN_MS = 5_000;
const FAILED_CONTENT_COUNT_MAX = 10_000;
const ALONE_COUNT_MAX = 10_000;
