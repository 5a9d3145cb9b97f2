/** What every result that is filed says of itself: when it was measured, which tree, on which machine. */
import { spawnSync } from "node:child_process";
import { availableParallelism, cpus, release } from "node:os";
import { join } from "node:path";

export type MachineFacts = Readonly<Record<string, string | number>>;

export interface Provenance {
  readonly date: string;
  readonly tree: string | undefined;
  readonly machine: MachineFacts;
}

/** To be taken at the start: by the end of a long run somebody may have committed something else. */
export function provenance(): Provenance {
  return { date: new Date().toISOString(), tree: treeOf(join(import.meta.dirname, "..")), machine: machineFacts() };
}

export function machineFacts(): MachineFacts {
  return { cpu: cpus()[0]?.model.trim() ?? "unknown", cores: availableParallelism(), kernel: release(), node: process.version };
}

export function describeMachine(facts: MachineFacts): string {
  return Object.entries(facts).map(([key, value]) => `${key} ${value}`).join(", ");
}

/**
 * The short commit that is checked out, with "+" behind it when files of it are changed. Results do not count, as the one
 * filed before is no change of what is measured; nor do files that git does not know: who uses them is changed.
 *
 * @returns undefined outside git
 */
export function treeOf(repository: string): string | undefined {
  const git = (...args: readonly string[]): string | undefined => {
    const { status, stdout } = spawnSync("git", ["--no-optional-locks", "-C", repository, ...args], { encoding: "utf8" });
    return status === 0 ? stdout.trim() : undefined;
  };
  const commit = git("rev-parse", "--short", "HEAD");
  if (commit === undefined) return undefined;
  return git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results") === "" ? commit : `${commit}+`;
}
