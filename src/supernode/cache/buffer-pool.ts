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

interface Waiter {
  readonly lengthBytes: number;
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

  /** Waits its turn, first come first served. @throws AppError ABORTED */
  acquire(lengthBytes: number, signal: AbortSignal): Promise<PieceBuffer> {
    if (signal.aborted) return Promise.reject(aborted());
    if (this.#waiters.length === 0 && this.#fits(lengthBytes)) return Promise.resolve(this.#take(lengthBytes));
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        reject(aborted());
        this.#serve();
      };
      const waiter: Waiter = {
        lengthBytes,
        give: (buffer) => {
          signal.removeEventListener("abort", onAbort);
          resolve(buffer);
        },
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiters.push(waiter);
    });
  }

  #fits(lengthBytes: number): boolean {
    return this.#usedBytes === 0 || this.#usedBytes + lengthBytes <= this.#budgetBytes;
  }

  #take(lengthBytes: number): PieceBuffer {
    this.#usedBytes += lengthBytes;
    let memory = this.#free.get(lengthBytes)?.pop();
    if (memory === undefined) memory = new SharedArrayBuffer(lengthBytes);
    else this.#freeBytes -= lengthBytes;
    const kept = memory;
    let isCounted = true;
    const uncount = (): void => {
      if (!isCounted) return;
      isCounted = false;
      this.#usedBytes -= lengthBytes;
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
        this.#usedBytes += lengthBytes;
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

  #serve(): void {
    for (let next = this.#waiters[0]; next !== undefined && this.#fits(next.lengthBytes); next = this.#waiters[0]) {
      this.#waiters.shift();
      next.give(this.#take(next.lengthBytes));
    }
  }
}

function aborted(): AppError {
  return new AppError("ABORTED", "waiting for memory was given up");
}
