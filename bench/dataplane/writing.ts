/**
 * What writing a file in pieces costs, with and without room for each piece before (src/peer/store/preallocation.ts).
 *
 *   node bench/dataplane/writing.ts [--runs 5] [--dir DIR]
 *
 * A GiB in pieces in a random order, 256 KiB at a time as the store's threads do, into a sparse file of its length; sides take turns. Needs koffi.
 * `accepted`: CPU of this process until all has been written; `flushed`: CPU of the whole machine until it is on the device, so it should be idle.
 */
import { randomFillSync } from "node:crypto";
import { closeSync, fdatasyncSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readOptions } from "../command-line.ts";
import { loadLibc } from "../../src/peer/libc.ts";

const GIB = 1024 ** 3;
const WRITE_BYTES = 256 * 1024;
const FALLOC_FL_KEEP_SIZE = 1;
/** Linux's USER_HZ, for /proc/stat. */
const TICKS_PER_SECOND = 100;

const options = readOptions(import.meta.filename, { runs: { type: "string", default: "5" }, dir: { type: "string", default: tmpdir() } });
const directory = mkdtempSync(join(options.dir, "dragonfly-writing-"));
const fallocate = loadLibc()?.func("int fallocate(int fd, int mode, int64_t offset, int64_t length)");
if (fallocate === undefined) throw new Error("needs koffi, on Linux");

function machineCpuSeconds(): number {
  const [, user = 0, nice = 0, system = 0, , , irq = 0, softIrq = 0] = readFileSync("/proc/stat", "latin1").split("\n", 1)[0]?.split(/\s+/).map(Number) ?? [];
  return (user + nice + system + irq + softIrq) / TICKS_PER_SECOND;
}

function write(pieceBytes: number, withRoom: boolean): { acceptedSeconds: number; flushedSeconds: number } {
  const path = join(directory, "data");
  const bytes = randomFillSync(new Uint8Array(pieceBytes));
  const pieces = Array.from({ length: GIB / pieceBytes }, (_, piece) => ({ piece, lot: Math.random() })).toSorted((a, b) => a.lot - b.lot);
  const fd = openSync(path, "w");
  ftruncateSync(fd, GIB);
  const machineBefore = machineCpuSeconds();
  const before = process.cpuUsage();
  for (const { piece } of pieces) {
    if (withRoom) fallocate?.(fd, FALLOC_FL_KEEP_SIZE, piece * pieceBytes, pieceBytes);
    for (let at = 0; at < pieceBytes; at += WRITE_BYTES) writeSync(fd, bytes, at, Math.min(WRITE_BYTES, pieceBytes - at), piece * pieceBytes + at);
  }
  const { user, system } = process.cpuUsage(before);
  fdatasyncSync(fd);
  const flushedSeconds = machineCpuSeconds() - machineBefore;
  closeSync(fd);
  rmSync(path);
  return { acceptedSeconds: (user + system) / 1e6, flushedSeconds };
}

function spread(values: readonly number[]): string {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (index: number): string => (sorted[index] as number).toFixed(2);
  return `${at(Math.floor(sorted.length / 2))} (${at(0)} – ${at(sorted.length - 1)})`;
}

try {
  process.stdout.write("CPU s per GiB, medians (least – most)        accepted              flushed\n");
  for (const pieceBytes of [1024 * 1024, 256 * 1024, 128 * 1024]) {
    const all = new Map([["without", [] as ReturnType<typeof write>[]], ["with room before", []]]);
    for (let run = 0; run < Number(options.runs); run++) for (const [name, runs] of all) runs.push(write(pieceBytes, name !== "without"));
    for (const [name, runs] of all) {
      process.stdout.write(`${`${pieceBytes / 1024} KiB, ${name}`.padEnd(42)}  ${spread(runs.map(({ acceptedSeconds }) => acceptedSeconds))}  ${spread(runs.map(({ flushedSeconds }) => flushedSeconds))}\n`);
    }
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
