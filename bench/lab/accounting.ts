/** What the programs cost: CPU time and memory of everything the lab has started, and what else the machine did. */
import { readdirSync, readFileSync } from "node:fs";
import { loadavg } from "node:os";
import { basename } from "node:path";

/** The kernel's clock tick in /proc, 1/100 s on every architecture Node runs on. */
const TICKS_PER_SECOND = 100;

interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly ownTicks: number;
  /** Of its children that have ended and been waited for. */
  readonly childTicks: number;
}

/**
 * CPU seconds used so far by all descendants of this process. A child that ends moves into its parent's account,
 * so the difference of two readings misses nothing.
 */
export function descendantCpuSeconds(): number {
  const self = readProcess(process.pid);
  const ticks = descendants().reduce((sum, child) => sum + child.ownTicks + child.childTicks, self?.childTicks ?? 0);
  return ticks / TICKS_PER_SECOND;
}

interface Thread {
  /** Its program's name and its own. */
  readonly name: string;
  readonly ticks: number;
}

/** Where CPU goes within the programs: to which threads of which. */
export class ThreadAccount {
  readonly #before = threads();

  /** CPU seconds since this account was opened, by program and thread, all of a name together; what has ended meanwhile is in none. */
  secondsByThread(): Readonly<Record<string, number>> {
    const ticks = new Map<string, number>();
    for (const [id, thread] of threads()) {
      const used = thread.ticks - (this.#before.get(id)?.ticks ?? 0);
      if (used > 0) ticks.set(thread.name, (ticks.get(thread.name) ?? 0) + used);
    }
    return Object.fromEntries([...ticks].map(([name, count]) => [name, count / TICKS_PER_SECOND]));
  }
}

/** CPU seconds of the whole machine, idle and waiting for disks left out. */
export function machineCpuSeconds(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] =
    (readFileSync("/proc/stat", "utf8").split("\n")[0] ?? "").trim().split(/\s+/).slice(1).map(Number);
  return (user + nice + system + irq + softirq) / TICKS_PER_SECOND;
}

/** Watches the largest resident set of any one process until stopped. */
export function watchMemory(): { stop(): number } {
  let maxKiB = 0;
  const look = (): void => {
    for (const { pid } of descendants()) {
      try {
        const peak = /^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
        maxKiB = Math.max(maxKiB, Number(peak?.[1] ?? 0));
      } catch {
        // Gone.
      }
    }
  };
  const timer = setInterval(look, 1000);
  return {
    stop: () => {
      clearInterval(timer);
      look();
      return Math.round(maxKiB / 1024);
    },
  };
}

export function loadAverage(): number {
  return loadavg()[0] ?? 0;
}

function descendants(): Process[] {
  const byParent = new Map<number, Process[]>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const found = readProcess(Number(name));
    if (found === undefined) continue;
    const siblings = byParent.get(found.parent);
    if (siblings === undefined) byParent.set(found.parent, [found]);
    else siblings.push(found);
  }
  const family = [...(byParent.get(process.pid) ?? [])];
  for (let next = 0; next < family.length; next++) family.push(...(byParent.get(family[next]!.pid) ?? []));
  return family;
}

function readProcess(pid: number): Process | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // Fields from the third on; the second is the name in parentheses and may hold anything.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const field = (number: number): number => Number(fields[number - 3]);
    return { pid, parent: field(4), ownTicks: field(14) + field(15), childTicks: field(16) + field(17) };
  } catch {
    return undefined;
  }
}

function threads(): ReadonlyMap<string, Thread> {
  const found = new Map<string, Thread>();
  for (const { pid } of descendants()) {
    try {
      const program = programOf(readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0"));
      for (const id of readdirSync(`/proc/${pid}/task`)) {
        const stat = readFileSync(`/proc/${pid}/task/${id}/stat`, "latin1");
        const own = id === String(pid) ? "main" : stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
        const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
        found.set(id, { name: `${program} ${own}`, ticks: Number(fields[11]) + Number(fields[12]) });
      }
    } catch {
      // Gone.
    }
  }
  return found;
}

/** Ours by the script that Node runs, others by what was executed. */
function programOf(command: readonly string[]): string {
  const script = command.find((argument) => /\/cli\/\w+\.[jt]s$/.test(argument)) ?? command[0] ?? "";
  return basename(script).replace(/\.[jt]s$/, "");
}
