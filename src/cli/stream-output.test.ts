import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
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
  const full = await specialFileOutput("/dev/full", new DigestCheck([]));
  await full.begin(VERSION);
  await full.write(Buffer.from("abc"));
  await assert.rejects(full.finish(), { code: "DISK_FULL", message: /make room and start again/ });
  await full.abandon();
});
