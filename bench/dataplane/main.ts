/**
 * The data plane beside nginx and curl, on loopback: `node bench/dataplane/main.ts [--runs 5] [--out FILE]`.
 *
 * Needs nginx and curl. Runs of the two sides alternate, medians are told. Both are given the host's congestion control.
 */
import { type ChildProcess, execFileSync, fork, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { cpus, freemem, release, tmpdir } from "node:os";
import { join } from "node:path";
import { randomFillSync } from "node:crypto";
import { parseArgs } from "node:util";
import { startNginx } from "./nginx.ts";
import type { RoleUse } from "./role.ts";

const GB = 1024 ** 3 / 1e9;
const CONNECTIONS = 8;
const NGINX_PORT = 48_317;
const TOUCH_GIB_MAX = 12;

const { values: options } = parseArgs({ options: { runs: { type: "string", default: "5" }, out: { type: "string" } } });
const runs = Number(options.runs);
const directory = mkdtempSync(join(tmpdir(), "dragonfly-dataplane-"));
const file = join(directory, "file");
const children = new Set<ChildProcess>();

interface Figures {
  readonly gbPerSecond: number;
  /** Of the serving side, and of both. */
  readonly serverCpuPerGb: number;
  readonly cpuPerGb: number;
  readonly rssMiB?: number;
  readonly loopP99Ms?: number;
}

function start(role: string, ...values: string[]): ChildProcess {
  // As packaged: compiled before, so that no run pays for types being stripped.
  const env = { ...process.env, MALLOC_ARENA_MAX: "2", NODE_COMPILE_CACHE: join(directory, "compiled") };
  const child = fork(new URL("./role.ts", import.meta.url), [role, ...values], { env, execArgv: ["--max-semi-space-size=16"] });
  children.add(child);
  return child;
}

async function heard<T>(child: ChildProcess): Promise<T> {
  const [message] = (await once(child, "message")) as [T];
  return message;
}

function stop(child: ChildProcess): void {
  children.delete(child);
  child.kill("SIGKILL");
}

async function used(child: ChildProcess): Promise<RoleUse> {
  child.send("use");
  return await heard(child);
}

async function drained(port: number, hello: string): Promise<RoleUse & { seconds: number }> {
  const child = start("drain", String(port), hello, String(CONNECTIONS));
  const use = await heard<RoleUse & { seconds: number }>(child);
  stop(child);
  return use;
}

async function serveByNginx(nginx: Awaited<ReturnType<typeof startNginx>>): Promise<Figures> {
  const before = nginx.cpuSeconds();
  const { seconds, cpuSeconds } = await drained(nginx.port, "GET /file HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
  const cpu = nginx.cpuSeconds() - before;
  const moved = GB * CONNECTIONS;
  return { gbPerSecond: moved / seconds, serverCpuPerGb: cpu / moved, cpuPerGb: (cpu + cpuSeconds) / moved };
}

async function serveByLink(server: ChildProcess, port: number): Promise<Figures> {
  server.send("begin");
  const { seconds, cpuSeconds } = await drained(port, "x");
  const { cpuSeconds: cpu, rssMiB, loopP99Ms } = await used(server);
  const moved = GB * CONNECTIONS;
  return { gbPerSecond: moved / seconds, serverCpuPerGb: cpu / moved, cpuPerGb: (cpu + cpuSeconds) / moved, rssMiB, loopP99Ms };
}

function receiveByCurl(nginx: Awaited<ReturnType<typeof startNginx>>): Figures {
  const before = nginx.cpuSeconds();
  const command = `TIMEFORMAT='%R %U %S'; time curl -s -o ${directory}/curl.out http://127.0.0.1:${nginx.port}/file`;
  const { stderr } = spawnSync("bash", ["-c", command], { encoding: "utf8" });
  const [seconds = 0, user = 0, system = 0] = stderr.trim().split(/\s+/).map(Number);
  rmSync(join(directory, "curl.out"));
  const cpu = nginx.cpuSeconds() - before;
  return { gbPerSecond: GB / seconds, serverCpuPerGb: cpu / GB, cpuPerGb: (cpu + user + system) / GB };
}

async function receiveByPeer(seed: ChildProcess, invitation: object): Promise<Figures> {
  const cache = join(directory, "peer");
  seed.send("begin");
  const child = start("peer", cache, JSON.stringify(invitation));
  const { seconds, cpuSeconds, rssMiB, loopP99Ms } = await heard<RoleUse & { seconds: number }>(child);
  const server = await used(seed);
  stop(child);
  rmSync(cache, { recursive: true });
  return {
    gbPerSecond: GB / seconds, serverCpuPerGb: server.cpuSeconds / GB, cpuPerGb: (server.cpuSeconds + cpuSeconds) / GB,
    rssMiB: Math.max(rssMiB, server.rssMiB), loopP99Ms: Math.max(loopP99Ms, server.loopP99Ms),
  };
}

function median(all: readonly Figures[]): Figures {
  const of = (key: keyof Figures): number => {
    const sorted = all.map((each) => each[key] ?? Number.NaN).toSorted((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)] as number;
  };
  return { gbPerSecond: of("gbPerSecond"), serverCpuPerGb: of("serverCpuPerGb"), cpuPerGb: of("cpuPerGb"), rssMiB: of("rssMiB"), loopP99Ms: of("loopP99Ms") };
}

function row(name: string, figures: Figures): string {
  const { gbPerSecond, serverCpuPerGb, cpuPerGb, rssMiB = Number.NaN, loopP99Ms = Number.NaN } = figures;
  const optional = (value: number, digits: number): string => (Number.isNaN(value) ? "-" : value.toFixed(digits));
  return [name.padEnd(30), gbPerSecond.toFixed(2), serverCpuPerGb.toFixed(3), cpuPerGb.toFixed(3), optional(rssMiB, 0), optional(loopP99Ms, 1)].join("  ");
}

/**
 * A virtual machine's memory is slow at its first touch (ten times): what is free is touched before, or the side that happens to
 * get fresh pages loses.
 */
function touchMemory(): void {
  const freeGiB = Math.min(TOUCH_GIB_MAX, Math.floor(freemem() / 1024 ** 3) - 2);
  const code = `const kept = []; for (let i = 0; i < ${freeGiB}; i++) kept.push(Buffer.alloc(1024 ** 3, 1));`;
  if (freeGiB > 0) spawnSync(process.execPath, ["-e", code]);
}

const results: Record<string, Figures[]> = { "serve: nginx": [], "serve: link": [], "receive: nginx, curl -o": [], "receive: seed, peer": [] };
try {
  const fd = openSync(file, "w");
  for (let at = 0; at < 1024; at++) writeSync(fd, randomFillSync(Buffer.allocUnsafe(1024 * 1024)));
  closeSync(fd);
  touchMemory();
  const nginx = await startNginx(directory, NGINX_PORT);
  try {
    const sender = start("sender", file);
    const { port } = await heard<{ port: number }>(sender);
    for (let run = 0; run < runs; run++) {
      results["serve: nginx"]?.push(await serveByNginx(nginx));
      results["serve: link"]?.push(await serveByLink(sender, port));
    }
    stop(sender);
    const seed = start("seed", join(directory, "seed"), file);
    const invitation = await heard<object>(seed);
    for (let run = 0; run < runs; run++) {
      results["receive: nginx, curl -o"]?.push(receiveByCurl(nginx));
      results["receive: seed, peer"]?.push(await receiveByPeer(seed, invitation));
    }
  } finally {
    nginx.close();
  }
} finally {
  for (const child of children) child.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true });
}
const congestion = readFileSync("/proc/sys/net/ipv4/tcp_congestion_control", "latin1").trim();
const machine = `${cpus().length} × ${cpus()[0]?.model ?? "?"}, Linux ${release()}, ${congestion}, node ${process.versions.node}, ${execFileSync("curl", ["--version"], { encoding: "utf8" }).split(" ", 2).join(" ")}`;
const medians = Object.fromEntries(Object.entries(results).map(([name, all]) => [name, median(all)]));
const lines = Object.entries(medians).map(([name, figures]) => row(name, figures));
process.stdout.write(`${machine}; 1 GiB, ${CONNECTIONS} connections to serve, medians of ${runs}\n${"".padEnd(30)}  GB/s  CPU-s/GB server, both  RSS MiB  loop p99 ms\n${lines.join("\n")}\n`);
const [byNginx, byLink, byCurl, byPeer] = Object.values(medians) as [Figures, Figures, Figures, Figures];
const goals = [
  ["serve: throughput, × nginx ≥ 0.9", byLink.gbPerSecond / byNginx.gbPerSecond, ">=", 0.9],
  ["serve: CPU per GB, × nginx ≤ 1.5", byLink.serverCpuPerGb / byNginx.serverCpuPerGb, "<=", 1.5],
  ["receive: throughput, × curl ≥ 2.5", byPeer.gbPerSecond / byCurl.gbPerSecond, ">=", 2.5],
  ["receive: CPU of both, × curl and nginx ≤ 1.0", byPeer.cpuPerGb / byCurl.cpuPerGb, "<=", 1],
  ["RSS MiB ≤ 150", Math.max(byLink.rssMiB ?? 0, byPeer.rssMiB ?? 0), "<=", 150],
  ["loop p99 ms ≤ 20", Math.max(byLink.loopP99Ms ?? 0, byPeer.loopP99Ms ?? 0), "<=", 20],
] as const;
for (const [name, value, how, bound] of goals) {
  const isMet = how === ">=" ? value >= bound : value <= bound;
  process.stdout.write(`${isMet ? "met   " : "missed"}  ${name}: ${value.toFixed(2)}\n`);
}
if (options.out !== undefined) writeFileSync(options.out, `${JSON.stringify({ machine, runs, medians, all: results }, null, 2)}\n`);
