/**
 * The supernode's control plane with many real connections: one supernode on one core, a crowd of peers on another.
 *
 *   node bench/control/main.ts [--peers 10000] [--tasks 4] [--idle 30] [--tls] [--out FILE.jsonl]
 */
import { fork, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { readOptions } from "../command-line.ts";
import { freePort } from "../demo/programs.ts";
import { shippedBin } from "../lab/package.ts";
import type { Connected, CrowdAsk, Joined, Returned } from "./crowd.ts";
import { type ProcessUsage, usageOf } from "../process-usage.ts";
import { describeMachine, provenance } from "../provenance.ts";
import { PinnedSupernode } from "./pinned-supernode.ts";

const SUPERNODE_CORE = 0;
const CROWD_CORE = 1;
/** Sixteen pieces of 64 KiB. */
const FILE_BYTES = 1024 * 1024;
const KIB = 1024;

const values = readOptions(import.meta.filename, {
  peers: { type: "string", default: "10000" },
  tasks: { type: "string", default: "4" },
  idle: { type: "string", default: "30" },
  tls: { type: "boolean", default: false },
  out: { type: "string" },
});
const started = provenance();
const peerCount = Number(values.peers);
const taskCount = Number(values.tasks);
const idleSeconds = Number(values.idle);

const folder = mkdtempSync("/dev/shm/dragonfly-control-");
const origin = createServer(answer);
await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
const originUrl = `http://127.0.0.1:${(origin.address() as AddressInfo).port}`;
const content = randomBytes(FILE_BYTES);
const closers: (() => Promise<void> | void)[] = [() => void origin.close(), () => rmSync(folder, { recursive: true, force: true })];
try {
  await measure();
} finally {
  for (const close of closers.toReversed()) await close();
}

async function measure(): Promise<void> {
  const bin = shippedBin();
  const port = await freePort();
  const setup = { core: SUPERNODE_CORE, port, dataDirectory: folder, tls: values.tls };
  let supernode = await PinnedSupernode.start(bin, setup);
  closers.push(() => supernode.stop("SIGKILL"));
  const crowd = startCrowd(port, readFileSync(join(folder, "join-token"), "utf8").trim());
  closers.push(() => void crowd.process.kill("SIGKILL"));
  await sleep(5_000);
  console.log(`${describeMachine(started.machine)}; supernode on core ${SUPERNODE_CORE}, ${peerCount} peers on core ${CROWD_CORE}${values.tls ? ", TLS" : ""}\n`);

  const before = supernode.usage();
  const connected = await crowd.ask<Connected>({ type: "connect", count: peerCount });
  const connectCpu = cpuShare(before, supernode.usage(), connected.seconds);
  await sleep(2_000);
  const idleFrom = supernode.usage();
  await sleep(idleSeconds * 1000);
  const idle = supernode.usage();
  const bytesPerPeer = (idle.rssBytes - before.rssBytes) / peerCount;
  const idleCpu = cpuShare(idleFrom, idle, idleSeconds);
  say("registrations per second, all at once", `${round(peerCount / connected.seconds)} (last after ${connected.seconds.toFixed(2)} s, supernode's core ${percent(connectCpu)})`);
  say("memory per idle peer", `${(bytesPerPeer / KIB).toFixed(1)} KiB (RSS ${mib(before.rssBytes)} → ${mib(idle.rssBytes)} MiB)`);
  say("CPU while they are idle", `${percent(idleCpu)} of a core, over ${idleSeconds} s`);

  const urls = (name: string, count: number): string[] => Array.from({ length: count }, (_, n) => `${originUrl}/${name}-${n}`);
  const joins: Record<string, unknown> = {};
  const load = async (name: string, what: string, ask: Extract<CrowdAsk, { type: "join" }>): Promise<void> => {
    const from = supernode.usage();
    const joined = await crowd.ask<Joined>(ask);
    const cpu = cpuShare(from, supernode.usage(), joined.seconds);
    const crowdCores = crowd.cores();
    const { p50, p99, max } = joined.answerMs;
    joins[name] = { ...joined, perSecond: joined.joins / joined.seconds, supernodeCores: cpu, crowdCores };
    say(what, `${round(joined.joins / joined.seconds)} joins/s; answers p50 ${p50.toFixed(1)}, p99 ${p99.toFixed(1)}, max ${max.toFixed(0)} ms; ${joined.failed} failed; ${(joined.unasked / joined.joins).toFixed(2)} messages unasked per join; cores: supernode ${percent(cpu)}, crowd ${percent(crowdCores)}`);
  };
  crowd.cores();
  await load("burst", "all at once, one task", { type: "join", urls: urls("burst", 1), window: 0, whole: false });
  crowd.cores();
  await load("steady", `256 in flight, ${taskCount} tasks`, { type: "join", urls: urls("steady", taskCount), window: 256, whole: false });
  crowd.cores();
  await load("whole", `with two words of progress each, ${taskCount} tasks`, { type: "join", urls: urls("whole", taskCount), window: 256, whole: true });
  const loaded = supernode.usage();
  say("memory per peer after all that", `${((loaded.rssBytes - before.rssBytes) / peerCount / KIB).toFixed(1)} KiB`);

  const returning = crowd.ask<Returned>({ type: "awaitReturn" });
  await supernode.stop("SIGKILL");
  const killedMs = Date.now();
  supernode = await PinnedSupernode.start(bin, setup);
  const readyMs = Date.now();
  const back = await returning;
  const since = (ms: number): string => ((ms - killedMs) / 1000).toFixed(2);
  say("killed and started again", `ready after ${since(readyMs)} s; registered ${since(back.firstRegisteredMs)} – ${since(back.lastRegisteredMs)} s; all in their task again after ${since(back.lastJoinedMs)} s; refused ${JSON.stringify(back.failed)}`);
  if (supernode.words !== "") console.log(`\nthe supernode said:\n${supernode.words}`);
  if (values.out === undefined) return;
  const result = {
    ...started, peerCount, tls: values.tls,
    registrationsPerSecond: peerCount / connected.seconds, connectCpu, bytesPerPeer, idleCpu, joins,
    loadedBytesPerPeer: (loaded.rssBytes - before.rssBytes) / peerCount,
    restart: { readyMs: readyMs - killedMs, firstRegisteredMs: back.firstRegisteredMs - killedMs, lastRegisteredMs: back.lastRegisteredMs - killedMs, lastJoinedMs: back.lastJoinedMs - killedMs, failed: back.failed },
  };
  appendFileSync(values.out, `${JSON.stringify(result)}\n`);
}

function startCrowd(port: number, token: string): { readonly process: ChildProcess; ask: <T>(ask: CrowdAsk) => Promise<T>; cores: () => number } {
  const child = fork(join(import.meta.dirname, "crowd.ts"), ["127.0.0.1", String(port), token, values.tls ? "tls" : "plain"], { execPath: "/usr/bin/taskset", execArgv: ["-c", String(CROWD_CORE), process.execPath] });
  let atMs = 0;
  let cpuSeconds = 0;
  return {
    process: child,
    ask: async <T>(ask: CrowdAsk): Promise<T> => {
      child.send(ask);
      return await new Promise<T>((resolve, reject) => {
        child.once("exit", () => reject(new Error("the crowd has ended")));
        child.on("message", function onMessage(message: T & { type?: string }) {
          if (message.type === "watching") return;
          child.off("message", onMessage);
          resolve(message);
        });
      });
    },
    /** Its use of a core since the last call. */
    cores: () => {
      const nowMs = performance.now();
      const used = usageOf(child.pid).cpuSeconds;
      const share = ((used - cpuSeconds) * 1000) / (nowMs - atMs);
      [atMs, cpuSeconds] = [nowMs, used];
      return share;
    },
  };
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  const etag = `"${(request.url ?? "").slice(1)}"`;
  if (request.headers["if-none-match"] === etag) return void response.writeHead(304, { etag }).end();
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  const start = Number(range?.[1] ?? 0);
  const end = range?.[2] === undefined || range[2] === "" ? FILE_BYTES - 1 : Math.min(Number(range[2]), FILE_BYTES - 1);
  response.writeHead(range === null ? 200 : 206, {
    etag,
    "accept-ranges": "bytes",
    "content-length": end - start + 1,
    ...(range === null ? {} : { "content-range": `bytes ${start}-${end}/${FILE_BYTES}` }),
  });
  response.end(request.method === "HEAD" ? undefined : content.subarray(start, end + 1));
}

function cpuShare(from: ProcessUsage, to: ProcessUsage, seconds: number): number {
  return (to.cpuSeconds - from.cpuSeconds) / seconds;
}

function say(what: string, figures: string): void {
  console.log(`${what.padEnd(40)} ${figures}`);
}

function round(value: number): string {
  return Math.round(value).toLocaleString("en");
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

function mib(bytes: number): string {
  return (bytes / KIB / KIB).toFixed(0);
}
