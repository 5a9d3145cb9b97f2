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
  // Written once the lock is held, and taken away before it is let go of.
  const owner = lstatSync(join(cache, "lock.owner"), { throwIfNoEntry: false });
  if (owner === undefined || owner.uid !== process.geteuid?.()) return;
  try {
    const { StoreLock } = await import("../peer/store/lock.ts");
    const lock = await StoreLock.take(cache);
    await rm(directory, { recursive: true, force: true }).finally(() => lock.release());
  } catch {
    // It runs still; or it cannot be told here, and stays.
  }
}

const PREFIX = ".dfget-peer-";
