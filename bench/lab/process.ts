/** The programs under test: started inside namespaces, held at a barrier, watched by their output, always ended. */
import { spawn, type ChildProcess } from "node:child_process";
import { createWriteStream, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const REPOSITORY: string = join(dirname(fileURLToPath(import.meta.url)), "../..");
/** How long a program may take from SIGTERM to its end before SIGKILL. */
const DRAIN_MS = 2000;

/** One program; times are `performance.now()` milliseconds. */
export class Program {
  readonly name: string;
  /** Exit code (or -1 for a signal) and the moment. */
  readonly ended: Promise<{ readonly code: number; readonly at: number }>;
  readonly #child: ChildProcess;
  readonly #logFile: string;
  readonly #waiting = new Set<(line: string, at: number) => void>();

  constructor(namespace: string, name: string, command: readonly string[], logFile: string) {
    this.name = name;
    this.#logFile = logFile;
    this.#child = spawn("ip", ["netns", "exec", namespace, ...command], {
      detached: true,
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, PATH: `${join(REPOSITORY, "node_modules/.bin")}:${process.env["PATH"] ?? ""}` },
    });
    const log = createWriteStream(logFile);
    // It ends with both streams: what a program says last may come by either.
    this.#child.stderr?.pipe(log, { end: false });
    this.#child.once("close", () => log.end());
    this.#child.stdin?.on("error", () => undefined);
    createInterface({ input: this.#child.stdout! }).on("line", (line) => {
      const at = performance.now();
      log.write(`${line}\n`);
      for (const listener of this.#waiting) listener(line, at);
    });
    this.ended = new Promise((resolve, reject) => {
      this.#child.once("error", reject);
      this.#child.once("exit", (code) => resolve({ code: code ?? -1, at: performance.now() }));
    });
    this.ended.catch(() => undefined);
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Lets a program go that waits for a line on its standard input. */
  release(): void {
    this.#child.stdin?.write("go\n");
  }

  /** The first line of output that matches, and its moment; rejects when the program ends before. */
  async line(pattern: RegExp): Promise<{ readonly text: string; readonly at: number }> {
    const seen = new Promise<{ readonly text: string; readonly at: number }>((resolve) => {
      const listener = (text: string, at: number): void => {
        if (!pattern.test(text)) return;
        this.#waiting.delete(listener);
        resolve({ text, at });
      };
      this.#waiting.add(listener);
    });
    return await Promise.race([seen, this.ended.then(({ code }) => { throw this.failure(`ended with ${code}`); })]);
  }

  /** The moment the program has ended well. */
  async success(): Promise<number> {
    const { code, at } = await this.ended;
    if (code !== 0) throw this.failure(`ended with ${code}`);
    return at;
  }

  failure(what: string): Error {
    let tail = "";
    try {
      tail = readFileSync(this.#logFile, "utf8").trimEnd().split("\n").slice(-5).join("\n    ");
    } catch {
      // It has not written a word.
    }
    return new Error(`${this.name} ${what}${tail === "" ? "" : `:\n    ${tail}`}`);
  }

  /** To the program and everything it has started. */
  signal(name: NodeJS.Signals): void {
    if (this.#child.pid === undefined) return;
    try {
      process.kill(-this.#child.pid, name);
    } catch {
      // The whole group has ended.
    }
  }
}

/** All programs of one run. */
export class Programs {
  readonly #all: Program[] = [];
  readonly #logDir: string;

  constructor(logDir: string) {
    this.#logDir = logDir;
  }

  start(namespace: string, name: string, command: readonly string[]): Program {
    const program = new Program(namespace, name, command, join(this.#logDir, `${name}.log`));
    this.#all.push(program);
    return program;
  }

  /** Started now, up to the point where the command itself would be executed; `release()` lets it. */
  startHeld(namespace: string, name: string, command: readonly string[]): Program {
    return this.start(namespace, name, ["sh", "-c", 'read _ && exec "$@"', "sh", ...command]);
  }

  async stop(): Promise<void> {
    for (const program of this.#all) {
      program.signal("SIGCONT");
      program.signal("SIGTERM");
    }
    const ended = Promise.allSettled(this.#all.map((program) => program.ended));
    await Promise.race([ended, sleep(DRAIN_MS, undefined, { ref: false })]);
    for (const program of this.#all) program.signal("SIGKILL");
    await ended;
  }

  /** For the lab's own emergency exit: no waiting. */
  kill(): void {
    for (const program of this.#all) program.signal("SIGKILL");
  }
}
