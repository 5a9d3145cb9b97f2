/**
 * Rate limits, set and reached, on loopback: the host under measurement in this process, everything it talks to in another.
 *
 *   node bench/limits/main.ts [--seconds 5] [--only rates|tasks] [--out FILE.json]
 *
 * Counted are bytes of links (payload and frame headers) as this host reads them from its sockets, in each whole second.
 */
import { fork } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { PRIORITIES, type Priority } from "../../src/base/priority.ts";
import { HttpOrigin } from "../../src/origin/http-origin.ts";
import { readOrigin } from "../../src/peer/direct-content.ts";
import type { PeerTask } from "../../src/peer/peer.ts";
import { RateGate } from "../../src/peer/rate-gate.ts";
import { readOptions } from "../command-line.ts";
import { provenance } from "../provenance.ts";
import { type LonePeer, startPeer } from "./peers.ts";
import type { SeedAsk, SeedFile } from "./seed.ts";
import { fairness, reachedPerSecond, worstDeviation } from "./windows.ts";

const RATES = [10_000, 100_000, 1_000_000, 10_000_000, 50_000_000, 100_000_000];
const MIB = 1024 * 1024;

const values = readOptions(import.meta.filename, { seconds: { type: "string", default: "5" }, only: { type: "string" }, out: { type: "string" } });
const seconds = Number(values.seconds);
const folder = mkdtempSync("/dev/shm/dragonfly-limits-");
const child = fork(join(import.meta.dirname, "seed.ts"), [folder]);
const messages: object[] = [];
const waiting: ((message: object) => void)[] = [];
child.on("message", (message: object) => {
  const next = waiting.shift();
  if (next === undefined) messages.push(message);
  else next(message);
});
const told = (): Promise<object> => {
  const message = messages.shift();
  return message === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(message);
};
const ask = (question: SeedAsk): Promise<object> => {
  child.send(question);
  return told();
};
const result: Record<string, unknown> = { ...provenance(), seconds };

try {
  const { originPort } = (await told()) as { originPort: number };
  await measure(originPort);
  if (values.out !== undefined) writeFileSync(values.out, `${JSON.stringify(result, undefined, 1)}\n`);
} finally {
  child.disconnect();
  await new Promise((resolve) => child.once("exit", resolve));
  rmSync(folder, { recursive: true, force: true });
}

async function measure(originPort: number): Promise<void> {
  if (values.only !== "tasks") {
    console.log("limit      set B/s        reached B/s (mean)   worst second");
    const rows: object[] = [];
    for (const limit of ["download", "upload", "origin"] as const) {
      for (const rate of [...RATES, undefined]) rows.push(await (limit === "origin" ? originRow(originPort, rate) : linkRow(limit, rate)));
    }
    result["rates"] = rows;
  }
  if (values.only === "rates") return;
  result["tasks"] = [await tasksRow(200_000), await tasksRow(1_000_000), await tasksRow(10_000_000)];
  result["priorities"] = [await prioritiesRow(1_000_000), await prioritiesRow(10_000_000)];
  result["change"] = await changeRow();
}

/** Loads a file that has not been seen before, from as many peers as told. */
async function load(host: LonePeer, lengthBytes: number, peers: number, priority: Priority): Promise<PeerTask> {
  const file = (await ask({ type: "file", lengthBytes, priority, peers, hostId: host.peerId })) as SeedFile;
  const task = await host.peer.openTask(
    { ...file.record, publicKey: Buffer.from(file.publicKey, "base64"), lengthSignature: Buffer.from(file.lengthSignature, "base64") },
    priority,
  );
  task.connect(file.peers.map(({ peerId, port }) => ({ peerId, address: "127.0.0.1", port, seed: true })), file.ticket);
  return task;
}

async function withHost<T>(run: (host: LonePeer) => Promise<T>): Promise<T> {
  const host = await startPeer("host", folder);
  try {
    return await run(host);
  } finally {
    await host.close();
  }
}

function printRow(limit: string, rate: number | undefined, reached: { readonly seconds: readonly number[] }): object {
  const mean = reached.seconds.reduce((sum, each) => sum + each, 0) / reached.seconds.length;
  const worst = rate === undefined ? undefined : worstDeviation(reached, rate);
  const shown = worst === undefined ? "" : `${worst >= 0 ? "+" : ""}${(worst * 100).toFixed(1)} %`;
  console.log(`${limit.padEnd(10)} ${String(rate ?? "none").padEnd(14)} ${mean.toFixed(0).padEnd(20)} ${shown}`);
  return { limit, rate: rate ?? null, meanBytesPerSecond: Math.round(mean), worstDeviation: worst ?? null, seconds: reached.seconds.map(Math.round) };
}

function linkRow(limit: "download" | "upload", rate: number | undefined): Promise<object> {
  return withHost(async (host) => {
    if (limit === "download") host.peer.setLimits({ downloadBytesPerSecond: rate, uploadBytesPerSecond: undefined });
    await ask({ type: "upload", bytesPerSecond: limit === "upload" ? rate : undefined });
    const wanted = (rate ?? 200_000_000) * (seconds + 2);
    await load(host, Math.min(1500 * MIB, Math.max(16 * MIB, wanted)), 1, "interactive");
    await sleep(rate === undefined ? 200 : 1000);
    const reached = await reachedPerSecond(() => host.peer.limits.download.passedBytes, rate === undefined ? 2 : seconds);
    await ask({ type: "upload", bytesPerSecond: undefined });
    return printRow(limit, rate, reached);
  });
}

async function originRow(originPort: number, rate: number | undefined): Promise<object> {
  const origin = new HttpOrigin();
  const stop = new AbortController();
  let bytes = 0;
  const reading = (async () => {
    const request = { url: `http://127.0.0.1:${originPort}/`, headers: {} };
    const chunks = readOrigin({ origin, limit: new RateGate(rate), request, expected: undefined, digest: undefined }, { startByte: 0, endByte: undefined }, stop.signal);
    for await (const chunk of chunks) bytes += chunk.length;
  })().catch(() => undefined);
  await sleep(1000);
  const reached = await reachedPerSecond(() => bytes, seconds);
  stop.abort();
  await reading;
  await origin.close();
  return printRow("origin", rate, reached);
}

/** Bytes of a task on disk: its pieces are of 64 KiB, so ten seconds are enough to compare. */
function heldOf(tasks: readonly PeerTask[]): number[] {
  return tasks.map((task) => task.session.heldBytes);
}

function tasksRow(rate: number): Promise<object> {
  return withHost(async (host) => {
    host.peer.setLimits({ downloadBytesPerSecond: rate, uploadBytesPerSecond: undefined });
    // One of them has four links: it gets no more than the others.
    const tasks = [await load(host, lengthFor(rate), 4, "normal")];
    for (let i = 0; i < 3; i++) tasks.push(await load(host, lengthFor(rate), 1, "normal"));
    await sleep(1000);
    const before = heldOf(tasks);
    const reached = await reachedPerSecond(() => host.peer.limits.download.passedBytes, 10);
    const shares = heldOf(tasks).map((held, i) => held - (before[i] as number));
    const index = fairness(shares);
    const worst = worstDeviation(reached, rate);
    console.log(`4 tasks at ${rate} B/s, the first over four links: ${shares.join(" ")} bytes in 10 s; Jain ${index.toFixed(3)}; worst second ${(worst * 100).toFixed(1)} %`);
    return { rate, shares, jain: index, worstDeviation: worst };
  });
}

function prioritiesRow(rate: number): Promise<object> {
  return withHost(async (host) => {
    host.peer.setLimits({ downloadBytesPerSecond: rate, uploadBytesPerSecond: undefined });
    const tasks: PeerTask[] = [];
    for (const priority of PRIORITIES.toReversed()) tasks.unshift(await load(host, lengthFor(rate), 1, priority));
    await sleep(1000);
    const before = heldOf(tasks);
    const reached = await reachedPerSecond(() => host.peer.limits.download.passedBytes, 10);
    const shares = heldOf(tasks).map((held, i) => held - (before[i] as number));
    const worst = worstDeviation(reached, rate);
    console.log(`${PRIORITIES.join(", ")} at ${rate} B/s: ${shares.join(" ")} bytes in 10 s; worst second ${(worst * 100).toFixed(1)} %`);
    return { rate, shares, worstDeviation: worst };
  });
}

function changeRow(): Promise<object> {
  return withHost(async (host) => {
    host.peer.setLimits({ downloadBytesPerSecond: 1_000_000, uploadBytesPerSecond: undefined });
    await load(host, 128 * MIB, 1, "interactive");
    await sleep(1000);
    const steps: object[] = [];
    for (const rate of [1_000_000, 5_000_000, 200_000, 20_000_000]) {
      host.peer.setLimits({ downloadBytesPerSecond: rate, uploadBytesPerSecond: undefined });
      const { seconds: reached } = await reachedPerSecond(() => host.peer.limits.download.passedBytes, 2);
      console.log(`changed to ${rate} B/s: first second ${(((reached[0] as number) / rate - 1) * 100).toFixed(1)} %, second ${(((reached[1] as number) / rate - 1) * 100).toFixed(1)} %`);
      steps.push({ rate, reached: reached.map(Math.round) });
    }
    return steps;
  });
}

/** More than loads in the time, and below 32 MiB where pieces would grow. */
function lengthFor(rate: number): number {
  return rate > 2_000_000 ? 128 * MIB : 8 * MIB;
}
