/** Opens a file to download to: what is wrong with it, and what an earlier run left there. */
import { constants, fstatSync, lstatSync } from "node:fs";
import { access, open } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { AppError } from "../base/errors.ts";
import { assertFree, mayWriteStill, nextStatePath, processSpace, readPartState, writePartState } from "./dfget-resume.ts";
import { FileOutput, type FileOutputOptions, type OpenedPart } from "./file-output.ts";
import { outputError } from "./output-errors.ts";
import { assertMayReplace, partModeOf, unreadablePart } from "./output-permissions.ts";
import { inodeOf, statOf } from "./output-place.ts";

/**
 * Opens the output, so that whatever is wrong with it is known before any download.
 *
 * @throws AppError OUTPUT_EXISTS, OUTPUT_UNWRITABLE
 */
export async function openFileOutput(options: FileOutputOptions): Promise<FileOutput> {
  const path = resolve(options.path);
  const existing = statOf(path, "itself");
  if (statOf(path)?.isDirectory() === true || options.path.endsWith("/")) {
    throw new AppError("OUTPUT_UNWRITABLE", `${options.path} is a directory; name a file in it`);
  }
  if (existing !== undefined && !options.overwrite) {
    throw new AppError("OUTPUT_EXISTS", `${options.path} exists and stays as it is; give --force to overwrite it`);
  }
  const partPath = `${path}.part`;
  assertFree(`${partPath}.json`, options.path);
  assertMayReplace(path, partPath);
  assertNameFits(partPath, options.path);
  const state = readPartState(`${partPath}.json`);
  const opened = await openPart(partPath, partModeOf(existing)).catch((thrown: unknown) => {
    throw unreadablePart(thrown, partPath) ?? outputError(thrown, options.path, "OUTPUT_UNWRITABLE");
  });
  try {
    // Once more: another may have claimed it while ours was being looked at and opened. From here to our claim nothing waits.
    assertFree(`${partPath}.json`, options.path);
  } catch (thrown) {
    await opened.handle.close();
    throw thrown;
  }
  // At once, though nothing is written yet: whoever comes while the origin is being asked has to see that it is taken.
  const mayBeWritten = state !== undefined && (state.mayBeWritten === true || mayWriteStill(state.space));
  const isClaimed = writePartState(`${partPath}.json`, {
    version: 1,
    file: state?.file ?? null,
    syncedBytes: state?.syncedBytes ?? 0,
    pid: process.pid,
    space: processSpace(),
    inode: state?.inode ?? null,
    ...(mayBeWritten ? { mayBeWritten } : {}),
  });
  const part = fstatSync(opened.handle.fd);
  const isOfPart = state?.inode === undefined || state.inode === null || state.inode === inodeOf(part);
  // Not this process's id, where the claim is there to look at: a file system may give all files to one user.
  const ownId = (isClaimed ? statOf(`${partPath}.json`)?.uid : undefined) ?? process.geteuid?.();
  const hasForeignMode = part.uid !== ownId || opened.isReadOnly;
  const isShared = hasForeignMode || mayBeWritten;
  return new FileOutput({ ...options, path }, { ...opened, isForeign: !opened.isNew && state === undefined, isShared, hasForeignMode }, state?.file ?? undefined, isOfPart ? (state?.syncedBytes ?? 0) : 0);
}

async function openPart(partPath: string, mode: number): Promise<Pick<OpenedPart, "handle" | "isNew"> & { readonly isReadOnly: boolean }> {
  const flags = constants.O_RDWR | constants.O_NOFOLLOW;
  try {
    return { handle: await open(partPath, flags | constants.O_CREAT | constants.O_EXCL, mode), isNew: true, isReadOnly: false };
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== "EEXIST") throw thrown;
  }
  // Where it is known now that nothing can be put in FILE's place, or the part's.
  await access(dirname(partPath), constants.W_OK);
  try {
    return { handle: await open(partPath, flags | constants.O_CREAT, mode), isNew: false, isReadOnly: false };
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== "EACCES") throw thrown;
    // Another user's, or write-protected: it can be copied, or something else be put in its place.
    return { handle: await open(partPath, constants.O_RDONLY | constants.O_NOFOLLOW), isNew: false, isReadOnly: true };
  }
}

/** @throws AppError OUTPUT_UNWRITABLE when there is room in a name for FILE, but not for those beside it */
function assertNameFits(partPath: string, path: string): void {
  try {
    lstatSync(nextStatePath(`${partPath}.json`));
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ENAMETOOLONG") throw outputError(thrown, path, "OUTPUT_UNWRITABLE");
  }
}
