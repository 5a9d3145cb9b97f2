/** What setup wrote, and what was there before: the memory of an undo, in dfdaemon's data folder. */
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { z } from "zod";
import { AppError } from "../base/errors.ts";
import { ENGINE_NAMES } from "./engine.ts";
import type { FileState, HostFiles } from "./host-files.ts";

const stateSchema = z.object({
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  mode: z.number(),
  uid: z.number(),
  gid: z.number(),
});
const entrySchema = z.object({
  engine: z.enum(ENGINE_NAMES),
  path: z.string(),
  written: stateSchema,
  /** What an earlier setup had written, and lies there still if `written` never came to be: a kill, a full disk. */
  earlier: stateSchema.optional(),
  /** Null: there was no file. Its bytes lie in `originals/<sha256>`. */
  original: stateSchema.nullable(),
});
const recordSchema = z.object({
  format: z.literal(1),
  files: z.array(entrySchema),
  /** That were made for the files. */
  directories: z.array(z.string()),
});

export type RecordedState = z.infer<typeof stateSchema>;
export type RecordEntry = z.infer<typeof entrySchema>;

export class SetupRecord {
  readonly #host: HostFiles;
  readonly #directory: string;
  #entries: readonly RecordEntry[];
  #directories: readonly string[];

  private constructor(host: HostFiles, directory: string, { files, directories }: z.infer<typeof recordSchema>) {
    this.#host = host;
    this.#directory = directory;
    this.#entries = files;
    this.#directories = directories;
  }

  /** @param directory it may not be there yet @throws AppError CACHE_CORRUPT, DISK_FAILED */
  static load(host: HostFiles, directory: string): SetupRecord {
    const path = join(directory, RECORD);
    const text = host.read(path);
    if (text === undefined) return new SetupRecord(host, directory, { format: 1, files: [], directories: [] });
    try {
      return new SetupRecord(host, directory, recordSchema.parse(JSON.parse(text)));
    } catch (thrown) {
      const message =
        `${path} is not what setup wrote there, so what the engines' files were before cannot be told; ` +
        `their contents are in ${join(directory, ORIGINALS)}: put them back by hand, then remove ${directory}`;
      throw new AppError("CACHE_CORRUPT", message, { cause: thrown });
    }
  }

  get path(): string {
    return join(this.#directory, RECORD);
  }

  get entries(): readonly RecordEntry[] {
    return this.#entries;
  }

  find(path: string): RecordEntry | undefined {
    return this.#entries.find((entry) => entry.path === path);
  }

  /** @throws AppError CACHE_CORRUPT when the kept bytes are not those that were put there */
  original(entry: RecordEntry): FileState | undefined {
    const { original } = entry;
    if (original === null) return undefined;
    const kept = this.originalFile(original);
    const bytes = this.#host.state(kept)?.bytes;
    if (bytes === undefined || sha256(bytes) !== original.sha256) {
      throw new AppError("CACHE_CORRUPT", `${kept}, what ${entry.path} was before, is gone or changed: ${entry.path} stays as it is`);
    }
    return { bytes, mode: original.mode, uid: original.uid, gid: original.gid };
  }

  originalFile(original: RecordedState): string {
    return join(this.#directory, ORIGINALS, original.sha256);
  }

  /**
   * Remembers a file that is about to be written; a crash between the two leaves one that is still as it was.
   *
   * @param directories that will be made for it
   */
  put(entry: RecordEntry, original: FileState | undefined, directories: readonly string[]): void {
    this.#host.makeDirectory(dirname(this.#directory));
    this.#host.makeDirectory(join(this.#directory, ORIGINALS), 0o700);
    if (original !== undefined && entry.original !== null) {
      this.#host.write(this.originalFile(entry.original), { bytes: original.bytes, ...OWN_FILE });
    }
    this.#directories = [...new Set([...this.#directories, ...directories])];
    this.#save([...this.#entries.filter(({ path }) => path !== entry.path), entry]);
  }

  /** Forgets a file that is as it was before, and removes the directories that were made for it. */
  drop(path: string): void {
    for (const directory of this.#directories.toReversed()) this.#host.removeIfEmpty(directory);
    this.#save(this.#entries.filter((entry) => entry.path !== path));
    const used = new Set(this.#entries.map(({ original }) => original?.sha256));
    const originals = join(this.#directory, ORIGINALS);
    for (const name of this.#host.list(originals)) if (!used.has(name)) this.#host.remove(join(originals, name));
    if (this.#entries.length > 0) return;
    this.#host.remove(this.path);
    this.#host.removeIfEmpty(originals);
    this.#host.removeIfEmpty(this.#directory);
  }

  #save(entries: readonly RecordEntry[]): void {
    const record = { format: 1, files: entries, directories: this.#directories };
    const bytes = Buffer.from(`${JSON.stringify(record, undefined, 2)}\n`);
    this.#host.write(this.path, { bytes, ...OWN_FILE });
    this.#entries = entries;
  }
}

export function recorded({ bytes, mode, uid, gid }: FileState): RecordedState {
  return { sha256: sha256(bytes), mode, uid, gid };
}

/** True when what lies there is a setup's, and not somebody else's. */
export function isWritten(state: FileState | undefined, { written, earlier }: RecordEntry): boolean {
  return isSameState(state, written) || (earlier !== undefined && isSameState(state, earlier));
}

export function isSameState(state: FileState | undefined, is: RecordedState | null): boolean {
  if (state === undefined || is === null) return state === undefined && is === null;
  return sha256(state.bytes) === is.sha256 && state.mode === is.mode && state.uid === is.uid && state.gid === is.gid;
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

const OWN_FILE = { mode: 0o600, uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 };
const RECORD = "record.json";
const ORIGINALS = "originals";
