/**
 * Time to the first byte of small files, beside curl from nginx.
 *
 *   node bench/latency/main.ts [--samples 50] [--out FILE.json]
 *
 * Real programs on loopback: nginx (the origin), supernode, two dfdaemons; asked over dfdaemon's socket, as dfget does, by one
 * process that runs already: dfget's own start is not in it. Needs nginx and curl.
 */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DaemonClient } from "../../src/cli/daemon-client.ts";
import { readOptions } from "../command-line.ts";
import { startNginx } from "../dataplane/nginx.ts";
import { freePort, Programs, untilReady } from "../demo/programs.ts";
import { describeMachine, provenance } from "../provenance.ts";

const SIZES = [["1 B", 1], ["64 KiB", 64 * 1024], ["1 MB", 1e6], ["10 MB", 1e7]] as const;
/** At the first few nothing is compiled yet: they do not count. */
const WARM_UP_COUNT = 5;
const options = readOptions(import.meta.filename, { samples: { type: "string", default: "50" }, out: { type: "string" } }, (values) => {
  if (!(Number(values.samples) >= WARM_UP_COUNT)) throw new Error(`--samples: at least ${WARM_UP_COUNT}`);
  return values;
});
const started = provenance();
const samples = Number(options.samples);
const directory = mkdtempSync(join(tmpdir(), "dragonfly-latency-"));
const programs = new Programs(join(directory, "cache"));

interface Host {
  readonly socket: string;
}

async function startHost(name: string, supernode: string): Promise<Host> {
  const [mirror, peer, socket] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`, join(directory, `${name}.sock`)];
  const token = join(directory, "supernode", "join-token");
  const started = programs.start("dfdaemon", [
    "--listen", mirror, "--peer-listen", peer, "--advertise", "127.0.0.1", "--supernode", supernode, "--join-token-file", token,
    "--data-dir", join(directory, name), "--socket", socket, "--reserved-free", "0",
  ]);
  await untilReady(name, `http://${mirror}/readyz`, started);
  return { socket };
}

/** @returns ms to the first byte; the rest is read, and is of the right length */
async function ask({ socket }: Host, url: string, lengthBytes: number): Promise<number> {
  const { signal } = new AbortController();
  const startMs = performance.now();
  const content = await new DaemonClient(socket).open({ source: { url, headers: {} }, backToSource: false }, signal);
  let firstMs: number | undefined;
  let receivedBytes = 0;
  for await (const chunk of content.read({ startByte: 0, endByte: undefined }, signal)) {
    firstMs ??= performance.now() - startMs;
    receivedBytes += chunk.length;
  }
  content.close();
  if (firstMs === undefined || receivedBytes !== lengthBytes) throw new Error(`${url}: ${receivedBytes} of ${lengthBytes} bytes`);
  return firstMs;
}

function curl(url: string): number {
  return Number(execFileSync("curl", ["-s", "-o", "/dev/null", "-w", "%{time_starttransfer}", url], { encoding: "utf8" })) * 1000;
}

function quantile(all: readonly number[], share: number): number {
  const sorted = all.toSorted((a, b) => a - b);
  return Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number) * 10) / 10;
}

const rows: Record<string, { p50Ms: number; p99Ms: number }> = {};
try {
  for (const [, lengthBytes] of SIZES) writeFileSync(join(directory, String(lengthBytes)), randomBytes(lengthBytes));
  const nginx = await startNginx(directory, await freePort(), await freePort());
  const supernode = `127.0.0.1:${await freePort()}`;
  const data = join(directory, "supernode");
  await untilReady("the supernode", `http://${supernode}/readyz`, programs.start("supernode", ["--listen", supernode, "--data-dir", data, "--reserved-free", "0"]));
  const hosts = [await startHost("first", supernode), await startHost("second", supernode)] as const;
  try {
    for (const [size, lengthBytes] of SIZES) {
      const urls = Array.from({ length: samples }, (_, n) => `http://127.0.0.1:${nginx.port}/${lengthBytes}?n=${n}`);
      const cases: Record<string, number[]> = { "curl from nginx": [], cold: [], "joining, others have it": [], warm: [] };
      // One of each in turn, so that a busy moment meets all alike.
      for (const [n, url] of [...urls.slice(0, WARM_UP_COUNT).map((each) => `${each}&before`), ...urls].entries()) {
        const figures = [curl(url), await ask(hosts[0], url, lengthBytes), await ask(hosts[1], url, lengthBytes), await ask(hosts[0], url, lengthBytes)];
        if (n >= WARM_UP_COUNT) for (const [at, all] of Object.values(cases).entries()) all.push(figures[at] as number);
      }
      for (const [name, all] of Object.entries(cases)) rows[`${size}, ${name}`] = { p50Ms: quantile(all, 0.5), p99Ms: quantile(all, 0.99) };
    }
  } finally {
    await nginx.close();
  }
} finally {
  await programs.close();
  rmSync(directory, { recursive: true, force: true });
}
process.stdout.write(`${describeMachine(started.machine)}; ms to the first byte, ${samples} files of each size\n${"".padEnd(34)}  p50    p99\n`);
for (const [name, { p50Ms, p99Ms }] of Object.entries(rows)) process.stdout.write(`${name.padEnd(34)}  ${p50Ms.toFixed(1).padStart(5)}  ${p99Ms.toFixed(1).padStart(6)}\n`);
if (options.out !== undefined) writeFileSync(options.out, `${JSON.stringify({ ...started, samples, rows }, null, 2)}\n`);
