/**
 * The data plane beside nginx and curl, on loopback.
 *
 *   node bench/dataplane/main.ts [--runs 5] [--parts serve,receive,serve-tls,receive-tls] [--out FILE.json]
 *
 * Needs nginx and curl. Runs of the two sides alternate, medians are told. Both are given the host's congestion control.
 * Rows of other parts that FILE has already are kept in it.
 */
import { type ChildProcess, execFileSync, fork, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomFillSync } from "node:crypto";
import { readOptions } from "../command-line.ts";
import { type Nginx, startNginx } from "./nginx.ts";
import { type Figures, goalLines, mediansOf, type Result, resultOf, type Rows, TABLE_HEAD, tableRow } from "./report.ts";
import type { RoleUse } from "./role.ts";
import { describeMachine, provenance } from "../provenance.ts";
import { keepTouchedMemory, touchMemory } from "../touched-memory.ts";

const GB = 1024 ** 3 / 1e9;
const CONNECTIONS = 8;
/** Encrypting takes ten times as long: less of it says as much. */
const TLS_CONNECTIONS = 2;
const NGINX_PORT = 48_317;
/** Each receiver finds as much as it will fill just touched. */
const TOUCH_BYTES = 4 * 1024 ** 3;
const PARTS = "serve,receive,serve-tls,receive-tls";

const options = readOptions(import.meta.filename, {
  runs: { type: "string", default: "5" },
  parts: { type: "string", default: PARTS },
  out: { type: "string" },
});
const started = provenance();
const runs = Number(options.runs);
const parts = new Set(options.parts.split(","));
const directory = mkdtempSync(join(tmpdir(), "dragonfly-dataplane-"));
const file = join(directory, "file");
const children = new Set<ChildProcess>();

/** A host's daemon sends and receives, the supernode is its seed. */
const SUPERNODE = startedBy("supernode");
const DFDAEMON = startedBy("dfdaemon");

/** What bin/ gives a program: it is run in a package of its own, whose runtime says how it was started. */
function startedBy(name: string): { readonly heaps: string; readonly flags: readonly string[] } {
  const root = join(directory, `bin-${name}`);
  for (const folder of ["bin", "src/cli", "node_modules/.bin"]) mkdirSync(join(root, folder), { recursive: true });
  copyFileSync(join(import.meta.dirname, "..", "..", "bin", name), join(root, "bin", name));
  writeFileSync(join(root, "src/cli", `${name}.ts`), "");
  writeFileSync(join(root, "node_modules/.bin/node"), `#!/bin/sh\necho "$MALLOC_ARENA_MAX $*"\n`, { mode: 0o755 });
  const [heaps = "", ...given] = execFileSync(join(root, "bin", name), { encoding: "utf8" }).trim().split(" ");
  return { heaps, flags: given.slice(0, -1) };
}

/** The programs as packaged: built, started as by bin/. */
function build(): string {
  const root = join(import.meta.dirname, "..", "..");
  const built = join(directory, "built");
  const flags = "--ignoreConfig --noCheck --skipLibCheck --target es2024 --module nodenext --rewriteRelativeImportExtensions --types node".split(" ");
  execFileSync(process.execPath, [join(root, "node_modules", "typescript", "bin", "tsc"), ...flags, "--rootDir", root, "--outDir", built, "bench/dataplane/role.ts", "src/peer/store/worker.ts"], { cwd: root });
  writeFileSync(join(built, "package.json"), JSON.stringify({ type: "module" }));
  symlinkSync(join(root, "node_modules"), join(built, "node_modules"));
  return join(built, "bench", "dataplane", "role.js");
}

function start(role: string, ...values: string[]): ChildProcess {
  const { heaps, flags } = role.startsWith("seed") ? SUPERNODE : DFDAEMON;
  const env = { ...process.env, MALLOC_ARENA_MAX: heaps, NODE_COMPILE_CACHE: join(directory, "compiled") };
  const child = fork(program, [role, ...values], { env, execArgv: [...flags] });
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

function connectionsOf(isTls: boolean): number {
  return isTls ? TLS_CONNECTIONS : CONNECTIONS;
}

async function drained(port: number, hello: string, isTls: boolean): Promise<RoleUse & { seconds: number }> {
  const child = start(isTls ? "drain-tls" : "drain", String(port), hello, String(connectionsOf(isTls)));
  const use = await heard<RoleUse & { seconds: number }>(child);
  stop(child);
  return use;
}

async function serveByNginx(nginx: Nginx, isTls: boolean): Promise<Figures> {
  const before = nginx.cpuSeconds();
  const hello = "GET /file HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
  const { seconds, cpuSeconds } = await drained(isTls ? nginx.tlsPort : nginx.port, hello, isTls);
  const cpu = nginx.cpuSeconds() - before;
  const moved = GB * connectionsOf(isTls);
  return { gbPerSecond: moved / seconds, serverCpuPerGb: cpu / moved, cpuPerGb: (cpu + cpuSeconds) / moved };
}

async function serveByLink(server: ChildProcess, port: number, isTls: boolean): Promise<Figures> {
  server.send("begin");
  const { seconds, cpuSeconds } = await drained(port, "x", isTls);
  const { cpuSeconds: cpu, rssMiB, loopP99Ms } = await used(server);
  const moved = GB * connectionsOf(isTls);
  return { gbPerSecond: moved / seconds, serverCpuPerGb: cpu / moved, cpuPerGb: (cpu + cpuSeconds) / moved, rssMiB, loopP99Ms };
}

function receiveByCurl(nginx: Nginx, isTls: boolean): Figures {
  touchMemory(TOUCH_BYTES);
  const before = nginx.cpuSeconds();
  const command = `TIMEFORMAT='%R %U %S'; time curl -sk -o ${directory}/curl.out ${isTls ? `https://127.0.0.1:${nginx.tlsPort}` : `http://127.0.0.1:${nginx.port}`}/file`;
  const { stderr } = spawnSync("bash", ["-c", command], { encoding: "utf8" });
  const [seconds = 0, user = 0, system = 0] = stderr.trim().split(/\s+/).map(Number);
  rmSync(join(directory, "curl.out"));
  const cpu = nginx.cpuSeconds() - before;
  return { gbPerSecond: GB / seconds, serverCpuPerGb: cpu / GB, cpuPerGb: (cpu + user + system) / GB };
}

/** @returns of the first file that a peer takes after its start, and of its second */
async function receiveByPeer(seed: ChildProcess, invitation: object, isTls: boolean): Promise<[Figures, Figures]> {
  const cache = join(directory, "peer");
  const child = start(isTls ? "peer-tls" : "peer", cache, JSON.stringify(invitation));
  const take = async (): Promise<Figures> => {
    await heard(child);
    touchMemory(TOUCH_BYTES);
    seed.send("begin");
    child.send("begin");
    const { seconds, cpuSeconds, rssMiB, loopP99Ms } = await heard<RoleUse & { seconds: number }>(child);
    const server = await used(seed);
    return {
      gbPerSecond: GB / seconds, serverCpuPerGb: server.cpuSeconds / GB, cpuPerGb: (server.cpuSeconds + cpuSeconds) / GB,
      rssMiB: Math.max(rssMiB, server.rssMiB), loopP99Ms: Math.max(loopP99Ms, server.loopP99Ms),
    };
  };
  const taken: [Figures, Figures] = [await take(), await take()];
  stop(child);
  rmSync(cache, { recursive: true });
  return taken;
}

/** The least program in the peer's place, see floor.ts. */
async function receiveByFloor(sender: ChildProcess, port: number): Promise<Figures> {
  const path = join(directory, "floor.out");
  const child = start("floor", String(port), path);
  await heard(child);
  touchMemory(TOUCH_BYTES);
  sender.send("begin");
  child.send("begin");
  const { seconds, cpuSeconds, rssMiB, loopP99Ms } = await heard<RoleUse & { seconds: number }>(child);
  const server = await used(sender);
  stop(child);
  rmSync(path);
  return { gbPerSecond: GB / seconds, serverCpuPerGb: server.cpuSeconds / GB, cpuPerGb: (server.cpuSeconds + cpuSeconds) / GB, rssMiB, loopP99Ms };
}

const rows: Rows = {};
function add(name: string, figures: Figures): void {
  (rows[name] ??= []).push(figures);
}

async function serve(nginx: Nginx, isTls: boolean): Promise<void> {
  const name = isTls ? "serve TLS" : "serve";
  const sender = start(isTls ? "sender-tls" : "sender", file);
  const { port } = await heard<{ port: number }>(sender);
  for (let run = 0; run < runs; run++) {
    add(`${name}: nginx`, await serveByNginx(nginx, isTls));
    add(`${name}: link`, await serveByLink(sender, port, isTls));
  }
  stop(sender);
}

async function receive(nginx: Nginx, isTls: boolean): Promise<void> {
  const name = isTls ? "receive TLS" : "receive";
  const seed = start(isTls ? "seed-tls" : "seed", join(directory, name), file);
  const invitation = await heard<object>(seed);
  const floor = isTls ? undefined : start("floor-sender", file);
  const floorPort = floor === undefined ? 0 : (await heard<{ port: number }>(floor)).port;
  for (let run = 0; run < runs; run++) {
    add(`${name}: nginx, curl -o`, receiveByCurl(nginx, isTls));
    const [first, second] = await receiveByPeer(seed, invitation, isTls);
    add(`${name}: seed, peer's first`, first);
    add(`${name}: seed, peer`, second);
    if (floor !== undefined) add(`${name}: the least program`, await receiveByFloor(floor, floorPort));
  }
  stop(seed);
  if (floor !== undefined) stop(floor);
  rmSync(join(directory, name), { recursive: true });
}

let program = "";
// curl's file as ours: neither pays for what the machine under this one does.
if (keepTouchedMemory()) process.stderr.write("free memory is kept from the host while this runs\n");
try {
  program = build();
  const fd = openSync(file, "w");
  for (let at = 0; at < 1024; at++) writeSync(fd, randomFillSync(Buffer.allocUnsafe(1024 * 1024)));
  closeSync(fd);
  const nginx = await startNginx(directory, NGINX_PORT);
  try {
    for (const isTls of [false, true]) {
      const suffix = isTls ? "-tls" : "";
      if (parts.has(`serve${suffix}`)) await serve(nginx, isTls);
      if (parts.has(`receive${suffix}`)) await receive(nginx, isTls);
    }
  } finally {
    await nginx.close();
  }
} finally {
  for (const child of children) child.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true });
}
const congestion = readFileSync("/proc/sys/net/ipv4/tcp_congestion_control", "latin1").trim();
const curl = execFileSync("curl", ["--version"], { encoding: "utf8" }).split(" ", 2)[1] ?? "";
const machine = { ...started.machine, congestion, curl };
const medians = mediansOf(rows);
process.stdout.write(`${describeMachine(machine)}; 1 GiB, ${CONNECTIONS} connections to serve (TLS: ${TLS_CONNECTIONS}), medians of ${runs}\n${TABLE_HEAD}\n`);
for (const name of Object.keys(rows)) process.stdout.write(`${tableRow(name, medians[name] as Figures)}\n`);
for (const line of goalLines(medians)) process.stdout.write(`${line}\n`);
if (options.out !== undefined) {
  const filed = existsSync(options.out) ? (JSON.parse(readFileSync(options.out, "utf8")) as Result) : undefined;
  writeFileSync(options.out, `${JSON.stringify(resultOf({ ...started, machine }, runs, rows, filed), null, 2)}\n`);
}
