/**
 * Lets go of the shared memory that a thread is sent.
 *
 * Each message with shared memory in it leaves an object in the receiving thread's heap, and the memory stays for as long as
 * that does. V8 counts shared memory against nobody's heap, and a job leaves little else: of pieces of 4 MiB, each in memory of its
 * own, a thread kept a GiB until its nursery was full. So the nursery is collected by the bytes that came, and soon after the last.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** A collection takes 0.4 ms of a thread that has little in its heap; hashing and writing this much, 20. */
const KEPT_BYTES_MAX = 32 * 1024 * 1024;
/** Less than that is let go of after this. */
const KEPT_MS_MAX = 1_000;

export class LentMemory {
  readonly #collectNursery: (() => void) | undefined;
  #keptBytes = 0;
  #timer: NodeJS.Timeout | undefined;

  /** Of the thread that calls it. */
  constructor() {
    this.#collectNursery = nurseryCollection();
  }

  /** Shared memory of this length came, and is needed no more. */
  used(lengthBytes: number): void {
    if (lengthBytes === 0) return;
    this.#keptBytes += lengthBytes;
    if (this.#keptBytes >= KEPT_BYTES_MAX) this.#letGo();
    else this.#timer ??= setTimeout(() => this.#letGo(), KEPT_MS_MAX).unref();
  }

  #letGo(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#keptBytes = 0;
    this.#collectNursery?.();
  }
}

type Collect = (options: { readonly type: "minor" }) => void;

/** There is no other way to it; contexts made from then on have it no more. @returns undefined when it could not be had: memory stays longer */
function nurseryCollection(): (() => void) | undefined {
  for (let attempt = 0; attempt < EXPOSE_ATTEMPTS_MAX; attempt++) {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("globalThis.gc") as Collect | undefined;
    setFlagsFromString("--no-expose-gc");
    if (collect !== undefined) return () => collect({ type: "minor" });
  }
  return undefined;
}

/** The flag is the process's: another thread that starts may have taken it away in between, for a millisecond. */
const EXPOSE_ATTEMPTS_MAX = 100;
