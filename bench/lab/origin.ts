/** The origin: one random file behind nginx, on an unshaped cable to the seed. */
import { createHash, randomFillSync } from "node:crypto";
import { closeSync, mkdirSync, openSync, readSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ORIGIN, ORIGIN_ADDRESS } from "./network.ts";
import type { Programs } from "./process.ts";

export interface Origin {
  readonly url: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

const CHUNK_BYTES = 4 * 1024 * 1024;
export const FILE_NAME = "layer.bin";

export function makeFile(directory: string, sizeBytes: number): Origin {
  mkdirSync(directory, { recursive: true });
  const path = join(directory, FILE_NAME);
  const digest = createHash("sha256");
  const file = openSync(path, "w");
  for (let left = sizeBytes; left > 0; left -= CHUNK_BYTES) {
    const chunk = randomFillSync(Buffer.alloc(Math.min(left, CHUNK_BYTES)));
    digest.update(chunk);
    writeSync(file, chunk);
  }
  closeSync(file);
  return { url: `http://${ORIGIN_ADDRESS}/${FILE_NAME}`, path, sizeBytes, sha256: digest.digest("hex") };
}

export async function serveOrigin(programs: Programs, directory: string, workDir: string): Promise<void> {
  const configuration = join(workDir, "nginx.conf");
  writeFileSync(configuration, `
daemon off; user root; worker_processes 1; pid ${workDir}/nginx.pid; error_log stderr warn;
events { worker_connections 1024; }
http { access_log off; sendfile on; tcp_nopush on; server { listen 80; root ${directory}; } }
`);
  const nginx = programs.start(ORIGIN, "nginx", ["nginx", "-c", configuration, "-e", "stderr"]);
  await sleep(300);
  if (!nginx.running) throw nginx.failure("did not start");
}

export function sha256Of(path: string): string {
  const digest = createHash("sha256");
  const chunk = Buffer.alloc(CHUNK_BYTES);
  const file = openSync(path, "r");
  for (let count = readSync(file, chunk); count > 0; count = readSync(file, chunk)) digest.update(chunk.subarray(0, count));
  closeSync(file);
  return digest.digest("hex");
}
