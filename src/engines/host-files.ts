/** The files of a machine whose root directory may be elsewhere: reads, atomic writes, links kept as links. */
import { spawnSync } from "node:child_process";
import {
  accessSync,
  chownSync,
  closeSync,
  constants,
  chmodSync,
  fchmodSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join, normalize } from "node:path";
import { AppError } from "../base/errors.ts";
import type { EngineFiles, ProgramVersion } from "./engine.ts";

/** A file as it is: what an undo has to bring back. */
export interface FileState {
  readonly bytes: Buffer;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

export class HostFiles implements EngineFiles {
  readonly #root: string;
  readonly #versions = new Map<string, ProgramVersion | undefined>();

  /** @param root absolute; `/` for this machine itself */
  constructor(root: string) {
    this.#root = root;
  }

  /** @throws AppError DISK_FAILED */
  state(path: string): FileState | undefined {
    const real = this.#real(path);
    try {
      const { mode, uid, gid } = statSync(real);
      return { bytes: readFileSync(real), mode: mode & 0o7777, uid, gid };
    } catch (thrown) {
      if (isAbsent(thrown)) return undefined;
      throw failure("DISK_FAILED", `cannot read ${path}`, thrown);
    }
  }

  read(path: string): string | undefined {
    const bytes = this.state(path)?.bytes;
    return bytes === undefined ? undefined : decode(bytes, path);
  }

  list(directory: string): readonly string[] {
    try {
      return readdirSync(this.#real(directory)).toSorted();
    } catch (thrown) {
      if (isAbsent(thrown)) return [];
      throw failure("DISK_FAILED", `cannot read the directory ${directory}`, thrown);
    }
  }

  exists(path: string): boolean {
    return statSync(this.#real(path), { throwIfNoEntry: false }) !== undefined;
  }

  programVersion(name: string): ProgramVersion | undefined {
    if (this.#root !== "/") return undefined;
    if (!this.#versions.has(name)) this.#versions.set(name, askVersion(name));
    return this.#versions.get(name);
  }

  /** @throws AppError OUTPUT_UNWRITABLE when this user may not write, or make, the file */
  checkWritable(path: string): void {
    for (let at = this.#real(dirname(path)); ; at = dirname(at)) {
      try {
        accessSync(at, constants.W_OK | constants.X_OK);
        return;
      } catch (thrown) {
        if (isAbsent(thrown) && at !== dirname(at)) continue;
        throw failure("OUTPUT_UNWRITABLE", `cannot write ${path}`, thrown);
      }
    }
  }

  /**
   * Puts the content in the file's place at once: after a crash it is the old or the new. The folder must be there. A
   * link stays, and what it points at is written.
   *
   * @throws AppError OUTPUT_UNWRITABLE
   */
  write(path: string, state: FileState): void {
    const real = this.#real(path);
    const partial = join(dirname(real), `.${real.slice(real.lastIndexOf("/") + 1)}.dragonfly-${process.pid}`);
    try {
      const file = openSync(partial, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, 0o600);
      try {
        for (let at = 0; at < state.bytes.length;) at += writeSync(file, state.bytes, at);
        const own = statSync(partial);
        if (own.uid !== state.uid || own.gid !== state.gid) chownSync(partial, state.uid, state.gid);
        fchmodSync(file, state.mode);
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
      renameSync(partial, real);
      flushDirectory(dirname(real));
    } catch (thrown) {
      rmSync(partial, { force: true });
      throw failure("OUTPUT_UNWRITABLE", `cannot write ${path}`, thrown);
    }
  }

  /** Of a directory and those above it, the ones that are not there, the outermost first. */
  missingDirectories(directory: string): readonly string[] {
    const missing: string[] = [];
    for (let at = directory; at !== "/" && !this.exists(at); at = dirname(at)) missing.unshift(at);
    return missing;
  }

  /** @throws AppError OUTPUT_UNWRITABLE */
  makeDirectory(directory: string, mode = 0o755): void {
    try {
      for (const missing of this.missingDirectories(directory)) {
        mkdirSync(this.#real(missing));
        // Whatever root's umask is: other users' engines read below.
        chmodSync(this.#real(missing), mode);
      }
    } catch (thrown) {
      throw failure("OUTPUT_UNWRITABLE", `cannot make the directory ${directory}`, thrown);
    }
  }

  /** @throws AppError OUTPUT_UNWRITABLE */
  remove(path: string): void {
    const real = this.#real(path);
    try {
      rmSync(real, { force: true });
      flushDirectory(dirname(real));
    } catch (thrown) {
      throw failure("OUTPUT_UNWRITABLE", `cannot remove ${path}`, thrown);
    }
  }

  /** Nothing when somebody else put something into it, or it is gone. */
  removeIfEmpty(directory: string): void {
    try {
      rmdirSync(this.#real(directory));
    } catch {
      // Not ours any more.
    }
  }

  /** Where the path leads with all links followed inside the root; the last parts need not be there. */
  #real(path: string): string {
    let rest = normalize(path).split("/").filter(Boolean);
    let at = "/";
    for (let links = 0; rest.length > 0;) {
      const [name = "", ...after] = rest;
      rest = after;
      if (name === "..") {
        at = dirname(at);
        continue;
      }
      const next = join(at, name);
      const target = linkTarget(join(this.#root, next));
      if (target === undefined) at = next;
      else if (++links > LINKS_MAX) throw new AppError("DISK_FAILED", `${path} is a link that leads nowhere: too many links`);
      else {
        if (target.startsWith("/")) at = "/";
        rest = [...target.split("/").filter((part) => part !== "" && part !== "."), ...rest];
      }
    }
    return join(this.#root, at);
  }
}

/** @throws AppError DISK_FAILED when it is no UTF-8 */
export function decode(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (thrown) {
    throw new AppError("DISK_FAILED", `${path} is no UTF-8 text: mend the file first`, { cause: thrown });
  }
}

function linkTarget(path: string): string | undefined {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true ? readlinkSync(path) : undefined;
}

function isAbsent(thrown: unknown): boolean {
  const { code } = thrown as NodeJS.ErrnoException;
  return code === "ENOENT" || code === "ENOTDIR";
}

function failure(code: "DISK_FAILED" | "OUTPUT_UNWRITABLE", what: string, thrown: unknown): AppError {
  const { code: reason, message } = thrown as NodeJS.ErrnoException;
  const advice =
    reason === "EACCES" || reason === "EPERM"
      ? "permission denied; run it as root"
      : reason === "EROFS"
        ? "the file system is read-only"
        : reason === "ENOSPC"
          ? "no space is left on the device"
          : message;
  return new AppError(code, `${what}: ${advice}`, { cause: thrown });
}

function flushDirectory(directory: string): void {
  const handle = openSync(directory, "r");
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

function askVersion(name: string): ProgramVersion | undefined {
  const { stdout, status } = spawnSync(name, ["--version"], { encoding: "utf8", timeout: VERSION_TIMEOUT_MS });
  const found = status === 0 ? /\bv?(\d+)\.(\d+)[^\s,]*/.exec(stdout) : null;
  return found === null ? undefined : { text: found[0], major: Number(found[1]), minor: Number(found[2]) };
}

/** As the kernel's (MAXSYMLINKS). */
const LINKS_MAX = 40;
const VERSION_TIMEOUT_MS = 5_000;
