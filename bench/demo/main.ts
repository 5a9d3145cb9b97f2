/**
 * The main job, to look at: a supernode, four dfdaemons, one file of 128 MiB that four dfgets want at once.
 *
 *   npm run demo [-- --hosts 4 --size 128MiB --rate 110MiB]
 *
 * Everything runs on loopback, on free ports and in one temporary folder; nothing stays behind.
 */
import { createHash, randomBytes } from "node:crypto";
import { createReadStream, existsSync, statSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { parseSize, showBytes, showDuration } from "../../src/cli/units.ts";
import { readOptions } from "../command-line.ts";
import { DemoOrigin } from "./origin.ts";
import { freePort, Programs, untilReady, type Finished } from "./programs.ts";
import { renderHosts, renderTable, type HostResult } from "./screen.ts";

interface DemoOptions {
  readonly hostCount: number;
  readonly lengthBytes: number;
  /** What every host may send, as a flag's value: a network card's speed. */
  readonly rate: string;
}

interface Host {
  readonly name: string;
  readonly socket: string;
  readonly output: string;
}

/** 1 MiB: small beside the file, large beside the cost of a call. */
const BLOCK_BYTES = 1024 * 1024;

const options = readOptions(
  import.meta.filename,
  {
    hosts: { type: "string", default: "4" },
    size: { type: "string", default: "128MiB" },
    rate: { type: "string", default: "110MiB" },
  },
  ({ hosts, size, rate }): DemoOptions => {
    const hostCount = Number(hosts);
    const lengthBytes = parseSize(size);
    if (!Number.isInteger(hostCount) || hostCount < 1 || hostCount > 64)
      throw new Error("--hosts: a number from 1 to 64");
    if (lengthBytes === undefined || lengthBytes < 1) throw new Error("--size: a size such as 128MiB");
    return { hostCount, lengthBytes, rate };
  },
);
const directory = await mkdtemp(join(tmpdir(), "dragonfly-demo-"));
const programs = new Programs(join(directory, "cache"));
let origin: DemoOrigin | undefined;

async function cleanUp(): Promise<void> {
  await programs.close();
  await origin?.close();
  await rm(directory, { recursive: true, force: true });
}

for (const [signal, number] of [
  ["SIGINT", 2],
  ["SIGTERM", 15],
  ["SIGHUP", 1],
] as const) {
  process.once(signal, () => void cleanUp().finally(() => process.exit(128 + number)));
}

try {
  process.exitCode = (await demo(options)) ? 0 : 1;
} catch (thrown) {
  process.stderr.write(`${thrown instanceof Error ? thrown.message : String(thrown)}\n`);
  process.exitCode = 1;
} finally {
  await cleanUp();
}

async function demo({ hostCount, lengthBytes, rate }: DemoOptions): Promise<boolean> {
  say(`making a file of ${showBytes(lengthBytes)} of random bytes`);
  const file = join(directory, "release.tar");
  const sha256 = await writeRandomFile(file, lengthBytes);
  origin = await DemoOrigin.start(file, lengthBytes);
  say(`origin:    ${origin.url}`);

  const supernode = `127.0.0.1:${await freePort()}`;
  const data = join(directory, "supernode");
  await untilReady(
    "the supernode",
    `http://${supernode}/readyz`,
    programs.start("supernode", [
      "--listen",
      supernode,
      "--data-dir",
      data,
      "--upload-limit",
      rate,
      "--reserved-free",
      "0",
    ]),
  );
  say(`supernode: ${supernode}`);
  const hosts = await Promise.all(
    Array.from({ length: hostCount }, (_, index) => startHost(index + 1, supernode, data, rate)),
  );
  say(
    `dfdaemons: ${hosts.map(({ name }) => name).join(", ")}; each may send ${rate} per second, as may the supernode\n`,
  );

  const startedMs = performance.now();
  const url = origin.url;
  const downloads = hosts.map((host) => download(host, url));
  const stopShowing = showProgress(hosts, lengthBytes);
  const finished = await Promise.all(downloads);
  stopShowing();
  const elapsedMs = performance.now() - startedMs;
  const results = await Promise.all(hosts.map((host, index) => judge(host, finished[index], sha256)));

  const ratio = origin.sentBytes / lengthBytes;
  say(`\n${renderTable(results)}\n`);
  say(`all ${hostCount} hosts after ${showDuration(elapsedMs)}`);
  say(`origin: ${showBytes(origin.sentBytes)} in ${origin.requestCount} requests = ${ratio.toFixed(2)} x the file`);
  const isRight = results.every((result) => result.isRight) && ratio > 0.995 && ratio < 1.005;
  say(
    isRight
      ? "all right: every file is right, and the origin was read once"
      : "NOT RIGHT: see the table and the origin's bytes",
  );
  if (isOnPath("docker-registry") && isOnPath("containerd") && process.getuid?.() === 0) {
    say("docker-registry and containerd are here: npm run test:e2e pulls a real image on three hosts");
  }
  return isRight;
}

async function startHost(number: number, supernode: string, supernodeData: string, rate: string): Promise<Host> {
  const name = `host-${number}`;
  const mirror = `127.0.0.1:${await freePort()}`;
  const socket = join(directory, `${name}.sock`);
  const started = programs.start("dfdaemon", [
    "--listen",
    mirror,
    "--peer-listen",
    `127.0.0.1:${await freePort()}`,
    "--advertise",
    "127.0.0.1",
    "--supernode",
    supernode,
    "--join-token-file",
    join(supernodeData, "join-token"),
    "--data-dir",
    join(directory, name),
    "--socket",
    socket,
    "--upload-limit",
    rate,
    "--reserved-free",
    "0",
  ]);
  await untilReady(name, `http://${mirror}/readyz`, started);
  return { name, socket, output: join(directory, `${name}.tar`) };
}

function download(host: Host, url: string): Promise<Finished> {
  return programs.start("dfget", [
    url,
    "-O",
    host.output,
    "--socket",
    host.socket,
    "--no-back-source",
    "--quiet",
    "--json",
  ]);
}

async function judge(host: Host, finished: Finished | undefined, sha256: string): Promise<HostResult> {
  const report = parseReport(finished?.stdout ?? "");
  const isRight = finished?.code === 0 && existsSync(host.output) && (await sha256Of(host.output)) === sha256;
  const failure = finished?.code === 0 ? undefined : `exit ${finished?.code}`;
  if (failure !== undefined) say(`${host.name}: ${finished?.stderr.trim()}`);
  const { seedBytes = 0, peerBytes = 0, originBytes = 0 } = report.sources ?? {};
  return {
    name: host.name,
    seconds: report.seconds ?? 0,
    bytes: report.bytes ?? 0,
    seedBytes,
    peerBytes,
    originBytes,
    isRight,
    failure,
  };
}

interface Report {
  readonly seconds?: number;
  readonly bytes?: number;
  readonly sources?: { readonly seedBytes: number; readonly peerBytes: number; readonly originBytes: number };
}

function parseReport(text: string): Report {
  try {
    return JSON.parse(text) as Report;
  } catch {
    return {};
  }
}

/** Redraws one line per host on a terminal, writes them now and then elsewhere. @returns ends it */
function showProgress(hosts: readonly Host[], lengthBytes: number): () => void {
  const isTerminal = process.stdout.isTTY && process.env["TERM"] !== "dumb";
  let drawn = 0;
  const draw = (): void => {
    const lines = renderHosts(
      hosts.map(({ name, output }) => ({ name, doneBytes: sizeOf(output) })),
      lengthBytes,
    );
    if (isTerminal && drawn > 0) process.stdout.write(`\u001b[${drawn}A`);
    for (const line of lines) process.stdout.write(`${line}${isTerminal ? "\u001b[K" : ""}\n`);
    drawn = lines.length;
  };
  const timer = setInterval(draw, isTerminal ? 100 : 1000);
  return () => {
    clearInterval(timer);
    draw();
  };
}

function sizeOf(output: string): number {
  return (
    (statSync(output, { throwIfNoEntry: false }) ?? statSync(`${output}.part`, { throwIfNoEntry: false }))?.size ?? 0
  );
}

async function writeRandomFile(path: string, lengthBytes: number): Promise<string> {
  const hash = createHash("sha256");
  const file = await open(path, "wx");
  try {
    for (let at = 0; at < lengthBytes; at += BLOCK_BYTES) {
      const block = randomBytes(Math.min(BLOCK_BYTES, lengthBytes - at));
      hash.update(block);
      await file.writeFile(block);
    }
  } finally {
    await file.close();
  }
  return hash.digest("hex");
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: BLOCK_BYTES }) as AsyncIterable<Buffer>)
    hash.update(chunk);
  return hash.digest("hex");
}

function isOnPath(command: string): boolean {
  return (process.env["PATH"] ?? "")
    .split(delimiter)
    .some((folder) => folder !== "" && existsSync(join(folder, command)));
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
