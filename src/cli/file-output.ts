/** A file that is downloaded: as FILE.part while it comes, in its place when it is whole. */
import { constants, fchmodSync, fstatSync, ftruncateSync, readSync, renameSync, rmSync, type Stats, writeSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { AppError } from "../base/errors.ts";
import type { Digest } from "../protocol/ids.ts";
import { ByteSpans } from "./byte-spans.ts";
import type { DfgetOutput } from "./dfget-output.ts";
import { assertFree, isResumable, isSameVersion, otherHolderOf, processSpace, removePartState, writePartState, type FileVersion } from "./dfget-resume.ts";
import type { DigestCheck } from "./digest-check.ts";
import { outputError, takenAway } from "./output-errors.ts";
import { modeOf, partModeOf } from "./output-permissions.ts";
import { inodeOf, isSameFile, putInPlace, statOf } from "./output-place.ts";
import { copyOf, newCopyPath, removeCopies } from "./part-copies.ts";

export interface FileOutputOptions {
  readonly path: string;
  readonly overwrite: boolean;
  readonly resume: boolean;
  readonly check: DigestCheck;
  /** Monotonic milliseconds. */
  readonly nowMs?: () => number;
}

/** The part as it was found, or made. */
export interface OpenedPart {
  readonly handle: FileHandle;
  /** It was not there: no other dfget has it open to begin a download of its own in it. */
  readonly isNew: boolean;
  /** What lies there is none of dfget's; until something else is put in its place, it stays. */
  readonly isForeign: boolean;
  /** Another may be writing to it, or its mode is none of ours: a copy of our own is gone on with. */
  readonly isShared: boolean;
  /** It is another user's, or write-protected: the copy does not get its mode. */
  readonly hasForeignMode: boolean;
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
  #isForeign: boolean;
  readonly #isShared: boolean;
  readonly #hasForeignMode: boolean;
  readonly #partPath: string;
  readonly #statePath: string;
  /** What the part's bytes are of; before `begin`, the earlier run's word for its first `#usableBytes`. */
  #version: FileVersion | undefined;
  #usableBytes: number;
  #writtenBytes = 0;
  #syncedBytes = 0;
  /** As far as the state on the disk says. */
  #savedBytes = 0;
  /** When it was last to say so. */
  #savedAtMs = 0;
  /** What was written since the last flush that succeeded may be lost, though a second one says nothing of it: fsync(2) tells once. */
  #flushError: unknown;
  /** Written behind a gap. */
  readonly #islands = new ByteSpans();
  #readBack: Buffer | undefined;
  readonly takesAnyOrder = true;

  constructor(
    options: FileOutputOptions,
    { handle, isNew, isForeign, isShared, hasForeignMode }: OpenedPart,
    version: FileVersion | undefined,
    usableBytes: number,
  ) {
    this.#isForeign = isForeign;
    this.#isShared = isShared;
    this.#hasForeignMode = hasForeignMode;
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
      if (this.#isCheckpointDue) await this.#checkpoint();
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
      putInPlace(this.#partPath, this.#options.path, this.#options.overwrite);
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

  get #nowMs(): number {
    return this.#options.nowMs?.() ?? performance.now();
  }

  get #isCheckpointDue(): boolean {
    const unsyncedBytes = this.#writtenBytes - this.#syncedBytes;
    return unsyncedBytes >= CHECKPOINT_BYTES || (unsyncedBytes > 0 && this.#nowMs - this.#savedAtMs >= CHECKPOINT_MS);
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
      const mode = this.#hasForeignMode ? partModeOf(statOf(this.#options.path, "itself")) : undefined;
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
    // Where there is no room for it another try costs a flush: not with each block.
    this.#savedAtMs = this.#nowMs;
    if (isSaved) this.#savedBytes = this.#syncedBytes;
    return isSaved;
  }

  /** What lies there is the file that was written, and not what somebody else has put there meanwhile. */
  #assertIs(written: Stats, path: string): void {
    const there = statOf(path, "itself");
    if (there !== undefined && isSameFile(there, written)) return;
    throw takenAway(path, this.#options.path);
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

/** What a crash of the machine, or SIGKILL, may cost: at 100 MB/s a checkpoint every 0.7 s, over a slow link one every ten. */
const CHECKPOINT_BYTES = 64 * 1024 * 1024;
const CHECKPOINT_MS = 10_000;
/** Several blocks of any file system. */
const STATE_ROOM_BYTES = 128 * 1024;
const READ_BYTES = 1024 * 1024;
