/**
 * The site's copy of each file: opened when somebody joins, read from the origin under the scheduler's lease, offered
 * piece by piece, kept on disk after the last member has gone.
 */
import type { Logger } from "pino";
import { AppError, toAppError } from "../../base/errors.ts";
import { versionMismatch } from "../../origin/file-version.ts";
import type { Origin, OriginInfo } from "../../origin/origin.ts";
import type { SigningKey } from "../../peer/membership/credentials.ts";
import type { PieceStore, TaskRecord } from "../../peer/store/piece-store.ts";
import type { Neighbour, Source } from "../../protocol/control-messages.ts";
import { pieceCountOf } from "../../protocol/geometry.ts";
import type { PeerId, TaskId } from "../../protocol/ids.ts";
import type { Priority } from "../../swarm/index.ts";
import { OriginRead, type OriginReadDeps } from "./origin-read.ts";
import { SigningDesk, SYSTEM_CLOCK } from "./signing-desk.ts";
import { watchForSlowness } from "./slow-read.ts";
import type { SeedPeerTask } from "./seed-task.ts";
import { UnstoredTask } from "./unstored-task.ts";
import { isVersioned } from "../tasks/task-identity.ts";
import type { ResolvedTask } from "../tasks/task-resolver.ts";

/** What the cache tells its owner. Never called from within a call of the cache, but for `onOpened`. */
export interface SeedCacheEvents {
  /** The seed takes part in this task from now on, with so many pieces; again when it can store it after all. */
  readonly onOpened: (taskId: TaskId, pieceCount: number, totalCount: number | undefined) => void;
  /** A lease has ended. */
  readonly onRead: (taskId: TaskId, outcome: "complete" | "failed") => void;
  readonly onLength: (taskId: TaskId, lengthBytes: number, signature: Uint8Array) => void;
  /** The origin cannot be read to its end. `discard`: what was given out is worth nothing; the task is closed. */
  readonly onFailed: (taskId: TaskId, error: AppError, discard: boolean) => void;
  readonly onPiece: () => void;
  /** The seed takes part in this task no longer, for want of room; its files may go. */
  readonly onLetGo: (taskId: TaskId) => void;
  /** A read was slower than wanted and has stopped; its lease goes on until `resume` or `completed`. */
  readonly onSlow: (taskId: TaskId) => void;
}

/** When a read is too slow. */
export interface SlowReads {
  readonly bytesPerSecondMin: number;
  readonly windowMs?: number;
}

/** What the cache needs of the peer it seeds with. */
export interface SeedPeer {
  openTask(record: TaskRecord, priority: Priority): Promise<SeedPeerTask>;
}

export interface SeedCacheDeps extends Omit<OriginReadDeps, "origin"> {
  readonly origin: Pick<Origin, "open" | "stat">;
  readonly peer: SeedPeer;
  readonly store: Pick<PieceStore, "find" | "remove" | "used">;
  readonly key: SigningKey;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly events: SeedCacheEvents;
  /** Whether others could read this file in the seed's stead. */
  readonly mayBeLent: (record: TaskRecord) => boolean;
  /** Whether others do: what is here of it is needed then, to know the whole. */
  readonly isLent: (taskId: TaskId) => boolean;
  /** Undefined: a read takes what time it takes. */
  readonly slowReads?: SlowReads | undefined;
}

/** An open task of the seed's. */
export interface SeedTask {
  readonly taskId: TaskId;
  readonly task: SeedPeerTask;
  readonly isReading: boolean;
}

interface OpenTask {
  readonly taskId: TaskId;
  task: SeedPeerTask;
  /** The latest that the origin answered well. */
  source: Source;
  expected: OriginInfo;
  reading: Promise<void> | undefined;
  /** The last read of the origin did not come to its end. */
  hasFailed: boolean;
  readonly ending: AbortController;
  /** Ends the read for the sake of faster readers. */
  yielding: AbortController;
}

export class SeedCache {
  readonly #deps: SeedCacheDeps;
  readonly #open = new Map<TaskId, OpenTask>();
  readonly #opening = new Map<TaskId, Promise<OpenTask>>();
  /** Files are being let go of: who wants them again has to wait. */
  readonly #closing = new Map<TaskId, Promise<void>>();
  #isClosed = false;

  constructor(deps: SeedCacheDeps) {
    this.#deps = deps;
  }

  get(taskId: TaskId): SeedTask | undefined {
    const open = this.#open.get(taskId);
    return open === undefined ? undefined : { taskId, task: open.task, isReading: open.reading !== undefined };
  }

  /**
   * Makes sure that the seed takes part in a task, without files where it cannot make them and others could read it.
   * Coalesced; `onOpened` once, before the first caller goes on.
   * @throws AppError DISK_FULL, DISK_FAILED, CACHE_QUOTA_EXCEEDED, SHUTTING_DOWN
   */
  async open(resolved: ResolvedTask): Promise<SeedTask> {
    const { taskId, info, source } = resolved;
    if (this.#isClosed) throw new AppError("SHUTTING_DOWN", "the supernode is shutting down");
    let open = this.#open.get(taskId);
    if (open === undefined) {
      let opening = this.#opening.get(taskId);
      if (opening === undefined) {
        opening = this.#openNew(resolved).finally(() => this.#opening.delete(taskId));
        this.#opening.set(taskId, opening);
      }
      open = await opening;
    } else {
      this.#deps.store.used(taskId);
    }
    if (info !== undefined) open.source = source;
    return { taskId, task: open.task, isReading: open.reading !== undefined };
  }

  /** The scheduler lets the seed read the origin: begins at once, ends with `onRead`. */
  grantLease(taskId: TaskId): void {
    const open = this.#open.get(taskId);
    if (open === undefined || open.reading !== undefined) {
      if (open === undefined) queueMicrotask(() => this.#deps.events.onRead(taskId, "failed"));
      return;
    }
    open.hasFailed = false;
    open.reading = this.#read(open);
  }

  /** Nobody else reads it after all: goes on with a read that was slow, to its end. */
  resume(taskId: TaskId): void {
    const open = this.#open.get(taskId);
    if (open !== undefined && open.reading === undefined) open.reading = this.#read(open, true);
  }

  /** Others have read to its end what was slow here. */
  completed(taskId: TaskId): void {
    this.#deps.events.onRead(taskId, "complete");
  }

  /** Dials peers that hold pieces: after a restart, what the swarm has need not be read again. */
  connect(taskId: TaskId, neighbours: readonly Neighbour[], ticket: string): void {
    if (neighbours.length > 0) this.#open.get(taskId)?.task.connect(neighbours, ticket);
  }

  disconnect(taskId: TaskId, peerIds: readonly PeerId[]): void {
    if (peerIds.length > 0) this.#open.get(taskId)?.task.disconnect(peerIds);
  }

  /**
   * The disk needs room: tasks that are open but not read, by us or others for us, and that nobody needs or whose read has failed,
   * are closed.
   * @param only of this task alone
   * @returns whether there were any, once their files are released
   */
  async letGo(isNeeded: (taskId: TaskId) => boolean, only?: TaskId): Promise<boolean> {
    const { isLent } = this.#deps;
    const idle = [...this.#open.values()].filter(
      ({ taskId, reading, hasFailed }) => (only ?? taskId) === taskId && reading === undefined && !isLent(taskId) && (hasFailed || !isNeeded(taskId)),
    );
    for (const { taskId } of idle) this.#deps.events.onLetGo(taskId);
    await Promise.all(idle.map((open) => this.#close(open, false)));
    return idle.length > 0;
  }

  /** Nobody takes part any more: the files stay, the rest goes. */
  forget(taskId: TaskId): void {
    const open = this.#open.get(taskId);
    if (open !== undefined) void this.#close(open, false);
  }

  /** What is here of a task turned out worthless: its files go. */
  discard(taskId: TaskId): void {
    const open = this.#open.get(taskId);
    if (open !== undefined) void this.#close(open, true);
  }

  /** Ends all reads and lets go of all tasks. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#opening.values());
    await Promise.all([...this.#open.values()].map((open) => this.#close(open, false)));
    await Promise.all(this.#closing.values());
  }

  async #openNew({ taskId, record, source, info }: ResolvedTask): Promise<OpenTask> {
    await this.#closing.get(taskId);
    const task = await this.#openStored(record, source).catch((thrown: unknown) => {
      const error = toAppError(thrown);
      if (!OWN_FAILURES.has(error.code) || !this.#deps.mayBeLent(record)) throw error;
      return new UnstoredTask(record, error);
    });
    if (this.#isClosed) {
      task.release();
      throw new AppError("SHUTTING_DOWN", "the supernode is shutting down");
    }
    const open: OpenTask = {
      taskId,
      task,
      source,
      expected: expectedVersion(task.stored.record, info),
      reading: undefined,
      hasFailed: false,
      ending: new AbortController(),
      yielding: new AbortController(),
    };
    this.#open.set(taskId, open);
    this.#tellOpened(open);
    return open;
  }

  async #openStored(record: TaskRecord, { priority = "interactive" }: Source): Promise<SeedPeerTask> {
    return await this.#deps.peer.openTask(await this.#recordToOpen(record), priority);
  }

  #tellOpened({ taskId, task: { stored } }: OpenTask): void {
    const { lengthBytes, pieceLengthBytes } = stored.record;
    const totalCount = lengthBytes === undefined ? undefined : pieceCountOf(lengthBytes, pieceLengthBytes);
    this.#deps.events.onOpened(taskId, stored.have.count, totalCount);
  }

  /** What is on disk counts, its geometry included, unless it cannot be meant. */
  async #recordToOpen(record: TaskRecord): Promise<TaskRecord> {
    const { store, key, log } = this.#deps;
    const stored = await store.find(record.taskId);
    if (stored === undefined) return record;
    const found = stored.record;
    const isOurs = Buffer.compare(found.publicKey, key.publicKey) === 0;
    const fits = found.lengthBytes === undefined || record.lengthBytes === undefined || found.lengthBytes === record.lengthBytes;
    const isUsable = isOurs && (fits || stored.complete);
    stored.release();
    if (isUsable) return found;
    log.warn({ taskId: record.taskId }, isOurs ? "the file's length is another now: fetching it anew" : "signed with another key: fetching it anew");
    await store.remove(record.taskId);
    return record;
  }

  /** @param toItsEnd however slow it is */
  async #read(open: OpenTask, toItsEnd = false): Promise<void> {
    const { taskId } = open;
    open.yielding = new AbortController();
    const stopWatching = toItsEnd ? (): void => undefined : this.#watch(open);
    const { events, log } = this.#deps;
    const startedMs = performance.now();
    try {
      // Not within the call that granted the lease.
      await Promise.resolve();
      if (open.task instanceof UnstoredTask) {
        // What the disk refused then it may take now.
        open.task = await this.#openStored(open.task.stored.record, open.source);
        if (!open.ending.signal.aborted) this.#tellOpened(open);
      }
      const { task } = open;
      // Before the origin's bytes are spent on a file that would not fit.
      if (!task.stored.complete) await task.stored.assertRoom();
      // What the origin no longer gives, other holders may have given meanwhile.
      await this.#readMissing(open).catch((error: unknown) => {
        if (!task.stored.complete || WORTHLESS.has(toAppError(error).code)) throw error;
      });
      open.reading = undefined;
      const tookMs = Math.round(performance.now() - startedMs);
      log.info({ taskId, url: task.stored.record.displayUrl, lengthBytes: task.stored.record.lengthBytes, tookMs }, "read from the origin");
      events.onRead(taskId, "complete");
    } catch (thrown) {
      open.reading = undefined;
      open.hasFailed = true;
      if (open.ending.signal.aborted) return;
      if (open.yielding.signal.aborted) return events.onSlow(taskId);
      const error = toAppError(thrown);
      const discard = WORTHLESS.has(error.code);
      log.warn({ taskId, url: open.task.stored.record.displayUrl, code: error.code, discard }, `the origin cannot be read: ${error.message}`);
      events.onFailed(taskId, error, discard);
      events.onRead(taskId, "failed");
      if (discard) await this.#close(open, true);
    } finally {
      stopWatching();
    }
  }

  /** @returns ends the watching */
  #watch({ taskId, task, yielding }: OpenTask): () => void {
    const { slowReads, mayBeLent, meter } = this.#deps;
    if (slowReads === undefined || !mayBeLent(task.stored.record)) return () => undefined;
    return watchForSlowness({
      bytesPerSecondMin: slowReads.bytesPerSecondMin,
      bytes: () => meter.bytesOf(taskId),
      isHeldBack: (withinMs) => meter.isHeldBack(taskId, withinMs),
      onSlow: () => yielding.abort(),
      ...(slowReads.windowMs !== undefined && { windowMs: slowReads.windowMs }),
    });
  }

  /** @throws AppError ORIGIN_CHANGED; an origin that does not answer now has said nothing new */
  async #confirm({ source, expected, ending }: OpenTask): Promise<void> {
    const { origin, meter } = this.#deps;
    const signal = AbortSignal.any([ending.signal, AbortSignal.timeout(CONFIRM_MS)]);
    try {
      const info = await origin.stat({ url: source.url, headers: source.headers }, signal, expected);
      meter.asked(info === expected ? "NOT_MODIFIED" : "OK");
      const mismatch = info === expected ? undefined : versionMismatch(expected, info);
      if (mismatch !== undefined) throw new AppError("ORIGIN_CHANGED", `the file changed while it was read: ${mismatch}; start again`);
    } catch (thrown) {
      const { code } = toAppError(thrown);
      if (code === "ORIGIN_CHANGED" || ending.signal.aborted) throw thrown;
      meter.asked(code);
    }
  }

  /** Reads what is not here; once more what turned out damaged on disk meanwhile. */
  async #readMissing(open: OpenTask): Promise<void> {
    const { taskId, task } = open;
    const { key, events } = this.#deps;
    for (let attempt = 1; ; attempt++) {
      const read = new OriginRead(this.#deps, {
        stored: task.stored,
        addOwn: async (piece, bytes, sign) => {
          await task.addOwn(piece, bytes, sign);
          events.onPiece();
        },
        source: () => open.source,
        expected: open.expected,
        signingDesk: new SigningDesk({ sign: (statement) => key.sign(statement), ...SYSTEM_CLOCK }, taskId, task.stored.record.pieceLengthBytes),
        confirm: task.stored.record.digest === undefined && isVersioned(open.expected) ? () => this.#confirm(open) : undefined,
        onLength: async (lengthBytes) => {
          const signature = key.signLength(taskId, lengthBytes);
          await task.setLength(lengthBytes, signature);
          events.onLength(taskId, lengthBytes, signature);
        },
        signal: AbortSignal.any([open.ending.signal, open.yielding.signal]),
      });
      try {
        // oxlint-disable-next-line no-await-in-loop -- one read after the other
        await read.run();
        if (task.stored.complete) return;
        throw new AppError("CACHE_CORRUPT", `pieces of task ${taskId} were stored and are gone; check the disk`);
      } catch (error) {
        const isLost = VANISHED.has(toAppError(error).code);
        if (!isLost || attempt >= READ_COUNT_MAX || open.ending.signal.aborted) throw error;
      }
    }
  }

  #close(open: OpenTask, discard: boolean): Promise<void> {
    const { taskId } = open;
    if (this.#open.get(taskId) !== open) return this.#closing.get(taskId) ?? Promise.resolve();
    this.#open.delete(taskId);
    const closing = this.#letGo(open, discard).finally(() => {
      if (this.#closing.get(taskId) === closing) this.#closing.delete(taskId);
    });
    this.#closing.set(taskId, closing);
    return closing;
  }

  async #letGo(open: OpenTask, discard: boolean): Promise<void> {
    const { taskId, ending, reading } = open;
    ending.abort();
    try {
      await reading;
      if (discard) await open.task.stored.discard("all");
    } catch (error) {
      this.#deps.log.warn({ taskId }, `cannot let go of a task in good order: ${toAppError(error).message}`);
    }
    open.task.release();
    if (discard) await this.#deps.store.remove(taskId).catch(() => false);
  }
}

/** The version whose pieces are wanted; content known by digest may come from any place that has it. */
export function expectedVersion(record: TaskRecord, info: OriginInfo | undefined): OriginInfo {
  const isByDigest = record.digest !== undefined;
  return {
    lengthBytes: record.lengthBytes,
    ranges: info?.ranges ?? true,
    etag: isByDigest ? undefined : (info?.etag ?? record.headers["etag"]),
    lastModified: isByDigest ? undefined : (info?.lastModified ?? record.headers["last-modified"]),
    contentType: record.contentType,
    headers: {},
  };
}

/** A file is not held back for longer, for the sake of an origin that has given all of it. */
const CONFIRM_MS = 5_000;
/** What a read says when a piece that was on disk is not, or not as it was. */
const VANISHED: ReadonlySet<string> = new Set(["CACHE_CORRUPT", "PIECE_UNKNOWN"]);
/** A disk that loses pieces faster than that is not worth the origin's bytes. */
const READ_COUNT_MAX = 3;

/** Failures of the seed's own that say nothing of the origin: others may be able to read it. */
export const OWN_FAILURES: ReadonlySet<string> = new Set(["DISK_FULL", "DISK_FAILED", "CACHE_QUOTA_EXCEEDED"]);

/** Failures after which the pieces that came are of no version, or of the wrong file. */
export const WORTHLESS: ReadonlySet<string> = new Set(["ORIGIN_CHANGED", "ORIGIN_LENGTH_WRONG", "DIGEST_MISMATCH"]);
