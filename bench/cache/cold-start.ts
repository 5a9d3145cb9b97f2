/**
 * How long a supernode takes to start with many cached files, and what memory they cost.
 *
 *   node bench/cache/cold-start.ts [--files 100000] [--directory DIR] [--make-only] [--keep-caches]
 *
 * Makes a cache of so many files (in DIR it stays, and is used again), then starts `bin/supernode` on it: without an index, after an
 * orderly end, after SIGKILL; and, as root and unless --keep-caches, once more with the kernel's caches emptied, which
 * slows everything else on the machine for a moment. Each start is measured to the first 200 of /readyz, and to
 * when all files are known.
 */
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { SigningKey } from "../../src/peer/membership/credentials.ts";
import { encodeEntry, encodeHead } from "../../src/peer/store/journal-format.ts";
import type { TaskId } from "../../src/protocol/ids.ts";
import { readOptions } from "../command-line.ts";

const PIECE_LENGTH_BYTES = 65_536;
const PIECES_PER_FILE = 4;
const KNOWN_MS_MAX = 120_000;
const BIN = join(import.meta.dirname, "../../bin/supernode");

interface Start {
  readonly readyMs: number;
  readonly rssMiB: number;
  /** When all files were known; as `readyMs` where the index knew them. */
  readonly knownMs: number;
  /** How it is ended. */
  end(signal: "SIGTERM" | "SIGKILL"): Promise<void>;
}

/** Journals and (sparse) data as the store would have written them. */
function makeCache(directory: string, files: number): void {
  const key = SigningKey.loadOrCreate(join(directory, "signing-key.pem"));
  const lengthBytes = PIECE_LENGTH_BYTES * PIECES_PER_FILE;
  const digest = randomBytes(32);
  for (let at = 0; at < files; at++) {
    const taskId = createHash("sha256").update(`file ${at}`).digest("hex") as TaskId;
    const folder = join(directory, "cache/tasks", taskId.slice(0, 2), taskId);
    mkdirSync(folder, { recursive: true });
    const head = encodeHead({
      taskId,
      displayUrl: `https://registry.example/v2/team/application-${at % 1000}/blobs/sha256:${taskId}`,
      lengthBytes,
      lengthSignature: randomBytes(64),
      pieceLengthBytes: PIECE_LENGTH_BYTES,
      contentType: "application/octet-stream",
      digest: `sha256:${taskId}`,
      headers: { etag: `"${taskId.slice(0, 32)}"`, "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT" },
      publicKey: key.publicKey,
    });
    const pieces = Array.from({ length: PIECES_PER_FILE }, (_, piece) =>
      encodeEntry({ kind: "piece", piece, lengthBytes: PIECE_LENGTH_BYTES, digest, signature: randomBytes(64) }),
    );
    writeFileSync(join(folder, "data"), "");
    writeFileSync(join(folder, "journal"), Buffer.concat([head, ...pieces]));
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

async function start(directory: string, tasks: number): Promise<Start> {
  const port = await freePort();
  const beganMs = performance.now();
  const child = spawn(BIN, ["--listen", `127.0.0.1:${port}`, "--data-dir", directory, "--scrub-rate", "0", "--log-level", "warn"], { stdio: ["ignore", "inherit", "inherit"] });
  const exited = once(child, "exit");
  while ((await status(port, "/readyz")) === undefined) {
    if (child.exitCode !== null) throw new Error(`the supernode ended with ${child.exitCode}`);
    await delay(5);
  }
  const readyMs = performance.now() - beganMs;
  const rssMiB = Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1]) / 1024;
  const known = async (): Promise<number> => Number(/^dragonfly_supernode_cache_tasks (\d+)$/m.exec((await status(port, "/metrics")) ?? "")?.[1]);
  let knownMs = readyMs;
  for (; (await known()) !== tasks; knownMs = performance.now() - beganMs) {
    if (knownMs > KNOWN_MS_MAX) {
      child.kill();
      throw new Error(`${await known()} tasks instead of ${tasks}`);
    }
    await delay(100);
  }
  return {
    readyMs,
    knownMs,
    rssMiB,
    end: async (signal) => {
      child.kill(signal);
      await exited;
    },
  };
}

/** The body of a 200. */
async function status(port: number, path: string): Promise<string | undefined> {
  return await new Promise((resolve) => {
    const request = get({ host: "127.0.0.1", port, path, agent: false }, (response) => {
      let body = "";
      response.on("data", (chunk: Buffer) => (body += chunk.toString()));
      response.on("end", () => resolve(response.statusCode === 200 ? body : undefined));
    });
    request.on("error", () => resolve(undefined));
  });
}

const values = readOptions(import.meta.filename, {
  files: { type: "string", default: "100000" },
  directory: { type: "string" },
  "make-only": { type: "boolean", default: false },
  "keep-caches": { type: "boolean", default: false },
});
const files = Number(values.files);
const emptiesCaches = !values["keep-caches"] && process.getuid?.() === 0;
const directory = values.directory ?? mkdtempSync(join(tmpdir(), "dragonfly-cold-start-"));
const full = join(directory, "full");

async function measure(): Promise<void> {
  rmSync(join(full, "cache/index"), { force: true });
  const empty = await start(join(directory, "empty"), 0);
  await empty.end("SIGTERM");
  console.log(`no files:                       ready after ${empty.readyMs.toFixed(0)} ms, RSS ${empty.rssMiB.toFixed(0)} MiB`);
  const show = async (title: string, end: "SIGTERM" | "SIGKILL", cold = false): Promise<void> => {
    if (cold) writeFileSync("/proc/sys/vm/drop_caches", "3");
    const now = await start(full, files);
    console.log(`${`${files} files, ${title}:`.padEnd(31)} ready after ${now.readyMs.toFixed(0)} ms (${(now.readyMs - empty.readyMs).toFixed(0)} for the files), all known after ${now.knownMs.toFixed(0)} ms, RSS ${now.rssMiB.toFixed(0)} MiB`);
    await now.end(end);
  };
  await show("no index", "SIGTERM");
  for (let run = 0; run < 3; run++) await show("orderly end", "SIGTERM");
  await show("orderly end", "SIGKILL");
  await show("killed", "SIGTERM");
  if (emptiesCaches) {
    writeFileSync("/proc/sys/vm/drop_caches", "3");
    const cold = await start(join(directory, "empty"), 0);
    await cold.end("SIGTERM");
    console.log(`no files, cold:                 ready after ${cold.readyMs.toFixed(0)} ms`);
    await show("orderly end, cold", "SIGKILL", true);
    await show("killed, cold", "SIGTERM", true);
  }
}

try {
  if (!existsSync(full)) {
    mkdirSync(full, { mode: 0o700, recursive: true });
    makeCache(full, files);
  }
  if (!values["make-only"]) await measure();
} finally {
  if (values.directory === undefined) rmSync(directory, { recursive: true, force: true });
}
