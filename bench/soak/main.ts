/**
 * A site under mixed load with churn, for as long as is told: do memory and descriptors stay where they are?
 *
 *   node bench/soak/main.ts [--minutes 20] [--pause 1500] [--out FILE.json]
 *
 * A supernode and three dfdaemons on loopback with small cache quotas, so that eviction never rests. Two daemons stay, one is
 * stopped or killed and started again every half minute; a fourth comes and goes. Exit 1 when something grows, or a byte is wrong.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Prng } from "../../src/base/prng.ts";
import { freePort, untilReady } from "../demo/programs.ts";
import { isFlat, type Sample, type Trend, trendOf } from "./flatness.ts";
import { Load, type SoakHost } from "./load.ts";
import type { ProcessUsage } from "../process-usage.ts";
import { Program } from "./programs.ts";
import { SoakRegistry } from "./registry.ts";

const SAMPLE_MS = 5000;
const CHURN_MS = 30_000;
/** Tasks stay open for two minutes, answers are remembered for five, V8's heap finds its size: until then growth is no leak. */
const WARM_UP_SHARE = 0.4;
/** Over the rest. The heap of a program that does little is collected seldom: saw teeth of some MiB. */
const RSS_GROWTH_BYTES_MAX = 12 * 1024 * 1024;
const DESCRIPTOR_GROWTH_MAX = 3;
/**
 * A task's two files are open for as long as it is: up to two minutes after its last reader, a minute for a neighbour that
 * asks, 20 s unused. So how many are open follows the load, and must not exceed what it asked for in that time.
 */
const TASK_OPEN_MS_MAX = 210_000;
const FILES_PER_TASK = 2;
/** Whoever is asked while it is killed answers nothing. A load that fails shows nothing. */
const FAILURES_MAX = 10;
/** The machine may be busy with other things. */
const READY_MS = 120_000;
/** After the load: longer than any task stays open, and its files unused. */
const SETTLE_MS = TASK_OPEN_MS_MAX;

interface Daemon extends SoakHost {
  readonly program: Program;
  readonly name: string;
}

const { values } = parseArgs({
  options: { minutes: { type: "string", default: "20" }, pause: { type: "string", default: "1500" }, out: { type: "string" } },
});
const forMs = Number(values.minutes) * 60_000;
const pauseMs = Number(values.pause);
const folder = mkdtempSync(join(tmpdir(), "dragonfly-soak-"));
const registry = new SoakRegistry();
const programs = new Set<Program>();

try {
  process.exitCode = (await soak()) ? 0 : 1;
} finally {
  await Promise.all([...programs].map((program) => program.stop()));
  await registry.close();
  rmSync(folder, { recursive: true, force: true });
}

async function start(name: string, program: "supernode" | "dfdaemon", args: readonly string[], readyUrl: string): Promise<Program> {
  const started = new Program(name, program, [...args, "--log-level", "warn"]);
  programs.add(started);
  void started.ended.then(() => programs.delete(started));
  await untilReady(name, readyUrl, started.ended, READY_MS);
  return started;
}

async function soak(): Promise<boolean> {
  const registryPort = await registry.listen();
  const supernodePort = await freePort();
  const base = `http://127.0.0.1:${supernodePort}`;
  const supernode = await start("supernode", "supernode", [
    "--listen", `127.0.0.1:${supernodePort}`, "--data-dir", join(folder, "supernode"), "--cache-quota", "96MiB", "--reserved-free", "0",
  ], `${base}/readyz`);
  const startDaemon = async (name: string): Promise<Daemon> => {
    const [mirrorPort, peerPort] = [await freePort(), await freePort()];
    const socket = join(folder, `${name}.sock`);
    const config = join(folder, `${name}.yaml`);
    writeFileSync(config, "downloadLimit: none\n");
    const program = await start(name, "dfdaemon", [
      "--config", config, "--listen", `127.0.0.1:${mirrorPort}`, "--peer-listen", `127.0.0.1:${peerPort}`, "--advertise", "127.0.0.1",
      "--data-dir", join(folder, name), "--socket", socket, "--cache-quota", "48MiB", "--reserved-free", "0",
      "--supernode", `127.0.0.1:${supernodePort}`, "--join-token-file", join(folder, "supernode/join-token"),
      "--registry", `reg.soak=http://127.0.0.1:${registryPort}`,
    ], `http://127.0.0.1:${mirrorPort}/readyz`);
    return { name, program, mirrorPort, socket };
  };

  const staying = [await startDaemon("stays-1"), await startDaemon("stays-2")];
  let restless: Daemon | undefined = await startDaemon("restless");
  let guest: Daemon | undefined;
  const load = new Load({ registry, registryPort, random: new Prng(1), folder, hosts: () => [...staying, ...(restless === undefined ? [] : [restless])] });
  const watched = [supernode, ...staying.map(({ program }) => program)];
  const samples = new Map(watched.map((program) => [program, { rss: [] as Sample[], descriptors: [] as Sample[], taskFiles: [] as TaskFiles[] } satisfies Series]));
  const before = new Map(watched.map((program) => [program, program.usage()]));
  const startMs = performance.now();
  let churns = 0;

  const churn = async (): Promise<void> => {
    churns++;
    const leaving = restless as Daemon;
    restless = undefined;
    // A kill in the midst of what it does, or an orderly end.
    await leaving.program.stop(churns % 2 === 0 ? "SIGKILL" : "SIGTERM");
    if (guest === undefined) guest = await startDaemon("guest");
    else {
      await guest.program.stop();
      guest = undefined;
    }
    restless = await startDaemon("restless");
    for (const { name, program } of staying) {
      writeFileSync(join(folder, `${name}.yaml`), `downloadLimit: ${churns % 3 === 0 ? "4MiB" : "none"}\n`);
      program.signal("SIGHUP");
    }
  };
  let nextChurnMs = CHURN_MS;
  let nextSampleMs = SAMPLE_MS;
  let churnFailure: unknown;
  let churning: Promise<void> = Promise.resolve();
  for (let atMs = 0; atMs < forMs; atMs = performance.now() - startMs) {
    if (atMs >= nextSampleMs) {
      for (const [program, series] of samples) {
        const { rssBytes, descriptors } = program.usage();
        const taskFiles = program.taskFileCount();
        series.rss.push({ atMs, value: rssBytes });
        series.descriptors.push({ atMs, value: descriptors - taskFiles });
        series.taskFiles.push({ count: taskFiles, countMax: load.askedCount(TASK_OPEN_MS_MAX) * FILES_PER_TASK });
      }
      nextSampleMs += SAMPLE_MS;
    }
    if (atMs >= nextChurnMs) {
      await churning;
      if (churnFailure !== undefined) throw new Error("a daemon cannot be started again", { cause: churnFailure });
      // Heard of with the next one.
      churning = churn().catch((thrown: unknown) => void (churnFailure = thrown));
      nextChurnMs += CHURN_MS;
    }
    await load.act();
    await sleep(pauseMs);
  }
  await churning;
  const cores = watched.map((program) => {
    const used = program.usage().cpuSeconds - (before.get(program) as ProcessUsage).cpuSeconds;
    return (used * 1000) / (performance.now() - startMs);
  });
  const rows = watched.map((program, i) => rowOf(program, samples.get(program) as Series, cores[i] as number));
  for (const row of rows) console.log(row.text);
  console.log(`load: ${JSON.stringify(load.counts)}, ${churns} churns, origin sent ${Math.round(registry.sentBytes / 1e6)} MB`);
  for (const failure of load.failures) console.log(`  ${failure}`);

  await sleep(SETTLE_MS);
  const left: string[] = [];
  let onDisk = 0;
  for (const { name, mirrorPort } of [...staying, restless, guest].filter((each) => each !== undefined)) {
    const text = await (await fetch(`http://127.0.0.1:${mirrorPort}/metrics`)).text();
    for (const gauge of ["dragonfly_peer_open_tasks", "dragonfly_peer_receiving_bytes", "dragonfly_mirror_requests_in_flight"]) {
      const value = Number(new RegExp(`^${gauge} (\\S+)`, "m").exec(text)?.[1]);
      if (value !== 0) left.push(`${name}: ${gauge} is ${value}`);
    }
    onDisk += Number(/^dragonfly_cache_tasks (\S+)/m.exec(text)?.[1]);
  }
  for (const program of watched) {
    const count = program.taskFileCount();
    if (count > 0) left.push(`${program.name}: ${count} files of tasks`);
  }
  const { tasks } = (await (await fetch(`${base}/v1/tasks`)).json()) as { tasks: unknown[] };
  const { peers } = (await (await fetch(`${base}/v1/peers`)).json()) as { peers: unknown[] };
  // The supernode's own peer is one of them.
  const expectedPeers = 1 + staying.length + (restless === undefined ? 0 : 1) + (guest === undefined ? 0 : 1);
  // It remembers who holds what, and nothing that nobody holds.
  if (tasks.length > onDisk) left.push(`supernode: ${tasks.length} tasks, and hosts hold ${onDisk}`);
  if (peers.length !== expectedPeers) left.push(`supernode: ${peers.length} peers instead of ${expectedPeers}`);
  console.log(left.length === 0 ? "after the load nothing is left open" : `LEFT OPEN: ${left.join("; ")}`);

  const isGood = rows.every(({ flat }) => flat) && left.length === 0 && load.counts.wrongBytes === 0 && load.counts.failures <= FAILURES_MAX;
  const result = { date: new Date().toISOString(), node: process.version, minutes: Number(values.minutes), rows, load: load.counts, churns, left, isGood };
  if (values.out !== undefined) writeFileSync(values.out, `${JSON.stringify(result, undefined, 1)}\n`);
  console.log(isGood ? "FLAT" : "NOT FLAT");
  return isGood;
}

/** Descriptors of tasks' files, and how many there may be. */
interface TaskFiles {
  readonly count: number;
  readonly countMax: number;
}

interface Series {
  readonly rss: Sample[];
  /** Other than of tasks' files. */
  readonly descriptors: Sample[];
  readonly taskFiles: TaskFiles[];
}

interface Row {
  readonly program: string;
  readonly cores: number;
  readonly rss: Trend;
  readonly descriptors: Trend;
  /** Means of the two halves. */
  readonly taskFiles: { readonly first: number; readonly second: number; readonly tooMany: number };
  readonly flat: boolean;
  readonly text: string;
}

function rowOf({ name }: Program, series: Series, cores: number): Row {
  const late = <T>(all: readonly T[]): readonly T[] => all.slice(Math.floor(all.length * WARM_UP_SHARE));
  const rss = trendOf(late(series.rss));
  const descriptors = trendOf(late(series.descriptors));
  const lateFiles = late(series.taskFiles);
  const half = Math.floor(lateFiles.length / 2);
  const mean = (files: readonly TaskFiles[]): number => files.reduce((sum, { count }) => sum + count, 0) / files.length;
  const taskFiles = {
    first: mean(lateFiles.slice(0, half)),
    second: mean(lateFiles.slice(half)),
    tooMany: lateFiles.filter(({ count, countMax }) => count > countMax).length,
  };
  const flat = isFlat(rss, RSS_GROWTH_BYTES_MAX) && isFlat(descriptors, DESCRIPTOR_GROWTH_MAX) && taskFiles.tooMany === 0;
  const mib = (bytes: number): string => `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
  const text =
    `${name}: ${flat ? "flat" : "GROWS"}; RSS ${mib(rss.first)} → ${mib(rss.last)}, slope ${mib(rss.perMinute)}/min; ` +
    `descriptors ${descriptors.first} → ${descriptors.last}, slope ${descriptors.perMinute.toFixed(2)}/min; ` +
    `tasks' files ${taskFiles.first.toFixed(0)} and ${taskFiles.second.toFixed(0)} on average of each half, too many ${taskFiles.tooMany} times; ${cores.toFixed(3)} cores`;
  return { program: name, cores, rss, descriptors, taskFiles, flat, text };
}
