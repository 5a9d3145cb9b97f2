/** Shared memory for pieces on their way from an origin to the disk: bounded for all reads together. */
import { AppError } from "../../base/errors.ts";

/** A piece-sized buffer. Exactly one `release` each. */
export interface PieceBuffer {
  /** Lies in a SharedArrayBuffer of its own; content is whatever was there. */
  readonly bytes: Uint8Array;
  /** Gives the buffer back. Not while a store still reads it. */
  release(): void;
  /** The buffer stays with its user but no longer counts against the pool: for what has to wait for others. */
  detach(): void;
  /** Undoes `detach`, at once: others wait for what is over the budget then. */
  attach(): void;
}

/** Who takes buffers for one read. */
export interface BufferShare {
  /** It gets none at the moment. */
  readonly isWaiting: boolean;
  /** Waits its turn. @throws AppError ABORTED */
  acquire(lengthBytes: number, signal: AbortSignal): Promise<PieceBuffer>;
}

interface Holding {
  /** Buffers that it has and that count. */
  count: number;
}

interface Waiter {
  readonly lengthBytes: number;
  readonly holding: Holding;
  readonly give: (buffer: PieceBuffer) => void;
}

export class BufferPool {
  readonly #budgetBytes: number;
  readonly #free = new Map<number, SharedArrayBuffer[]>();
  readonly #waiters: Waiter[] = [];
  #usedBytes = 0;
  #freeBytes = 0;

  /** @param budgetBytes most bytes handed out at a time; one buffer is handed out whatever its size */
  constructor(budgetBytes: number) {
    this.#budgetBytes = budgetBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /**
   * A share of the pool: as much as there is for its first buffer, and half of that for any more at the same time. Origins
   * that stand still keep what is half full, and with several streams to each file a few would keep it all.
   */
  share(): BufferShare {
    const holding: Holding = { count: 0 };
    const isWaiting = (): boolean => this.#waiters.some((waiter) => waiter.holding === holding);
    return {
      get isWaiting() {
        return isWaiting();
      },
      acquire: (lengthBytes, signal) => this.#acquire(lengthBytes, holding, signal),
    };
  }

  #acquire(lengthBytes: number, holding: Holding, signal: AbortSignal): Promise<PieceBuffer> {
    if (signal.aborted) return Promise.reject(aborted());
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        reject(aborted());
        this.#serve();
      };
      const waiter: Waiter = {
        lengthBytes,
        holding,
        give: (buffer) => {
          signal.removeEventListener("abort", onAbort);
          resolve(buffer);
        },
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiters.push(waiter);
      this.#serve();
    });
  }

  #fits({ lengthBytes, holding }: Waiter): boolean {
    const budgetBytes = holding.count === 0 ? this.#budgetBytes : this.#budgetBytes / 2;
    return this.#usedBytes === 0 || this.#usedBytes + lengthBytes <= budgetBytes;
  }

  #take({ lengthBytes, holding }: Waiter): PieceBuffer {
    this.#count(lengthBytes, holding);
    let memory = this.#free.get(lengthBytes)?.pop();
    if (memory === undefined) memory = new SharedArrayBuffer(lengthBytes);
    else this.#freeBytes -= lengthBytes;
    const kept = memory;
    let isCounted = true;
    const uncount = (): void => {
      if (!isCounted) return;
      isCounted = false;
      this.#usedBytes -= lengthBytes;
      holding.count--;
      this.#serve();
    };
    return {
      bytes: new Uint8Array(kept),
      release: () => {
        this.#keep(kept);
        uncount();
      },
      detach: uncount,
      attach: () => {
        if (isCounted) return;
        isCounted = true;
        this.#count(lengthBytes, holding);
      },
    };
  }

  #keep(memory: SharedArrayBuffer): void {
    if (this.#freeBytes + memory.byteLength > this.#budgetBytes / 4) return;
    const list = this.#free.get(memory.byteLength) ?? [];
    this.#free.set(memory.byteLength, list);
    list.push(memory);
    this.#freeBytes += memory.byteLength;
  }

  #count(lengthBytes: number, holding: Holding): void {
    this.#usedBytes += lengthBytes;
    holding.count++;
  }

  /** First come first served, but for first buffers before others. */
  #serve(): void {
    for (const isFirst of [true, false]) {
      for (let at = 0; at < this.#waiters.length; ) {
        const waiter = this.#waiters[at] as Waiter;
        if ((waiter.holding.count === 0) !== isFirst) at++;
        else if (!this.#fits(waiter)) return;
        else {
          this.#waiters.splice(at, 1);
          waiter.give(this.#take(waiter));
        }
      }
    }
  }
}

function aborted(): AppError {
  return new AppError("ABORTED", "waiting for memory was given up");
}
