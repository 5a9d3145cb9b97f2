/**
 * Cuts the verification of pieces on disk into jobs for the threads.
 */
import type { HeldPieces } from "./held.ts";
import type { JournaledPiece } from "./journal.ts";
import type { PieceOnDisk } from "./worker.ts";

/** Bytes verified by one job: tens of milliseconds on a slow disk, so pieces being stored get their turn. */
const JOB_LENGTH_BYTES = 8 * 1024 * 1024;

/** Jobs for those of `pieces` that are held when their turn comes, each with what the journal said of it then. */
export function* verifyJobs(
  pieces: readonly number[],
  held: HeldPieces,
): Generator<readonly (PieceOnDisk & { readonly stored: JournaledPiece })[], undefined> {
  const perJob = Math.max(1, Math.floor(JOB_LENGTH_BYTES / held.record.pieceLengthBytes));
  for (let at = 0; at < pieces.length; at += perJob) {
    yield pieces.slice(at, at + perJob).flatMap((piece) => {
      const stored = held.get(piece);
      return stored === undefined ? [] : [{ piece, offsetByte: held.offsetOf(piece), lengthBytes: stored.lengthBytes, digest: stored.digest, stored }];
    });
  }
}
