import { execFile } from "node:child_process";

export interface ProgramResult {
  /** The program is not installed. */
  readonly isMissing: boolean;
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end, two minutes at most; a signal counts as code 1. */
export function runProgram(name: string, args: readonly string[]): Promise<ProgramResult> {
  return new Promise((resolve) => {
    execFile(name, [...args], { timeout: TIMEOUT_MS, maxBuffer: OUTPUT_BYTES_MAX }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : 1;
      resolve({ isMissing: error?.code === "ENOENT", code, stdout, stderr });
    });
  });
}

const TIMEOUT_MS = 120_000;
const OUTPUT_BYTES_MAX = 4 * 1024 * 1024;
