/**
 * Control messages per peer and task, by the size of the file: dfgets as peers of their own, all at once, counted on the wire.
 *
 *   node bench/control/messages.ts [--peers 8] [--megabytes 1,64,1024] [--out FILE.jsonl]
 */
import { execFileSync } from "node:child_process";
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { readOptions } from "../command-line.ts";
import { DemoOrigin } from "../demo/origin.ts";
import { freePort, Programs, untilReady } from "../demo/programs.ts";
import { provenance } from "../provenance.ts";
import { CountingRelay } from "./relay.ts";

const values = readOptions(import.meta.filename, {
  peers: { type: "string", default: "8" },
  megabytes: { type: "string", default: "1,64,1024" },
  out: { type: "string" },
});
const started = provenance();
const peerCount = Number(values.peers);
const folder = mkdtempSync("/dev/shm/dragonfly-messages-");
const programs = new Programs(join(folder, "cache"));
try {
  console.log(`${peerCount} dfgets; messages per peer and task, both ways: the mean, the most of one peer, what they were`);
  for (const megabytes of values.megabytes.split(",").map(Number)) await measure(megabytes);
} finally {
  await programs.close();
  rmSync(folder, { recursive: true, force: true });
}

async function measure(megabytes: number): Promise<void> {
  const file = join(folder, "file");
  execFileSync("sh", ["-c", `head -c ${megabytes}M /dev/urandom > ${file}`]);
  const origin = await DemoOrigin.start(file, megabytes * 1024 * 1024);
  const port = await freePort();
  const data = join(folder, `supernode-${megabytes}`);
  const supernode = programs.start("supernode", ["--listen", `127.0.0.1:${port}`, "--data-dir", data, "--config", "/dev/null"]);
  await untilReady("the supernode", `http://127.0.0.1:${port}/readyz`, supernode);
  const relay = await CountingRelay.start(port);
  const args = ["--socket", join(folder, "none"), "--supernode", `127.0.0.1:${relay.port}`, "--join-token-file", join(data, "join-token"), "--no-back-source", "--progress", "none", "--config", "/dev/null"];
  const ended = await Promise.all(Array.from({ length: peerCount }, (_, n) => programs.start("dfget", [...args, "-O", join(folder, `out-${n}`), origin.url])));
  const failed = ended.find(({ code }) => code !== 0);
  if (failed !== undefined) throw new Error(`dfget ended with ${failed.code}: ${failed.stderr}`);
  const perPeer = relay.connections.map((counts) => [...counts.values()].reduce((sum, count) => sum + count, 0));
  const byType: Record<string, number> = {};
  for (const counts of relay.connections) for (const [type, count] of counts) byType[type] = (byType[type] ?? 0) + count / peerCount;
  const mean = perPeer.reduce((sum, count) => sum + count, 0) / peerCount;
  const what = Object.entries(byType).map(([type, count]) => `${type} ${count.toFixed(2)}`).join(", ");
  console.log(`${String(megabytes).padStart(6)} MiB  ${mean.toFixed(1).padStart(5)}  ${Math.max(...perPeer)}   ${what}`);
  if (values.out !== undefined) {
    appendFileSync(values.out, `${JSON.stringify({ ...started, messages: { peerCount, megabytes, mean, max: Math.max(...perPeer), byType } })}\n`);
  }
  relay.close();
  await programs.close();
  await origin.close();
  for (let n = 0; n < peerCount; n++) rmSync(join(folder, `out-${n}`));
  rmSync(data, { recursive: true, force: true });
}
