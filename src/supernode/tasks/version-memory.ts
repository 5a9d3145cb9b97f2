/**
 * What the origin last said about each file, over restarts: so that a file can still be given out while its origin is
 * down, and a version without a name is recognised. Keys are keyed hashes; no URL and no credential is in it.
 */
import { renameSync } from "node:fs";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { AppError } from "../../base/errors.ts";
import { isTaskId, type TaskId } from "../../protocol/ids.ts";

export interface RememberedVersion {
  readonly taskId: TaskId;
  readonly lengthBytes: number | undefined;
  /** Wall clock of the last time the origin confirmed it. */
  readonly seenUnixMs: number;
}

/** A table on disk, written through, with a mirror in memory for what was used since the start. */
export class VersionMemory {
  /** New rows since the last look at how many there are. */
  #newsCount = 0;
  readonly #database: DatabaseSync;
  readonly #get: StatementSync;
  readonly #set: StatementSync;
  readonly #recent = new Map<string, RememberedVersion>();

  /**
   * Opens or makes the file; one that cannot be read is put aside as `<file>.broken` and begun anew.
   * @param file `:memory:` keeps nothing
   * @throws AppError DISK_FAILED
   */
  constructor(file: string) {
    this.#database = openDatabase(file);
    this.#get = this.#database.prepare("SELECT task_id, length_bytes, seen_unix_ms FROM version WHERE key = ?");
    this.#set = this.#database.prepare(
      "INSERT INTO version (key, task_id, length_bytes, seen_unix_ms) VALUES (?1, ?2, ?3, ?4) " +
        "ON CONFLICT (key) DO UPDATE SET task_id = ?2, length_bytes = ?3, seen_unix_ms = ?4",
    );
  }

  get(key: string): RememberedVersion | undefined {
    const recent = this.#recent.get(key);
    if (recent !== undefined) return recent;
    const row = this.#get.get(key);
    const taskId = row?.["task_id"];
    if (row === undefined || typeof taskId !== "string" || !isTaskId(taskId)) return undefined;
    const lengthBytes = row["length_bytes"];
    const version: RememberedVersion = {
      taskId,
      lengthBytes: typeof lengthBytes === "number" ? lengthBytes : undefined,
      seenUnixMs: Number(row["seen_unix_ms"]),
    };
    this.#keep(key, version);
    return version;
  }

  /** Remembers `version`. Written at once when it is news, else at most once a minute. Disk trouble is not passed on. */
  set(key: string, version: RememberedVersion): void {
    const known = this.get(key);
    this.#keep(key, version);
    const isNews = known?.taskId !== version.taskId || known.lengthBytes !== version.lengthBytes;
    if (!isNews && version.seenUnixMs - (this.#writtenUnixMs.get(key) ?? 0) < WRITE_MS_MIN) return;
    this.#writtenUnixMs.set(key, version.seenUnixMs);
    try {
      this.#set.run(key, version.taskId, version.lengthBytes ?? null, version.seenUnixMs);
      if (isNews && ++this.#newsCount >= TRIM_EVERY) {
        this.#newsCount = 0;
        trim(this.#database);
      }
    } catch {
      // It is a memory, not a record: a full disk must not fail the download whose version it is.
    }
  }

  close(): void {
    this.#database.close();
  }

  readonly #writtenUnixMs = new Map<string, number>();

  #keep(key: string, version: RememberedVersion): void {
    this.#recent.delete(key);
    this.#recent.set(key, version);
    if (this.#recent.size <= RECENT_COUNT_MAX) return;
    const oldest = this.#recent.keys().next().value as string;
    this.#recent.delete(oldest);
    this.#writtenUnixMs.delete(oldest);
  }
}

function openDatabase(file: string): DatabaseSync {
  try {
    return tryOpen(file);
  } catch (error) {
    // A full disk says nothing of the file: it is left as it is for the next start, and this run remembers in memory.
    if (isFull(error)) return tryOpen(":memory:");
    try {
      renameSync(file, `${file}.broken`);
      return tryOpen(file);
    } catch {
      const why = error instanceof Error ? error.message : String(error);
      throw new AppError("DISK_FAILED", `cannot open ${file}: ${why}`, { cause: error });
    }
  }
}

/** SQLITE_FULL; SQLITE_IOERR, for what it maps beside the file has no room either. */
function isFull(thrown: unknown): boolean {
  return thrown instanceof Error && "errcode" in thrown && typeof thrown.errcode === "number" && [13, 10].includes(thrown.errcode & 0xff);
}

function tryOpen(file: string): DatabaseSync {
  const database = new DatabaseSync(file);
  try {
    // Losing the last second at a power cut is fine; waiting for the disk on every join is not.
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA user_version = 1");
    database.exec(
      "CREATE TABLE IF NOT EXISTS version (key TEXT PRIMARY KEY, task_id TEXT NOT NULL, length_bytes INTEGER, " +
        "seen_unix_ms INTEGER NOT NULL) WITHOUT ROWID",
    );
    database.exec("CREATE INDEX IF NOT EXISTS version_seen ON version (seen_unix_ms)");
    trim(database);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

function trim(database: DatabaseSync): void {
  database
    .prepare("DELETE FROM version WHERE seen_unix_ms < (SELECT seen_unix_ms FROM version ORDER BY seen_unix_ms DESC LIMIT 1 OFFSET ?)")
    .run(ROW_COUNT_MAX - 1);
}

/** About ten ms. */
const TRIM_EVERY = 1_000;
/** Rows kept, but for those that came since the last look: 40 MB on disk. */
const ROW_COUNT_MAX = 200_000;
const RECENT_COUNT_MAX = 20_000;
const WRITE_MS_MIN = 60_000;
