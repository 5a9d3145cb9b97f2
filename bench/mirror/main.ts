/**
 * What the mirror costs an engine: containerd pulls and unpacks an image straight from its registry, through dfdaemon
 * with no peers and cold caches, and again; the time to the first byte of a cached blob; memory under many pulls.
 *
 * Root, with what `.ci/run` installs.
 *
 *   node bench/mirror/main.ts [--rate MBIT/S] [--rounds 7] [--megabytes 500] [--only pulls,first-byte,memory] [--out FILE]
 *   node bench/mirror/main.ts --summary FILE
 */
import { appendFileSync } from "node:fs";
import { join } from "node:path";

import { type PushedImage, pushImage } from "../../test/e2e/lib/image.ts";
import { Lab } from "../../test/e2e/lib/processes.ts";
import { describeMachine, provenance } from "../provenance.ts";
import { readMirrorOptions } from "./options.ts";
import { DIRECT, MIRROR, MIRRORED, Rig } from "./rig.ts";
import { touchMemory } from "../touched-memory.ts";
import { median, readRounds, type Round, summaryOf } from "./summary.ts";

const MEGABYTE = 1_000_000;
const LAYERS = 5;
/** What the programs have pulled before anything is measured: caches are to be cold, not code that never ran. */
const WARM_UP_LAYER_BYTES = 24 * MEGABYTE;
/** What one pull writes, at most: supernode's and dfdaemon's caches, containerd's content, the layers unpacked; and as much again. */
const COPIES_PER_PULL = 8;
const FIRST_BYTE_SAMPLES = 40;
const PULLS = 50;
const SMALL_LAYERS = 10;
const SMALL_LAYER_BYTES = 4 * MEGABYTE;

const { rounds, imageBytes, rate, parts, out, summary } = readMirrorOptions(import.meta.filename);
const started = provenance();
const command = `node bench/mirror/main.ts ${process.argv.slice(2).join(" ")}`.trim();

if (summary === undefined) {
  const lab = new Lab("bench-mirror");
  await lab.use(async () => {
    console.log(describeMachine(started.machine));
    const rig = await Rig.start(lab, rate);
    if (parts.includes("pulls") || parts.includes("first-byte")) await measurePulls(lab, rig);
    if (parts.includes("memory")) await measureMemory(lab, rig);
  });
} else {
  for (const line of summaryOf(readRounds(summary))) console.log(JSON.stringify(line, undefined, 1));
}

async function measurePulls(lab: Lab, rig: Rig): Promise<void> {
  const layerBytes = Array.from({ length: LAYERS }, () => Math.round(imageBytes / LAYERS));
  const image = await pushImage(lab, rig.registryUrl, { repository: "bench/app", tag: "v1", layerBytes });
  const warmUp = await pushImage(lab, rig.registryUrl, {
    repository: "bench/other",
    tag: "v1",
    layerBytes: Array.from({ length: LAYERS }, () => WARM_UP_LAYER_BYTES),
  });
  const measured: Round[] = [];
  for (let round = 0; round < (parts.includes("pulls") ? rounds : 1); round += 1) {
    const fresh = await rig.startFresh();
    await rig.pull(MIRRORED, warmUp, fresh);
    // What the page cache holds of the registry's files by then is the same for all.
    if (round === 0) await rig.pull(DIRECT, image, fresh);
    const measuredPull = async (from: string): ReturnType<typeof rig.pull> => {
      touchMemory(imageBytes * COPIES_PER_PULL);
      return await rig.pull(from, image, fresh);
    };
    const first = round % 2 === 0 ? await measuredPull(DIRECT) : undefined;
    const cold = await measuredPull(MIRRORED);
    const direct = first ?? (await measuredPull(DIRECT));
    const warm = await measuredPull(MIRRORED);
    const line: Round = { rate: rate ?? null, imageBytes, direct, cold, warm };
    measured.push(line);
    print(line);
    if (round === 0 && parts.includes("first-byte")) print({ firstByteMs: await firstBytes(rig, image) });
    await fresh.remove();
  }
  if (out === undefined) for (const line of summaryOf(measured)) console.log(JSON.stringify(line, undefined, 1));
}

async function measureMemory(lab: Lab, rig: Rig): Promise<void> {
  const layerBytes = Array.from({ length: SMALL_LAYERS - 1 }, () => SMALL_LAYER_BYTES);
  const small = await pushImage(lab, rig.registryUrl, { repository: "bench/small", tag: "v1", layerBytes });
  const fresh = await rig.startFresh();
  const puller = [process.execPath, join(import.meta.dirname, "puller.ts"), `${MIRROR}/v2/${MIRRORED}/bench/small`, small.manifestDigest];
  for (const state of ["cold", "warm"]) {
    const before = fresh.cpuSeconds();
    const done = await rig.engineHost.run([...puller, String(PULLS)]);
    if (done.code !== 0) throw new Error(`${PULLS} pulls: ${done.stdout}${done.stderr}`);
    const cpu = Object.fromEntries(Object.entries(fresh.cpuSeconds()).map(([name, seconds]) => [name, Math.round((seconds - (before[name] ?? 0)) * 100) / 100]));
    print({ pulls: PULLS, layers: SMALL_LAYERS, state, seconds: done.ms / 1000, cpu, peakRssMiB: fresh.peakMebibytes() });
  }
  await fresh.remove();
}

/** From the first packet of a new connection to the answer's first byte, for blobs that are here. */
async function firstBytes(rig: Rig, image: PushedImage): Promise<{ readonly median: number; readonly max: number }> {
  const samples: number[] = [];
  for (let i = 0; i < FIRST_BYTE_SAMPLES; i += 1) {
    const blob = image.blobs[i % image.blobs.length];
    const url = `${MIRROR}/v2/${MIRRORED}/${image.repository}/blobs/${blob?.digest}`;
    const done = await rig.engineHost.run(["curl", "-sf", "-o", "/dev/null", "-w", "%{time_starttransfer}", url]);
    samples.push(Number(done.stdout) * 1000);
  }
  return { median: median(samples), max: Math.max(...samples) };
}

function print(line: object): void {
  console.log(JSON.stringify(line));
  if (out !== undefined) appendFileSync(out, `${JSON.stringify({ ...started, date: new Date().toISOString(), command, ...line })}\n`);
}
