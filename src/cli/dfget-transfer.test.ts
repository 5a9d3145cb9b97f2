import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleepFor } from "node:timers/promises";
import { emptyShares } from "../base/bounds.ts";
import { AppError } from "../base/errors.ts";
import type { Content, ContentInfo, ContentOpener } from "../peer/content.ts";
import type { Explanation } from "../protocol/explanation.ts";
import type { Digest } from "../protocol/ids.ts";
import { Transfer, type TransferOptions } from "./dfget-transfer.ts";
import type { Way } from "./dfget-ways.ts";
import type { FileOutput } from "./file-output.ts";
import { openFileOutput } from "./open-file-output.ts";
import { DigestCheck } from "./digest-check.ts";
import { StreamOutput } from "./stream-output.ts";

const BYTES = Buffer.from("0123456789");
const SHA256 = `sha256:${createHash("sha256").update(BYTES).digest("hex")}` as Digest;
const INFO: ContentInfo = {
  taskId: undefined,
  lengthBytes: 10,
  contentType: undefined,
  digest: undefined,
  headers: { etag: '"1"' },
};

interface FakeWay {
  readonly name?: Way["name"];
  readonly info?: ContentInfo;
  /** Ends with this after so many bytes. */
  readonly failure?: { readonly atByte: number; readonly error: AppError };
  readonly openError?: AppError;
  /** Never gives a byte. */
  readonly hangs?: true;
  readonly log?: string[];
  /** Passes before it is tried. */
  readonly afterMs?: number;
  readonly explanation?: Explanation;
}

function way({ name = "dfdaemon", info = INFO, failure, openError, hangs, log, explanation }: FakeWay): Way {
  const content: Content = {
    info,
    read: async function* ({ startByte }) {
      log?.push(`read from ${startByte}`);
      if (hangs === true) await new Promise(() => undefined);
      for (let at = startByte; at < BYTES.length; at++) {
        if (failure !== undefined && at >= failure.atByte) throw failure.error;
        yield BYTES.subarray(at, at + 1);
      }
    },
    sources: () => ({ seedBytes: 1, peerBytes: 2, originBytes: 3, cacheBytes: 4 }),
    explanation: () => explanation,
    close: () => void log?.push("closed"),
  };
  const open = (): Promise<Content> => (openError === undefined ? Promise.resolve(content) : Promise.reject(openError));
  const opener: ContentOpener = { open, stat: () => Promise.resolve(info) };
  return { name, opener: () => opener };
}

function transfer(
  ways: readonly FakeWay[],
  options: Partial<TransferOptions> = {},
): { readonly transfer: Transfer; readonly out: () => string; readonly next: string[] } {
  const chunks: Uint8Array[] = [];
  const next: string[] = [];
  const write = (chunk: Uint8Array): Promise<void> => {
    chunks.push(chunk);
    return Promise.resolve();
  };
  const made = new Transfer({
    source: { url: "http://o/f", headers: {} },
    backToSource: true,
    output: new StreamOutput("stdout", new DigestCheck([SHA256]), write),
    ways: (async function* () {
      for (const fake of ways) {
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        await sleepFor(fake.afterMs ?? 0);
        yield way(fake);
      }
    })(),
    limitBytesPerSecond: undefined,
    signal: new AbortController().signal,
    onNextWay: (error) => next.push(error.code),
    ...options,
  });
  return { transfer: made, out: () => Buffer.concat(chunks).toString(), next };
}

const GONE = new AppError("DAEMON_UNREACHABLE", "gone");

test("one way that works is all there is to it", async () => {
  const log: string[] = [];
  const { transfer: run, out } = transfer([{ log }, { name: "origin" }]);
  assert.deepEqual(await run.run(), [SHA256]);
  assert.equal(out(), "0123456789");
  assert.deepEqual(log, ["read from 0", "closed"]);
  assert.deepEqual([run.via, run.doneBytes, run.resumedBytes], ["dfdaemon", 10, 0]);
  assert.deepEqual(run.sources, { seedBytes: 1, peerBytes: 2, originBytes: 3, cacheBytes: 4 });
});

test("a daemon that is not there, or goes away in mid-file, is got round without a byte twice", async () => {
  const log: string[] = [];
  const {
    transfer: run,
    out,
    next,
  } = transfer([{ openError: GONE }, { failure: { atByte: 4, error: GONE } }, { name: "origin", log }]);
  await run.run();
  assert.equal(out(), "0123456789");
  assert.deepEqual(log, ["read from 4", "closed"]);
  assert.deepEqual(next, ["DAEMON_UNREACHABLE", "DAEMON_UNREACHABLE"]);
  assert.equal(run.via, "origin");
  assert.equal(run.sources.seedBytes, 2);
});

test("what the daemon says of the file stands", async () => {
  const { transfer: run } = transfer([{ openError: new AppError("ORIGIN_NOT_FOUND", "404") }, { name: "origin" }]);
  await assert.rejects(run.run(), { code: "ORIGIN_NOT_FOUND" });
});

test("bytes of another version are not put behind those that are out", async () => {
  const { transfer: run } = transfer([
    { failure: { atByte: 4, error: GONE } },
    { info: { ...INFO, headers: { etag: '"2"' } } },
  ]);
  await assert.rejects(run.run(), { code: "ORIGIN_CHANGED" });
});

test("a file that comes short is no file", async () => {
  const { transfer: run } = transfer([{ info: { ...INFO, lengthBytes: 11 } }]);
  await assert.rejects(run.run(), { code: "ORIGIN_CUT", message: /11 bytes, but 10 came/ });
});

test("where a peer of one's own leaves no room for the file, the next way goes on; where it may not, the disk is full", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "transfer-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const full = new AppError("DISK_FULL", "the disk is full");
  const outputThatIsFullOnce = async (): Promise<FileOutput> => {
    const file = await openFileOutput({ path: join(directory, "f"), overwrite: true, resume: false, check: new DigestCheck([SHA256]) });
    const write = file.write.bind(file);
    let isFull = true;
    file.write = (bytes, at) => {
      if (at < 4 || !isFull) return write(bytes, at);
      isFull = false;
      return Promise.reject(full);
    };
    return file;
  };
  const log: string[] = [];
  const { transfer: run, next } = transfer([{ name: "peer" }, { name: "origin", log }], { output: await outputThatIsFullOnce() });
  await run.run();
  assert.deepEqual([run.via, log, next], ["origin", ["read from 4", "closed"], ["DISK_FULL"]]);
  assert.ok(readFileSync(join(directory, "f")).equals(BYTES));
  const output = await outputThatIsFullOnce();
  const ways = (async function* () {
    yield way({ name: "peer" });
    throw new AppError("BACK_SOURCE_FORBIDDEN", "only the origin is left");
  })();
  await assert.rejects(transfer([], { output, ways }).transfer.run(), { code: "DISK_FULL" });
  await output.abandon(false);
  const others = await outputThatIsFullOnce();
  await assert.rejects(transfer([{ name: "dfdaemon" }, { name: "origin" }], { output: others }).transfer.run(), { code: "DISK_FULL" });
  await others.abandon(false);
});

test("the last way's failure, and that there is none", async () => {
  await assert.rejects(transfer([{ openError: GONE }]).transfer.run(), { code: "DAEMON_UNREACHABLE" });
  await assert.rejects(transfer([]).transfer.run(), { code: "DAEMON_UNREACHABLE" });
});

test("an abort ends a way that hangs, with the abort's reason", async () => {
  const abort = new AbortController();
  const { transfer: run } = transfer([{ hangs: true }], { signal: abort.signal });
  setImmediate(() => abort.abort(new AppError("TIMEOUT", "too long")));
  await assert.rejects(run.run(), { code: "TIMEOUT" });
});

test("an abort ends a download whose reader stands still", async () => {
  const abort = new AbortController();
  const standsStill = (): Promise<never> => {
    setImmediate(() => abort.abort(new AppError("TIMEOUT", "too long")));
    return new Promise(() => undefined);
  };
  const output = new StreamOutput("stdout", new DigestCheck([]), standsStill);
  await assert.rejects(transfer([{}], { signal: abort.signal, output }).transfer.run(), { code: "TIMEOUT" });
});

test("the limit holds", async () => {
  const startedMs = performance.now();
  await transfer([{}], { limitBytesPerSecond: 50 }).transfer.run();
  const tookMs = performance.now() - startedMs;
  // 10 bytes at 50 per second, less a burst of 50 ms.
  assert.ok(tookMs >= 140 && tookMs < 10_000, `${tookMs} ms`);
});

test("what went by before anybody answered belongs to the download, and was waiting", async () => {
  const bytes = { seedBytes: 0, peerBytes: 0, originBytes: 10, cacheBytes: 0 };
  const pieces = { offered: 0, declined: 0, late: 0, doubled: 0, rejected: 0 };
  const explanation: Explanation = { boundBy: "origin", tookMs: 9, openedMs: 2, firstByteMs: 3.5, spentMs: { ...emptyShares(), origin: 9 }, bytes, neighbours: [], pieces, wastedBytes: 0 };
  const { transfer: made } = transfer([{ openError: GONE }, { name: "origin", afterMs: 60, explanation }]);
  await made.run();
  const told = made.explanation;
  const waitedMs = told?.spentMs.waiting ?? 0;
  assert.ok(waitedMs >= 59 && waitedMs < 5_000, `${waitedMs} ms`);
  assert.deepEqual([told?.boundBy, told?.tookMs, told?.openedMs, told?.firstByteMs], ["waiting", 9 + waitedMs, 2 + waitedMs, 3.5 + waitedMs]);
});
