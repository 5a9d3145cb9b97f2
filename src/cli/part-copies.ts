/** The files that are made beside a FILE.part to take its place. */
import { randomBytes } from "node:crypto";
import { readdirSync, rmSync } from "node:fs";
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
