/** Drives a RateBudget: who has to wait is called back; one timer, and only while somebody waits. */
import { AppError } from "../base/errors.ts";
import { PRIORITIES, type Priority } from "../base/priority.ts";
import { RateBudget, type RateFlow, type RateRequest } from "../base/rate-budget.ts";
import { RecentRate } from "../base/recent-rate.ts";

export class RateGate {
  readonly #budget: RateBudget;
  readonly #nowMs: () => number;
  #timer: NodeJS.Timeout | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #pumping = false;
  #passedBytes = 0;
  readonly #recent = new RecentRate();

  /** @param bytesPerSecond > 0; undefined = no limit. `nowMs` is monotonic */
  constructor(bytesPerSecond: number | undefined, nowMs: () => number = () => performance.now()) {
    this.#budget = new RateBudget(bytesPerSecond);
    this.#nowMs = nowMs;
  }

  get bytesPerSecond(): number | undefined {
    return this.#budget.bytesPerSecond;
  }

  /** All that has passed, limited or not. */
  get passedBytes(): number {
    return this.#passedBytes;
  }

  /** Over the last second. */
  get recentBytesPerSecond(): number {
    return this.#recent.bytesPerSecond(this.#nowMs());
  }

  /** How many wait right now. */
  get waitingCount(): number {
    return this.#budget.waitingCount;
  }

  /** Effective at once, for those too who wait already. */
  setRate(bytesPerSecond: number | undefined): void {
    this.#budget.setRate(bytesPerSecond, this.#nowMs());
    this.#pump(undefined);
  }

  /** A task's place; the caller's to keep for as long as the task lives. */
  flow(priority: Priority): RateFlow {
    return this.#budget.flow(priority);
  }

  /** Makes the flow as urgent as told, if it is less. */
  raise(flow: RateFlow, priority: Priority): void {
    if (PRIORITIES.indexOf(priority) < PRIORITIES.indexOf(flow.priority)) this.#budget.setFlowPriority(flow, priority);
  }

  setFlowLimit(flow: RateFlow, bytesPerSecond: number | undefined): void {
    if (flow.limitBytesPerSecond === bytesPerSecond) return;
    this.#budget.setFlowLimit(flow, bytesPerSecond, this.#nowMs());
    this.#pump(undefined);
  }

  /** True when something of this flow had to wait within the last `withinMs`: it is slow because it is told to be. */
  heldBack(flow: RateFlow, withinMs: number): boolean {
    return this.#nowMs() - flow.waitedMs < withinMs;
  }

  /** How much to move at a time, see {@link RateBudget.chunkBytes}. */
  chunkBytes(flow: RateFlow, bytesMin: number): number {
    return this.#budget.chunkBytes(flow, bytesMin);
  }

  /** How much to read before it is paid for: the chunk, shared by the tasks that wait, and by the links of each. */
  readBytes(flow: RateFlow): number {
    return Math.max(READ_BYTES_MIN, Math.floor(this.#budget.chunkBytes(flow, 0) / Math.min(this.#budget.partCount(flow), READ_SHARE_MAX)));
  }

  /**
   * Asks to move `bytes`. Undefined: at once, and `go` is not called. Else `go` is called when it is their turn, from a
   * timer or from within another call of the gate, unless the request is cancelled before.
   */
  pass(flow: RateFlow, bytes: number, go: () => void): RateRequest | undefined {
    if (!this.#budget.limits(flow)) {
      this.#count(bytes);
      return undefined;
    }
    const request = this.#budget.request(flow, bytes, go, this.#nowMs());
    return this.#pump(request) ? undefined : request;
  }

  cancel(request: RateRequest): void {
    if (this.#budget.cancel(request)) this.#arm();
  }

  /** Counts what has moved and need not wait. */
  spend(bytes: number): void {
    this.#count(bytes);
    this.#budget.spend(bytes, this.#nowMs());
  }

  /** The bytes as they may move: whole without a limit, else chunk by chunk, each when it is its turn. @throws AppError ABORTED */
  async *paced(flow: RateFlow, bytes: Uint8Array, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    for (let at = 0; at < bytes.length; ) {
      const slice = bytes.subarray(at, at + Math.min(bytes.length - at, this.#budget.chunkBytes(flow, READ_BYTES_MIN)));
      at += slice.length;
      // oxlint-disable-next-line no-await-in-loop -- one after the other is the point
      await this.passed(flow, slice.length, signal);
      yield slice;
    }
  }

  /** Resolves when `bytes` may move; asks for them chunk by chunk, so that tasks take turns. @throws AppError ABORTED */
  async passed(flow: RateFlow, bytes: number, signal: AbortSignal): Promise<void> {
    for (let left = bytes; left > 0; ) {
      if (signal.aborted) throw abortedError();
      const chunk = Math.min(left, this.#budget.chunkBytes(flow, READ_BYTES_MIN));
      left -= chunk;
      // oxlint-disable-next-line no-await-in-loop -- one after the other is the point
      await this.#once(flow, chunk, signal);
    }
  }

  /** Lets go of the timer; who waits, waits for ever. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #once(flow: RateFlow, bytes: number, signal: AbortSignal): Promise<void> | undefined {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = (): void => {
      if (request !== undefined) this.cancel(request);
      reject(abortedError());
    };
    const request = this.pass(flow, bytes, () => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    });
    if (request === undefined) return undefined;
    signal.addEventListener("abort", onAbort, { once: true });
    return promise;
  }

  /** Grants all whose turn it is. @returns whether `own` was among them: it is not called */
  #pump(own: RateRequest | undefined): boolean {
    // Asked from within a grant: the loop below comes to it.
    if (this.#pumping) return false;
    this.#pumping = true;
    let isThrough = false;
    try {
      const nowMs = this.#nowMs();
      for (let granted = this.#budget.grant(nowMs); granted !== undefined; granted = this.#budget.grant(nowMs)) {
        this.#count(granted.bytes);
        if (granted === own) isThrough = true;
        else granted.go();
      }
    } finally {
      // Who fails in his turn holds up nobody behind him.
      this.#pumping = false;
      this.#arm();
    }
    return isThrough;
  }

  #count(bytes: number): void {
    this.#passedBytes += bytes;
    this.#recent.add(bytes, this.#nowMs());
  }

  #arm(): void {
    const dueMs = this.#budget.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
    if (dueMs === this.#timerDueMs) return;
    clearTimeout(this.#timer);
    this.#timerDueMs = dueMs;
    if (dueMs === Number.POSITIVE_INFINITY) return;
    this.#timer = setTimeout(
      () => {
        this.#timerDueMs = Number.POSITIVE_INFINITY;
        this.#pump(undefined);
      },
      Math.max(1, Math.ceil(dueMs - this.#nowMs())),
    );
  }
}

function abortedError(): AppError {
  return new AppError("ABORTED", "given up while waiting for a rate limit");
}

/** Small enough for the slowest rates, large enough that a read is worth it. */
const READ_BYTES_MIN = 64;
/** With more parts than this a first read each is more than a chunk together: once, and it is paid for. */
const READ_SHARE_MAX = 16;
