/**
 * A virtual machine's memory may be slow at its first touch: where the host backs a page only then, and takes back what lies free
 * for some seconds, writing it costs 2.8 CPU seconds per GB in place of 0.4 (measured with dd, see bench/README.md). That is
 * no cost of any program measured here, and sixteen hosts that share one machine pay it sixteen times in the same seconds.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { freemem } from "node:os";

const GIB = 1024 ** 3;
/** Linux's free page reporting (mm/page_reporting.c): the smallest free block, a power of two of pages, that the host is told of. */
const REPORTING_ORDER_FILE = "/sys/module/page_reporting/parameters/page_reporting_order";
/** Larger than any free block, where the kernel takes such a number; else its largest blocks. */
const REPORTING_ORDERS_OFF = [11, 10];
/** Left alone, for whatever runs. */
const SPARE_BYTES = GIB;

export interface TouchedMemory {
  readonly gib: number;
  /** How fast it could be filled: far below 1 GB/s, it had not been backed. */
  readonly gbPerSecond: number;
}

/**
 * Fills `bytes` of free memory, rounded up to whole GiB and no more than there is, and frees it: what is taken next has been touched.
 * @throws Error when it cannot be filled
 */
export function touchMemory(bytes: number): TouchedMemory {
  const gib = Math.min(Math.ceil(bytes / GIB), Math.floor((freemem() - SPARE_BYTES) / GIB));
  if (gib < 1) return { gib: 0, gbPerSecond: 0 };
  const startMs = performance.now();
  const { status } = spawnSync(process.execPath, ["-e", `const kept = []; for (let i = 0; i < ${gib}; i++) kept.push(Buffer.alloc(1024 ** 3, 1));`]);
  if (status !== 0) throw new Error(`${gib} GiB of memory could not be touched`);
  const seconds = (performance.now() - startMs) / 1000;
  return { gib, gbPerSecond: Math.round(((gib * GIB) / 1e9 / seconds) * 100) / 100 };
}

/**
 * From now on, until this process exits, what has been touched stays: the host is told of no free memory. A race of 40 seconds outlives
 * what was touched before it. Root only; where there is nothing to be set nothing is.
 *
 * @returns whether it could be set
 */
export function keepTouchedMemory(): boolean {
  try {
    const before = readFileSync(REPORTING_ORDER_FILE, "utf8").trim();
    process.on("exit", () => writeFileSync(REPORTING_ORDER_FILE, before));
    return REPORTING_ORDERS_OFF.some((order) => {
      try {
        writeFileSync(REPORTING_ORDER_FILE, String(order));
        return true;
      } catch {
        return false;
      }
    });
  } catch {
    return false;
  }
}
