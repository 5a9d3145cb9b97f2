/**
 * node sim/main.ts SEED               one drawn workload with faults: its options, then its figures
 * node sim/main.ts --seeds A-B        each of these seeds; prints those that fail, with their options; exit code 1 then
 * node sim/main.ts --options JSON     the run that these options, as printed, describe
 * node sim/main.ts --peers 16 …       a plain workload; each further option changes one thing
 *                  [--pieces N] [--piece-kib N] [--set JSON] [--swarm JSON] [--scheduler JSON]
 * node sim/main.ts --perf [NAME …]    these performance scenarios (without names: the small ones, with --big: the big
 *                                     ones) beside baseline.json; the same --set, --swarm and --scheduler change them
 *                  --update           writes their figures there
 *                  --repeat N         with N seeds, and only how the efficiency came out: one seed is luck by 1 to 2 points
 *                  --uplinks          says twice a second what the uplinks are at
 *                  --brain asks       with receivers that ask (asking-swarm.ts) in place of the shipping brain
 */
import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { AskingSwarm } from "./asking-swarm.ts";
import type { RunParts } from "./assemble.ts";
import { describeOptions, drawnOptions, parseChanges, parseOptions, plainOptions, type SimOptions } from "./options.ts";
import { describeUplinks } from "./idle-uplinks.ts";
import { type Baseline, differences, figuresOf, SCENARIOS } from "./performance.ts";
import { describeReport, type SimReport } from "./report.ts";
import { simulate } from "./simulation.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seeds: { type: "string" },
    perf: { type: "boolean", default: false },
    big: { type: "boolean", default: false },
    repeat: { type: "string" },
    brain: { type: "string" },
    uplinks: { type: "boolean", default: false },
    update: { type: "boolean", default: false },
    options: { type: "string" },
    peers: { type: "string" },
    pieces: { type: "string", default: "200" },
    "piece-kib": { type: "string", default: "256" },
    set: { type: "string", default: "{}" },
    swarm: { type: "string", default: "{}" },
    scheduler: { type: "string", default: "{}" },
  },
});

const seed = Number(positionals[0] ?? 1);
const parts: RunParts = {
  ...(values.brain === "asks" ? { newBrain: (config, brainSeed) => new AskingSwarm(config, brainSeed) } : {}),
  ...(values.uplinks ? { look: (nowMs, peers) => console.log(describeUplinks(nowMs, peers)) } : {}),
};
if (values.seeds !== undefined) runSeeds(values.seeds);
else if (values.perf) runScenarios(positionals);
else if (values.options !== undefined) run(parseOptions(values.options));
else if (values.peers !== undefined) run(givenOptions(Number(values.peers)));
else run(drawnOptions(seed));

function givenOptions(peerCount: number): SimOptions {
  const tasks = [{ pieceCount: Number(values.pieces), pieceLengthBytes: Number(values["piece-kib"]) * 1024, priority: "normal" as const }];
  const plain = plainOptions(seed, { peerCount, tasks });
  return changed(plain);
}

function changed(options: SimOptions): SimOptions {
  return {
    ...options,
    ...parseChanges(values.set, options),
    swarm: { ...options.swarm, ...parseChanges(values.swarm, options.swarm) },
    scheduler: { ...options.scheduler, ...parseChanges(values.scheduler, options.scheduler) },
  };
}

function runScenarios(names: readonly string[]): void {
  const file = new URL("baseline.json", import.meta.url);
  const baseline: Record<string, Baseline[string]> = { ...(JSON.parse(readFileSync(file, "utf8")) as Baseline) };
  for (const { name, options, big } of SCENARIOS) {
    if (names.length === 0 ? big !== values.big : !names.includes(name)) continue;
    if (values.repeat !== undefined) {
      repeat(name, changed(options), Number(values.repeat));
      continue;
    }
    const startedMs = performance.now();
    const report = simulate(changed(options), parts);
    console.log(`${name}: ${describeReport(report)}, ran ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
    const figures = figuresOf(report);
    for (const line of differences(baseline[name], figures)) console.log(`  ${line}`);
    baseline[name] = figures;
    const known = SCENARIOS.filter((scenario) => scenario.name in baseline).map((scenario) => [scenario.name, baseline[scenario.name]]);
    if (values.update) writeFileSync(file, `${JSON.stringify(Object.fromEntries(known), undefined, 2)}\n`);
  }
}

function repeat(name: string, options: SimOptions, count: number): void {
  const reports = Array.from({ length: count }, (_, i) => simulate({ ...options, seed: options.seed + i }, parts));
  const mean = (of: (report: SimReport) => number): number => reports.reduce((sum, report) => sum + of(report), 0) / count;
  const percents = reports.map((report) => (report.efficiency * 100).toFixed(1));
  console.log(
    `${name} ${values.set} ${values.swarm} ${values.scheduler} ${values.brain ?? ""}: efficiency ${(mean((report) => report.efficiency) * 100).toFixed(1)} % (${percents.join(" ")}), seed sent ${mean((report) => report.seedCopies).toFixed(2)}, ${mean((report) => report.wakeUpsPerPiece).toFixed(1)} wake-ups per piece, own bound × ${mean((report) => report.ownFactors[report.ownFactors.length >> 1] ?? 0).toFixed(3)} p50, × ${mean((report) => report.ownFactors.at(-1) ?? 0).toFixed(3)} max, late ${mean((report) => report.late).toFixed(0)}, doubled ${mean((report) => report.doubled).toFixed(0)}, wasted ${(mean((report) => report.wastedShare) * 100).toFixed(2)} %`,
  );
}

function run(options: SimOptions): void {
  console.log(describeOptions(options));
  const startedMs = performance.now();
  try {
    console.log(`  ${describeReport(simulate(options))}, ran ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
  } catch (error) {
    process.exitCode = 1;
    console.log(`  FAILED: ${(error as Error).stack ?? String(error)}`);
  }
}

function runSeeds(range: string): void {
  const [from = 1, to = from] = range.split("-").map(Number);
  let failed = 0;
  const startedMs = performance.now();
  for (let each = from; each <= to; each++) {
    try {
      simulate(drawnOptions(each));
    } catch (error) {
      failed++;
      process.exitCode = 1;
      console.log(`seed ${each}: ${describeOptions(drawnOptions(each))}\n  FAILED: ${(error as Error).message}`);
    }
  }
  console.log(`${to - from + 1} seeds, ${failed} failed, ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
}
