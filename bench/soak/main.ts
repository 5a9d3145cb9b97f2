/**
 * A site under mixed load with churn, for as long as is told: do memory, timers and descriptors stay where they are?
 *
 *   node bench/soak/main.ts [--minutes 20] [--pause 500] [--lanes 1] [--out FILE.json]
 *
 * A supernode and three dfdaemons on loopback with small cache quotas, so that eviction never rests. Two daemons stay, one is
 * stopped or killed and started again every half minute; a fourth comes and goes. Exit 1 when something grows, or a byte is wrong.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Prng } from "../../src/base/prng.ts";
import { readOptions } from "../command-line.ts";
import { freePort, untilReady } from "../demo/programs.ts";
import { provenance } from "../provenance.ts";
import { INSPECTED } from "./inspector.ts";
import { Load, type SoakHost } from "./load.ts";
import { Program } from "./programs.ts";
import { SoakRegistry } from "./registry.ts";
import { Watch } from "./watch.ts";

const SAMPLE_MS = 5000;
const CHURN_MS = 30_000;
/**
 * A task's two files are open for as long as it is: up to two minutes after its last reader, a minute for a neighbour that
 * asks, 20 s unused. So how many are open follows the load, and must not exceed what it asked for in that time.
 */
const TASK_OPEN_MS_MAX = 210_000;
/** Whoever is asked while it is killed answers nothing. A load that fails shows nothing. */
const FAILURES_MAX = 10;
/** A few are of connections that stay, and of the pools behind them. */
const TIMERS_LEFT_MAX = 20;
/** The machine may be busy with other things. */
const READY_MS = 120_000;
/** After the load: longer than any task stays open, and its files unused. */
const SETTLE_MS = TASK_OPEN_MS_MAX;

interface Daemon extends SoakHost {
  readonly program: Program;
  readonly name: string;
}

const values = readOptions(import.meta.filename, {
  minutes: { type: "string", default: "20" },
  pause: { type: "string", default: "500" },
  lanes: { type: "string", default: "1" },
  out: { type: "string" },
});
const started = provenance();
const forMs = Number(values.minutes) * 60_000;
const pauseMs = Number(values.pause);
/** Users at a time: more of them show in minutes what each request leaves behind. */
const laneCount = Number(values.lanes);
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
  const started = new Program(name, program, [...args, "--log-level", "warn"], INSPECTED);
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
  const watches = await Promise.all([supernode, ...staying.map(({ program }) => program)].map((program) => Watch.over(program)));
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
      for (const watch of watches) await watch.sample(atMs, load.askedCount(TASK_OPEN_MS_MAX));
      nextSampleMs += SAMPLE_MS;
    }
    if (atMs >= nextChurnMs) {
      await churning;
      if (churnFailure !== undefined) throw new Error("a daemon cannot be started again", { cause: churnFailure });
      // Heard of with the next one.
      churning = churn().catch((thrown: unknown) => void (churnFailure = thrown));
      nextChurnMs += CHURN_MS;
    }
    await Promise.all(Array.from({ length: laneCount }, () => load.act()));
    await sleep(pauseMs);
  }
  await churning;
  const rows = watches.map((watch) => watch.row());
  for (const row of rows) console.log(row.text);
  console.log(`load: ${JSON.stringify(load.counts)}, ${churns} churns, origin sent ${Math.round(registry.sentBytes / 1e6)} MB`);
  for (const failure of load.failures) console.log(`  ${failure}`);

  await sleep(SETTLE_MS);
  const left: string[] = [];
  const timersLeft: Record<string, number> = {};
  let onDisk = 0;
  for (const { name, mirrorPort } of [...staying, restless, guest].filter((each) => each !== undefined)) {
    const text = await (await fetch(`http://127.0.0.1:${mirrorPort}/metrics`)).text();
    for (const gauge of ["dragonfly_peer_open_tasks", "dragonfly_peer_receiving_bytes", "dragonfly_mirror_requests_in_flight"]) {
      const value = Number(new RegExp(`^${gauge} (\\S+)`, "m").exec(text)?.[1]);
      if (value !== 0) left.push(`${name}: ${gauge} is ${value}`);
    }
    onDisk += Number(/^dragonfly_cache_tasks (\S+)/m.exec(text)?.[1]);
  }
  for (const watch of watches) {
    const { name } = watch.program;
    const count = watch.program.taskFileCount();
    if (count > 0) left.push(`${name}: ${count} files of tasks`);
    // oxlint-disable-next-line no-await-in-loop -- three of them
    const timers = await watch.timersLeft();
    timersLeft[name] = timers;
    if (timers > TIMERS_LEFT_MAX) left.push(`${name}: ${timers} timers`);
  }
  const { tasks } = (await (await fetch(`${base}/v1/tasks`)).json()) as { tasks: unknown[] };
  const { peers } = (await (await fetch(`${base}/v1/peers`)).json()) as { peers: unknown[] };
  // The supernode's own peer is one of them.
  const expectedPeers = 1 + staying.length + (restless === undefined ? 0 : 1) + (guest === undefined ? 0 : 1);
  // It remembers who holds what, and nothing that nobody holds.
  if (tasks.length > onDisk) left.push(`supernode: ${tasks.length} tasks, and hosts hold ${onDisk}`);
  if (peers.length !== expectedPeers) left.push(`supernode: ${peers.length} peers instead of ${expectedPeers}`);
  console.log(left.length === 0 ? "after the load nothing is left open" : `LEFT OPEN: ${left.join("; ")}`);

  for (const watch of watches) watch.close();

  const isGood = rows.every(({ flat }) => flat) && left.length === 0 && load.counts.wrongBytes === 0 && load.counts.failures <= FAILURES_MAX;
  const result = { ...started, minutes: Number(values.minutes), rows, load: load.counts, churns, timersLeft, left, isGood };
  if (values.out !== undefined) writeFileSync(values.out, `${JSON.stringify(result, undefined, 1)}\n`);
  console.log(isGood ? "FLAT" : "NOT FLAT");
  return isGood;
}
