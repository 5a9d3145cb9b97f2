/** The folder beside the output in which the peer of one dfget keeps its pieces, as large as the file. */
import { lstatSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { join } from "node:path";

/** Makes one; those that dfgets of this user left there when they were killed are removed first. */
export async function makePeerFolder(parent: string): Promise<string> {
  const names = await readdir(parent).catch(() => []);
  await Promise.all(names.filter((name) => name.startsWith(PREFIX)).map((name) => removeIfLeft(join(parent, name))));
  return mkdtemp(join(parent, PREFIX));
}

async function removeIfLeft(directory: string): Promise<void> {
  const cache = join(directory, "cache");
  // The last is written once the lock is held, and taken away before it is let go of. In a folder for all, such as /tmp, what is
  // another's may lead anywhere.
  if (!isOwn(directory, "folder") || !isOwn(cache, "folder") || !isOwn(join(cache, "lock.owner"), "file")) return;
  try {
    const { StoreLock } = await import("../peer/store/lock.ts");
    const lock = await StoreLock.take(cache);
    await rm(directory, { recursive: true, force: true }).finally(() => lock.release());
  } catch {
    // It runs still; or it cannot be told here, and stays.
  }
}

function isOwn(path: string, kind: "folder" | "file"): boolean {
  const there = lstatSync(path, { throwIfNoEntry: false });
  return there !== undefined && there.uid === process.geteuid?.() && (kind === "folder" ? there.isDirectory() && (there.mode & 0o022) === 0 : there.isFile());
}

const PREFIX = ".dfget-peer-";
