/** What `bench/mirror` is asked to measure. */
import { parseArgs } from "node:util";

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

/** @throws Error for what cannot be meant */
export function parseOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: "string", default: "7" },
      megabytes: { type: "string", default: "500" },
      rate: { type: "string" },
      only: { type: "string", default: PARTS.join(",") },
      out: { type: "string" },
      summary: { type: "string" },
    },
  });
  const parts = values.only.split(",").map((name) => {
    const part = PARTS.find((known) => known === name);
    if (part === undefined) throw new Error(`--only takes ${PARTS.join(", ")}, not ${name}`);
    return part;
  });
  return {
    rounds: positive("rounds", values.rounds),
    imageBytes: positive("megabytes", values.megabytes) * 1_000_000,
    rate: values.rate === undefined ? undefined : positive("rate", values.rate) * 1_000_000,
    parts,
    out: values.out,
    summary: values.summary,
  };
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new Error(`--${name} takes a number above 0, not ${text}`);
  return value;
}
