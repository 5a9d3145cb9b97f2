/**
 * Room on the device for a piece, had just before it is written: fallocate(2), which writes nothing and leaves the file's length. A file
 * system that is given a piece without it looks for room page by page, and again when it flushes: a GiB in pieces of 1 MiB takes
 * ext4 0.19 s of CPU to accept and 0.29 with flushing it, with this 0.12 and 0.23. Source: bench/README.md, "The data plane".
 */
import { loadLibc } from "../libc.ts";

/** Linux: include/uapi/linux/falloc.h. */
const FALLOC_FL_KEEP_SIZE = 1;
/** Shorter pieces, each with room of its own, cost as much more to flush as is saved (256 KiB), or twice that (128). */
const PIECE_BYTES_MIN = 1024 * 1024;
/** It is done on the main thread, in 10 µs; where it takes so long (a server's disk, a device at its limit), not again for a while. */
const SLOW_MS = 5;
const REST_MS = 60_000;

export type Fallocate = (fd: number, mode: number, offsetByte: number, lengthBytes: number) => unknown;

export class Preallocation {
  readonly #fallocate: Fallocate | undefined;
  readonly #nowMs: () => number;
  #restsUntilMs = Number.NEGATIVE_INFINITY;

  /** @param fallocate undefined where it cannot be had; @param nowMs a clock that does not go back */
  constructor(fallocate: Fallocate | undefined, nowMs: () => number) {
    this.#fallocate = fallocate;
    this.#nowMs = nowMs;
  }

  /** Best effort: whether there is room, and whether the file system knows the call, writing will tell. */
  room(fd: number, offsetByte: number, lengthBytes: number): void {
    if (this.#fallocate === undefined || lengthBytes < PIECE_BYTES_MIN) return;
    const startMs = this.#nowMs();
    if (startMs < this.#restsUntilMs) return;
    this.#fallocate(fd, FALLOC_FL_KEEP_SIZE, offsetByte, lengthBytes);
    const endMs = this.#nowMs();
    if (endMs - startMs > SLOW_MS) this.#restsUntilMs = endMs + REST_MS;
  }
}

let systems: Preallocation | undefined;

/** This system's. */
export function systemPreallocation(): Preallocation {
  systems ??= new Preallocation(systemFallocate(), () => performance.now());
  return systems;
}

function systemFallocate(): Fallocate | undefined {
  try {
    return loadLibc()?.func("int fallocate(int fd, int mode, int64_t offset, int64_t length)");
  } catch {
    return undefined;
  }
}
