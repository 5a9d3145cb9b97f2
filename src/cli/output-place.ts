/** What lies at an output's path, and putting the whole file there. */
import { closeSync, fsyncSync, linkSync, lstatSync, openSync, renameSync, statSync, type Stats, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { AppError } from "../base/errors.ts";

/** @returns undefined when there is nothing, or nothing that can be looked at: opening it will say why */
export function statOf(path: string, link: "itself" | "target" = "target"): Stats | undefined {
  try {
    return link === "itself" ? lstatSync(path) : statSync(path);
  } catch {
    return undefined;
  }
}

export function inodeOf({ ino }: Stats): string {
  return String(ino);
}

export function isSameFile(one: Stats, other: Stats): boolean {
  return one.dev === other.dev && one.ino === other.ino;
}

/**
 * On this thread, as writing: each of these calls is shorter than a trip to the thread pool and back.
 *
 * @throws AppError OUTPUT_EXISTS, OUTPUT_UNWRITABLE; NodeJS.ErrnoException when it cannot be made to last
 */
export function putInPlace(partPath: string, path: string, overwrite: boolean): void {
  try {
    if (overwrite) renameSync(partPath, path);
    else renameToNew(partPath, path);
  } catch (thrown) {
    const { code, message } = thrown as NodeJS.ErrnoException;
    const isWhole = `the download is whole in ${partPath}`;
    if (code === "EEXIST") throw new AppError("OUTPUT_EXISTS", `${path} was made by somebody else meanwhile and stays as it is; ${isWhole}`);
    throw new AppError("OUTPUT_UNWRITABLE", `cannot put ${path} in its place: ${message}; ${isWhole}`, { cause: thrown });
  }
  flushDirectory(dirname(path));
}

/** @throws NodeJS.ErrnoException EEXIST when there is a file of that name */
function renameToNew(from: string, to: string): void {
  try {
    // Unlike rename, link refuses when somebody made the file meanwhile.
    linkSync(from, to);
    unlinkSync(from);
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code !== "EPERM" && code !== "EOPNOTSUPP" && code !== "ENOSYS" && code !== "EMLINK") throw thrown;
    // A file system without hard links.
    renameSync(from, to);
  }
}

function flushDirectory(path: string): void {
  const directory = openSync(path, "r");
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
