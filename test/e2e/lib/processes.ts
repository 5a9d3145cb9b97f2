import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** In the environment of all that we start, so that a later run finds what a killed one left behind. */
const OWNER_VARIABLE = "E2E_LAB_OWNER";
const LAB_PREFIX = "dfe2e-";
const LOG_TAIL_BYTES = 6_000;
/** After so long a command, or what is waited for, hangs: far above what a machine that is busy with other things takes. */
const HANG_MS = 300_000;
const PROBE_MS = 10_000;

/** How a process ended; `signal` when a signal ended it. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A command that ran to its end. */
export interface Finished extends Exit {
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

export interface SpawnOptions {
  /** Network namespace to run in; the machine's own when absent. */
  readonly netns?: string;
  /** Give it mounts of its own, which vanish with it. */
  readonly ownMounts?: boolean;
  /** Share the network, mounts and root of a process that is already running, instead of `netns`. */
  readonly inside?: number;
  readonly env?: Readonly<Record<string, string>>;
}

/** A service under test. */
export class Service {
  readonly name: string;
  readonly logFile: string;
  readonly exited: Promise<Exit>;
  #exit: Exit | undefined;
  readonly #child: ChildProcess;

  constructor(name: string, logFile: string, child: ChildProcess) {
    this.name = name;
    this.logFile = logFile;
    this.#child = child;
    this.exited = new Promise((resolve) => {
      const done = (exit: Exit): void => {
        this.#exit = exit;
        resolve(exit);
      };
      child.once("error", () => done({ code: 127, signal: null }));
      child.once("exit", (code, signal) => done({ code, signal }));
    });
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error(`${this.name} could not be started`);
    return this.#child.pid;
  }

  get ended(): Exit | undefined {
    return this.#exit;
  }

  /** Sends to the process and all it started in its group. */
  signal(signal: NodeJS.Signals): void {
    if (this.#exit === undefined) signalGroup(this.pid, signal);
  }

  /** Asks it to end, and makes it after `graceMs`. */
  async stop(graceMs = 5_000): Promise<Exit> {
    this.signal("SIGTERM");
    this.signal("SIGCONT");
    const timer = setTimeout(() => this.signal("SIGKILL"), graceMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  async kill(): Promise<Exit> {
    this.signal("SIGKILL");
    return await this.exited;
  }
}

/**
 * The processes, files and other machinery of one test: everything it started is gone after {@link Lab.close}, also
 * when the test failed or was interrupted; what a run killed with SIGKILL left, the next one removes.
 */
export class Lab {
  readonly dir: string;
  readonly #services: Service[] = [];
  readonly #undo: (() => void)[] = [];
  #closed = false;

  constructor(name: string) {
    removeLeftovers();
    this.dir = mkdtempSync(join(tmpdir(), `${LAB_PREFIX}${process.pid}-${name}-`));
    openLabs.add(this);
    installExitHooks();
  }

  path(...parts: string[]): string {
    return join(this.dir, ...parts);
  }

  /** A directory of the lab, made. */
  makeDir(...parts: string[]): string {
    const dir = this.path(...parts);
    mkdirSync(dir, { recursive: true });
    return dir;
  }

  writeFile(name: string, content: string): string {
    const path = this.path(name);
    writeFileSync(path, content);
    return path;
  }

  /** Registers what must be undone in the end, in reverse order, without waiting for anything asynchronous. */
  onClose(undo: () => void): void {
    this.#undo.push(undo);
  }

  /** Starts a service. Its output goes to a log that is printed when the test fails. */
  start(name: string, argv: readonly string[], options: SpawnOptions = {}): Service {
    const logFile = this.path(`${name}.log`);
    const log = openSync(logFile, "a");
    const [command, args] = commandLine(argv, options);
    const child = spawn(command, args, {
      cwd: this.dir,
      env: environment(this.dir, options.env),
      stdio: ["ignore", log, log],
      detached: true,
    });
    closeSync(log);
    const service = new Service(name, logFile, child);
    this.#services.push(service);
    return service;
  }

  /** Runs a command to its end. Past `timeoutMs` it is killed, and the exit says so by its signal. */
  async run(argv: readonly string[], options: SpawnOptions & { readonly timeoutMs?: number } = {}): Promise<Finished> {
    const began = performance.now();
    const [command, args] = commandLine(argv, options);
    const child = spawn(command, args, {
      cwd: this.dir,
      env: environment(this.dir, options.env),
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
    const pid = child.pid;
    const timer = setTimeout(() => {
      if (pid !== undefined) signalGroup(pid, "SIGKILL");
    }, options.timeoutMs ?? HANG_MS);
    const exit = await new Promise<Exit>((resolve) => {
      child.once("error", (error) => {
        stderr.push(Buffer.from(String(error)));
        resolve({ code: 127, signal: null });
      });
      child.once("close", (code, signal) => resolve({ code, signal }));
    });
    clearTimeout(timer);
    return {
      ...exit,
      stdout: Buffer.concat(stdout).toString(),
      stderr: Buffer.concat(stderr).toString(),
      ms: Math.round(performance.now() - began),
    };
  }

  /** Like {@link Lab.run}, for steps of preparation that have to work. Gives the standard output. */
  async must(argv: readonly string[], options: SpawnOptions & { readonly timeoutMs?: number } = {}): Promise<string> {
    const done = await this.run(argv, options);
    if (done.code !== 0) {
      throw new Error(`${argv.join(" ")}: exit ${done.code ?? done.signal}\n${done.stdout}${done.stderr}`);
    }
    return done.stdout;
  }

  /** Runs the test's body; prints the logs if it fails, and leaves nothing behind either way. */
  async use(body: () => Promise<void>): Promise<void> {
    try {
      await body();
    } catch (error) {
      this.printLogs();
      throw error;
    } finally {
      await this.close();
    }
  }

  printLogs(): void {
    for (const service of this.#services) {
      const text = readFileSync(service.logFile, "utf8");
      const ended = service.ended === undefined ? "running" : `ended: ${service.ended.code ?? service.ended.signal}`;
      process.stderr.write(`\n----- ${service.name} (${ended}) -----\n${text.slice(-LOG_TAIL_BYTES)}\n`);
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#services.toReversed().map(async (service) => await service.stop(2_000)));
    this.closeNow();
  }

  /** The synchronous end, for a process that must exit now. */
  closeNow(): void {
    if (this.#closed) return;
    this.#closed = true;
    openLabs.delete(this);
    for (const service of this.#services) service.signal("SIGKILL");
    killOwned((owner) => owner === this.dir);
    for (const undo of this.#undo.toReversed()) undo();
    removeDir(this.dir);
  }
}

/** Waits until `probe` gives true. Fails early when one of `services` ends. */
export async function waitFor(
  what: string,
  probe: () => boolean | Promise<boolean>,
  options: { readonly timeoutMs?: number; readonly services?: readonly Service[] } = {},
): Promise<void> {
  const until = performance.now() + (options.timeoutMs ?? HANG_MS);
  while (!(await probe())) {
    for (const service of options.services ?? []) {
      if (service.ended !== undefined) {
        throw new Error(`${service.name} ended (${service.ended.code ?? service.ended.signal}) before ${what}`);
      }
    }
    if (performance.now() > until) throw new Error(`timed out waiting until ${what}`);
    await delay(50);
  }
}

/** The lines of a log that are whole: of the last one another process may have written only a part. */
export function linesOf(logFile: string): readonly string[] {
  return readFileSync(logFile, "utf8").split("\n").slice(0, -1);
}

/** True when a GET of the URL is answered with 2xx. */
export async function answersHttp(url: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const request = get(url, { timeout: PROBE_MS, agent: false }, (response) => {
      response.resume();
      const status = response.statusCode ?? 0;
      resolve(status >= 200 && status < 300);
    });
    request.on("timeout", () => request.destroy());
    request.on("error", () => resolve(false));
  });
}

/** True when a TCP connection can be made. */
export async function answersTcp(host: string, port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect({ host, port, timeout: PROBE_MS });
    const done = (answers: boolean): void => {
      socket.destroy();
      resolve(answers);
    };
    socket.once("connect", () => done(true));
    socket.once("timeout", () => done(false));
    socket.once("error", () => done(false));
  });
}

/**
 * `nsenter` and not `ip netns exec`: the latter mounts a new /sys, and containers need the control groups under it.
 * Both it and `setpriv` become the program itself, so the child's pid is the program's.
 */
function commandLine(argv: readonly string[], options: SpawnOptions): [string, string[]] {
  const line = ["setpriv", "--pdeathsig", "KILL", "--"];
  if (options.inside !== undefined) {
    line.push("nsenter", `--target=${options.inside}`, "--net", "--mount", "--root", "--wd", "--");
  } else if (options.netns !== undefined) line.push("nsenter", `--net=/run/netns/${options.netns}`, "--");
  if (options.ownMounts === true) line.push("unshare", "--mount", "--");
  return ["/usr/bin/env", ["-u", "NODE_OPTIONS", "-u", "NODE_TEST_CONTEXT", ...line, ...argv]];
}

function environment(owner: string, extra: Readonly<Record<string, string>> | undefined): NodeJS.ProcessEnv {
  return { ...process.env, HOME: owner, XDG_CACHE_HOME: owner, ...extra, [OWNER_VARIABLE]: owner };
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // It is gone already.
  }
}

/** Kills what still runs of the owners that `matches`: also what left its process group, as a container's shim does. */
function killOwned(matches: (owner: string) => boolean): void {
  // Twice: a process may have started another while the list was read.
  for (let round = 0; round < 2; round += 1) {
    for (const pid of readdirSync("/proc")) {
      if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
      const owner = ownerOf(pid);
      if (owner === undefined || !matches(owner)) continue;
      try {
        process.kill(Number(pid), "SIGKILL");
      } catch {
        // It is gone already.
      }
    }
  }
}

function ownerOf(pid: string): string | undefined {
  try {
    const marker = `${OWNER_VARIABLE}=`;
    const environ = readFileSync(`/proc/${pid}/environ`, "latin1").split("\0");
    return environ.find((entry) => entry.startsWith(marker))?.slice(marker.length);
  } catch {
    return undefined;
  }
}

/** Mounts below the directory first: a container's file system may still hang there. */
function removeDir(dir: string): void {
  const mounts = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[1] ?? "")
    .filter((path) => path.startsWith(`${dir}/`));
  for (const path of mounts.toReversed()) quietly("umount", "--lazy", path);
  rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
}

function removeLeftovers(): void {
  const isDead = (dir: string): boolean => {
    const pid = /dfe2e-(\d+)-/.exec(dir)?.[1];
    return pid !== undefined && !isAlive(Number(pid));
  };
  killOwned(isDead);
  for (const name of readdirSync(tmpdir())) {
    if (name.startsWith(LAB_PREFIX) && isDead(name)) removeDir(join(tmpdir(), name));
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Runs a command whose failure does not matter: the undoing of things that may not be there. */
export function quietly(command: string, ...args: string[]): void {
  try {
    execFileSync(command, args, { stdio: "ignore" });
  } catch {
    // Nothing to undo.
  }
}

const openLabs = new Set<Lab>();
let exitHooksInstalled = false;

function installExitHooks(): void {
  if (exitHooksInstalled) return;
  exitHooksInstalled = true;
  process.on("exit", () => {
    for (const lab of openLabs) lab.closeNow();
  });
  process.on("SIGINT", () => process.exit(130));
  process.on("SIGTERM", () => process.exit(143));
}
