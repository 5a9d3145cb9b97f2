/** The log of a service: lines on stdout. Whoever reads it may go, and its disk may fill up: lines are lost then, and nothing else. */
import { write, writeSync } from "node:fs";
import { pino, stdTimeFunctions, type Logger } from "pino";
import type { LogLevel } from "./config.ts";

export function serviceLog(level: LogLevel): Logger {
  // Opened by Node, a pipe makes nobody wait: a write that waited for a reader who stands still would keep the process from its end.
  return pino({ level, timestamp: stdTimeFunctions.isoTime }, new LogOutput(process.stdout.fd));
}

/**
 * Writes in the background and in order, so that a slow disk holds nobody up. Pino's own output throws what a write fails with where
 * nobody catches it, and then, while the process exits, tries that write for ever.
 */
export class LogOutput {
  readonly #fd: number;
  #waiting = "";
  #isWriting = false;
  /** What is written ends in the middle of a line; if the rest of it is lost, it must not take the next one with it. */
  #isTorn = false;
  /** Turned down by a pipe that is full; tried again soon. */
  #turnedDown: Buffer = NOTHING;

  constructor(fd: number) {
    this.#fd = fd;
    process.on("exit", () => this.#writeRest());
  }

  write(line: string): void {
    if (this.#waiting.length + line.length <= WAITING_CHARS_MAX) this.#waiting += line;
    if (!this.#isWriting) this.#next();
  }

  #next(): void {
    this.#isWriting = this.#waiting !== "";
    if (!this.#isWriting) return;
    const bytes = Buffer.from(this.#isTorn ? `\n${this.#waiting}` : this.#waiting);
    this.#waiting = "";
    this.#send(bytes);
  }

  #send(bytes: Buffer): void {
    write(this.#fd, bytes, (error, count) => {
      if (error === null) this.#isTorn = bytes[count - 1] !== LINE_FEED;
      if (error?.code === "EAGAIN") this.#sendSoon(bytes);
      else if (error === null && count < bytes.length) this.#send(bytes.subarray(count));
      else this.#next();
    });
  }

  /** Not for as long as the process would otherwise have ended. */
  #sendSoon(bytes: Buffer): void {
    this.#turnedDown = bytes;
    setTimeout(() => {
      this.#turnedDown = NOTHING;
      this.#send(bytes);
    }, RETRY_MS).unref();
  }

  /** What a process says before it exits in the middle of things, as far as it is taken at once. */
  #writeRest(): void {
    try {
      for (let rest = Buffer.concat([this.#turnedDown, Buffer.from(this.#waiting)]); rest.length > 0; ) rest = rest.subarray(writeSync(this.#fd, rest));
    } catch {
      // Lost.
    }
  }
}

const LINE_FEED = 10;
const NOTHING: Buffer = Buffer.alloc(0);
const RETRY_MS = 100;
/** Of lines that wait for a slow reader; further ones are lost. */
const WAITING_CHARS_MAX = 4 * 1024 * 1024;
