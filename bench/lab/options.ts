import { type OptionValues, readOptions } from "../command-line.ts";
import { directSeconds, lowerBoundSeconds, type Links } from "./bound.ts";
import type { Racks } from "./network.ts";

export interface Options {
  readonly hosts: number;
  /** bit/s, the same in both directions. */
  readonly rate: number;
  readonly seedRate: number;
  readonly sizeBytes: number;
  readonly runs: number;
  readonly systems: readonly string[];
  readonly out: string | undefined;
  /** The first `slow.count` hosts have `slow.factor` of the uplink; their downlink is whole. */
  readonly slow: { readonly count: number; readonly factor: number };
  /** The hosts stand in so many racks, each behind a link of `rate`; 0: all on one switch. */
  readonly rackCount: number;
  /** The programs are told of the racks. */
  readonly labelled: boolean;
  /** What happens to the last host half-way (at T*\/2). */
  readonly fault: "none" | "kill" | "freeze";
  /** TCP congestion control in every namespace. */
  readonly congestion: string;
  /** Count the loading of dfget's program too. */
  readonly coldStart: boolean;
  readonly workDir: string;
  readonly keepLogs: boolean;
}

const FLAGS = {
  hosts: { type: "string", default: "16" },
  rate: { type: "string", default: "50mbit" },
  "seed-rate": { type: "string" },
  size: { type: "string", default: "50MiB" },
  runs: { type: "string", default: "3" },
  systems: { type: "string", default: "dragonfly,direct,curl,aria2,libtorrent" },
  "cold-start": { type: "boolean", default: false },
  out: { type: "string" },
  slow: { type: "string", default: "0x1" },
  racks: { type: "string" },
  unlabelled: { type: "boolean", default: false },
  "kill-one": { type: "boolean", default: false },
  "freeze-one": { type: "boolean", default: false },
  congestion: { type: "string", default: "cubic" },
  "work-dir": { type: "string", default: "/dev/shm" },
  "keep-logs": { type: "boolean", default: false },
} as const;

/** @param program see `readOptions` */
export function readLabOptions(program: string): Options {
  return readOptions(program, FLAGS, meaningOf);
}

function meaningOf(values: OptionValues<typeof FLAGS>): Options {
  if (values["kill-one"] && values["freeze-one"]) throw new Error("--kill-one and --freeze-one exclude each other");
  const slow = /^(\d+)x(0?\.\d+|1)$/.exec(values.slow);
  if (slow === null) throw new Error(`--slow ${values.slow}: expected COUNTxSHARE, such as 2x0.25`);
  const hosts = wholeNumber("--hosts", values.hosts, 200);
  const slowCount = Number(slow[1]);
  if (slowCount > hosts) throw new Error(`--slow ${values.slow}: there are only ${hosts} hosts`);
  const rackCount = values.racks === undefined ? 0 : wholeNumber("--racks", values.racks, 99);
  if (rackCount > 0 && hosts % rackCount !== 0) throw new Error(`--racks ${rackCount}: ${hosts} hosts cannot be shared out evenly`);
  return {
    hosts,
    rate: parseRate(values.rate),
    seedRate: parseRate(values["seed-rate"] ?? values.rate),
    sizeBytes: parseSize(values.size),
    runs: wholeNumber("--runs", values.runs, 1000),
    systems: values.systems.split(","),
    out: values.out,
    slow: { count: slowCount, factor: Number(slow[2]) },
    rackCount,
    labelled: !values.unlabelled,
    fault: values["kill-one"] ? "kill" : values["freeze-one"] ? "freeze" : "none",
    congestion: values.congestion,
    coldStart: values["cold-start"],
    workDir: values["work-dir"],
    keepLogs: values["keep-logs"],
  };
}

export function linksOf(options: Options): Links {
  const up = Array.from({ length: options.hosts }, (_, host) =>
    host < options.slow.count ? options.rate * options.slow.factor : options.rate,
  );
  return { seedUp: options.seedRate, up, down: up.map(() => options.rate), racks: racksOf(options) };
}

export function racksOf({ hosts, rackCount, rate }: Options): Racks | undefined {
  return rackCount === 0 ? undefined : { count: rackCount, rate, of: (host) => Math.floor((host * rackCount) / hosts) };
}

/** How long a run may take before it counts as failed. */
export function deadlineSeconds(options: Options): number {
  const links = linksOf(options);
  return 2 * directSeconds(options.sizeBytes, links) + lowerBoundSeconds(options.sizeBytes, links) + 30;
}

function parseRate(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(k|m|g)bit$/.exec(text);
  if (match === null) throw new Error(`rate ${text}: expected a number with kbit, mbit or gbit`);
  return Number(match[1]) * { k: 1e3, m: 1e6, g: 1e9 }[match[2] as "k" | "m" | "g"];
}

function parseSize(text: string): number {
  const match = /^(\d+)(K|M|G)iB$/.exec(text);
  if (match === null) throw new Error(`size ${text}: expected a whole number with KiB, MiB or GiB`);
  return Number(match[1]) * { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[match[2] as "K" | "M" | "G"];
}

function wholeNumber(flag: string, text: string, max: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > max) {
    throw new Error(`${flag} ${text}: expected a whole number from 1 to ${max}`);
  }
  return value;
}
