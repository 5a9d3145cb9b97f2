/** The supernode as it ships, on one core, and what the kernel says of it. */
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { untilReady } from "../demo/programs.ts";

const PAGE_BYTES = 4096;
/** USER_HZ, which is 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

export interface Usage {
  readonly rssBytes: number;
  readonly descriptors: number;
  readonly cpuSeconds: number;
}

export class PinnedSupernode {
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  #words = "";

  /** @param bin the package's `bin` folder; @param core whose core it has for itself */
  private constructor(bin: string, core: number, port: number, dataDirectory: string) {
    this.port = port;
    const args = ["--listen", `127.0.0.1:${port}`, "--data-dir", dataDirectory, "--log-level", "warn", "--config", "/dev/null"];
    // taskset and bin/supernode execute what they start in their own place: the process is the program.
    this.#child = spawn("taskset", ["-c", String(core), join(bin, "supernode"), ...args], { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => (this.#words = (this.#words + text).slice(-8192)));
    }
    this.#ended = new Promise((resolve) => this.#child.once("close", () => resolve()));
  }

  static async start(bin: string, core: number, port: number, dataDirectory: string): Promise<PinnedSupernode> {
    const supernode = new PinnedSupernode(bin, core, port, dataDirectory);
    const ended = supernode.#ended.then(() => ({ code: supernode.#child.exitCode, stdout: supernode.#words, stderr: "" }));
    await untilReady("the supernode", `http://127.0.0.1:${port}/readyz`, ended);
    return supernode;
  }

  /** The last it wrote: warnings and errors. */
  get words(): string {
    return this.#words;
  }

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

  async stop(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    this.#child.kill(signal);
    await this.#ended;
  }
}
