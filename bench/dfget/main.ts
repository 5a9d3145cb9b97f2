/**
 * What one download costs: a dfget whose file lies in its daemon, one that is a peer of its own, and the supernode that reads
 * the file from its origin meanwhile.
 *
 *   node bench/dfget/main.ts [--rounds 15] [--out FILE.json]
 *
 * nginx is the origin, all on loopback and in memory, the programs as they ship.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readOptions } from "../command-line.ts";
import { startNginx } from "../dataplane/nginx.ts";
import { freePort } from "../demo/programs.ts";
import { shippedBin } from "../lab/package.ts";
import { describeMachine, provenance } from "../provenance.ts";
import { usageOf } from "../process-usage.ts";

const MIB = 1024 ** 2;
const READY_TRIES = 400;
const options = readOptions(import.meta.filename, { rounds: { type: "string", default: "15" }, out: { type: "string" } });
const started = provenance();
const rounds = Number(options.rounds);

interface Cost {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly supernodeCpuMs: number;
}

const directory = mkdtempSync("/dev/shm/dragonfly-dfget-");
const bin = shippedBin();
const env = { ...process.env, XDG_CACHE_HOME: directory };
const services: ReturnType<typeof spawn>[] = [];

function startService(name: "supernode" | "dfdaemon", args: readonly string[]): number {
  const child = spawn(join(bin, name), [...args, "--data-dir", join(directory, name), "--reserved-free", "0"], { env, stdio: "ignore" });
  services.push(child);
  return child.pid as number;
}

async function untilReady(address: string): Promise<void> {
  for (let tries = 0; tries < READY_TRIES; tries++) {
    const answer = await fetch(`http://${address}/readyz`).catch(() => undefined);
    await answer?.body?.cancel();
    if (answer?.status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`nobody is ready at ${address}`);
}

/** CPU of all programs started here that have ended; proc(5), fields 16 and 17, in ticks of 10 ms. */
function endedCpuMs(): number {
  const fields = readFileSync("/proc/self/stat", "latin1").split(") ")[1]?.split(" ").map(Number) ?? [];
  return ((fields[13] ?? 0) + (fields[14] ?? 0)) * 10;
}

function cpuMsOf(pid: number): number {
  return usageOf(pid).cpuSeconds * 1000;
}

async function dfget(supernodePid: number, args: readonly string[]): Promise<Cost> {
  const before = { atMs: performance.now(), cpuMs: endedCpuMs(), supernodeCpuMs: cpuMsOf(supernodePid) };
  const child = spawn(join(bin, "dfget"), [...args, "-O", join(directory, "out"), "--force", "--quiet", "--json"], { env, stdio: ["ignore", "ignore", "inherit"] });
  const code = await new Promise((resolve) => child.once("close", resolve));
  if (code !== 0) throw new Error(`dfget ended with ${String(code)}`);
  return { wallMs: performance.now() - before.atMs, cpuMs: endedCpuMs() - before.cpuMs, supernodeCpuMs: cpuMsOf(supernodePid) - before.supernodeCpuMs };
}

function summary(costs: readonly Cost[]): Record<keyof Cost, string> {
  const of = (key: keyof Cost): string => {
    const sorted = costs.map((cost) => Math.round(cost[key])).toSorted((a, b) => a - b);
    return `${sorted[Math.floor(sorted.length / 2)]} (${sorted[0]} – ${sorted.at(-1)})`;
  };
  return { wallMs: of("wallMs"), cpuMs: of("cpuMs"), supernodeCpuMs: of("supernodeCpuMs") };
}

const rows: Record<string, Record<keyof Cost, string>> = {};
let peakMiB = 0;
try {
  writeFileSync(join(directory, "small"), randomBytes(50 * MIB));
  writeFileSync(join(directory, "large"), Buffer.concat(Array.from({ length: 16 }, () => randomBytes(64 * MIB))));
  const nginx = await startNginx(directory, await freePort());
  try {
    const origin = `http://127.0.0.1:${nginx.port}`;
    const [supernode, mirror, links] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
    const [token, socket] = [join(directory, "supernode/join-token"), join(directory, "d.sock")];
    const supernodePid = startService("supernode", ["--listen", supernode]);
    await untilReady(supernode);
    const site = ["--supernode", supernode, "--join-token-file", token];
    startService("dfdaemon", ["--listen", mirror, "--peer-listen", links, "--advertise", "127.0.0.1", "--socket", socket, ...site]);
    await untilReady(mirror);
    const cases: Record<string, () => Promise<Cost>> = {
      "50 MiB that lie in its daemon": () => dfget(supernodePid, [`${origin}/small`, "--socket", socket]),
      "50 MiB as a peer of its own, new to the supernode": () => dfget(supernodePid, [`${origin}/small?${Math.random()}`, "--socket", "/none", ...site]),
      "50 MiB as a peer of its own, from the supernode's cache": () => dfget(supernodePid, [`${origin}/small`, "--socket", "/none", ...site]),
    };
    const costs = Object.keys(cases).map((): Cost[] => []);
    // In turns; nothing is compiled at the first two.
    for (let round = -2; round < rounds; round++) {
      for (const [at, run] of Object.values(cases).entries()) {
        const cost = await run();
        if (round >= 0) costs[at]?.push(cost);
      }
    }
    for (const [at, name] of Object.keys(cases).entries()) rows[name] = summary(costs[at] as Cost[]);
    const large: Cost[] = [];
    for (let round = 0; round < 3; round++) large.push(await dfget(supernodePid, [`${origin}/large?${round}`, "--socket", "/none", ...site]));
    rows["1 GiB as a peer of its own, new to the supernode"] = summary(large);
    peakMiB = Math.round(Number(/VmHWM:\s*(\d+)/.exec(readFileSync(`/proc/${supernodePid}/status`, "latin1"))?.[1]) / 1024);
  } finally {
    await nginx.close();
  }
} finally {
  await Promise.all(services.map((child) => new Promise((resolve) => (child.once("close", resolve), child.kill()))));
  rmSync(directory, { recursive: true, force: true });
}
console.log(`node bench/dfget/main.ts --rounds ${rounds}; ${describeMachine(started.machine)}; median (least – most), ms`);
for (const [name, { wallMs, cpuMs: own, supernodeCpuMs }] of Object.entries(rows)) {
  console.log(`${name.padEnd(58)} wall ${wallMs.padEnd(20)} dfget's CPU ${own.padEnd(16)} supernode's CPU ${supernodeCpuMs}`);
}
console.log(`supernode's peak RSS ${peakMiB} MiB`);
if (options.out !== undefined) writeFileSync(options.out, `${JSON.stringify({ ...started, rounds, rows, supernodePeakMiB: peakMiB }, undefined, 2)}\n`);
