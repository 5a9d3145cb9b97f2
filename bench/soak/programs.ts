/** The programs of the soak as processes, and what the kernel says of them. */
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Finished } from "../demo/programs.ts";

const BIN = join(import.meta.dirname, "../../bin");
const PAGE_BYTES = 4096;
/** USER_HZ, which is 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;
const LOG_CHARS_MAX = 32 * 1024;
const DRAIN_MS = 30_000;

export interface Usage {
  readonly rssBytes: number;
  readonly descriptors: number;
  readonly cpuSeconds: number;
}

/** One program, started until it is stopped. bin/ executes Node in its own place: the process is the program. */
export class Program {
  readonly name: string;
  readonly ended: Promise<Finished>;
  readonly #child: ChildProcess;

  constructor(name: string, program: "supernode" | "dfdaemon" | "dfget", args: readonly string[]) {
    this.name = name;
    this.#child = spawn(join(BIN, program), args, { stdio: ["ignore", "pipe", "pipe"] });
    const texts = { stdout: "", stderr: "" };
    for (const key of ["stdout", "stderr"] as const) {
      this.#child[key]?.setEncoding("utf8").on("data", (text: string) => (texts[key] = (texts[key] + text).slice(-LOG_CHARS_MAX)));
    }
    this.ended = new Promise((resolve) => this.#child.once("close", (code) => resolve({ code, ...texts })));
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

  /** @throws Error when it has ended */
  usage(): Usage {
    const directory = `/proc/${this.#child.pid}`;
    const stat = readFileSync(`${directory}/stat`, "utf8");
    // After the name, which may hold spaces: state is the third field of proc(5), utime and stime 14 and 15.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ").map(Number);
    return {
      rssBytes: Number(readFileSync(`${directory}/statm`, "utf8").split(" ")[1]) * PAGE_BYTES,
      descriptors: readdirSync(`${directory}/fd`).length,
      cpuSeconds: ((fields[11] ?? 0) + (fields[12] ?? 0)) / TICKS_PER_SECOND,
    };
  }
}
