/**
 * The store's account of bytes: every piece asks here for room before it is written.
 */
import { statfs } from "node:fs/promises";
import { AppError } from "../../base/errors.ts";
import type { TaskId } from "../../protocol/ids.ts";
import { decideEviction, type EvictionCandidate, type EvictionReason } from "./eviction.ts";
import { diskError } from "./errors.ts";

export interface StoreSpaceConfig {
  readonly directory: string;
  readonly quotaBytes: number | undefined;
  readonly reservedFreeBytes: number;
}

export interface StoreSpaceDeps {
  candidates(): Iterable<EvictionCandidate>;
  /** Removes a task's files and gives its bytes back through {@link StoreSpace.giveBack}; does nothing when in use by now. */
  evict(taskId: TaskId, reason: EvictionReason): Promise<void>;
  nowMs(): number;
  /** Bytes free for us on the file system of `directory`. */
  readonly freeBytes?: (directory: string) => Promise<number>;
}

export class StoreSpace {
  readonly #config: StoreSpaceConfig;
  readonly #deps: StoreSpaceDeps;
  readonly #readFreeBytes: (directory: string) => Promise<number>;
  #usedBytes = 0;
  /** What the file system said, less what was reserved since; stale after a second. */
  #freeBytes = 0;
  #freeReadAtMs = -Infinity;
  /** Requests one after another: room made for one is not taken by another. */
  #lastRequest: Promise<void> = Promise.resolve();

  constructor(config: StoreSpaceConfig, deps: StoreSpaceDeps) {
    this.#config = config;
    this.#deps = deps;
    this.#readFreeBytes = deps.freeBytes ?? statfsFreeBytes;
  }

  /** Bytes of pieces held and of those being written. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /**
   * Takes room for `bytes`, evicting tasks that are not open where needed. Give it back with {@link giveBack}.
   *
   * @throws AppError CACHE_QUOTA_EXCEEDED, DISK_FULL when no eviction would do; DISK_FAILED
   */
  reserve(bytes: number): Promise<void> {
    const request = this.#lastRequest.then(() => this.#reserve(bytes));
    this.#lastRequest = request.catch(() => undefined);
    return request;
  }

  /** Counts bytes found on disk. No limit applies: they are there. */
  count(bytes: number): void {
    this.#usedBytes += bytes;
  }

  giveBack(bytes: number): void {
    this.#usedBytes -= bytes;
  }

  async #reserve(bytes: number): Promise<void> {
    const { quotaBytes, reservedFreeBytes } = this.#config;
    for (;;) {
      await this.#refreshFreeBytes();
      const request = { wantedBytes: bytes, usedBytes: this.#usedBytes, quotaBytes, freeBytes: this.#freeBytes, reservedFreeBytes };
      const fits = decideEviction(request, []).kind === "fits";
      const decision = fits ? ({ kind: "fits" } as const) : decideEviction(request, this.#deps.candidates());
      if (decision.kind === "fits") {
        this.#usedBytes += bytes;
        this.#freeBytes -= bytes;
        return;
      }
      if (decision.kind === "refuse") throw decision.reason === "quota" ? this.#quotaExceeded(bytes) : this.#diskFull(bytes);
      for (const taskId of decision.taskIds) await this.#deps.evict(taskId, decision.reason);
      this.#freeReadAtMs = -Infinity;
    }
  }

  async #refreshFreeBytes(): Promise<void> {
    const nowMs = this.#deps.nowMs();
    if (nowMs - this.#freeReadAtMs < FREE_BYTES_AGE_MS_MAX) return;
    try {
      this.#freeBytes = await this.#readFreeBytes(this.#config.directory);
    } catch (error) {
      throw diskError(error, "read the free space of", this.#config.directory);
    }
    this.#freeReadAtMs = nowMs;
  }

  #quotaExceeded(bytes: number): AppError {
    const { directory, quotaBytes = 0 } = this.#config;
    const message = `no room for ${bytes} more bytes in ${directory}: ${this.#usedBytes} of the cache quota of ${quotaBytes} bytes are used and nothing that is not in use can go; raise --cache-quota`;
    return new AppError("CACHE_QUOTA_EXCEEDED", message, { details: { path: directory, quotaBytes, usedBytes: this.#usedBytes } });
  }

  #diskFull(bytes: number): AppError {
    const { directory, reservedFreeBytes } = this.#config;
    const message = `no room for ${bytes} more bytes in ${directory}: the file system has ${this.#freeBytes} bytes free, ${reservedFreeBytes} of them are to stay free, and no cached task can go; free some space`;
    return new AppError("DISK_FULL", message, { details: { path: directory, freeBytes: this.#freeBytes, reservedFreeBytes } });
  }
}

const FREE_BYTES_AGE_MS_MAX = 1000;

async function statfsFreeBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}
