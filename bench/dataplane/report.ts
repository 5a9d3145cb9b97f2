/** What the data plane's bench says of its runs: medians, a table, and how they stand beside their goals. */
import type { Provenance } from "../provenance.ts";

export interface Figures {
  readonly gbPerSecond: number;
  /** Of the serving side, and of both. */
  readonly serverCpuPerGb: number;
  readonly cpuPerGb: number;
  readonly rssMiB?: number;
  readonly loopP99Ms?: number;
}

/** All runs by their row's name. */
export type Rows = Record<string, Figures[]>;

/** What is filed. */
export interface Result extends Provenance {
  readonly runs: number;
  readonly medians: Record<string, Figures>;
  /** When each row was measured, and of which tree: those of other parts are kept from one run to the next. */
  readonly measured: Record<string, Pick<Provenance, "date" | "tree">>;
  readonly all: Rows;
}

/** @param filed what is in the file so far; once it did not say of which tree a row is */
export function resultOf(started: Provenance, runs: number, rows: Rows, filed?: Partial<Result>): Result {
  const all = { ...filed?.all, ...rows };
  const measured = Object.keys(all).map((name) => {
    const { date, tree } = name in rows ? started : (filed?.measured?.[name] ?? filed ?? started);
    return [name, { date, tree }];
  });
  return { ...started, runs, medians: mediansOf(all), measured: Object.fromEntries(measured) as Result["measured"], all };
}

export const TABLE_HEAD = `${"".padEnd(32)}  GB/s  CPU-s/GB server, both  RSS MiB  loop p99 ms`;

export function mediansOf(rows: Rows): Record<string, Figures> {
  return Object.fromEntries(Object.entries(rows).map(([name, all]) => [name, median(all)]));
}

function median(all: readonly Figures[]): Figures {
  const of = (key: keyof Figures): number => {
    const sorted = all.map((each) => each[key] ?? Number.NaN).toSorted((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)] as number;
  };
  return { gbPerSecond: of("gbPerSecond"), serverCpuPerGb: of("serverCpuPerGb"), cpuPerGb: of("cpuPerGb"), rssMiB: of("rssMiB"), loopP99Ms: of("loopP99Ms") };
}

export function tableRow(name: string, figures: Figures): string {
  const { gbPerSecond, serverCpuPerGb, cpuPerGb, rssMiB = Number.NaN, loopP99Ms = Number.NaN } = figures;
  const optional = (value: number, digits: number): string => (Number.isNaN(value) ? "-" : value.toFixed(digits));
  return [name.padEnd(32), gbPerSecond.toFixed(2), serverCpuPerGb.toFixed(3), cpuPerGb.toFixed(3), optional(rssMiB, 0), optional(loopP99Ms, 1)].join("  ");
}

/** Ours, theirs; what of them is compared, and what is to come of it. */
const COMPARISONS = [
  ["serve: link", "serve: nginx", "gbPerSecond", ">=", 0.9],
  ["serve: link", "serve: nginx", "serverCpuPerGb", "<=", 1.5],
  ["receive: seed, peer", "receive: nginx, curl -o", "gbPerSecond", ">=", 2.5],
  ["receive: seed, peer", "receive: nginx, curl -o", "cpuPerGb", "<=", 1],
  ["serve TLS: link", "serve TLS: nginx", "gbPerSecond", ">=", 0.9],
  ["serve TLS: link", "serve TLS: nginx", "serverCpuPerGb", "<=", 1.5],
  ["receive TLS: seed, peer", "receive TLS: nginx, curl -o", "gbPerSecond", ">=", 2.5],
  ["receive TLS: seed, peer", "receive TLS: nginx, curl -o", "cpuPerGb", "<=", 1],
] as const;
const RSS_MIB_MAX = 150;
const LOOP_P99_MS_MAX = 20;

/** One line per goal whose rows have been measured. */
export function goalLines(medians: Readonly<Record<string, Figures>>): string[] {
  const lines: string[] = [];
  const judge = (name: string, value: number, how: ">=" | "<=", bound: number): void => {
    const isMet = how === ">=" ? value >= bound : value <= bound;
    lines.push(`${isMet ? "met   " : "missed"}  ${name} ${how} ${bound}: ${value.toFixed(2)}`);
  };
  for (const [ours, theirs, key, how, bound] of COMPARISONS) {
    const [our, their] = [medians[ours], medians[theirs]];
    if (our !== undefined && their !== undefined) judge(`${ours}: ${key}, × ${theirs}`, our[key] / their[key], how, bound);
  }
  const most = (key: "rssMiB" | "loopP99Ms"): number => Math.max(0, ...Object.values(medians).map((figures) => figures[key] ?? 0).filter((value) => !Number.isNaN(value)));
  judge("RSS MiB", most("rssMiB"), "<=", RSS_MIB_MAX);
  judge("loop p99 ms", most("loopP99Ms"), "<=", LOOP_P99_MS_MAX);
  return lines;
}
