import type { AppError } from "../base/errors.ts";

/** An error as the commands print it: `[CODE] message`, one line; several problems of a configuration, a line each. */
export function errorLines(error: AppError): string {
  const problems =
    error.code === "CONFIG_INVALID" ? error.message.split("\n") : [error.message.replaceAll(/\s*\n\s*/g, " ")];
  return problems.map((problem) => `[${error.code}] ${problem}\n`).join("");
}

export function reportError(error: AppError): void {
  process.stderr.write(errorLines(error));
}

/** Whoever read stderr may go, and its disk may fill up: words are lost then, and nothing else. */
export function outliveStderr(): void {
  process.stderr.on("error", () => undefined);
}
