/**
 * The lab: real programs on a network that is as slow as we say. See bench/README.md.
 *
 *   node bench/lab/main.ts [options]        (root; Linux with network namespaces)
 *     --hosts 16            downloading hosts
 *     --rate 50mbit         each host's uplink and downlink
 *     --seed-rate 50mbit    the seed's (supernode's) link; default: --rate
 *     --size 50MiB          file size
 *     --runs 3
 *     --systems dragonfly,direct,curl,aria2,libtorrent
 *                           also: dfget (every host its own peer, no dfdaemon), streams (no file, no swarm: what TCP gives)
 *     --slow 2x0.25         so many hosts with this share of the uplink
 *     --racks 4             hosts in so many racks, each behind a link no faster than one host's (--rate); dfdaemons have their rack as label
 *     --unlabelled          … have not
 *     --kill-one            SIGKILL the last host half-way
 *     --freeze-one          SIGSTOP the last host half-way
 *     --congestion cubic    TCP congestion control in all namespaces; cubic is what Linux has where nobody chose another
 *     --cold-start          let dfget's program load after the start, not before
 *     --out FILE            append one JSON line per run
 *     --work-dir DIR        default /dev/shm (memory: sixteen hosts should not share one disk)
 *     --keep-logs           leave the work directory behind
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { describeMachine, provenance } from "../provenance.ts";
import { keepTouchedMemory } from "../touched-memory.ts";
import { loadAverage } from "./accounting.ts";
import { lowerBoundSeconds } from "./bound.ts";
import { isInstalled } from "./command.ts";
import { lockLab } from "./lock.ts";
import { measure } from "./measure.ts";
import { buildNetwork, BURST_BYTES, congestionControl, hostNamespace, QUEUE_MS, removeNetwork } from "./network.ts";
import { linksOf, racksOf, readLabOptions, type Options } from "./options.ts";
import { makeFile } from "./origin.ts";
import { append, describe, table, type Row } from "./report.ts";
import { verifyShaping } from "./shaping.ts";
import type { System } from "./system.ts";
import { aria2 } from "./systems/aria2.ts";
import { curl } from "./systems/curl.ts";
import { dfget, dragonfly } from "./systems/dragonfly.ts";
import { libtorrent } from "./systems/libtorrent.ts";
import { streams } from "./systems/streams.ts";

const SYSTEMS: readonly System[] = [dragonfly, dfget, curl, aria2, libtorrent, streams];

async function main(): Promise<void> {
  const options = readLabOptions(import.meta.filename);
  requireTools();
  const systems = chooseSystems(options);
  await lockLab();
  const workDirectory = mkdtempSync(join(options.workDir, "dflab-"));
  process.on("exit", () => {
    removeNetwork();
    if (options.keepLogs) console.log(`logs in ${workDirectory}`);
    else rmSync(workDirectory, { recursive: true, force: true });
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(130));
  if (keepTouchedMemory()) console.log("free memory is kept from the host while the lab runs");
  const rows = await runAll(options, systems, workDirectory);
  if (rows.some(({ outcome }) => "error" in outcome)) process.exitCode = 1;
}

async function runAll(options: Options, systems: readonly System[], workDirectory: string): Promise<readonly Row[]> {
  const started = provenance();
  const links = linksOf(options);
  const tStar = lowerBoundSeconds(options.sizeBytes, links);
  const speeds = links.up.map((up, host) => ({ up, down: links.down[host] ?? options.rate }));
  buildNetwork(speeds, { up: options.seedRate, down: options.seedRate }, racksOf(options), options.congestion);
  console.log(
    `${options.hosts} hosts at ${options.rate / 1e6} Mbit/s${options.rackCount > 0 ? ` in ${options.rackCount} racks at the same` : ""}, seed at ${options.seedRate / 1e6} Mbit/s, file of ${options.sizeBytes / 2 ** 20} MiB; ` +
      `tbf burst ${BURST_BYTES / 1024} KiB, latency ${QUEUE_MS} ms; T* = ${tStar.toFixed(2)} s`,
  );
  console.log(`machine: ${describeMachine(started.machine)}, load ${loadAverage().toFixed(2)}`);
  await verifyShaping(options, workDirectory);
  const originDirectory = join(workDirectory, "origin");
  const origin = makeFile(originDirectory, options.sizeBytes);
  const lab = { ...started, machine: { ...started.machine, congestion: congestionControl(hostNamespace(0)) } };
  if (options.out !== undefined) mkdirSync(dirname(options.out), { recursive: true });

  const rows: Row[] = [];
  // Runs outside, systems inside: whatever else the machine does then hits all systems alike.
  for (let run = 1; run <= options.runs; run++) {
    for (const system of systems) {
      const runDirectory = join(workDirectory, `${system.name}-${run}`);
      const outcome = await measure(system, options, origin, originDirectory, runDirectory).catch((error: unknown) => ({ error: String(error) }));
      const row = { system: system.name, run, outcome };
      rows.push(row);
      console.log(describe(row));
      if (options.out !== undefined) append(options.out, row, options, lab);
      if (!options.keepLogs) rmSync(runDirectory, { recursive: true, force: true });
    }
  }
  console.log(`\n${table(rows, options, tStar)}`);
  return rows;
}

function requireTools(): void {
  if (process.getuid?.() !== 0) throw new Error("the lab makes network namespaces: run it as root");
  const absent = ["ip", "tc", "sysctl", "nginx"].filter((tool) => !isInstalled(tool));
  if (absent.length > 0) throw new Error(`not installed: ${absent.join(", ")}`);
}

function chooseSystems(options: Options): readonly System[] {
  const names = options.systems.filter((name) => name !== "direct");
  const unknown = names.filter((name) => !SYSTEMS.some((system) => system.name === name));
  if (unknown.length > 0) throw new Error(`unknown system ${unknown.join(", ")}; there are ${SYSTEMS.map(({ name }) => name).join(", ")}, direct`);
  return SYSTEMS.filter((system) => {
    if (!names.includes(system.name)) return false;
    const reason = system.missing();
    if (reason !== undefined) console.log(`left out: ${system.name}: ${reason}`);
    return reason === undefined;
  });
}

await main();
