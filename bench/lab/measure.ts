/** One run of one system: prepare, start all at once, disturb, wait, verify, account. */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { descendantCpuSeconds, loadAverage, machineCpuSeconds, ThreadAccount, watchMemory } from "./accounting.ts";
import { lowerBoundSeconds } from "./bound.ts";
import { bytesIntoRack, ORIGIN, SEED, sentBytes } from "./network.ts";
import { deadlineSeconds, linksOf, type Options } from "./options.ts";
import { serveOrigin, sha256Of, type Origin } from "./origin.ts";
import { Programs } from "./process.ts";
import type { Download, System } from "./system.ts";
import { touchMemory, type TouchedMemory } from "../touched-memory.ts";

export interface Measurement {
  /** From the common start; null for the host that was killed or frozen. */
  readonly perPeerSeconds: readonly (number | null)[];
  readonly lastSeconds: number;
  /** The last of the hosts with a whole uplink; equal to `lastSeconds` without --slow. */
  readonly lastWholeSeconds: number;
  readonly tStar: number;
  readonly efficiency: number;
  /** Bytes sent on the wire from start to last finish, in files; up to 0.8 % of it are headers. */
  readonly seedCopies: number;
  readonly originCopies: number;
  /** Bytes that came into each rack over its cable, in files: headers and acknowledgements are in it. Empty without --racks. */
  readonly rackCopies: readonly number[];
  /** CPU of all programs in that time (peers, seed, tracker, origin) per 1e9 bytes delivered. */
  readonly cpuPerGB: number;
  /** CPU seconds in that time by program and thread, of those that run on (dfgets have ended). */
  readonly cpuByThread: Readonly<Record<string, number>>;
  readonly rssMaxMiB: number;
  readonly loadBefore: number;
  /** Memory that was touched before the start, see bench/touched-memory.ts. */
  readonly touchedMemory: TouchedMemory;
  /** Cores kept busy by others than the programs measured: a figure well above 0.1 means a disturbed run. */
  readonly foreignCores: number;
}

/** What a host keeps of a file: its store's copy and the output; and as much again for sockets and programs. */
const COPIES_PER_HOST = 4;
/** Rest between preparation and start, for daemons to finish settling. */
const SETTLE_MS = 1000;

export async function measure(system: System, options: Options, origin: Origin, originDirectory: string, runDirectory: string): Promise<Measurement> {
  rmSync(runDirectory, { recursive: true, force: true });
  const logDirectory = join(runDirectory, "log");
  mkdirSync(logDirectory, { recursive: true });
  const programs = new Programs(logDirectory);
  const emergency = (): void => { programs.kill(); };
  process.on("exit", emergency);
  try {
    await serveOrigin(programs, originDirectory, logDirectory);
    const directory = (name: string): string => {
      const path = join(runDirectory, name);
      mkdirSync(path, { recursive: true });
      return path;
    };
    const downloads = await system.prepare({ options, origin, programs, directory });
    const touchedMemory = touchMemory(downloads.length * origin.sizeBytes * COPIES_PER_HOST);
    await sleep(SETTLE_MS);
    return { ...(await race(downloads, options, origin)), touchedMemory };
  } finally {
    await programs.stop();
    process.off("exit", emergency);
  }
}

async function race(downloads: readonly Download[], options: Options, origin: Origin): Promise<Omit<Measurement, "touchedMemory">> {
  const victim = options.fault === "none" ? undefined : downloads.at(-1);
  const survivors = downloads.filter((download) => download !== victim);
  const tStar = lowerBoundSeconds(origin.sizeBytes, linksOf(options));
  for (const { done } of downloads) done.catch(() => undefined);
  const loadBefore = loadAverage();
  const [seedBefore, originBefore] = [sentBytes(SEED), sentBytes(ORIGIN)];
  const intoRacks = (): readonly number[] => Array.from({ length: options.rackCount }, (_, rack) => bytesIntoRack(rack));
  const racksBefore = intoRacks();
  const [cpuBefore, machineBefore] = [descendantCpuSeconds(), machineCpuSeconds()];
  const threads = new ThreadAccount();
  const memory = watchMemory();
  // The lab's own garbage of all that is not to be collected on the racers' cores.
  await sleep(SETTLE_MS / 4);

  const start = performance.now();
  for (const download of downloads) download.go();
  const fault = setTimeout(() => {
    for (const program of victim?.programs ?? []) program.signal(options.fault === "kill" ? "SIGKILL" : "SIGSTOP");
  }, tStar * 500);
  let last: number;
  try {
    last = Math.max(...(await Promise.race([Promise.all(survivors.map(({ done }) => done)), deadline(options)])));
  } finally {
    clearTimeout(fault);
    memory.stop();
  }

  const lastSeconds = (last - start) / 1000;
  const cpu = descendantCpuSeconds() - cpuBefore;
  const machine = machineCpuSeconds() - machineBefore;
  const cpuByThread = threads.secondsByThread();
  const [seedSent, originSent] = [sentBytes(SEED) - seedBefore, sentBytes(ORIGIN) - originBefore];
  const rackCopies = intoRacks().map((bytes, rack) => round((bytes - (racksBefore[rack] ?? 0)) / origin.sizeBytes));
  const rssMaxMiB = memory.stop();
  verify(survivors, origin);

  const perPeerSeconds = await Promise.all(downloads.map(async (download) => (download === victim ? null : round(((await download.done) - start) / 1000))));
  const whole = perPeerSeconds.filter((seconds, host) => seconds !== null && host >= options.slow.count);
  return {
    perPeerSeconds,
    lastSeconds: round(lastSeconds),
    lastWholeSeconds: Math.max(...whole.map(Number)),
    tStar: round(tStar),
    efficiency: round(tStar / lastSeconds),
    seedCopies: round(seedSent / origin.sizeBytes),
    originCopies: round(originSent / origin.sizeBytes),
    rackCopies,
    cpuPerGB: round(cpu / ((survivors.length * origin.sizeBytes) / 1e9)),
    cpuByThread,
    rssMaxMiB,
    loadBefore: round(loadBefore),
    foreignCores: round(Math.max(0, machine - cpu) / lastSeconds),
  };
}

function verify(downloads: readonly Download[], origin: Origin): void {
  for (const { path } of downloads) {
    if (path !== undefined && sha256Of(path) !== origin.sha256) throw new Error(`${path} is not the origin's file`);
  }
}

async function deadline(options: Options): Promise<never> {
  const seconds = deadlineSeconds(options);
  await sleep(seconds * 1000, undefined, { ref: false });
  throw new Error(`not finished after ${seconds.toFixed(0)} s`);
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
