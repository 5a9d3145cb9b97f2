import { AppError } from "../base/errors.ts";

/** An error as the commands print it: `[CODE] message`, one line; several problems of a configuration, a line each. */
export function errorLines(error: AppError): string {
  const problems =
    error.code === "CONFIG_INVALID" ? error.message.split("\n") : [error.message.replaceAll(/\s*\n\s*/g, " ")];
  return problems.map((problem) => `[${error.code}] ${problem}\n`).join("");
}

export function reportError(error: AppError): void {
  process.stderr.write(errorLines(error));
}

/** Whoever read them may go, and their disk may fill up: words are lost then; who waits for what was written is told. */
export function outliveOutputs(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
}

/** For who writes to stdout what was asked for, and does not wait: with nobody who reads it there is nothing else to do. */
export function endWithStdout(): void {
  process.stdout.once("error", ({ message }) => {
    const error = new AppError("OUTPUT_UNWRITABLE", `cannot write stdout: ${message}`);
    reportError(error);
    process.exit(error.exitCode);
  });
}
