/**
 * node sim/main.ts [seed] [--peers N] [--pieces N] [--piece-kib N] [--seed-factor N] [--arrival-ms N] [--delay-us N]
 *                  [--window-kib N] [--chunk-kib N] [--fair-queueing] [--crashes N] [--mixed] [--swarm JSON]
 *                  [--scheduler JSON] [--faults] [--perf] [--seeds A-B]
 *
 * One seed: a drawn workload (or the plain one, once any size is given), its options and its figures. `--perf`: the
 * table of plain workloads. `--seeds A-B`: drawn workloads with faults, one line each; exit code 1 if any failed.
 */
import { parseArgs } from "node:util";
import { describeOptions, drawnOptions, mixedShares, plainOptions, type SimOptions } from "./options.ts";
import { simulate, type SimReport } from "./simulation.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    peers: { type: "string" },
    pieces: { type: "string" },
    "piece-kib": { type: "string" },
    "seed-factor": { type: "string" },
    "arrival-ms": { type: "string" },
    "delay-us": { type: "string" },
    "window-kib": { type: "string" },
    "chunk-kib": { type: "string" },
    crashes: { type: "string" },
    swarm: { type: "string" },
    scheduler: { type: "string" },
    "fair-queueing": { type: "boolean", default: false },
    mixed: { type: "boolean", default: false },
    faults: { type: "boolean", default: false },
    perf: { type: "boolean", default: false },
    seeds: { type: "string" },
  },
});

/** Peers, pieces, seed's uplink as a multiple of a peer's. */
const PERF = [[16, 200, 1], [16, 800, 1], [100, 200, 1], [100, 200, 2], [100, 800, 1], [300, 200, 1]] as const;

const seed = Number(positionals[0] ?? 1);

if (values.seeds !== undefined) {
  const [from, to] = values.seeds.split("-").map(Number) as [number, number];
  for (let each = from; each <= (to ?? from); each++) run(drawnOptions(each, true));
} else if (values.perf) {
  for (const fairQueueing of [false, true]) {
    for (const [peerCount, pieceCount, seedFactor] of PERF) {
      run(plainOptions(seed, { peerCount, pieceCount, seedFactor, fairQueueing }));
    }
  }
  run(plainOptions(seed, { peerCount: 100, uplinkShares: mixedShares(100), seedFactor: 2 }));
} else if (values.peers !== undefined || values.pieces !== undefined || values["piece-kib"] !== undefined || values["seed-factor"] !== undefined) {
  run(givenOptions());
} else {
  run(drawnOptions(seed, values.faults));
}

function givenOptions(): SimOptions {
  const peerCount = Number(values.peers ?? 100);
  const base = plainOptions(seed, { peerCount, pieceLengthBytes: Number(values["piece-kib"] ?? 256) * 1024 });
  return {
    ...base,
    pieceCount: Number(values.pieces ?? base.pieceCount),
    seedFactor: Number(values["seed-factor"] ?? 1),
    arrivalMs: Number(values["arrival-ms"] ?? 0),
    delayUs: Number(values["delay-us"] ?? base.delayUs),
    windowBytes: Number(values["window-kib"] ?? base.windowBytes / 1024) * 1024,
    chunkBytes: Number(values["chunk-kib"] ?? base.chunkBytes / 1024) * 1024,
    fairQueueing: values["fair-queueing"],
    crashCount: Number(values.crashes ?? 0),
    uplinkShares: values.mixed ? mixedShares(peerCount) : base.uplinkShares,
    swarm: { ...base.swarm, ...(values.swarm === undefined ? {} : (JSON.parse(values.swarm) as object)) },
    scheduler: { ...base.scheduler, ...(values.scheduler === undefined ? {} : (JSON.parse(values.scheduler) as object)) },
  };
}

function run(options: SimOptions): void {
  console.log(describeOptions(options));
  const startedMs = performance.now();
  try {
    console.log(`  ${describeReport(simulate(options))}, ran ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
  } catch (error) {
    process.exitCode = 1;
    console.log(`  FAILED: ${(error as Error).stack ?? String(error)}`);
  }
}

function describeReport(report: SimReport): string {
  const percentile = (share: number): string =>
    (report.finishMs[Math.min(report.finishMs.length - 1, Math.floor(report.finishMs.length * share))] ?? 0).toFixed(0);
  return [
    `efficiency ${(report.efficiency * 100).toFixed(1)} %`,
    `T* ${report.boundMs.toFixed(0)} ms, p50 ${percentile(0.5)}, p99 ${percentile(0.99)}, last ${report.lastMs.toFixed(0)}`,
    `seed sent ${report.seedCopies.toFixed(2)} copies`,
    `uplinks in use ${report.uplinkUse.map((share) => (share * 100).toFixed(0)).join(" ")} %`,
    `${report.offers} offers, declined ${JSON.stringify(report.declines)}`,
    `late ${report.late}, doubled ${report.doubled}, wasted ${(report.wastedShare * 100).toFixed(2)} %, stored twice ${report.storedTwice}`,
    `${report.messagesPerPiece.toFixed(1)} messages and ${report.wakeUpsPerPiece.toFixed(1)} wake-ups per piece, ${report.controlMessagesPerPeer.toFixed(1)} control messages per peer`,
    `${(report.events / 1e6).toFixed(2)} M events`,
  ].join("; ");
}
