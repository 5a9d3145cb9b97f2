/** What the kernel says of a running process. */
import { readdirSync, readFileSync } from "node:fs";

const PAGE_BYTES = 4096;
/** USER_HZ, which is 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

export interface ProcessUsage {
  readonly rssBytes: number;
  readonly descriptors: number;
  /** Of all its threads, since its start. */
  readonly cpuSeconds: number;
}

/** @throws Error when it has ended */
export function usageOf(pid: number | undefined): ProcessUsage {
  const directory = `/proc/${pid}`;
  const stat = readFileSync(`${directory}/stat`, "utf8");
  // After the name, which may hold spaces: state is the third field of proc(5), utime and stime 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ").map(Number);
  return {
    rssBytes: Number(readFileSync(`${directory}/statm`, "utf8").split(" ")[1]) * PAGE_BYTES,
    descriptors: readdirSync(`${directory}/fd`).length,
    cpuSeconds: ((fields[11] ?? 0) + (fields[12] ?? 0)) / TICKS_PER_SECOND,
  };
}
