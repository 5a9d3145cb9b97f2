/**
 * Checks pieces found on disk against their digests, on all threads at once.
 */
import type { PieceSet } from "../../protocol/piece-set.ts";
import type { JournaledPiece } from "./journal.ts";
import type { TaskFiles } from "./files.ts";
import type { StoreRunner } from "./pool.ts";
import type { PieceOnDisk } from "./worker.ts";

/** Bytes verified by one job: tens of milliseconds on a slow disk, so pieces being stored get their turn. */
const JOB_LENGTH_BYTES = 8 * 1024 * 1024;

/**
 * Verifies the pieces in `files.state` and drops those whose bytes are not right, from there and from the journal.
 *
 * @param trusted pieces that need no verification
 * @param workerCount jobs kept under way at a time
 * @returns the pieces dropped, in no order
 * @throws AppError as {@link StoreRunner.run} and `Journal.append`; the files are closed then
 */
export async function dropDamaged(files: TaskFiles, trusted: PieceSet, runner: StoreRunner, workerCount: number): Promise<readonly number[]> {
  const { data, dataPath, journal, state } = files;
  try {
    const unsure = [...state.pieces].filter(([piece]) => !trusted.has(piece));
    const jobs = batches(unsure, state.record.pieceLengthBytes);
    const damaged: number[] = [];
    const lane = async (): Promise<void> => {
      for (const pieces of jobs) damaged.push(...(await runner.run("verifyOnDisk", { fd: data.fd, pieces }, dataPath)));
    };
    const lanes = await Promise.allSettled(Array.from({ length: workerCount }, lane));
    // Only now that all lanes have ended may the file be closed.
    for (const result of lanes) if (result.status === "rejected") throw result.reason;
    for (const piece of damaged) state.pieces.delete(piece);
    await Promise.all(damaged.map((piece) => journal.append({ kind: "discard", piece })));
    return damaged;
  } catch (error) {
    await Promise.all([data.close(), journal.close()]);
    throw error;
  }
}

function* batches(pieces: readonly (readonly [number, JournaledPiece])[], pieceLengthBytes: number): Generator<PieceOnDisk[], undefined> {
  const perJob = Math.max(1, Math.floor(JOB_LENGTH_BYTES / pieceLengthBytes));
  for (let at = 0; at < pieces.length; at += perJob) {
    yield pieces.slice(at, at + perJob).map(([piece, { lengthBytes, digest }]) => ({ piece, offsetByte: piece * pieceLengthBytes, lengthBytes, digest }));
  }
}
