/** Whose an output's files are, and who may do what to them. */
import type { Stats } from "node:fs";
import { dirname } from "node:path";
import { AppError } from "../base/errors.ts";
import { statOf } from "./output-place.ts";

/** @returns undefined when it is no file whose permissions say anything */
export function modeOf(stats: Stats | undefined): number | undefined {
  return stats?.isFile() === true ? stats.mode & 0o777 : undefined;
}

/** As of what it replaces, but that its owner may open it again, to go on with it. */
export function partModeOf(replaced: Stats | undefined): number {
  return (modeOf(replaced) ?? PLAIN_MODE) | 0o600;
}

/**
 * In a sticky folder, such as /tmp, a file is replaced by its owner or the folder's alone; and what a stranger put there for a
 * part of ours is none to go on with.
 *
 * @throws AppError OUTPUT_UNWRITABLE
 */
export function assertMayReplace(path: string, partPath: string): void {
  const folder = statOf(dirname(path));
  const uid = process.geteuid?.();
  if (folder === undefined || (folder.mode & STICKY) === 0) return;
  for (const at of [path, partPath, `${partPath}.json`]) {
    const owner = statOf(at, "itself")?.uid;
    if (owner === undefined || owner === uid || (at === path && (uid === 0 || uid === folder.uid))) continue;
    throw new AppError("OUTPUT_UNWRITABLE", `${at} belongs to another user, and its folder is sticky: have it removed, or choose another folder`);
  }
}

/** @returns undefined when that is not what is wrong */
export function unreadablePart(thrown: unknown, partPath: string): AppError | undefined {
  const owner = statOf(partPath, "itself")?.uid;
  if ((thrown as NodeJS.ErrnoException).code !== "EACCES" || owner === undefined || owner === process.geteuid?.()) return undefined;
  return new AppError("OUTPUT_UNWRITABLE", `${partPath} belongs to another user and cannot be read; remove it, or choose another file`, { cause: thrown });
}

/** S_ISVTX. */
const STICKY = 0o1000;
/** The umask takes from it what it takes. */
const PLAIN_MODE = 0o666;
