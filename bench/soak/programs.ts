/** The programs of the soak as processes, and what the kernel says of them. */
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import type { Finished } from "../demo/programs.ts";
import { type ProcessUsage, usageOf } from "../process-usage.ts";

const BIN = join(import.meta.dirname, "../../bin");
const LOG_CHARS_MAX = 32 * 1024;
const DRAIN_MS = 30_000;

/** One program, started until it is stopped. bin/ executes Node in its own place: the process is the program. */
export class Program {
  readonly name: string;
  readonly ended: Promise<Finished>;
  readonly #child: ChildProcess;
  readonly #texts = { stdout: "", stderr: "" };

  constructor(name: string, program: "supernode" | "dfdaemon" | "dfget", args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.name = name;
    this.#child = spawn(join(BIN, program), args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
    const texts = this.#texts;
    for (const key of ["stdout", "stderr"] as const) {
      this.#child[key]?.setEncoding("utf8").on("data", (text: string) => (texts[key] = (texts[key] + text).slice(-LOG_CHARS_MAX)));
    }
    this.ended = new Promise((resolve) => this.#child.once("close", (code) => resolve({ code, ...texts })));
  }

  /** What it has said so far; the end of it. */
  get stderr(): string {
    return this.#texts.stderr;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async stop(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<Finished> {
    this.#child.kill(signal);
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), DRAIN_MS);
    const finished = await this.ended;
    clearTimeout(timer);
    return finished;
  }

  /** Descriptors of files of tasks: data and journals. @throws Error when it has ended */
  taskFileCount(): number {
    const directory = `/proc/${this.#child.pid}/fd`;
    return readdirSync(directory).filter((fd) => {
      try {
        return readlinkSync(join(directory, fd)).includes("/cache/tasks/");
      } catch {
        // Closed meanwhile.
        return false;
      }
    }).length;
  }

  /** @throws Error when it has ended */
  usage(): ProcessUsage {
    return usageOf(this.#child.pid);
  }
}
