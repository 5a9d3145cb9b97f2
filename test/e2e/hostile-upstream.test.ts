/**
 * A registry that misbehaves in one way for each repository, dfdaemon before it, and the strictest of clients: skopeo
 * 1.9, which takes up nothing that broke, and one that reads every byte. All at once, as it would be on a bad day.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { get } from "node:http";
import { test } from "node:test";

import { startLoopbackDaemon, Supernode } from "./lib/dragonfly.ts";
import { type HostileImage, HostileRegistry, type Hostility } from "./lib/hostile-registry.ts";
import { Lab } from "./lib/processes.ts";

const LAYER_BYTES = [3_000_000, 1_200_000, 90_000];
/** Longer than a registry may be silent before it is given up, and shorter than engines wait. */
const PULL_TIMEOUT_MS = 110_000;
/** For the offsets at which bodies are cut. */
const seed = Number(process.env["FUZZ_SEED"] ?? Date.now() % 1_000_000);

interface Case {
  readonly what: string;
  /** `pulls`: as if nothing were. `refuses`: fails as it would at the registry, in good time, without a wrong byte. */
  readonly outcome: "pulls" | "refuses";
  readonly hostility: Hostility;
  /** Given up for one silence after the other: skopeo copies its blobs in turn. */
  readonly layerBytes?: readonly number[];
}

const once = (hostility: Hostility): Hostility => (request) => (request.n === 1 ? hostility(request) : undefined);
const blobs = (hostility: Hostility): Hostility => (request) => (request.kind === "blob" && request.method === "GET" ? hostility(request) : undefined);
const always = (status: number, headers: Readonly<Record<string, string>> = {}): Hostility => () => ({ status, headers });

const CASES: readonly Case[] = [
  { what: "resets before headers, once", outcome: "pulls", hostility: once(() => ({ reset: true })) },
  ...[500, 502, 503, 504].map((status): Case => ({ what: `${status}, once`, outcome: "pulls", hostility: once(always(status)) })),
  ...[408, 429].map((status): Case => ({ what: `${status} with Retry-After, once`, outcome: "pulls", hostility: once(always(status, { "retry-after": "1" })) })),
  { what: "405 to every HEAD", outcome: "pulls", hostility: ({ method }) => (method === "HEAD" ? { status: 405 } : undefined) },
  { what: "HEAD without length and digest", outcome: "pulls", hostility: () => ({ mute: true }) },
  { what: "redirects of blobs to another host", outcome: "pulls", hostility: blobs(() => ({ redirect: true })) },
  { what: "redirects of everything", outcome: "pulls", hostility: () => ({ redirect: true }) },
  { what: "blobs cut at random, twice each", outcome: "pulls", hostility: blobs(({ n, lengthBytes }) => (n <= 2 ? { cutAfter: randomBelow(lengthBytes) } : undefined)) },
  { what: "blobs cut, and no ranges", outcome: "pulls", hostility: blobs(({ n, lengthBytes }) => (n === 1 ? { cutAfter: lengthBytes >> 1, plain: true } : { plain: true })) },
  { what: "neither ranges nor lengths", outcome: "pulls", hostility: blobs(() => ({ plain: true })) },
  { what: "ranges from another place, once", outcome: "pulls", hostility: blobs(({ n, start }) => (n === 1 && start > 0 ? { rangeOff: -1 } : undefined)) },
  { what: "silence, once", outcome: "pulls", hostility: blobs(once(() => ({ silent: true }))), layerBytes: [3_000_000] },
  { what: "bodies that stall, once each", outcome: "pulls", hostility: blobs(({ n, lengthBytes }) => (n === 1 ? { stallAfter: lengthBytes >> 1 } : undefined)), layerBytes: [3_000_000] },
  { what: "a slow drip", outcome: "pulls", hostility: blobs(() => ({ bytesPerSecond: 200_000 })) },
  { what: "a manifest cut, once", outcome: "pulls", hostility: ({ kind, method, n }) => (kind === "manifest" && method === "GET" && n === 1 ? { cutAfter: 100 } : undefined) },
  ...[401, 403, 404].map((status): Case => ({ what: `${status} to blobs`, outcome: "refuses", hostility: ({ kind }) => (kind === "blob" ? { status } : undefined) })),
  ...[403, 404, 500, 503].map((status): Case => ({ what: `${status} for ever`, outcome: "refuses", hostility: always(status) })),
  { what: "429 for ever", outcome: "refuses", hostility: always(429) },
  { what: "resets for ever", outcome: "refuses", hostility: () => ({ reset: true }) },
  { what: "a wrong byte for ever", outcome: "refuses", hostility: blobs(({ lengthBytes }) => ({ corruptAt: lengthBytes - 10 })) },
  { what: "a wrong byte in the manifest", outcome: "refuses", hostility: ({ kind }) => (kind === "manifest" ? { corruptAt: 20 } : undefined) },
  { what: "longer lengths than content", outcome: "refuses", hostility: blobs(() => ({ lengthOff: 1000 })) },
  { what: "shorter lengths than content", outcome: "refuses", hostility: blobs(() => ({ lengthOff: -1000 })) },
];

void test("whatever a registry does, no pull fails that would not at the registry, and nobody gets a wrong byte", async (t) => {
  const lab = new Lab("hostile");
  t.diagnostic(`FUZZ_SEED=${seed}`);
  await lab.use(async () => {
    const registry = await HostileRegistry.start(lab);
    const supernode = await Supernode.start(lab, "127.0.0.1");
    const daemon = await startLoopbackDaemon(lab, "dfdaemon", supernode, ["--registry", `reg.test=${registry.url}`]);
    const results = await Promise.all(
      CASES.flatMap(({ what, outcome, hostility, layerBytes = LAYER_BYTES }, i) =>
        (["skopeo", "reader"] as const).map(async (client) => {
          const image = registry.put(`${client}/case${i}`, layerBytes, hostility);
          const began = performance.now();
          const pull = client === "skopeo" ? pullWithSkopeo(lab, daemon.mirror, image) : pullAndRead(daemon.mirror, image);
          const failure = await pull;
          const seconds = ((performance.now() - began) / 1000).toFixed(1);
          t.diagnostic(`${client}, ${what}: ${failure ?? "pulled"} after ${seconds} s`);
          const isRight = (failure === undefined) === (outcome === "pulls") && failure?.includes("WRONG") !== true;
          return isRight ? "" : `${client}, ${what}: ${failure ?? "pulled"} after ${seconds} s`;
        }),
      ),
    );
    assert.deepEqual(results.filter((line) => line !== ""), []);
  });
});

/** @returns why it failed; undefined when the image is there, byte by byte */
async function pullWithSkopeo(lab: Lab, mirror: string, image: HostileImage): Promise<string | undefined> {
  const directory = lab.path(image.repository);
  lab.makeDir("skopeo");
  const reference = `docker://${new URL(mirror).host}/reg.test/${image.repository}:v1`;
  const argv = ["skopeo", "copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", reference, `dir:${directory}`];
  const done = await lab.run(argv, { timeoutMs: PULL_TIMEOUT_MS });
  if (done.signal !== null) return "hangs";
  if (done.code !== 0) return done.stderr.trim().split("msg=").at(-1)?.slice(0, 200);
  for (const [digest, blob] of image.blobs) {
    const copied = readFileSync(`${directory}/${digest.slice("sha256:".length)}`);
    if (!copied.equals(blob)) return `WRONG bytes of ${digest}`;
  }
  return readFileSync(`${directory}/manifest.json`).equals(image.manifest) ? undefined : "WRONG manifest";
}

/** As {@link pullWithSkopeo}, by plain requests: a body that ends cleanly must be the whole, and each byte before right. */
async function pullAndRead(mirror: string, image: HostileImage): Promise<string | undefined> {
  const base = `${mirror}/v2/reg.test/${image.repository}`;
  const failures = await Promise.all([
    read(`${base}/manifests/v1`, image.manifest),
    ...[...image.blobs].map(async ([digest, blob]) => await read(`${base}/blobs/${digest}`, blob)),
  ]);
  return failures.find((failure) => failure?.includes("WRONG")) ?? failures.find((failure) => failure !== undefined);
}

async function read(url: string, expected: Buffer): Promise<string | undefined> {
  return await new Promise((resolve) => {
    const request = get(url, { agent: false, timeout: PULL_TIMEOUT_MS }, (response) => {
      const { statusCode = 0 } = response;
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", () => resolve(compare(chunks, expected, false) ?? "cut"));
      response.on("end", () => {
        if (statusCode === 200) resolve(compare(chunks, expected, true));
        else resolve(statusCode === 429 || statusCode === 408 ? `WRONG status ${statusCode}` : `status ${statusCode}`);
      });
    });
    request.on("timeout", () => request.destroy(new Error("hangs")));
    request.on("error", (error) => resolve(error.message));
  });
}

/** A client that was cut off must still not have had the last bytes of something that is not right. */
function compare(chunks: readonly Buffer[], expected: Buffer, isWhole: boolean): string | undefined {
  const got = Buffer.concat(chunks);
  if (isWhole) return got.equals(expected) ? undefined : `WRONG: ${got.length} of ${expected.length} bytes, sha256 ${createHash("sha256").update(got).digest("hex")}`;
  return got.length >= expected.length && !got.equals(expected) ? "WRONG bytes, all of them" : undefined;
}

/** The same numbers for the same seed: Park and Miller's minimal standard. */
let state = (seed % 2_147_483_646) + 1;
function randomBelow(limit: number): number {
  state = (state * 48_271) % 2_147_483_647;
  return state % limit;
}
