/**
 * A program's code as V8 has compiled it, kept for its next start: a supernode from source, without files, is then ready in
 * 1.0 s instead of 1.4; figures for dfget are in bench/README.md.
 *
 * What is there is executed: so only in a folder that is ours, and that nobody else can write. Best effort, without it a start is
 * slower and nothing else.
 */
import { lstatSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { enableCompileCache, flushCompileCache } from "node:module";
import { dirname, join } from "node:path";
import { cacheDirectory, type Machine, thisMachine } from "./machine.ts";
import { packageVersion } from "./package-version.ts";

/** Later than what a start is busy with. */
const FLUSH_MS = 10_000;

/** They end before most of the code has run; what is kept is what the first call has run. */
const ENDING_AT_ONCE: ReadonlySet<string> = new Set(["-h", "--help", "-V", "--version", "--print-config"]);

/** A service's, in its data folder. Call it before the code is loaded that is worth keeping. Never throws. */
export function keepServiceCode(dataDirectory: string, version: string): void {
  if (!keepIn(() => folderForCode(dataDirectory, version))) return;
  // Node writes at an orderly end; whoever is killed has been running for a while.
  setTimeout(flushCompileCache, FLUSH_MS).unref();
}

/** A command's, in its user's cache folder. Call it first. Never throws. */
export function keepClientCode(argv: readonly string[]): void {
  if (argv.some((argument) => ENDING_AT_ONCE.has(argument))) return;
  keepIn(() => clientFolder(thisMachine(), packageVersion()));
}

function keepIn(chooseFolder: () => string | undefined): boolean {
  try {
    const folder = chooseFolder();
    if (folder !== undefined) enableCompileCache(folder);
    return folder !== undefined;
  } catch {
    return false;
  }
}

/** As {@link folderForCode}; also undefined when others could put another folder in the place of ours. */
export function clientFolder(machine: Machine, version: string): string | undefined {
  const directory = cacheDirectory(machine);
  mkdirSync(dirname(directory), { recursive: true, mode: 0o700 });
  return isPrivate(dirname(directory)) ? folderForCode(directory, version) : undefined;
}

/**
 * Made where it is not; folders of other versions go.
 * @returns undefined when somebody else could have put something there
 * @throws as fs does
 */
export function folderForCode(directory: string, version: string): string | undefined {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const parent = join(directory, "compiled");
  const folder = join(parent, version);
  // From the outermost inwards.
  for (const path of [directory, parent, folder]) {
    makeFolder(path);
    if (!isPrivate(path)) return undefined;
  }
  for (const name of readdirSync(parent)) {
    if (name !== version) rmSync(join(parent, name), { recursive: true, force: true });
  }
  return folder;
}

/** Something else that has this name is found by {@link isPrivate}. */
function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== "EEXIST") throw thrown;
  }
}

function isPrivate(path: string): boolean {
  const facts = lstatSync(path);
  return facts.isDirectory() && facts.uid === process.geteuid?.() && (facts.mode & 0o022) === 0;
}
