/**
 * A layer in parallel as containerd 2.1 and later fetches it (`concurrent_layer_fetch_buffer`): open-ended ranges, each
 * hung up on once its part is read.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { get, type IncomingMessage } from "node:http";
import { test } from "node:test";

import { type Dfdaemon, startLoopbackDaemon, Supernode } from "./lib/dragonfly.ts";
import { pushImage } from "./lib/image.ts";
import { freePort } from "../lib/ports.ts";
import { Lab, linesOf, waitFor } from "./lib/processes.ts";
import { Registry } from "./lib/registry.ts";
import { bytesSentTwice } from "./lib/requests.ts";

const MEBIBYTE = 1 << 20;
const LAYER_BYTES = 64 * MEBIBYTE;
/** As recorded of containerd 2.1.9 with a buffer of 8 MiB and four downloads at a time. */
const PART_BYTES = 8 * MEBIBYTE;
const PARALLEL = 4;
/** What may be under way to a client that hangs up: a write of this process, and what the kernel takes for the client. */
const WASTED_BYTES_MAX = 8 * MEBIBYTE;

void test("a layer fetched in parallel by open-ended ranges is right, read once, and not pushed behind closed doors", async (t) => {
  const lab = new Lab("parallel-ranges");
  await lab.use(async () => {
    const registry = await Registry.start(lab, "127.0.0.1", await freePort());
    const image = await pushImage(lab, registry.backUrl, { repository: "team/app", tag: "v1", layerBytes: [LAYER_BYTES] });
    const layer = image.blobs.find(({ size }) => size >= LAYER_BYTES);
    assert.ok(layer !== undefined);
    const path = `/v2/team/app/blobs/${layer.digest}`;
    const supernode = await Supernode.start(lab, "127.0.0.1");
    const daemon = await startLoopbackDaemon(lab, "dfdaemon", supernode, ["--registry", `reg.test=${registry.url}`]);

    for (const state of ["cold", "warm"]) {
      const parts = await fetchInParts(`${daemon.mirror}${path}?ns=reg.test`, layer.size);
      assert.equal(`sha256:${createHash("sha256").update(Buffer.concat(parts)).digest("hex")}`, layer.digest, state);
      assert.equal(registry.log.bytes(path), layer.size, `${state}\n${registry.log.toString()}`);
      assert.equal(bytesSentTwice(registry.log.intervals(path)), 0, `${state}\n${registry.log.toString()}`);
      const answers = await answersIn(daemon, layer.digest, parts.length * (state === "cold" ? 1 : 2));
      const mine = answers.slice(-parts.length);
      const wasted = mine.reduce((sum, { sentBytes }) => sum + sentBytes, 0) - layer.size;
      t.diagnostic(`${state}: ${parts.length} requests, ${(wasted / MEBIBYTE).toFixed(1)} MiB behind closed connections`);
      assert.ok(wasted <= (parts.length - 1) * WASTED_BYTES_MAX, `${state}: ${wasted} bytes for nobody\n${JSON.stringify(mine)}`);
    }
  });
});

async function fetchInParts(url: string, lengthBytes: number): Promise<Buffer[]> {
  const parts: Buffer[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let start = next; start < lengthBytes; start = next) {
      next += PART_BYTES;
      // oxlint-disable-next-line no-await-in-loop -- one after the other, four of these beside each other
      parts[start / PART_BYTES] = await fetchPart(url, start, Math.min(PART_BYTES, lengthBytes - start));
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  return parts;
}

async function fetchPart(url: string, start: number, wantedBytes: number): Promise<Buffer> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get(url, { agent: false, headers: { range: `bytes=${start}-` } }, resolve).once("error", reject);
  });
  assert.equal(response.statusCode, 206);
  assert.match(response.headers["content-range"] ?? "", new RegExp(`^bytes ${start}-`));
  const chunks: Buffer[] = [];
  let received = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    received += chunk.length;
    if (received >= wantedBytes) break;
  }
  response.destroy();
  return Buffer.concat(chunks).subarray(0, wantedBytes);
}

interface Answer {
  readonly reference: string;
  readonly sentBytes: number;
}

/** The daemon's own lines about the blob, once all are written. */
async function answersIn(daemon: Dfdaemon, digest: string, count: number): Promise<Answer[]> {
  const read = (): Answer[] =>
    linesOf(daemon.service.logFile)
      .filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line) as Answer)
      .filter(({ reference }) => reference === digest);
  await waitFor("each answer is in the log", () => read().length >= count);
  return read();
}
