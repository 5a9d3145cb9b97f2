/** The programs of the demo: started from bin/, their output kept, ended for certain. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const BIN = join(import.meta.dirname, "../../bin");

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Programs that run; `close` leaves none. */
export class Programs {
  readonly #cacheDirectory: string;
  readonly #running = new Map<ChildProcess, Promise<Finished>>();

  /** @param cacheDirectory where commands keep what they may lose, in place of the user's own; made here */
  constructor(cacheDirectory: string) {
    mkdirSync(cacheDirectory);
    this.#cacheDirectory = cacheDirectory;
  }

  /** Starts a program; its output comes with its end. */
  start(name: "supernode" | "dfdaemon" | "dfget", args: readonly string[]): Promise<Finished> {
    const child = spawn(join(BIN, name), args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, XDG_CACHE_HOME: this.#cacheDirectory } });
    const texts = { stdout: "", stderr: "" };
    for (const key of ["stdout", "stderr"] as const) {
      child[key].setEncoding("utf8").on("data", (text: string) => {
        texts[key] = (texts[key] + text).slice(-LOG_CHARS_MAX);
      });
    }
    const { promise, resolve, reject } = Promise.withResolvers<Finished>();
    child.once("error", reject);
    child.once("close", (code) => {
      this.#running.delete(child);
      resolve({ code, ...texts });
    });
    this.#running.set(child, promise);
    // Who waits for the end hears of a failure; nobody else has to.
    promise.catch(() => undefined);
    return promise;
  }

  async close(): Promise<void> {
    for (const child of this.#running.keys()) child.kill("SIGTERM");
    const ends = Promise.allSettled(this.#running.values());
    await Promise.race([ends, sleep(TERM_MS, undefined, { ref: false })]);
    for (const child of this.#running.keys()) child.kill("SIGKILL");
    await ends;
  }
}

/** Waits until `url` answers 200. @throws Error with the program's last words when it ends before, or never answers */
export async function untilReady(what: string, url: string, program: Promise<Finished>, withinMs: number = READY_MS): Promise<void> {
  let ended: Finished | undefined;
  program.then(
    (finished) => (ended = finished),
    () => undefined,
  );
  for (const deadline = performance.now() + withinMs; performance.now() < deadline; await sleep(50)) {
    if (ended !== undefined)
      throw new Error(`${what} ended at its start (exit ${ended.code}):\n${ended.stdout}${ended.stderr}`);
    const response = await fetch(url, { signal: AbortSignal.timeout(1000) }).catch(() => undefined);
    await response?.body?.cancel();
    if (response?.status === 200) return;
  }
  throw new Error(`${what} does not answer at ${url}`);
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const LOG_CHARS_MAX = 64 * 1024;
const READY_MS = 20_000;
const TERM_MS = 15_000;
