/** The supernode as it ships, on one core, and what the kernel says of it. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { untilReady } from "../demo/programs.ts";
import { type ProcessUsage, usageOf } from "../process-usage.ts";


export interface SupernodeSetup {
  /** The one that it has for itself. */
  readonly core: number;
  readonly port: number;
  readonly dataDirectory: string;
  readonly tls: boolean;
}

export class PinnedSupernode {
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  #words = "";

  /** @param bin the package's `bin` folder */
  private constructor(bin: string, { core, port, dataDirectory, tls }: SupernodeSetup) {
    this.port = port;
    const args = ["--listen", `127.0.0.1:${port}`, "--data-dir", dataDirectory, "--log-level", "warn", "--config", "/dev/null", ...(tls ? ["--tls"] : [])];
    // taskset and bin/supernode execute what they start in their own place: the process is the program.
    this.#child = spawn("taskset", ["-c", String(core), join(bin, "supernode"), ...args], { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => (this.#words = (this.#words + text).slice(-8192)));
    }
    this.#ended = new Promise((resolve) => this.#child.once("close", () => resolve()));
  }

  static async start(bin: string, setup: SupernodeSetup): Promise<PinnedSupernode> {
    const supernode = new PinnedSupernode(bin, setup);
    const ended = supernode.#ended.then(() => ({ code: supernode.#child.exitCode, stdout: supernode.#words, stderr: "" }));
    // A TLS port answers in the clear, too: that it speaks TLS.
    const isUp = setup.tls ? untilListening(setup.port) : untilReady("the supernode", `http://127.0.0.1:${setup.port}/readyz`, ended);
    await Promise.race([isUp, ended.then(({ stdout }) => Promise.reject(new Error(`the supernode ended:\n${stdout}`)))]);
    return supernode;
  }

  /** The last it wrote: warnings and errors. */
  get words(): string {
    return this.#words;
  }

  usage(): ProcessUsage {
    return usageOf(this.#child.pid);
  }

  async stop(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    this.#child.kill(signal);
    await this.#ended;
  }
}

async function untilListening(port: number): Promise<void> {
  for (const endMs = performance.now() + READY_MS; performance.now() < endMs; await sleep(20)) {
    const answer = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined);
    if (answer?.status === 426) return;
  }
  throw new Error(`nobody listens on ${port}`);
}

const READY_MS = 20_000;
