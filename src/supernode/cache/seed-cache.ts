/**
 * The site's copy of each file: opened when somebody joins, read from the origin under the scheduler's lease, offered
 * piece by piece, kept on disk after the last member has gone.
 */
import type { Logger } from "pino";
import { AppError, toAppError } from "../../base/errors.ts";
import { versionMismatch } from "../../origin/file-version.ts";
import type { Origin, OriginInfo } from "../../origin/origin.ts";
import type { SigningKey } from "../../peer/membership/credentials.ts";
import type { PeerTask } from "../../peer/peer.ts";
import type { PieceStore, TaskRecord } from "../../peer/store/piece-store.ts";
import type { Neighbour, Source } from "../../protocol/control-messages.ts";
import { pieceCountOf } from "../../protocol/geometry.ts";
import type { PeerId, TaskId } from "../../protocol/ids.ts";
import type { Priority } from "../../swarm/index.ts";
import { OriginRead, type OriginReadDeps } from "./origin-read.ts";
import { isVersioned } from "../tasks/task-identity.ts";
import type { ResolvedTask } from "../tasks/task-resolver.ts";

/** What the cache tells its owner. Never called from within a call of the cache, but for `onOpened`. */
export interface SeedCacheEvents {
  /** The seed takes part in this task from now on, with so many pieces. */
  readonly onOpened: (taskId: TaskId, pieceCount: number, totalCount: number | undefined) => void;
  /** A lease has ended. */
  readonly onRead: (taskId: TaskId, outcome: "complete" | "failed") => void;
  readonly onLength: (taskId: TaskId, lengthBytes: number, signature: Uint8Array) => void;
  /** The origin cannot be read to its end. `discard`: what was given out is worth nothing; the task is closed. */
  readonly onFailed: (taskId: TaskId, error: AppError, discard: boolean) => void;
  readonly onPiece: () => void;
}

/** What the cache needs of a peer's task. */
export type SeedPeerTask = Pick<PeerTask, "stored" | "connect" | "disconnect" | "addOwn" | "setLength" | "release">;

/** What the cache needs of the peer it seeds with. */
export interface SeedPeer {
  openTask(record: TaskRecord, priority: Priority): Promise<SeedPeerTask>;
}

export interface SeedCacheDeps extends Omit<OriginReadDeps, "origin"> {
  readonly origin: Pick<Origin, "open" | "stat">;
  readonly peer: SeedPeer;
  readonly store: Pick<PieceStore, "find" | "remove">;
  readonly key: SigningKey;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly events: SeedCacheEvents;
}

/** An open task of the seed's. */
export interface SeedTask {
  readonly taskId: TaskId;
  readonly task: SeedPeerTask;
  readonly isReading: boolean;
}

interface OpenTask {
  readonly taskId: TaskId;
  readonly task: SeedPeerTask;
  /** The latest that the origin answered well. */
  source: Source;
  expected: OriginInfo;
  reading: Promise<void> | undefined;
  readonly ending: AbortController;
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
   * Makes sure that the seed takes part in a task. Coalesced; `onOpened` once, before the first caller goes on.
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
    open.reading = this.#read(open);
  }

  /** Dials peers that hold pieces: after a restart, what the swarm has need not be read again. */
  connect(taskId: TaskId, neighbours: readonly Neighbour[], ticket: string): void {
    if (neighbours.length > 0) this.#open.get(taskId)?.task.connect(neighbours, ticket);
  }

  disconnect(taskId: TaskId, peerIds: readonly PeerId[]): void {
    if (peerIds.length > 0) this.#open.get(taskId)?.task.disconnect(peerIds);
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
    const task = await this.#deps.peer.openTask(await this.#recordToOpen(record), source.priority ?? "interactive");
    if (this.#isClosed) {
      task.release();
      throw new AppError("SHUTTING_DOWN", "the supernode is shutting down");
    }
    const { stored } = task;
    const open: OpenTask = {
      taskId,
      task,
      source,
      expected: expectedVersion(stored.record, info),
      reading: undefined,
      ending: new AbortController(),
    };
    this.#open.set(taskId, open);
    const { lengthBytes, pieceLengthBytes } = stored.record;
    const totalCount = lengthBytes === undefined ? undefined : pieceCountOf(lengthBytes, pieceLengthBytes);
    this.#deps.events.onOpened(taskId, stored.have.count, totalCount);
    return open;
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

  async #read(open: OpenTask): Promise<void> {
    const { taskId, task } = open;
    const { key, events, log } = this.#deps;
    const startedMs = performance.now();
    const read = new OriginRead(this.#deps, {
      stored: task.stored,
      addOwn: async (piece, bytes, sign) => {
        await task.addOwn(piece, bytes, sign);
        events.onPiece();
      },
      source: () => open.source,
      expected: open.expected,
      signPiece: (piece, lengthBytes, digest) => key.signPiece(taskId, piece, lengthBytes, digest),
      confirm: task.stored.record.digest === undefined && isVersioned(open.expected) ? () => this.#confirm(open) : undefined,
      onLength: async (lengthBytes) => {
        const signature = key.signLength(taskId, lengthBytes);
        await task.setLength(lengthBytes, signature);
        events.onLength(taskId, lengthBytes, signature);
      },
      signal: open.ending.signal,
    });
    try {
      // Not within the call that granted the lease.
      await Promise.resolve();
      // What the origin no longer gives, other holders may have given meanwhile.
      await read.run().catch((error: unknown) => {
        if (!task.stored.complete || WORTHLESS.has(toAppError(error).code)) throw error;
      });
      open.reading = undefined;
      const tookMs = Math.round(performance.now() - startedMs);
      log.info({ taskId, url: task.stored.record.displayUrl, lengthBytes: task.stored.record.lengthBytes, tookMs }, "read from the origin");
      events.onRead(taskId, "complete");
    } catch (thrown) {
      open.reading = undefined;
      if (open.ending.signal.aborted) return;
      const error = toAppError(thrown);
      const discard = WORTHLESS.has(error.code);
      log.warn({ taskId, url: task.stored.record.displayUrl, code: error.code, discard }, `the origin cannot be read: ${error.message}`);
      events.onFailed(taskId, error, discard);
      events.onRead(taskId, "failed");
      if (discard) await this.#close(open, true);
    }
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

  async #letGo({ taskId, task, ending, reading }: OpenTask, discard: boolean): Promise<void> {
    ending.abort();
    try {
      await reading;
      if (discard) await task.stored.discard("all");
    } catch (error) {
      this.#deps.log.warn({ taskId }, `cannot let go of a task in good order: ${toAppError(error).message}`);
    }
    task.release();
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
/** Failures after which the pieces that came are of no version, or of the wrong file. */
const WORTHLESS: ReadonlySet<string> = new Set(["ORIGIN_CHANGED", "ORIGIN_LENGTH_WRONG", "DIGEST_MISMATCH"]);
