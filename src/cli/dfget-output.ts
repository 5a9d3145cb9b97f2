/** Where dfget's bytes go: a file that appears whole or not at all, or a stream. */
import type { Digest } from "../protocol/ids.ts";
import type { FileVersion } from "./dfget-resume.ts";

/** Takes one file's bytes. Calls follow each other; none overlaps. */
export interface DfgetOutput {
  /** Parts may be written in any order. */
  readonly takesAnyOrder: boolean;
  /** Bytes here from the start on, without a gap. */
  readonly wholeBytes: number;
  /** Bytes here, those behind a gap included. */
  readonly takenBytes: number;
  /** Where `begin` will likely say to go on; 0 = from the start. */
  readonly likelyStartByte: number;
  /**
   * Before the first byte, and again when the way there changes in mid-file.
   *
   * @param signal gives it up: what an earlier run left may take minutes to read or to copy, and stays as it was
   * @returns the byte to go on from: what is here of the same version counts
   */
  begin(version: FileVersion, signal?: AbortSignal): Promise<number>;
  /**
   * @param bytes kept no longer than until the promise resolves, where `takesAnyOrder`
   * @throws AppError DISK_FULL, DISK_FAILED, OUTPUT_UNWRITABLE
   */
  write(bytes: Uint8Array, startByte: number): Promise<void>;
  /** All bytes are there: checks them and puts the file in its place. @throws AppError DIGEST_MISMATCH, OUTPUT_EXISTS, … */
  finish(): Promise<readonly Digest[]>;
  /** Forgets what is here: nobody can go on with it. @throws AppError ORIGIN_CHANGED when it cannot be taken back */
  restart(): void;
  /**
   * The download failed or was broken off. Idempotent.
   *
   * @param keep false when what came is known to be bad; else what a later `-c` can use is kept
   * @returns bytes kept
   */
  abandon(keep: boolean): Promise<number>;
}
