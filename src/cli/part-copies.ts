/** The files that are made beside a FILE.part to take its place. */
import { randomBytes } from "node:crypto";
import { constants, readdirSync, rmSync } from "node:fs";
import { copyFile, open, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

export function newCopyPath(partPath: string): string {
  return `${partPath}.${process.pid}-${randomBytes(3).toString("hex")}`;
}

/**
 * Removes what dfgets that were killed had begun to make. For who has claimed the part: another that still makes one has lost
 * the claim, finds its file gone when it would put it in place, and ends; the part is left as it was.
 */
export function removeCopies(partPath: string): void {
  const prefix = `${basename(partPath)}.`;
  for (const name of readdirSync(dirname(partPath))) {
    if (name.startsWith(prefix) && /^\d+-[0-9a-f]{6}$/.test(name.slice(prefix.length))) rmSync(join(dirname(partPath), name), { force: true });
  }
}

/** Shares the bytes where the file system can, with their mode; else, and with a mode of its own, it takes its time, in which it can be given up. */
export async function copyOf(source: FileHandle, path: string, own: string, { mode, signal }: { readonly mode: number | undefined; readonly signal: AbortSignal | undefined }): Promise<void> {
  try {
    if (mode === undefined) return await copyFile(path, own, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "EEXIST") throw thrown;
  }
  const target = await open(own, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, mode ?? (await source.stat()).mode & 0o777);
  try {
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    for (let at = 0; ;) {
      signal?.throwIfAborted();
      const { bytesRead } = await source.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) return;
      for (let written = 0; written < bytesRead;) written += (await target.write(buffer, written, bytesRead - written, at + written)).bytesWritten;
      at += bytesRead;
    }
  } finally {
    await target.close();
  }
}

const READ_BYTES = 1024 * 1024;
