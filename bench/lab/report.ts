/** The table for people and the JSON lines for files. */
import { appendFileSync } from "node:fs";
import type { Provenance } from "../provenance.ts";
import { directSeconds } from "./bound.ts";
import type { Measurement } from "./measure.ts";
import { linksOf, type Options } from "./options.ts";

export interface Row {
  readonly system: string;
  readonly run: number;
  readonly outcome: Measurement | { readonly error: string };
}

export function describe(row: Row): string {
  const { outcome } = row;
  if ("error" in outcome) return `${row.system} run ${row.run}: FAILED: ${outcome.error}`;
  const first = Math.min(...outcome.perPeerSeconds.filter((seconds) => seconds !== null));
  return (
    `${row.system} run ${row.run}: first ${first.toFixed(2)} s, last ${outcome.lastSeconds.toFixed(2)} s, ` +
    `efficiency ${(outcome.efficiency * 100).toFixed(1)} %, seed ${outcome.seedCopies.toFixed(2)} F, origin ${outcome.originCopies.toFixed(2)} F, ` +
    (outcome.rackCopies.length > 0 ? `into racks ${outcome.rackCopies.map((copies) => copies.toFixed(2)).join(", ")} F, ` : "") +
    `CPU ${outcome.cpuPerGB.toFixed(2)} s/GB, load before ${outcome.loadBefore.toFixed(2)}, others' cores ${outcome.foreignCores.toFixed(2)}`
  );
}

/** @param lab when the lab began; the row has a date of its own */
export function append(file: string, row: Row, options: Options, lab: Provenance): void {
  const line = {
    date: new Date().toISOString(),
    tree: lab.tree,
    command: `node bench/lab/main.ts ${process.argv.slice(2).join(" ")}`.trim(),
    machine: lab.machine,
    hosts: options.hosts,
    rate: options.rate,
    seedRate: options.seedRate,
    sizeBytes: options.sizeBytes,
    slow: options.slow,
    rackCount: options.rackCount,
    labelled: options.labelled,
    fault: options.fault,
    system: row.system,
    run: row.run,
    ...row.outcome,
  };
  appendFileSync(file, `${JSON.stringify(line)}\n`);
}

/** Medians, with the range of the last peer, as a Markdown table. */
export function table(rows: readonly Row[], options: Options, tStar: number): string {
  const lines = [
    "| system | runs | last peer | × T* | efficiency | seed sends | origin sends | CPU s/GB | RSS max | others' cores |",
    "|---|---|---|---|---|---|---|---|---|---|",
  ];
  if (options.systems.includes("direct")) {
    const seconds = directSeconds(options.sizeBytes, linksOf(options));
    lines.push(`| direct (arithmetic) | – | ${seconds.toFixed(1)} s | ${(seconds / tStar).toFixed(2)} | ${((tStar / seconds) * 100).toFixed(1)} % | ${options.hosts} F | | | | |`);
  }
  for (const system of new Set(rows.map((row) => row.system))) {
    const good = rows.filter((row) => row.system === system).map((row) => row.outcome).filter((outcome) => "lastSeconds" in outcome);
    const failed = rows.filter((row) => row.system === system).length - good.length;
    const of = (pick: (outcome: Measurement) => number): number => median(good.map(pick));
    const last = good.map(({ lastSeconds }) => lastSeconds);
    lines.push(
      good.length === 0
        ? `| ${system} | ${failed} failed | | | | | | | | |`
        : `| ${system} | ${good.length}${failed > 0 ? `, ${failed} failed` : ""} | ${range(last)} s | ${(of((o) => o.lastSeconds) / tStar).toFixed(2)} | ` +
          `${(of((o) => o.efficiency) * 100).toFixed(1)} % | ${of((o) => o.seedCopies).toFixed(2)} F | ${of((o) => o.originCopies).toFixed(2)} F | ` +
          `${of((o) => o.cpuPerGB).toFixed(2)} | ${of((o) => o.rssMaxMiB).toFixed(0)} MiB | ${of((o) => o.foreignCores).toFixed(2)} |`,
    );
    if (options.rackCount > 0 && good.length > 0) lines.push(`| ${system}, into the racks | ${good.length} | ${range(good.flatMap((o) => o.rackCopies))} F | | | | | | | |`);
    if (options.slow.count > 0 && good.length > 0) {
      lines.push(`| ${system}, hosts with a whole uplink | ${good.length} | ${range(good.map((o) => o.lastWholeSeconds))} s | | | | | | | |`);
    }
  }
  return lines.join("\n");
}

function range(values: readonly number[]): string {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return values.length === 1 ? low.toFixed(2) : `${median(values).toFixed(2)} (${low.toFixed(2)} – ${high.toFixed(2)})`;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
