import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { closeSync, constants, createReadStream, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { AppError } from "../base/errors.ts";
import type { Digest } from "../protocol/ids.ts";
import { DigestCheck } from "./digest-check.ts";
import type { FileVersion } from "./dfget-resume.ts";
import { isSpecialFile, specialFileOutput, StreamOutput } from "./stream-output.ts";

const VERSION: FileVersion = { urlHash: "u", lengthBytes: 6, digest: null, etag: '"1"', lastModified: null };
const SHA1 = `sha1:${createHash("sha1").update("abcdef").digest("hex")}` as Digest;

function output(digests: readonly Digest[]): { readonly output: StreamOutput; readonly seen: string[] } {
  const seen: string[] = [];
  const write = (chunk: Uint8Array): Promise<void> => {
    seen.push(Buffer.from(chunk).toString());
    return Promise.resolve();
  };
  return { output: new StreamOutput("stdout", new DigestCheck(digests), write), seen };
}

test("the last chunk waits until the digest is right", async () => {
  const right = output([SHA1]);
  await right.output.begin(VERSION);
  await right.output.write(Buffer.from("abc"));
  await right.output.write(Buffer.from("def"));
  assert.deepEqual(right.seen, ["abc"]);
  await right.output.finish();
  assert.deepEqual(right.seen, ["abc", "def"]);

  const wrong = output([`sha1:${"0".repeat(40)}` as Digest]);
  await wrong.output.begin(VERSION);
  await wrong.output.write(Buffer.from("abc"));
  await wrong.output.write(Buffer.from("def"));
  await assert.rejects(wrong.output.finish(), { code: "DIGEST_MISMATCH" });
  assert.deepEqual(wrong.seen, ["abc"]);
});

test("what has gone out is continued with the same file only", async () => {
  const { output: stream } = output([]);
  await stream.begin(VERSION);
  await stream.write(Buffer.from("abc"));
  assert.equal(await stream.begin(VERSION), 3);
  await assert.rejects(stream.begin({ ...VERSION, etag: '"2"' }), { code: "ORIGIN_CHANGED" });
});

test("devices and pipes are written as they are; a full one is DISK_FULL", async () => {
  assert.equal(isSpecialFile("/dev/null"), true);
  assert.equal(isSpecialFile(import.meta.filename), false);
  assert.equal(isSpecialFile("/no/such/file"), false);
  const full = await specialFileOutput("/dev/full", new DigestCheck([]), new AbortController().signal);
  await full.begin(VERSION);
  await full.write(Buffer.from("abc"));
  await assert.rejects(full.finish(), { code: "DISK_FULL", message: /make room and start again/ });
  await full.abandon();
});

test("a pipe that nobody reads can be given up, before its reader comes and while he stands still; who reads it has all", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "pipe-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, "pipe");
  assert.equal(spawnSync("mkfifo", [path]).status, 0);
  const given = new AbortController();
  const unread = specialFileOutput(path, new DigestCheck([]), given.signal);
  given.abort(new AppError("TIMEOUT", "too long"));
  await assert.rejects(unread, { code: "TIMEOUT" });

  const pending = specialFileOutput(path, new DigestCheck([]), new AbortController().signal);
  const reader = createReadStream(path);
  const [pipe] = await Promise.all([pending, once(reader, "open")]);
  const content = Buffer.alloc(1_000_000, "x");
  await pipe.begin({ ...VERSION, lengthBytes: content.length });
  await pipe.write(content);
  const finished = pipe.finish();
  const read: Buffer[] = [];
  for await (const chunk of reader) read.push(chunk as Buffer);
  await finished;
  assert.ok(Buffer.concat(read).equals(content));

  // He reads nothing: what is written stays in the pipe, and giving up does not wait for him.
  const silent = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  t.after(() => closeSync(silent));
  const stuck = await specialFileOutput(path, new DigestCheck([]), new AbortController().signal);
  await stuck.begin({ ...VERSION, lengthBytes: content.length });
  await stuck.write(content);
  void stuck.finish().catch(() => undefined);
  assert.equal(await stuck.abandon(), 0);
});
