/** The files that are made beside a FILE.part to take its place. */
import { randomBytes } from "node:crypto";

export function newCopyPath(partPath: string): string {
  return `${partPath}.${process.pid}-${randomBytes(3).toString("hex")}`;
}
