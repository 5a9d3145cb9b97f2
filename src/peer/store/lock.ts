/**
 * One process per cache directory. The lock is the system's, taken through SQLite (built into Node) on the file `lock`,
 * so it ends with its process however that ends: there is no stale lock to judge, nor a pid that means something else
 * in another container. `lock.owner` says who holds it, for the message only.
 */
import { readFile, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { AppError } from "../../base/errors.ts";

export class StoreLock {
  readonly #database: DatabaseSync;
  readonly #ownerPath: string;

  private constructor(database: DatabaseSync, ownerPath: string) {
    this.#database = database;
    this.#ownerPath = ownerPath;
  }

  /**
   * Takes the lock of `directory`, which must exist.
   *
   * @throws AppError DISK_FAILED when another process (or another store of this one) has it, or locks do not work there
   */
  static async take(directory: string): Promise<StoreLock> {
    const path = join(directory, "lock");
    const ownerPath = join(directory, "lock.owner");
    let database: DatabaseSync | undefined;
    try {
      database = new DatabaseSync(path, { timeout: 0 });
      // Without a rollback journal on disk, nothing but `lock` itself is touched. (OFF is refused, unsaid, by a connection that is "defensive", as Node opens them: a full disk could not be locked.)
      database.exec("PRAGMA journal_mode=MEMORY; BEGIN EXCLUSIVE");
    } catch (error) {
      database?.close();
      throw isBusy(error) ? await inUse(directory, ownerPath) : unlockable(error, path);
    }
    // The lock holds without it.
    await writeFile(ownerPath, `process ${process.pid} on ${hostname()}\n`).catch(() => undefined);
    return new StoreLock(database, ownerPath);
  }

  async release(): Promise<void> {
    await rm(this.#ownerPath, { force: true }).catch(() => undefined);
    this.#database.close();
  }
}

/** SQLITE_BUSY. */
const BUSY = 5;

function isBusy(thrown: unknown): boolean {
  return thrown instanceof Error && "errcode" in thrown && thrown.errcode === BUSY;
}

async function inUse(directory: string, ownerPath: string): Promise<AppError> {
  const owner = (await readFile(ownerPath, "utf8").catch(() => "")).trim() || "another process";
  const message = `the cache directory ${directory} is in use by ${owner}; stop it, or choose another data directory`;
  return new AppError("DISK_FAILED", message, { details: { path: directory, owner } });
}

function unlockable(thrown: unknown, path: string): AppError {
  const why = thrown instanceof Error ? thrown.message : String(thrown);
  const message = `cannot lock ${path}: ${why}; the cache directory must be writable and on a file system with locks`;
  return new AppError("DISK_FAILED", message, { cause: thrown, details: { path } });
}
