/** What one program of the soak holds, over time, and whether that grows. */
import type { ProcessUsage } from "../process-usage.ts";
import { isFlat, type Sample, type Trend, trendOf } from "./flatness.ts";
import { Inspector } from "./inspector.ts";
import type { Program } from "./programs.ts";

/** Tasks stay open for two minutes, answers are remembered for five, V8's heap finds its size: until then growth is no leak. */
const WARM_UP_SHARE = 0.4;
/** Every so many samples garbage is collected, and what is left is a sample of what lives. */
const SAMPLES_PER_COLLECTION = 4;
/**
 * What may be more at the end than after the warm-up. What lives follows the tasks that are open, and wanders with them: a leak of
 * 4 KiB per request makes 4 MiB in 20 minutes. What malloc has given out is its other half: buffers, shared memory, libraries.
 * RSS has the heaps of the other threads and the allocators' holes in it, and wanders by 10 MiB.
 */
const GROWTH_MAX = { liveBytes: 2 * 1024 ** 2, nativeBytes: 4 * 1024 ** 2, rssBytes: 12 * 1024 ** 2, descriptors: 3 };
type Quantity = keyof typeof GROWTH_MAX;
const FILES_PER_TASK = 2;

/** Descriptors of tasks' files, and how many there may be. */
interface TaskFiles {
  readonly count: number;
  readonly countMax: number;
}

export interface Row extends Record<Quantity, Trend> {
  readonly program: string;
  readonly cores: number;
  /** Means of the two halves, and how often there were more than the load asked for. */
  readonly taskFiles: { readonly first: number; readonly second: number; readonly tooMany: number };
  readonly flat: boolean;
  readonly text: string;
}

export class Watch {
  readonly program: Program;
  readonly #inspector: Inspector;
  readonly #series: Record<Quantity, Sample[]> = { liveBytes: [], nativeBytes: [], rssBytes: [], descriptors: [] };
  readonly #taskFiles: TaskFiles[] = [];
  readonly #startMs = performance.now();
  readonly #before: ProcessUsage;
  readonly #timersBefore: number;

  private constructor(program: Program, inspector: Inspector, timersBefore: number) {
    this.program = program;
    this.#inspector = inspector;
    this.#timersBefore = timersBefore;
    this.#before = program.usage();
  }

  /** @param program started with INSPECTED, idle */
  static async over(program: Program): Promise<Watch> {
    const inspector = await Inspector.attach(program);
    return new Watch(program, inspector, (await inspector.collected()).timers);
  }

  /** Timers more than before the load. While it lasts they follow the tasks that are open. */
  async timersLeft(): Promise<number> {
    return (await this.#inspector.collected()).timers - this.#timersBefore;
  }

  /** @param askedCount tasks that somebody has asked for while a task of theirs may still be open */
  async sample(atMs: number, askedCount: number): Promise<void> {
    if (this.#taskFiles.length % SAMPLES_PER_COLLECTION === 0) {
      const { liveBytes, nativeBytes } = await this.#inspector.collected();
      this.#series.liveBytes.push({ atMs, value: liveBytes });
      this.#series.nativeBytes.push({ atMs, value: nativeBytes });
    }
    const { rssBytes, descriptors } = this.program.usage();
    const count = this.program.taskFileCount();
    this.#series.rssBytes.push({ atMs, value: rssBytes });
    this.#series.descriptors.push({ atMs, value: descriptors - count });
    this.#taskFiles.push({ count, countMax: askedCount * FILES_PER_TASK });
  }

  row(): Row {
    const { name } = this.program;
    const cores = ((this.program.usage().cpuSeconds - this.#before.cpuSeconds) * 1000) / (performance.now() - this.#startMs);
    const trends = Object.fromEntries(Object.entries(this.#series).map(([key, samples]) => [key, trendOf(late(samples))])) as Record<Quantity, Trend>;
    const lateFiles = late(this.#taskFiles);
    const half = Math.floor(lateFiles.length / 2);
    const taskFiles = {
      first: mean(lateFiles.slice(0, half)),
      second: mean(lateFiles.slice(half)),
      tooMany: lateFiles.filter(({ count, countMax }) => count > countMax).length,
    };
    const grows = Object.entries(GROWTH_MAX).filter(([key, allowed]) => !isFlat(trends[key as Quantity], allowed)).map(([key]) => key);
    if (taskFiles.tooMany > 0) grows.push("taskFiles");
    const { liveBytes, nativeBytes, rssBytes, descriptors } = trends;
    const text =
      `${name}: ${grows.length === 0 ? "flat" : `GROWS (${grows.join(", ")})`}; live ${mib(liveBytes)}; of malloc ${mib(nativeBytes)}; RSS ${mib(rssBytes)}; ` +
      `descriptors ${descriptors.first} → ${descriptors.last}; ` +
      `tasks' files ${taskFiles.first.toFixed(0)} and ${taskFiles.second.toFixed(0)} on average of each half, too many ${taskFiles.tooMany} times; ${cores.toFixed(3)} cores`;
    return { program: name, cores, ...trends, taskFiles, flat: grows.length === 0, text };
  }

  close(): void {
    this.#inspector.close();
  }
}

function late<T>(all: readonly T[]): readonly T[] {
  return all.slice(Math.floor(all.length * WARM_UP_SHARE));
}

function mean(files: readonly TaskFiles[]): number {
  return files.reduce((sum, { count }) => sum + count, 0) / files.length;
}

function mib({ first, last, perMinute }: Trend): string {
  const text = (bytes: number, digits: number): string => (bytes / 1024 ** 2).toFixed(digits);
  return `${text(first, 1)} → ${text(last, 1)} MiB, slope ${text(perMinute, 2)}/min`;
}
