import { spawnSync } from "node:child_process";

/** Runs a short administrative command to its end; throws with its complaint when it fails. */
export function run(command: string, args: readonly string[], input?: string): string {
  const result = spawnSync(command, args, { encoding: "utf8", ...(input === undefined ? {} : { input }) });
  if (result.error !== undefined) throw result.error;
  if (result.status !== 0) {
    throw new Error(`${command} ${args.join(" ")}: exit ${result.status}: ${result.stderr.trim()}`);
  }
  return result.stdout;
}

export function isInstalled(command: string): boolean {
  return spawnSync("sh", ["-c", `command -v "$1"`, "sh", command]).status === 0;
}
