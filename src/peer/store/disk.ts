/**
 * The store's file system: the few things it does to files and directories, in one place, so that a test can stand in
 * with one that records, tears or fails. Failures are the system's own errors; callers put them in our words.
 * Worker threads read and write pieces through {@link DiskFile.fd} (worker.ts); tests replace those by a StoreRunner.
 */
import { constants, read, writeSync } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat, statfs, type FileHandle } from "node:fs/promises";
import { errnoOf } from "./errors.ts";
import { systemPreallocation } from "./preallocation.ts";

/**
 * - `read`: what is there. - `edit`: what is there, for writing too. - `editOrCreate`: as `edit`, empty when not there.
 * - `replace`: empty, whatever was there.
 */
export type OpenMode = "read" | "edit" | "editOrCreate" | "replace";

export interface DiskFile {
  /** Valid until `close`. */
  readonly fd: number;
  /** Fills `into` from `offsetByte` on. @returns bytes read; fewer than `into` holds only where the file ends */
  read(into: Uint8Array, offsetByte: number): Promise<number>;
  /** On this thread: for entries of a hundred bytes, some µs into the page cache. */
  writeSync(bytes: Uint8Array, offsetByte: number): void;
  /** Room on the device for what will be written there in a moment. Best effort, never throws. On this thread: some µs. */
  preallocate(offsetByte: number, lengthBytes: number): void;
  facts(): Promise<FileFacts>;
  truncate(lengthBytes: number): Promise<void>;
  /** Resolves when contents and length are on the device. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface FileFacts {
  readonly lengthBytes: number;
  readonly modifiedUnixMs: number;
}

export interface StoreDisk {
  open(path: string, mode: OpenMode): Promise<DiskFile>;
  /** One level. Node's own recursive form answers ENOENT for a read-only file system. */
  makeDirectory(path: string): Promise<void>;
  list(path: string): Promise<string[]>;
  rename(from: string, to: string): Promise<void>;
  /** A file or a tree; one that is not there counts as removed. */
  remove(path: string): Promise<void>;
  /** Resolves when names made, moved or removed in the directory are on the device. */
  syncDirectory(path: string): Promise<void>;
  /** @returns undefined when it is not there */
  facts(path: string): Promise<FileFacts | undefined>;
  /** Bytes free for us on the file system. */
  freeBytes(path: string): Promise<number>;
}

/** The system's. */
export const systemDisk: StoreDisk = {
  open: async (path, mode) => new SystemFile(await open(path, FLAGS[mode], 0o640)),
  makeDirectory: (path) => mkdir(path),
  list: (path) => readdir(path),
  rename: (from, to) => rename(from, to),
  remove: (path) => rm(path, { recursive: true, force: true }),
  async syncDirectory(path) {
    const directory = await open(path, "r");
    try {
      await directory.sync();
    } catch (error) {
      // Not every file system has it for directories; those write names in order.
      if (!["EINVAL", "ENOTSUP", "EPERM", "EISDIR"].includes(errnoOf(error) ?? "")) throw error;
    } finally {
      await directory.close();
    }
  },
  async facts(path) {
    try {
      const { size, mtimeMs } = await stat(path);
      return { lengthBytes: size, modifiedUnixMs: mtimeMs };
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
  },
  async freeBytes(path) {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  },
};

const FLAGS: Readonly<Record<OpenMode, number>> = {
  read: constants.O_RDONLY,
  edit: constants.O_RDWR,
  editOrCreate: constants.O_RDWR | constants.O_CREAT,
  replace: constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC,
};

class SystemFile implements DiskFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  get fd(): number {
    return this.#handle.fd;
  }

  async read(into: Uint8Array, offsetByte: number): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const count = await this.#readSome(into, done, offsetByte + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  writeSync(bytes: Uint8Array, offsetByte: number): void {
    for (let done = 0; done < bytes.length; ) done += writeSync(this.fd, bytes, done, bytes.length - done, offsetByte + done);
  }

  preallocate(offsetByte: number, lengthBytes: number): void {
    systemPreallocation().room(this.fd, offsetByte, lengthBytes);
  }

  async facts(): Promise<FileFacts> {
    const { size, mtimeMs } = await this.#handle.stat();
    return { lengthBytes: size, modifiedUnixMs: mtimeMs };
  }

  truncate(lengthBytes: number): Promise<void> {
    return this.#handle.truncate(lengthBytes);
  }

  sync(): Promise<void> {
    return this.#handle.datasync();
  }

  close(): Promise<void> {
    return this.#handle.close();
  }

  /** The plain call: a FileHandle's own `read` costs twice as much. */
  #readSome(into: Uint8Array, at: number, offsetByte: number): Promise<number> {
    return new Promise((resolve, reject) => {
      read(this.fd, into, at, into.length - at, offsetByte, (error, count) => {
        if (error === null) resolve(count);
        else reject(error);
      });
    });
  }
}
