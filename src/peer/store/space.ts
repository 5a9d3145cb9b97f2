/**
 * The store's account of bytes: every piece is written with room from here.
 */
import { AppError } from "../../base/errors.ts";
import type { StoreDisk } from "./disk.ts";
import type { EvictionReason } from "./eviction.ts";
import { diskError } from "./errors.ts";

export interface StoreSpaceConfig {
  readonly directory: string;
  readonly quotaBytes: number | undefined;
  readonly reservedFreeBytes: number;
}

export interface StoreSpaceDeps {
  readonly disk: StoreDisk;
  /** Bytes of tasks that may go. */
  evictableBytes(): number;
  /**
   * Removes the next task that may go, files and all, and gives its bytes back through {@link StoreSpace.giveBack}.
   * @returns false when none may go
   */
  evictOne(reason: EvictionReason): Promise<boolean>;
  /**
   * Nothing may go though room is needed: those who keep tasks open without need let them go.
   * @returns whether there were any
   */
  letGo(): Promise<boolean>;
  nowMs(): number;
}

export class StoreSpace {
  readonly #config: StoreSpaceConfig;
  readonly #deps: StoreSpaceDeps;
  readonly #refused: Record<EvictionReason, number> = { quota: 0, "free-space": 0 };
  #usedBytes = 0;
  /** Bytes that have room and are not, or not all, written: the file system does not know of them. */
  #unwrittenBytes = 0;
  /** Tasks that have gone for room's sake. */
  #evictionCount = 0;
  /** What the file system said, less what was unwritten then and what was reserved since; stale after a second. */
  #freeBytes = 0;
  #freeReadAtMs = -Infinity;
  /** Requests one after another: room made for one is not taken by another. */
  #lastRequest: Promise<void> = Promise.resolve();

  constructor(config: StoreSpaceConfig, deps: StoreSpaceDeps) {
    this.#config = config;
    this.#deps = deps;
  }

  /** Bytes of pieces held and of those being written. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Requests for room that were turned down since the start. */
  get refused(): Readonly<Record<EvictionReason, number>> {
    return this.#refused;
  }

  /**
   * Runs `write` with room for `bytes`, evicting tasks that may go where needed; the room is given back unless it says
   * that they are stored. A device that refuses what the account allows (its own blocks need room too, others fill it)
   * is believed: a task that may go goes, unless one has gone meanwhile, and `write` runs again, at most {@link REFUSALS_MAX} times.
   *
   * @param write calls `isOut` when the bytes are written: from then on the file system counts them
   * @returns what `write` said
   * @throws AppError CACHE_QUOTA_EXCEEDED, DISK_FULL when no eviction would do; DISK_FAILED; what `write` throws
   */
  async withRoom(bytes: number, write: (isOut: () => void) => Promise<boolean>): Promise<boolean> {
    await this.#next(() => this.#reserve(bytes));
    let unwrittenBytes = bytes;
    const isOut = (): void => {
      this.#unwrittenBytes -= unwrittenBytes;
      unwrittenBytes = 0;
    };
    let isStored = false;
    try {
      isStored = await this.#unlessRefused(() => write(isOut));
    } finally {
      isOut();
      if (!isStored) this.giveBack(bytes);
    }
    return isStored;
  }

  /**
   * The device refused for want of blocks or inodes: one task that may go goes, whatever the account says.
   *
   * @returns false when none may go
   */
  makeRoom(): Promise<boolean> {
    return this.#next(() => this.#evictAnyhow());
  }

  /**
   * Whether `bytes` more could be stored if all went that may go; nothing is reserved, nothing evicted.
   *
   * @throws AppError CACHE_QUOTA_EXCEEDED, DISK_FULL when not; DISK_FAILED
   */
  async assertRoom(bytes: number): Promise<void> {
    await this.#refreshFreeBytes();
    for (let hasAsked = false; ; hasAsked = true) {
      if (this.#missing(bytes).missingBytes <= this.#deps.evictableBytes()) return;
      // Nobody is refused by what was true a moment ago: room may have been made by hand.
      this.#freeReadAtMs = -Infinity;
      await this.#refreshFreeBytes();
      const { missingBytes, reason } = this.#missing(bytes);
      if (missingBytes <= this.#deps.evictableBytes()) return;
      if (hasAsked || !(await this.#deps.letGo())) throw this.#refuse(bytes, reason);
    }
  }

  /** Counts bytes found on disk. No limit applies: they are there. */
  count(bytes: number): void {
    this.#usedBytes += bytes;
  }

  giveBack(bytes: number): void {
    this.#usedBytes -= bytes;
  }

  /** Runs `request` after those before it. */
  #next<T>(request: () => Promise<T>): Promise<T> {
    const result = this.#lastRequest.then(request);
    this.#lastRequest = result.then(
      () => undefined,
      () => undefined,
    );
    return result;
  }

  async #unlessRefused(write: () => Promise<boolean>): Promise<boolean> {
    for (let refusals = 1; ; refusals++) {
      const before = this.#evictionCount;
      try {
        return await write();
      } catch (error) {
        const isRefused = error instanceof AppError && error.code === "DISK_FULL";
        if (!isRefused || refusals > REFUSALS_MAX) throw error;
        // What all writes under way were refused for is made room for once.
        const hasRoom = await this.#next(async () => this.#evictionCount > before || (await this.#evictAnyhow()));
        if (!hasRoom) throw error;
      }
    }
  }

  /** @returns false when none may go */
  async #evictAnyhow(): Promise<boolean> {
    const hasGone = (await this.#evictOne("free-space")) || ((await this.#deps.letGo()) && (await this.#evictOne("free-space")));
    this.#freeReadAtMs = -Infinity;
    return hasGone;
  }

  async #evictOne(reason: EvictionReason): Promise<boolean> {
    const hasGone = await this.#deps.evictOne(reason);
    if (hasGone) this.#evictionCount++;
    return hasGone;
  }

  async #reserve(bytes: number): Promise<void> {
    for (let hasAsked = false; ; ) {
      await this.#refreshFreeBytes();
      const { missingBytes, reason } = this.#missing(bytes);
      if (missingBytes <= 0) {
        this.#usedBytes += bytes;
        this.#unwrittenBytes += bytes;
        this.#freeBytes -= bytes;
        return;
      }
      // Nothing is evicted in vain.
      const isPossible = missingBytes <= this.#deps.evictableBytes();
      if (!isPossible || !(await this.#evictOne(reason))) {
        // As above: once more by what is true now.
        if (hasAsked || (!(await this.#deps.letGo()) && this.#freeReadAtMs === this.#deps.nowMs())) throw this.#refuse(bytes, reason);
        hasAsked = true;
      }
      this.#freeReadAtMs = -Infinity;
    }
  }

  /** How much is to go before `bytes` fit, and for which of the two limits. */
  #missing(bytes: number): { readonly missingBytes: number; readonly reason: EvictionReason } {
    const { quotaBytes, reservedFreeBytes } = this.#config;
    const overQuotaBytes = quotaBytes === undefined ? 0 : this.#usedBytes + bytes - quotaBytes;
    const missingFreeBytes = bytes + reservedFreeBytes - this.#freeBytes;
    const reason = overQuotaBytes > 0 && overQuotaBytes >= missingFreeBytes ? "quota" : "free-space";
    return { missingBytes: Math.max(overQuotaBytes, missingFreeBytes), reason };
  }

  async #refreshFreeBytes(): Promise<void> {
    const nowMs = this.#deps.nowMs();
    if (nowMs - this.#freeReadAtMs < FREE_BYTES_AGE_MS_MAX) return;
    // Of before and after the look the larger: what is written during it, or reserved, may count twice for a second.
    const unwrittenBytes = this.#unwrittenBytes;
    try {
      const freeBytes = await this.#deps.disk.freeBytes(this.#config.directory);
      this.#freeBytes = freeBytes - Math.max(unwrittenBytes, this.#unwrittenBytes);
    } catch (error) {
      throw diskError(error, "read the free space of", this.#config.directory);
    }
    this.#freeReadAtMs = nowMs;
  }

  #refuse(bytes: number, reason: EvictionReason): AppError {
    this.#refused[reason]++;
    return reason === "quota" ? this.#quotaExceeded(bytes) : this.#diskFull(bytes);
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

/** A file system that lies about its blocks costs one piece no more than so many tasks. */
const REFUSALS_MAX = 3;
