/**
 * What TLS costs a link: one host takes a file from one seed over loopback, verifies and stores it; both programs' CPU.
 *
 *   node bench/tls/main.ts [--megabytes 512] [--rounds 5] [--out FILE.jsonl]
 */
import { type ChildProcess, fork } from "node:child_process";
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { generateJoinToken } from "../../src/peer/membership/credentials.ts";
import { readOptions } from "../command-line.ts";
import { provenance } from "../provenance.ts";
import type { Offer, Taken } from "./end.ts";

const MODES = {
  sendfile: {},
  portable: { DRAGONFLY_PORTABLE: "1" },
  tls: { BENCH_TLS: "1" },
} as const;

const values = readOptions(import.meta.filename, {
  megabytes: { type: "string", default: "512" },
  rounds: { type: "string", default: "5" },
  out: { type: "string" },
});
const started = provenance();
const lengthBytes = Number(values.megabytes) * 1024 * 1024;
const results: { readonly mode: string; readonly gigabytesPerSecond: number; readonly cpuSecondsPerGigabyte: number; readonly rssMib: number }[] = [];
for (let round = 0; round < Number(values.rounds); round++) {
  for (const mode of Object.keys(MODES) as (keyof typeof MODES)[]) results.push({ mode, ...(await measure(MODES[mode])) });
}
for (const mode of Object.keys(MODES)) {
  const of = (key: "gigabytesPerSecond" | "cpuSecondsPerGigabyte" | "rssMib"): string => {
    const sorted = results.filter((each) => each.mode === mode).map((each) => each[key]).sort((a, b) => a - b);
    const shown = (value: number | undefined): string => (value ?? Number.NaN).toFixed(2);
    return `${shown(sorted[sorted.length >> 1])} (${shown(sorted[0])} – ${shown(sorted.at(-1))})`;
  };
  console.log(`${mode.padEnd(9)} ${of("gigabytesPerSecond")} GB/s  ${of("cpuSecondsPerGigabyte")} CPU s/GB  host's RSS ${of("rssMib")} MiB`);
}
if (values.out !== undefined) appendFileSync(values.out, `${JSON.stringify({ ...started, lengthBytes, results })}\n`);

async function measure(environment: Readonly<Record<string, string>>): Promise<Omit<(typeof results)[number], "mode">> {
  const folder = mkdtempSync("/dev/shm/dragonfly-tls-");
  const token = generateJoinToken();
  const start = (role: string, hostId = ""): ChildProcess =>
    fork(join(import.meta.dirname, "end.ts"), [role, folder, token, String(lengthBytes), hostId], { env: { ...process.env, ...environment } });
  const host = start("host");
  const hostId = await told<string>(host);
  const seed = start("seed", hostId);
  try {
    const offer = await told<Offer>(seed);
    const seedCpu = async (): Promise<number> => (seed.send("cpu"), await told<number>(seed));
    const before = await seedCpu();
    host.send(offer);
    const taken = await told<Taken>(host);
    const cpu = taken.cpuSeconds + (await seedCpu()) - before;
    return { gigabytesPerSecond: lengthBytes / 1e9 / taken.seconds, cpuSecondsPerGigabyte: cpu / (lengthBytes / 1e9), rssMib: taken.rssBytes / 1024 / 1024 };
  } finally {
    for (const end of [host, seed]) {
      const ended = new Promise((resolve) => end.once("exit", resolve));
      end.disconnect();
      await ended;
    }
    rmSync(folder, { recursive: true, force: true });
  }
}

function told<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const onExit = (code: number | null): void => reject(new Error(`an end ended with ${code}`));
    child.once("exit", onExit);
    child.once("message", (message) => {
      child.off("exit", onExit);
      resolve(message as T);
    });
  });
}
