/** What a FILE.part belongs to: the state beside it, by which a later run decides whether to go on with it. */
import { hash, randomUUID } from "node:crypto";
import { readFileSync, readlinkSync, renameSync, rmSync, writeFileSync } from "node:fs";
import type { z } from "zod";
import { AppError } from "../base/errors.ts";
import type { ContentInfo } from "../peer/content.ts";
import type { Source } from "../protocol/control-messages.ts";
import { loadZod, type Zod } from "./on-demand.ts";

/** One version of one remote file, as far as dfget can tell. */
export interface FileVersion {
  /** SHA-256 of the URL without what is filtered from it: a signed URL must not lie on the disk. */
  readonly urlHash: string;
  readonly lengthBytes: number | null;
  readonly digest: string | null;
  readonly etag: string | null;
  readonly lastModified: string | null;
  /** This run, where what the caller sends may choose the file (a tenant, a key); neither that nor its hash is to lie on the disk. */
  readonly caller?: string | null | undefined;
}

const partStateSchema = (z: Zod) => z.object({
  version: z.literal(1),
  /** The process that writes, or wrote last. */
  pid: z.number().int(),
  /** Where the process has that number: {@link processSpace}. */
  space: z.string().nullish(),
  /** By somebody of before, in another space: who is named here has claimed the part and made no copy of it yet. */
  mayBeWritten: z.boolean().optional(),
  /** Of the part that `syncedBytes` is said of. */
  inode: z.string().nullish(),
  /** Null: who writes does not know yet what it will be, and has written nothing. */
  file: z.object({
    urlHash: z.string(),
    lengthBytes: z.number().nullable(),
    digest: z.string().nullable(),
    etag: z.string().nullable(),
    lastModified: z.string().nullable(),
    caller: z.string().nullish(),
  }).nullable(),
  /** So many bytes were on the disk itself when this was written. */
  syncedBytes: z.number().int().nonnegative(),
});
type PartState = z.infer<ReturnType<typeof partStateSchema>>;

export function fileVersion(source: Source, info: ContentInfo): FileVersion {
  return {
    urlHash: hash("sha256", identity(source)),
    lengthBytes: info.lengthBytes ?? null,
    digest: info.digest ?? source.digest ?? null,
    etag: info.headers["etag"] ?? null,
    lastModified: info.headers["last-modified"] ?? null,
    caller: Object.keys(source.headers).length === 0 ? null : RUN,
  };
}

/**
 * True when bytes of `a` can be continued with bytes of `b`: the same URL and length, and the same digest, strong ETag
 * or, where the origin sends no ETag, modification time, which files of different callers may share. Without any of them nobody
 * knows, and the answer is no.
 */
export function isSameVersion(a: FileVersion, b: FileVersion): boolean {
  if (a.urlHash !== b.urlHash || a.lengthBytes !== b.lengthBytes) return false;
  if (a.digest !== null && a.digest === b.digest) return true;
  if (a.etag !== null || b.etag !== null) return a.etag === b.etag && a.etag?.startsWith('"') === true;
  return a.lastModified !== null && a.lastModified === b.lastModified && (a.caller ?? null) === (b.caller ?? null);
}

/** True when a later run could go on with a part of this version. */
export function isResumable(version: FileVersion): boolean {
  return isSameVersion(version, { ...version, caller: null });
}

/** @returns undefined when there is none, or it is not ours to understand */
export function readPartState(path: string): PartState | undefined {
  try {
    const text = readFileSync(path, "utf8");
    const parsed = partStateSchema(loadZod()).safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

/** Where the next state is written before it takes its place: the longest of the names beside FILE. */
export function nextStatePath(statePath: string): string {
  return `${statePath}.new`;
}

/** Replaces the state in one step. @returns false when it cannot be written, which only costs a later run its start */
export function writePartState(path: string, state: PartState): boolean {
  const next = nextStatePath(path);
  try {
    writeFileSync(next, `${JSON.stringify(state)}\n`);
    renameSync(next, path);
    return true;
  } catch {
    removePartState(next);
    return false;
  }
}

/** What cannot be removed stays: no download fails for it. */
export function removePartState(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    // A directory, or another's.
  }
}

/**
 * @returns the process of another dfget that runs and writes this part; undefined: there is none. Looks at no more of the
 *   state than that, for it is asked in mid-download, and zod takes longer to load than to be of use there
 */
export function otherHolderOf(statePath: string): number | undefined {
  try {
    const { pid, space } = JSON.parse(readFileSync(statePath, "utf8")) as { readonly pid?: unknown; readonly space?: unknown };
    if (typeof space === "string" && space !== processSpace()) return undefined;
    return typeof pid === "number" && pid !== process.pid && isDfget(pid) ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** @throws AppError OUTPUT_UNWRITABLE when another dfget writes the part that the state is of */
export function assertFree(statePath: string, path: string): void {
  const pid = otherHolderOf(statePath);
  if (pid === undefined) return;
  throw new AppError("OUTPUT_UNWRITABLE", `another dfget (process ${pid}) is writing ${path}; wait for it, or choose another file`);
}

let ownSpace: string | undefined;

/** Within it a process's number says which process that is: a machine, one start of it, and a container's numbering there. */
export function processSpace(): string {
  return (ownSpace ??= [
    attempt(() => readFileSync("/etc/machine-id", "utf8").trim(), NO_ID) || NO_ID,
    attempt(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()),
    attempt(() => readlinkSync("/proc/self/ns/pid")),
  ].join(" "));
}

/** False when whoever wrote there has ended, as a look at the processes here tells, or that this machine was started anew since. */
export function mayWriteStill(space: string | null | undefined): boolean {
  if (space === processSpace()) return false;
  const [[machine, start], [ourMachine, ourStart]] = [(space ?? "").split(" "), processSpace().split(" ")];
  // Two that say not who they are may be two.
  return machine === NO_ID || machine !== ourMachine || start === ourStart;
}

function attempt(read: () => string, otherwise: string = RUN): string {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

function isDfget(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  try {
    // The number may have gone to another program since.
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("dfget");
  } catch {
    return false;
  }
}

/** The URL alone where nothing else was said, as in states of earlier versions. */
function identity(source: Source): string {
  const { tag, application } = source;
  return tag === undefined && application === undefined ? identityUrl(source) : JSON.stringify([identityUrl(source), tag ?? null, application ?? null]);
}

function identityUrl(source: Source): string {
  const url = new URL(source.url);
  for (const name of source.filteredQueryParameters ?? []) url.searchParams.delete(name);
  url.username = "";
  url.password = "";
  url.hash = "";
  return url.href;
}

const RUN = randomUUID();
/** Most containers: their start and numbering say enough to tell who runs, but not, after another start, which machine it was. */
const NO_ID = "-";
