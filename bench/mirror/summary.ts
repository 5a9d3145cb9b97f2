/** Medians over the rounds of any number of runs, by the rate of the registry's link. */
import { readFileSync } from "node:fs";

import type { Pull } from "./rig.ts";

/** A line of the results: one round of pulls. */
export interface Round {
  /** Of the registry's link, bit/s; null: not shaped. */
  readonly rate: number | null;
  readonly imageBytes: number;
  readonly direct: Pull;
  readonly cold: Pull;
  readonly warm: Pull;
}

const KINDS = ["direct", "cold", "warm"] as const;

/** One line for each rate and size of image. */
export function summaryOf(rounds: readonly Round[]): readonly object[] {
  const groups = Map.groupBy(rounds, ({ rate, imageBytes }) => `${rate ?? "not shaped"} ${imageBytes}`);
  return [...groups.values()].map((of) => {
    const seconds = Object.fromEntries(KINDS.map((kind) => [kind, spread(of.map((round) => round[kind].seconds))]));
    const cpu = Object.fromEntries(KINDS.map((kind) => [kind, medianCpu(of.map((round) => round[kind]))]));
    return {
      rate: of[0]?.rate,
      imageBytes: of[0]?.imageBytes,
      rounds: of.length,
      coldToDirect: ratio(of, "cold"),
      warmToDirect: ratio(of, "warm"),
      seconds,
      cpu,
      foreignCores: spread(of.flatMap((round) => KINDS.map((kind) => round[kind].foreignCores))),
    };
  });
}

/** The rounds in a file of results. */
export function readRounds(file: string): readonly Round[] {
  const lines = readFileSync(file, "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line) as Partial<Round>);
  return lines.filter((line): line is Round => line.direct !== undefined && line.cold !== undefined && line.warm !== undefined);
}

export function median(of: readonly number[]): number {
  const sorted = of.toSorted((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return ((low ?? Number.NaN) + (high ?? Number.NaN)) / 2;
}

/** Of the medians, and of each round by itself: what the machine does to a round it does to all of it. */
function ratio(of: readonly Round[], kind: "cold" | "warm"): { readonly ofMedians: number; readonly medianOfRatios: number } {
  const seconds = (which: (typeof KINDS)[number]): number[] => of.map((round) => round[which].seconds);
  return {
    ofMedians: rounded(median(seconds(kind)) / median(seconds("direct"))),
    medianOfRatios: rounded(median(of.map((round) => round[kind].seconds / round.direct.seconds))),
  };
}

function medianCpu(of: readonly Pull[]): Record<string, number> {
  const programs = Object.keys(of[0]?.cpu ?? {});
  return Object.fromEntries(programs.map((program) => [program, rounded(median(of.map(({ cpu }) => cpu[program] ?? 0)))]));
}

function spread(of: readonly number[]): { readonly median: number; readonly min: number; readonly max: number } {
  return { median: rounded(median(of)), min: Math.min(...of), max: Math.max(...of) };
}

function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}
