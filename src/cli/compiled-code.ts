/**
 * A program's code as V8 has compiled it, kept for its next start: a supernode from source, without files, is then ready in
 * 1.0 s instead of 1.4, and a dfget from source answers in half the time (bench/README.md, "What one download costs").
 *
 * What is there is executed: so only in a folder that is ours, and that nobody else can write. Best effort, without it a start is
 * slower and nothing else.
 */
import { lstatSync, mkdirSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { enableCompileCache, flushCompileCache } from "node:module";
import { dirname, join } from "node:path";
import { cacheHome, type Machine, thisMachine } from "./machine.ts";
import { packageVersion } from "./package-version.ts";

/** Later than what a start is busy with. */
const FLUSH_MS = 10_000;

/** A service's, in its data folder. Call it before the code is loaded that is worth keeping. Never throws. */
export function keepServiceCode(dataDirectory: string, version: string): void {
  if (!keepIn(() => folderForCode(dataDirectory, version))) return;
  // Node writes at an orderly end; whoever is killed has been running for a while.
  setTimeout(flushCompileCache, FLUSH_MS).unref();
}

/** A command's, in its user's cache folder. Call it first. Never throws. */
export function keepClientCode(): void {
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

/** As {@link folderForCode}; also undefined where there is no cache folder, or others could put another one in its place. */
export function clientFolder(machine: Machine, version: string): string | undefined {
  const home = cacheHome(machine);
  if (home === undefined) return undefined;
  // Root's is the system's, or somebody else's: it is there, or it is not.
  if (!machine.isRoot) mkdirSync(home, { recursive: true, mode: 0o700 });
  const real = realpathSync(home);
  return isOutOfReach(real) ? folderForCode(join(real, "dragonfly"), version) : undefined;
}

/** Nobody but root and us can rename or replace what lies on the way to `path`, which holds no symbolic link. */
function isOutOfReach(path: string): boolean {
  for (let at = path; ; at = dirname(at)) {
    const { uid, mode } = lstatSync(at);
    const isOwned = uid === 0 || uid === process.geteuid?.();
    // Where all may write, but only the owner of something may move it (/tmp), ours stays ours.
    const isShut = (mode & 0o022) === 0 || (mode & 0o1000) !== 0;
    if (!isOwned || !isShut) return false;
    if (at === dirname(at)) return true;
  }
}

/**
 * Made where it is not; folders of other versions go.
 * @returns undefined when somebody else could have put something there
 * @throws as fs does
 */
export function folderForCode(directory: string, version: string): string | undefined {
  const parent = join(directory, "compiled");
  const folder = join(parent, version);
  // From the outermost inwards. Something else of this name, a link for instance, is not ours.
  for (const path of [directory, parent, folder]) {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    if (!isPrivate(path)) return undefined;
  }
  for (const name of readdirSync(parent)) {
    if (name !== version) rmSync(join(parent, name), { recursive: true, force: true });
  }
  return folder;
}

function isPrivate(path: string): boolean {
  const facts = lstatSync(path);
  return facts.isDirectory() && facts.uid === process.geteuid?.() && (facts.mode & 0o022) === 0;
}
