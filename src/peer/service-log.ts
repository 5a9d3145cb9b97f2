/** The log of a service: lines on stdout. Whoever reads it may go, and its disk may fill up: lines are lost then, and nothing else. */
import { write, writeSync } from "node:fs";
import { pino, stdTimeFunctions, type Logger } from "pino";
import type { LogLevel } from "./config.ts";

export function serviceLog(level: LogLevel): Logger {
  return pino({ level, timestamp: stdTimeFunctions.isoTime }, new LogOutput(STDOUT));
}

/**
 * Writes in the background and in order, so that a slow disk holds nobody up. Pino's own output throws what a write fails with where
 * nobody catches it, and then, while the process exits, tries that write for ever.
 */
export class LogOutput {
  readonly #fd: number;
  #waiting = "";
  #isWriting = false;

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
    const bytes = Buffer.from(this.#waiting);
    this.#waiting = "";
    this.#send(bytes);
  }

  #send(bytes: Buffer): void {
    write(this.#fd, bytes, (error, count) => {
      // A pipe that is full, and whose writers are not made to wait.
      if (error?.code === "EAGAIN") setTimeout(() => this.#send(bytes), RETRY_MS);
      else if (error === null && count < bytes.length) this.#send(bytes.subarray(count));
      else this.#next();
    });
  }

  /** What a process says before it exits in the middle of things. */
  #writeRest(): void {
    try {
      for (let rest = Buffer.from(this.#waiting); rest.length > 0; ) rest = rest.subarray(writeSync(this.#fd, rest));
    } catch {
      // Lost.
    }
  }
}

const STDOUT = 1;
const RETRY_MS = 100;
/** Of lines that wait for a slow reader; further ones are lost. */
const WAITING_CHARS_MAX = 4 * 1024 * 1024;
