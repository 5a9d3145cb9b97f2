import { constants, fstatSync, openSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { Socket } from "node:net";
import type { Writable } from "node:stream";
import { setTimeout as sleepFor } from "node:timers/promises";
import { AppError } from "../base/errors.ts";
import type { Digest } from "../protocol/ids.ts";
import type { DfgetOutput } from "./dfget-output.ts";
import { isSameVersion, type FileVersion } from "./dfget-resume.ts";
import type { DigestCheck } from "./digest-check.ts";
import { outputError } from "./output-errors.ts";
import { statOf } from "./output-place.ts";

/**
 * Writes to something that cannot be taken back: stdout, a pipe, a device. The last chunk waits for the check of the
 * digests, so that a reader never has the whole of a wrong file.
 */
export class StreamOutput implements DfgetOutput {
  readonly #name: string;
  readonly #write: (chunk: Uint8Array) => Promise<void>;
  readonly #close: () => Promise<void>;
  readonly #check: DigestCheck;
  #version: FileVersion | undefined;
  #held: Uint8Array | undefined;
  #takenBytes = 0;

  constructor(
    name: string,
    check: DigestCheck,
    write: (chunk: Uint8Array) => Promise<void>,
    close: () => Promise<void> = () => Promise.resolve(),
  ) {
    this.#name = name;
    this.#check = check;
    this.#write = write;
    this.#close = close;
  }

  readonly takesAnyOrder = false;

  get wholeBytes(): number {
    return this.#takenBytes;
  }

  get takenBytes(): number {
    return this.#takenBytes;
  }

  get likelyStartByte(): number {
    return this.#takenBytes;
  }

  async begin(version: FileVersion): Promise<number> {
    if (this.#version === undefined || !isSameVersion(this.#version, version)) this.restart();
    this.#version = version;
    return this.#takenBytes;
  }

  restart(): void {
    if (this.#takenBytes === 0) return;
    throw new AppError(
      "ORIGIN_CHANGED",
      `after ${this.#takenBytes} bytes had gone to ${this.#name} the file cannot be continued; start again`,
    );
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#check.update(chunk);
    this.#takenBytes += chunk.length;
    const before = this.#held;
    this.#held = chunk;
    if (before !== undefined) await this.#send(before);
  }

  async finish(): Promise<readonly Digest[]> {
    const digests = this.#check.finish("the content");
    if (this.#held !== undefined) await this.#send(this.#held);
    this.#held = undefined;
    await this.#close();
    return digests;
  }

  async abandon(): Promise<number> {
    await this.#close().catch(() => undefined);
    return 0;
  }

  async #send(chunk: Uint8Array): Promise<void> {
    try {
      await this.#write(chunk);
    } catch (thrown) {
      throw outputError(thrown, this.#name, "OUTPUT_UNWRITABLE", false);
    }
  }
}

export function stdoutOutput(check: DigestCheck): StreamOutput {
  return new StreamOutput("stdout", check, (chunk) => writeTo(process.stdout, chunk));
}

/** True for `/dev/null`, a pipe and the like: there is no putting a whole file in their place. */
export function isSpecialFile(path: string): boolean {
  const stat = statOf(path);
  return stat !== undefined && !stat.isFile() && !stat.isDirectory();
}

/** True for `/dev/stdout` and what leads there, also where stdout is a file: to put another in the link's place would be no use. */
export function isStdout(path: string): boolean {
  if (statOf(path, "itself")?.isSymbolicLink() !== true) return false;
  const there = statOf(path);
  try {
    const stdout = fstatSync(1);
    return there !== undefined && there.dev === stdout.dev && there.ino === stdout.ino;
  } catch {
    return false;
  }
}

/** @throws AppError OUTPUT_UNWRITABLE; the signal's reason when it is given up while a pipe has no reader yet */
export async function specialFileOutput(path: string, check: DigestCheck, signal: AbortSignal): Promise<StreamOutput> {
  try {
    if (statOf(path)?.isFIFO() === true) return pipeOutput(path, await openPipe(path, signal), check);
    const handle = await open(path, "w");
    return new StreamOutput(
      path,
      check,
      (chunk) => writeAll(handle, chunk),
      () => handle.close(),
    );
  } catch (thrown) {
    throw outputError(thrown, path, "OUTPUT_UNWRITABLE");
  }
}

/** Through the event loop: a thread that waits for a pipe's reader would hold up the end of the process, too. */
function pipeOutput(path: string, fd: number, check: DigestCheck): StreamOutput {
  const pipe = new Socket({ fd, readable: false, writable: true });
  pipe.on("error", () => undefined);
  return new StreamOutput(path, check, (chunk) => writeTo(pipe, chunk), async () => void pipe.destroy());
}

async function openPipe(path: string, signal: AbortSignal): Promise<number> {
  for (;;) {
    signal.throwIfAborted();
    try {
      return openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (thrown) {
      // Nobody reads it yet.
      if ((thrown as NodeJS.ErrnoException).code !== "ENXIO") throw thrown;
    }
    // oxlint-disable-next-line no-await-in-loop -- until somebody does
    await sleepFor(READER_POLL_MS, undefined, { signal }).catch(() => undefined);
  }
}

function writeTo(stream: Writable, chunk: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(chunk, (error) => {
      if (error === null || error === undefined) resolve();
      else reject(error);
    });
  });
}

async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let at = 0; at < chunk.length;) at += (await handle.write(chunk, at)).bytesWritten;
}

const READER_POLL_MS = 50;
