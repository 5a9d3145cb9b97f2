/** Where dfget's bytes go: a file that appears whole or not at all, or a stream. */
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  type Stats,
  unlinkSync,
  writeSync,
} from "node:fs";
import { access, copyFile, open, type FileHandle } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { AppError, type ErrorCode } from "../base/errors.ts";
import type { Digest } from "../protocol/ids.ts";
import { ByteSpans } from "./byte-spans.ts";
import type { DigestCheck } from "./digest-check.ts";
import {
  isResumable,
  isSameVersion,
  mayWriteStill,
  nextStatePath,
  otherHolderOf,
  processSpace,
  readPartState,
  removePartState,
  writePartState,
  type FileVersion,
} from "./dfget-resume.ts";
import { newCopyPath, removeCopies } from "./part-copies.ts";

/** Takes one file's bytes. Calls follow each other; none overlaps. */
export interface DfgetOutput {
  /** Parts may be written in any order. */
  readonly takesAnyOrder: boolean;
  /** Bytes here from the start on, without a gap. */
  readonly wholeBytes: number;
  /** Bytes here, those behind a gap included. */
  readonly takenBytes: number;
  /** Where `begin` will likely say to go on; 0 = from the start. */
  readonly likelyStartByte: number;
  /**
   * Before the first byte, and again when the way there changes in mid-file.
   *
   * @param signal gives it up: what an earlier run left may take minutes to read or to copy, and stays as it was
   * @returns the byte to go on from: what is here of the same version counts
   */
  begin(version: FileVersion, signal?: AbortSignal): Promise<number>;
  /**
   * @param bytes kept no longer than until the promise resolves, where `takesAnyOrder`
   * @throws AppError DISK_FULL, DISK_FAILED, OUTPUT_UNWRITABLE
   */
  write(bytes: Uint8Array, startByte: number): Promise<void>;
  /** All bytes are there: checks them and puts the file in its place. @throws AppError DIGEST_MISMATCH, OUTPUT_EXISTS, … */
  finish(): Promise<readonly Digest[]>;
  /** Forgets what is here: nobody can go on with it. @throws AppError ORIGIN_CHANGED when it cannot be taken back */
  restart(): void;
  /**
   * The download failed or was broken off. Idempotent.
   *
   * @param keep false when what came is known to be bad; else what a later `-c` can use is kept
   * @returns bytes kept
   */
  abandon(keep: boolean): Promise<number>;
}

export interface FileOutputOptions {
  readonly path: string;
  readonly overwrite: boolean;
  readonly resume: boolean;
  readonly check: DigestCheck;
}

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
  const isOthers = part.uid !== ownId;
  const isShared = isOthers || mayBeWritten;
  return new FileOutput({ ...options, path }, { ...opened, isForeign: !opened.isNew && state === undefined, isShared, isOthers }, state?.file ?? undefined, isOfPart ? (state?.syncedBytes ?? 0) : 0);
}

interface OpenedPart {
  readonly handle: FileHandle;
  /** It was not there: no other dfget has it open to begin a download of its own in it. */
  readonly isNew: boolean;
}

async function openPart(partPath: string, mode: number): Promise<OpenedPart> {
  const flags = constants.O_RDWR | constants.O_NOFOLLOW;
  try {
    return { handle: await open(partPath, flags | constants.O_CREAT | constants.O_EXCL, mode), isNew: true };
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== "EEXIST") throw thrown;
  }
  // Where it is known now that nothing can be put in FILE's place, or the part's.
  await access(dirname(partPath), constants.W_OK);
  try {
    return { handle: await open(partPath, flags | constants.O_CREAT, mode), isNew: false };
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== "EACCES") throw thrown;
    // Another user's: it can be copied, or something else be put in its place.
    return { handle: await open(partPath, constants.O_RDONLY | constants.O_NOFOLLOW), isNew: false };
  }
}

/**
 * Two dfgets that begin at the same moment may both find FILE.part free. Whose claim is written last has it; the other finds
 * out at its next checkpoint or at its end, and fails. Until then neither harms the other: who does not go on with what is there
 * writes to a file of its own, and who does writes the same bytes of the same version.
 */
export class FileOutput implements DfgetOutput {
  readonly #options: FileOutputOptions;
  #handle: FileHandle;
  #isNew: boolean;
  /** The file that was written, once it is closed. */
  #written: Stats | undefined;
  /** What lies there is none of dfget's; until something else is put in its place, it stays. */
  #isForeign: boolean;
  /** Another may be writing to it, or it is another user's, whose file's mode is not ours to set: a copy of our own is gone on with. */
  readonly #isShared: boolean;
  readonly #isOthers: boolean;
  readonly #partPath: string;
  readonly #statePath: string;
  /** What the part's bytes are of; before `begin`, the earlier run's word for its first `#usableBytes`. */
  #version: FileVersion | undefined;
  #usableBytes: number;
  #writtenBytes = 0;
  #syncedBytes = 0;
  /** As far as the state on the disk says. */
  #savedBytes = 0;
  /** What was written since the last flush that succeeded may be lost, though a second one says nothing of it: fsync(2) tells once. */
  #flushError: unknown;
  /** Written behind a gap. */
  readonly #islands = new ByteSpans();
  #readBack: Buffer | undefined;
  readonly takesAnyOrder = true;

  constructor(
    options: FileOutputOptions,
    { handle, isNew, isForeign, isShared, isOthers }: OpenedPart & { readonly isForeign: boolean; readonly isShared: boolean; readonly isOthers: boolean },
    version: FileVersion | undefined,
    usableBytes: number,
  ) {
    this.#isForeign = isForeign;
    this.#isShared = isShared;
    this.#isOthers = isOthers;
    this.#options = options;
    this.#handle = handle;
    this.#isNew = isNew;
    this.#partPath = `${options.path}.part`;
    this.#statePath = `${options.path}.part.json`;
    this.#version = version;
    this.#usableBytes = usableBytes;
  }

  get likelyStartByte(): number {
    return this.#options.resume ? this.#keptBytes : this.#writtenBytes;
  }

  get wholeBytes(): number {
    return this.#writtenBytes;
  }

  get takenBytes(): number {
    return this.#writtenBytes + this.#islands.totalBytes;
  }

  async begin(version: FileVersion, signal?: AbortSignal): Promise<number> {
    if (this.#flushError !== undefined) throw outputError(this.#flushError, this.#options.path, "DISK_FAILED");
    // What is behind a gap comes again.
    this.#islands.clear();
    const isSame = this.#version !== undefined && isSameVersion(this.#version, version);
    let goesOn = isSame && (this.#options.resume || this.#writtenBytes > 0);
    if (goesOn && this.#writtenBytes > 0) return this.#writtenBytes;
    try {
      // Who has claimed it since may be far ahead of us, or done: then the file that we have open is his, or already in its place.
      assertFree(this.#statePath, this.#options.path);
      if (!this.#isNew) removeCopies(this.#partPath);
      if (goesOn && this.#isShared && !this.#isNew) goesOn = await this.#useCopy(signal);
      if (goesOn) await this.#takeUp(Math.min(this.#usableBytes, version.lengthBytes ?? Number.POSITIVE_INFINITY), signal);
      else await this.#startAfresh();
      this.#version = version;
      assertFree(this.#statePath, this.#options.path);
      this.#assertIs(fstatSync(this.#handle.fd), this.#partPath);
      // On this thread: nothing may come between the look and the cut.
      ftruncateSync(this.#handle.fd, this.#writtenBytes);
    } catch (thrown) {
      throw outputError(thrown, this.#options.path, "DISK_FAILED");
    }
    this.#syncedBytes = this.#writtenBytes;
    this.#saveState();
    return this.#writtenBytes;
  }

  async write(bytes: Uint8Array, startByte: number): Promise<void> {
    try {
      // Where the origin takes over, what came before in another order comes once more.
      const news = bytes.subarray(Math.max(0, this.#writtenBytes - startByte));
      const newsStart = startByte + bytes.length - news.length;
      this.#writeAll(news, newsStart);
      if (newsStart > this.#writtenBytes) {
        this.#islands.add(newsStart, newsStart + news.length);
        return;
      }
      this.#options.check.update(news);
      this.#writtenBytes += news.length;
      this.#takeIslands();
      if (this.#writtenBytes - this.#syncedBytes >= CHECKPOINT_BYTES) await this.#checkpoint();
    } catch (thrown) {
      throw outputError(thrown, this.#options.path, "DISK_FAILED");
    }
  }

  async finish(): Promise<readonly Digest[]> {
    let digests: readonly Digest[];
    try {
      digests = this.#options.check.finish(this.#options.path);
    } catch (thrown) {
      await this.#remove();
      throw thrown;
    }
    try {
      // Who may read what is replaced may read what replaces it, and nobody else.
      const mode = modeOf(statOf(this.#options.path, "itself"));
      if (mode !== undefined && mode !== modeOf(fstatSync(this.#handle.fd))) fchmodSync(this.#handle.fd, mode);
      await this.#flush("sync");
      this.#written = fstatSync(this.#handle.fd);
      await this.#handle.close();
      assertFree(this.#statePath, this.#options.path);
      this.#assertIs(this.#written, this.#partPath);
      this.#putInPlace();
      flushDirectory(dirname(this.#options.path));
      this.#assertIs(this.#written, this.#options.path);
    } catch (thrown) {
      throw outputError(thrown, this.#options.path, "DISK_FAILED");
    }
    removePartState(this.#statePath);
    return digests;
  }

  restart(): void {
    this.#options.check.restart();
    this.#version = undefined;
    this.#writtenBytes = 0;
    this.#usableBytes = 0;
  }

  async abandon(keep: boolean): Promise<number> {
    if (await this.#isTaken()) {
      await this.#handle.close().catch(() => undefined);
      return 0;
    }
    // Whole, and only its place was taken: it stays, as was said.
    if (this.#written !== undefined) return 0;
    const version = this.#version;
    if (!keep || version === undefined || !isResumable(version) || this.#keptBytes === 0) {
      await this.#remove();
      return 0;
    }
    if (this.#flushError !== undefined) {
      if (this.#savedBytes === 0) await this.#remove();
      else await this.#handle.close().catch(() => undefined);
      return this.#savedBytes;
    }
    try {
      // A full disk has no room for the word of what it holds: a little of that makes way.
      if (this.#writtenBytes > 0 && !(await this.#checkpoint())) {
        this.#writtenBytes = Math.max(0, this.#writtenBytes - STATE_ROOM_BYTES);
        this.#usableBytes = Math.min(this.#usableBytes, this.#writtenBytes);
        ftruncateSync(this.#handle.fd, this.#writtenBytes);
        await this.#checkpoint();
      }
      await this.#handle.close();
    } catch {
      // The last state on disk stands.
    }
    return this.#writtenBytes === 0 ? this.#usableBytes : this.#savedBytes;
  }

  /** Before `begin` the part is still the earlier run's. */
  get #keptBytes(): number {
    return this.#writtenBytes === 0 ? this.#usableBytes : this.#writtenBytes;
  }

  #writeAll(bytes: Uint8Array, startByte: number): void {
    for (let at = 0; at < bytes.length;) {
      // On this thread: dfget has nothing else to do meanwhile, and the thread pool would double its wake-ups.
      at += writeSync(this.#handle.fd, bytes, at, bytes.length - at, startByte + at);
    }
  }

  /** The gap before them has closed, or what is in them has come once more. */
  #takeIslands(): void {
    const end = this.#islands.takeThrough(this.#writtenBytes);
    if (this.#options.check.isExpecting) this.#hashBack(this.#writtenBytes, end);
    this.#writtenBytes = end;
  }

  #hashBack(start: number, end: number): void {
    const buffer = (this.#readBack ??= Buffer.allocUnsafe(READ_BYTES));
    for (let at = start; at < end;) {
      const count = readSync(this.#handle.fd, buffer, 0, Math.min(buffer.length, end - at), at);
      if (count === 0) throw new AppError("DISK_FAILED", `${this.#partPath} was cut while it was being written`);
      this.#options.check.update(buffer.subarray(0, count));
      at += count;
    }
  }

  /** Hashes what an earlier run left, as far as it is really there. */
  async #takeUp(byteCount: number, signal: AbortSignal | undefined): Promise<void> {
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    while (this.#writtenBytes < byteCount) {
      if (signal?.aborted === true) {
        // All of it is the earlier run's still, and not only what was read.
        this.#writtenBytes = 0;
        this.#options.check.restart();
        throw signal.reason;
      }
      const wanted = Math.min(READ_BYTES, byteCount - this.#writtenBytes);
      const { bytesRead } = await this.#handle.read(buffer, 0, wanted, this.#writtenBytes);
      if (bytesRead === 0) break;
      this.#options.check.update(buffer.subarray(0, bytesRead));
      this.#writtenBytes += bytesRead;
    }
    // What was not there now is not there later either: behind a gap there may by then be something.
    this.#usableBytes = this.#writtenBytes;
  }

  /** From here on a crash of the machine costs only what comes after. */
  async #checkpoint(): Promise<boolean> {
    await this.#flush("datasync");
    this.#syncedBytes = this.#writtenBytes;
    return this.#saveState();
  }

  async #flush(by: "sync" | "datasync"): Promise<void> {
    try {
      await this.#handle[by]();
    } catch (thrown) {
      this.#flushError = thrown;
      throw thrown;
    }
  }

  async #startAfresh(): Promise<void> {
    this.restart();
    if (this.#isNew) return;
    const mode = partModeOf(statOf(this.#options.path, "itself"));
    await this.#useOwn(async (own) => await (await open(own, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, mode)).close());
  }

  /** @returns false when there is no room for two: then it is begun anew, in the place of what is there */
  async #useCopy(signal: AbortSignal | undefined): Promise<boolean> {
    try {
      // Nothing of another user's mode comes along: it might make a program of it that runs as us.
      const mode = this.#isOthers ? partModeOf(statOf(this.#options.path, "itself")) : undefined;
      await this.#useOwn((own) => copyOf(this.#handle, this.#partPath, own, { mode, signal }));
      return true;
    } catch (thrown) {
      if (outputError(thrown, this.#options.path, "DISK_FAILED").code !== "DISK_FULL") throw thrown;
      return false;
    }
  }

  /** Puts a file of our own in the part's place: who has that one open goes on with it, unharmed. */
  async #useOwn(make: (path: string) => Promise<void>): Promise<void> {
    const own = newCopyPath(this.#partPath);
    let handle: FileHandle | undefined;
    let isMade = false;
    try {
      await make(own);
      isMade = true;
      handle = await open(own, constants.O_RDWR | constants.O_NOFOLLOW);
      // What the state says of the part is to be true on the disk of its copy, too.
      if ((await handle.stat()).size > 0) await handle.datasync();
      renameSync(own, this.#partPath);
    } catch (thrown) {
      const isTaken = isMade && statOf(own, "itself") === undefined;
      await handle?.close();
      rmSync(own, { force: true });
      throw isTaken ? takenAway(this.#partPath, this.#options.path) : thrown;
    }
    await this.#handle.close();
    this.#handle = handle;
    this.#isNew = true;
    this.#isForeign = false;
  }

  /** @returns false when the former state stands */
  #saveState(): boolean {
    if (this.#version === undefined) return false;
    assertFree(this.#statePath, this.#options.path);
    const isSaved = writePartState(this.#statePath, {
      version: 1,
      pid: process.pid,
      space: processSpace(),
      inode: inodeOf(fstatSync(this.#handle.fd)),
      file: this.#version,
      syncedBytes: this.#syncedBytes,
    });
    if (isSaved) this.#savedBytes = this.#syncedBytes;
    return isSaved;
  }

  /** What lies there is the file that was written, and not what somebody else has put there meanwhile. */
  #assertIs(written: Stats, path: string): void {
    const there = statOf(path, "itself");
    if (there !== undefined && isSameFile(there, written)) return;
    throw takenAway(path, this.#options.path);
  }

  /** On this thread, as writing: each of these calls is shorter than a trip to the thread pool and back. */
  #putInPlace(): void {
    const { path, overwrite } = this.#options;
    try {
      if (overwrite) renameSync(this.#partPath, path);
      else renameToNew(this.#partPath, path);
    } catch (thrown) {
      const { code, message } = thrown as NodeJS.ErrnoException;
      const isWhole = `the download is whole in ${this.#partPath}`;
      if (code === "EEXIST") throw new AppError("OUTPUT_EXISTS", `${path} was made by somebody else meanwhile and stays as it is; ${isWhole}`);
      throw new AppError("OUTPUT_UNWRITABLE", `cannot put ${path} in its place: ${message}; ${isWhole}`, { cause: thrown });
    }
  }

  /** Another dfget has the part: what lies there is not ours to keep or to remove. */
  async #isTaken(): Promise<boolean> {
    if (otherHolderOf(this.#statePath) !== undefined) return true;
    const own = this.#written ?? (await this.#handle.stat().catch(() => undefined));
    const there = statOf(this.#partPath, "itself");
    return own !== undefined && there !== undefined && !isSameFile(own, there);
  }

  async #remove(): Promise<void> {
    const isTaken = await this.#isTaken();
    this.#version = undefined;
    await this.#handle.close().catch(() => undefined);
    if (isTaken) return;
    if (!this.#isForeign) rmSync(this.#partPath, { force: true });
    removePartState(this.#statePath);
  }
}

/** @throws NodeJS.ErrnoException EEXIST when there is a file of that name */
function renameToNew(from: string, to: string): void {
  try {
    // Unlike rename, link refuses when somebody made the file meanwhile.
    linkSync(from, to);
    unlinkSync(from);
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code !== "EPERM" && code !== "EOPNOTSUPP" && code !== "ENOSYS" && code !== "EMLINK") throw thrown;
    // A file system without hard links.
    renameSync(from, to);
  }
}

function flushDirectory(path: string): void {
  const directory = openSync(path, "r");
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

/** Shares the bytes where the file system can, with their mode; else, and with a mode of its own, it takes its time, in which it can be given up. */
async function copyOf(source: FileHandle, path: string, own: string, { mode, signal }: { readonly mode: number | undefined; readonly signal: AbortSignal | undefined }): Promise<void> {
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

/** S_ISVTX. */
const STICKY = 0o1000;
/** The umask takes from it what it takes. */
const PLAIN_MODE = 0o666;

/** @returns undefined when it is no file whose permissions say anything */
function modeOf(stats: Stats | undefined): number | undefined {
  return stats?.isFile() === true ? stats.mode & 0o777 : undefined;
}

/** As of what it replaces, but that its owner may open it again, to go on with it. */
function partModeOf(replaced: Stats | undefined): number {
  return (modeOf(replaced) ?? PLAIN_MODE) | 0o600;
}

function inodeOf({ ino }: Stats): string {
  return String(ino);
}

function isSameFile(one: Stats, other: Stats): boolean {
  return one.dev === other.dev && one.ino === other.ino;
}

/** @throws AppError OUTPUT_UNWRITABLE when another dfget writes the part that the state is of */
function assertFree(statePath: string, path: string): void {
  const pid = otherHolderOf(statePath);
  if (pid === undefined) return;
  throw new AppError("OUTPUT_UNWRITABLE", `another dfget (process ${pid}) is writing ${path}; wait for it, or choose another file`);
}

/**
 * In a sticky folder, such as /tmp, a file is replaced by its owner or the folder's alone; and what a stranger put there for a
 * part of ours is none to go on with.
 *
 * @throws AppError OUTPUT_UNWRITABLE
 */
function assertMayReplace(path: string, partPath: string): void {
  const folder = statOf(dirname(path));
  const uid = process.geteuid?.();
  if (folder === undefined || (folder.mode & STICKY) === 0) return;
  for (const at of [path, partPath, `${partPath}.json`]) {
    const owner = statOf(at, "itself")?.uid;
    if (owner === undefined || owner === uid || (at === path && (uid === 0 || uid === folder.uid))) continue;
    throw new AppError("OUTPUT_UNWRITABLE", `${at} belongs to another user, and its folder is sticky: have it removed, or choose another folder`);
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

/** @returns undefined when that is not what is wrong */
function unreadablePart(thrown: unknown, partPath: string): AppError | undefined {
  const owner = statOf(partPath, "itself")?.uid;
  if ((thrown as NodeJS.ErrnoException).code !== "EACCES" || owner === undefined || owner === process.geteuid?.()) return undefined;
  return new AppError("OUTPUT_UNWRITABLE", `${partPath} belongs to another user and cannot be read; remove it, or choose another file`, { cause: thrown });
}

function takenAway(what: string, path: string): AppError {
  return new AppError("OUTPUT_UNWRITABLE", `${what} was taken away or replaced while it was being written; is another dfget writing ${path}?`);
}

/** @returns undefined when there is nothing, or nothing that can be looked at: opening it will say why */
export function statOf(path: string, link: "itself" | "target" = "target"): Stats | undefined {
  try {
    return link === "itself" ? lstatSync(path) : statSync(path);
  } catch {
    return undefined;
  }
}

/** What a file system said, as our error. @param canGoOn whether -c has anything to go on with there */
export function outputError(thrown: unknown, path: string, fallback: ErrorCode, canGoOn = true): AppError {
  if (thrown instanceof AppError) return thrown;
  const { code, message } = thrown as NodeJS.ErrnoException;
  if (code === "ENOSPC" || code === "EDQUOT") {
    const what = code === "ENOSPC" ? "the disk is full" : "the disk quota is used up";
    return new AppError("DISK_FULL", `cannot write ${path}: ${what}; make room and ${canGoOn ? "go on with -c" : "start again"}`, { cause: thrown });
  }
  const advice = ADVICE[code ?? ""];
  return new AppError(
    advice === undefined ? fallback : "OUTPUT_UNWRITABLE",
    `cannot write ${path}: ${advice ?? message}`,
    { cause: thrown },
  );
}

const ADVICE: Readonly<Record<string, string>> = {
  ENOENT: "its folder does not exist; make it first",
  ENOTDIR: "a part of its path is a file, not a folder",
  EACCES: "no permission; choose another folder",
  EPERM: "not allowed; choose another folder",
  EROFS: "the file system is read-only; choose another folder",
  ENAMETOOLONG: "the name is too long; choose a shorter one with -O",
  ELOOP: "its .part file is a symbolic link; remove it",
  EISDIR: "its .part file is a directory; remove it",
  EFBIG: "the file is larger than the file system or a limit allows",
  EPIPE: "whoever read it has hung up",
};

/** What a crash of the machine may cost. At 100 MB/s a checkpoint every 0.7 s. */
const CHECKPOINT_BYTES = 64 * 1024 * 1024;
/** Several blocks of any file system. */
const STATE_ROOM_BYTES = 128 * 1024;
const READ_BYTES = 1024 * 1024;
