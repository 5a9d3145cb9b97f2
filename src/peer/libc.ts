/**
 * The C library's functions that Node does not offer, called through koffi (optional: without it everything works on the
 * portable path). For Linux with glibc on 64-bit machines, where `int64_t` is `off_t`.
 */
import { createRequire } from "node:module";

export interface Libc {
  /** @param signature in C; @returns the function: numbers and typed arrays in, its number out */
  func(signature: string): (...values: unknown[]) => number;
  /** Of the call that failed last. */
  errno(): number;
}

interface Koffi {
  load(name: string): Pick<Libc, "func">;
  errno(): number;
}

/** @returns undefined where it cannot be had: another platform, koffi missing, DRAGONFLY_PORTABLE set */
export function loadLibc(): Libc | undefined {
  if (process.platform !== "linux" || process.env["DRAGONFLY_PORTABLE"] !== undefined) return undefined;
  try {
    const koffi = createRequire(import.meta.url)("koffi") as Koffi;
    const library = koffi.load("libc.so.6");
    return { func: (signature) => library.func(signature), errno: () => koffi.errno() };
  } catch {
    return undefined;
  }
}
