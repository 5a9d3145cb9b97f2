/** The file in which the host's dfdaemon keeps a content, for a dfget that may open it: what lies there need not come through the socket. */
import { closeSync, constants, fstatSync, openSync, readSync, statSync } from "node:fs";
import { AppError } from "../base/errors.ts";
import type { ContentPart } from "../peer/content.ts";

/** As the daemon names it. */
export interface HeldFileName {
  readonly path: string;
  readonly device: string;
  readonly inode: string;
}

/** Bytes read at a time. */
const READ_BYTES = 256 * 1024;

/** Whether this process may likely open what the daemon behind the socket keeps: the store is its owner's alone. */
export function mayReadStoreOf(socketPath: string): boolean {
  const uid = process.getuid?.();
  return uid === 0 || (uid !== undefined && uid === ownerOf(socketPath));
}

export class HeldFile {
  readonly #fd: number;
  readonly #path: string;
  #buffer: Buffer | undefined;

  private constructor(fd: number, path: string) {
    this.#fd = fd;
    this.#path = path;
  }

  /**
   * Opens the very file that the daemon means: a regular one of the socket's owner, so that nobody is made to read what
   * the daemon itself could not. To be closed.
   *
   * @returns undefined when it cannot be had: another file under that path (a container's), no permission
   */
  static open({ path, device, inode }: HeldFileName, socketPath: string): HeldFile | undefined {
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    } catch {
      return undefined;
    }
    const facts = fstatSync(fd, { bigint: true });
    const isMeant = String(facts.dev) === device && String(facts.ino) === inode;
    if (isMeant && facts.isFile() && Number(facts.uid) === ownerOf(socketPath)) return new HeldFile(fd, path);
    closeSync(fd);
    return undefined;
  }

  /** Each part is good until the next is asked for. @throws AppError CACHE_CORRUPT when the file ends before `endByte`, DISK_FAILED */
  *read(startByte: number, endByte: number): Generator<ContentPart> {
    const buffer = (this.#buffer ??= Buffer.allocUnsafeSlow(READ_BYTES));
    for (let at = startByte; at < endByte; ) {
      const count = this.#readAt(buffer, Math.min(buffer.length, endByte - at), at);
      if (count === 0) throw new AppError("CACHE_CORRUPT", `${this.#path} ends at byte ${at}, before bytes that were held there; try again`);
      yield { startByte: at, bytes: buffer.subarray(0, count) };
      at += count;
    }
  }

  close(): void {
    closeSync(this.#fd);
  }

  #readAt(into: Buffer, lengthBytes: number, at: number): number {
    try {
      return readSync(this.#fd, into, 0, lengthBytes, at);
    } catch (thrown) {
      throw new AppError("DISK_FAILED", `cannot read ${this.#path}: ${(thrown as Error).message}`, { cause: thrown });
    }
  }
}

function ownerOf(socketPath: string): number | undefined {
  return statSync(socketPath, { throwIfNoEntry: false })?.uid;
}
