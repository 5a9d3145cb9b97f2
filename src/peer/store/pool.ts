/**
 * A few threads that hash and write ({@link StoreJobs}), so that the main thread only moves frames and decides.
 */
import { Worker } from "node:worker_threads";
import { assert } from "../../base/assert.ts";
import { AppError } from "../../base/errors.ts";
import { diskFailure, diskFailureError } from "./errors.ts";
import { doStoreJob, type StoreJobKind, type StoreJobs, type StoreReply, type StoreRequest } from "./worker.ts";

/** What the store needs of its threads; tests stand in with failing disks. */
export interface StoreRunner {
  /** @param path the file behind the job's descriptor, for the message of an error */
  run<K extends StoreJobKind>(kind: K, input: StoreJobs[K]["input"], path: string): Promise<StoreJobs[K]["output"]>;
  /** Jobs are under way. */
  readonly isBusy: boolean;
  close(): Promise<void>;
}

/** Verb of each job in the message of its failure. */
const DOING: Readonly<Record<StoreJobKind, string>> = {
  verifyAndWrite: "write a piece to",
  digestAndWrite: "write a piece to",
  verifyOnDisk: "verify pieces of",
  fileDigest: "read",
};

/**
 * The pool. Threads start with the first jobs, keep the process alive only while a job runs, and are replaced when
 * they die. A job goes to the thread with the fewest; the order of jobs is not kept. Small pieces are done on the
 * caller's own thread while the disk is quick: handing one over costs more than hashing and writing it.
 */
export class StorePool implements StoreRunner {
  readonly #slots: Slot[];
  readonly #pending = new Map<number, Pending>();
  readonly #workerUrl: URL;
  readonly #ownBytesMax: number;
  readonly #nowMs: () => number;
  #nextId = 1;
  #closed = false;
  /** The disk was slow: everything goes to the threads until then. */
  #handOverUntilMs = 0;
  /** Slow writes on the caller's thread, one after the other; those before a time of handing over count. */
  #slowCount = 0;

  /**
   * @param workerCount threads, ≥ 1; two keep up with 3 GB/s
   * @param workerUrl the thread's module, for tests
   * @param ownBytesMax pieces up to this length are done on the caller's thread; 0: none
   * @param nowMs a clock that does not go back, for tests
   */
  constructor(workerCount: number, workerUrl: URL = WORKER_URL, ownBytesMax = OWN_BYTES_MAX, nowMs = (): number => performance.now()) {
    assert(Number.isInteger(workerCount) && workerCount >= 1, `a pool of ${workerCount} threads`);
    this.#slots = Array.from({ length: workerCount }, () => ({ worker: undefined, jobCount: 0 }));
    this.#workerUrl = workerUrl;
    this.#ownBytesMax = ownBytesMax;
    this.#nowMs = nowMs;
    // A thread takes 0.1 s of CPU to start: not when the first piece is there. The others wait until there is work.
    const first = this.#slots[0] as Slot;
    first.worker = this.#start(first);
  }

  /**
   * Runs one job on a thread.
   *
   * @param input buffers in it must lie in shared memory (others would be copied) and stay unchanged until the answer
   * @throws AppError DISK_FULL, DISK_FAILED; INTERNAL when the thread died; SHUTTING_DOWN after {@link close}
   */
  run<K extends StoreJobKind>(kind: K, input: StoreJobs[K]["input"], path: string): Promise<StoreJobs[K]["output"]> {
    if (this.#closed) return Promise.reject(shuttingDown());
    // The request's input is of its kind: the caller's type says so.
    const request = { id: this.#nextId++, kind, input } as StoreRequest;
    if (this.#isOwn(request)) return this.#doHere<K>(request, path);
    let slot = this.#slots[0] as Slot;
    for (const other of this.#slots) {
      const started = other.worker !== undefined || slot.jobCount >= JOBS_BEFORE_NEXT_THREAD;
      if (started && other.jobCount < slot.jobCount) slot = other;
    }
    const worker = (slot.worker ??= this.#start(slot));
    return new Promise((resolve, reject) => {
      // The reply is of kind K: the worker answers each request with its own kind's output.
      this.#pending.set(request.id, { slot, kind, path, resolve, reject });
      if (slot.jobCount++ === 0) worker.ref();
      worker.postMessage(request);
    });
  }

  #isOwn(request: StoreRequest): boolean {
    if (request.kind !== "verifyAndWrite" && request.kind !== "digestAndWrite") return false;
    return request.input.bytes.length <= this.#ownBytesMax && this.#nowMs() >= this.#handOverUntilMs;
  }

  async #doHere<K extends StoreJobKind>(request: StoreRequest, path: string): Promise<StoreJobs[K]["output"]> {
    const startMs = this.#nowMs();
    try {
      return await doStoreJob(request);
    } catch (thrown) {
      throw diskFailureError(diskFailure(thrown), DOING[request.kind], path);
    } finally {
      const endMs = this.#nowMs();
      this.#slowCount = endMs - startMs > SLOW_MS ? this.#slowCount + 1 : 0;
      if (this.#slowCount >= SLOW_COUNT || endMs - startMs > STUCK_MS) this.#handOverUntilMs = endMs + HAND_OVER_MS;
    }
  }

  get isBusy(): boolean {
    return this.#pending.size > 0;
  }

  /** Ends all threads; jobs not answered by then are rejected with SHUTTING_DOWN. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#slots.map(async ({ worker }) => await worker?.terminate()));
  }

  #start(slot: Slot): Worker {
    const worker = new Worker(this.#workerUrl, { name: "store", resourceLimits: { maxYoungGenerationSizeMb: WORKER_NURSERY_MIB } });
    let cause: unknown;
    worker.on("message", (reply: StoreReply) => this.#settle(reply));
    worker.on("error", (error) => (cause = error));
    // Only now is it certain that the thread touches no descriptor any more.
    worker.on("exit", () => this.#bury(slot, cause));
    worker.unref();
    return worker;
  }

  #settle(reply: StoreReply): void {
    const pending = this.#pending.get(reply.id);
    if (pending === undefined) return;
    this.#pending.delete(reply.id);
    if (--pending.slot.jobCount === 0) pending.slot.worker?.unref();
    if ("failure" in reply) pending.reject(diskFailureError(reply.failure, DOING[pending.kind], pending.path));
    else pending.resolve(reply.output);
  }

  #bury(slot: Slot, cause: unknown): void {
    slot.worker = undefined;
    slot.jobCount = 0;
    for (const [id, pending] of this.#pending) {
      if (pending.slot !== slot) continue;
      this.#pending.delete(id);
      pending.reject(this.#closed ? shuttingDown() : threadDied(pending, cause));
    }
  }
}

/**
 * BLAKE3 and write of 256 KiB take 0.1 ms into the page cache; a trip to a thread and back costs both threads' wake-ups.
 */
const OWN_BYTES_MAX = 256 * 1024;
/**
 * Writes that take longer one after the other, or one that takes much longer, wait for the disk itself (dirty pages
 * throttled): the event loop must not, for a while. A single one had its core taken away: on a busy host that happens
 * every second, and threads would only be more to run. Source: docs/decisions.md, 37.
 */
const SLOW_MS = 5;
const SLOW_COUNT = 3;
const STUCK_MS = 100;
const HAND_OVER_MS = 1_000;

/** A job leaves little garbage: a nursery of the main thread's size would only be memory. */
const WORKER_NURSERY_MIB = 2;

/** Jobs waiting at the busy threads before another is started. */
const JOBS_BEFORE_NEXT_THREAD = 3;

interface Slot {
  worker: Worker | undefined;
  jobCount: number;
}

interface Pending {
  readonly slot: Slot;
  readonly kind: StoreJobKind;
  readonly path: string;
  readonly resolve: (output: StoreJobs[StoreJobKind]["output"]) => void;
  readonly reject: (error: AppError) => void;
}

function shuttingDown(): AppError {
  return new AppError("SHUTTING_DOWN", "the piece store is closing");
}

function threadDied(pending: Pending, cause: unknown): AppError {
  const why = cause instanceof Error ? cause.message : "no reason given";
  const message = `cannot ${DOING[pending.kind]} ${pending.path}: the thread doing it ended (${why}); another takes its place`;
  return new AppError("INTERNAL", message, { cause });
}

/** Beside this module: `.ts` in the repository, `.js` when built. */
const WORKER_URL = import.meta.url.endsWith(".ts")
  ? new URL("./worker.ts", import.meta.url)
  : new URL("./worker.js", import.meta.url);
