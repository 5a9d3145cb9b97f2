/** What `bench/mirror` is asked to measure. */
import { readOptions } from "../command-line.ts";

export const PARTS = ["pulls", "first-byte", "memory"] as const;
export type Part = (typeof PARTS)[number];

export interface Options {
  readonly rounds: number;
  readonly imageBytes: number;
  /** Of the registry's link, bit/s; undefined: as fast as the machine. */
  readonly rate: number | undefined;
  readonly parts: readonly Part[];
  readonly out: string | undefined;
  /** Sum up this file instead of measuring. */
  readonly summary: string | undefined;
}

/** @param program see `readOptions` */
export function readMirrorOptions(program: string): Options {
  const options = {
    rounds: { type: "string", default: "7" },
    megabytes: { type: "string", default: "500" },
    rate: { type: "string" },
    only: { type: "string", default: PARTS.join(",") },
    out: { type: "string" },
    summary: { type: "string" },
  } as const;
  return readOptions(program, options, ({ rounds, megabytes, rate, only, out, summary }) => ({
    rounds: positive("rounds", rounds),
    imageBytes: positive("megabytes", megabytes) * 1_000_000,
    rate: rate === undefined ? undefined : positive("rate", rate) * 1_000_000,
    parts: only.split(",").map(partOf),
    out,
    summary,
  }));
}

function partOf(name: string): Part {
  const part = PARTS.find((known) => known === name);
  if (part === undefined) throw new Error(`--only takes ${PARTS.join(", ")}, not ${name}`);
  return part;
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new Error(`--${name} takes a number above 0, not ${text}`);
  return value;
}
