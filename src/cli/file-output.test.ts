import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { open as openHandle, type FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test, type TestContext } from "node:test";
import type { Digest } from "../protocol/ids.ts";
import { fileVersion, isSameVersion, processSpace, type FileVersion } from "./dfget-resume.ts";
import type { FileOutput } from "./file-output.ts";
import { openFileOutput } from "./open-file-output.ts";
import { DigestCheck } from "./digest-check.ts";
import { removeCopies } from "./part-copies.ts";

const CONTENT = randomBytes(100_000);
const SHA256 = `sha256:${createHash("sha256").update(CONTENT).digest("hex")}` as Digest;
const MD5 = `md5:${createHash("md5").update(CONTENT).digest("hex")}` as Digest;
const VERSION: FileVersion = {
  urlHash: "u",
  lengthBytes: CONTENT.length,
  digest: null,
  etag: '"1"',
  lastModified: null,
};

let directory: string;
let path: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "output-"));
  path = join(directory, "FILE");
});
afterEach(() => rmSync(directory, { recursive: true }));

function open(
  options: { readonly overwrite?: boolean; readonly resume?: boolean; readonly digests?: readonly Digest[] } = {},
): Promise<FileOutput> {
  const { overwrite = false, resume = false, digests = [SHA256, MD5] } = options;
  return openFileOutput({ path, overwrite, resume, check: new DigestCheck(digests) });
}

/** A run that ends after so many bytes. */
async function partialRun(byteCount: number, version = VERSION): Promise<number> {
  const output = await open();
  await output.begin(version);
  await output.write(CONTENT.subarray(0, byteCount), 0);
  return await output.abandon(true);
}

test("the file appears whole, checked against every digest, and nothing else stays", async () => {
  const output = await open();
  assert.equal(await output.begin(VERSION), 0);
  await output.write(CONTENT.subarray(0, 60_000), 0);
  assert.equal(existsSync(path), false);
  await output.write(CONTENT.subarray(60_000), 60_000);
  assert.deepEqual(await output.finish(), [SHA256, MD5]);
  assert.deepEqual(readdirSync(directory), ["FILE"]);
  assert.ok(readFileSync(path).equals(CONTENT));
});

test("parts come in any order, some of them twice, and the digests are those of the whole", async () => {
  const output = await open();
  await output.begin(VERSION);
  const part = (start: number, end: number): Promise<void> => output.write(CONTENT.subarray(start, end), start);
  await part(50_000, 60_000);
  await part(60_000, 70_000);
  await part(10_000, 50_000);
  assert.deepEqual([output.wholeBytes, output.takenBytes], [0, 60_000]);
  await part(0, 10_000);
  assert.deepEqual([output.wholeBytes, output.takenBytes], [70_000, 70_000]);
  await part(90_000, CONTENT.length);
  await part(90_000, CONTENT.length);
  assert.deepEqual([output.wholeBytes, output.takenBytes], [70_000, CONTENT.length - 20_000]);
  // The origin takes over: in order to the end, over what is there already.
  await part(65_000, 85_000);
  await part(85_000, 95_000);
  assert.deepEqual([output.wholeBytes, output.takenBytes], [CONTENT.length, CONTENT.length]);
  await part(95_000, CONTENT.length);
  assert.deepEqual([output.wholeBytes, output.takenBytes], [CONTENT.length, CONTENT.length]);
  assert.deepEqual(await output.finish(), [SHA256, MD5]);
  assert.ok(readFileSync(path).equals(CONTENT));
});

test("that it is being written is seen before anything is, and what an earlier run left stays until then", async () => {
  const state = (): unknown => JSON.parse(readFileSync(`${path}.part.json`, "utf8"));
  const first = await open();
  assert.deepEqual(state(), { version: 1, pid: process.pid, space: processSpace(), inode: null, file: null, syncedBytes: 0 });
  assert.equal(await first.abandon(true), 0);
  assert.deepEqual(readdirSync(directory), []);
  await partialRun(70_000);
  const left = state() as object;
  const second = await open();
  assert.deepEqual(state(), { ...left, pid: process.pid });
  assert.equal(await second.abandon(true), 70_000);
  assert.deepEqual(state(), left);
});

test("of two that found the part free each writes a file of its own, and who claimed it last has it", async () => {
  // Neither has seen the other's claim; both are this process here, so the claim itself says nothing.
  const [first, second] = [await open(), await open()];
  await first.begin(VERSION);
  await first.write(CONTENT.subarray(0, 50_000), 0);
  const other = randomBytes(CONTENT.length);
  await second.begin({ ...VERSION, urlHash: "another" });
  await second.write(other, 0);
  await first.write(CONTENT.subarray(50_000), 50_000);
  await assert.rejects(first.finish(), { code: "OUTPUT_UNWRITABLE", message: /replaced while it was being written; is another dfget/ });
  assert.equal(await first.abandon(true), 0);
  assert.ok(readFileSync(`${path}.part`).equals(other));
  await second.abandon(false);
  assert.deepEqual(readdirSync(directory), []);
});

test("who has lost the claim to another dfget ends, and leaves alone what is that one's", async (t) => {
  const other = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)", "dfget"], { stdio: "ignore" });
  t.after(() => other.kill("SIGKILL"));
  await once(other, "spawn");
  const output = await open();
  await output.begin(VERSION);
  await output.write(CONTENT, 0);
  const claim = JSON.stringify({ version: 1, pid: other.pid, file: null, syncedBytes: 0 });
  writeFileSync(`${path}.part.json`, claim);
  await assert.rejects(output.finish(), { code: "OUTPUT_UNWRITABLE", message: new RegExp(`another dfget \\(process ${other.pid}\\) is writing`) });
  assert.equal(await output.abandon(true), 0);
  assert.deepEqual(readdirSync(directory), ["FILE.part", "FILE.part.json"]);
  assert.equal(readFileSync(`${path}.part.json`, "utf8"), claim);
  await assert.rejects(open(), { code: "OUTPUT_UNWRITABLE", message: /another dfget/ });
});

test("another's file at the part's name is not given out for what was downloaded", async () => {
  const output = await open();
  await output.begin(VERSION);
  await output.write(CONTENT, 0);
  rmSync(`${path}.part`);
  writeFileSync(`${path}.part`, "another's");
  await assert.rejects(output.finish(), { code: "OUTPUT_UNWRITABLE", message: /replaced while it was being written; is another dfget/ });
  assert.equal(existsSync(path), false);
  assert.equal(readFileSync(`${path}.part`, "utf8"), "another's");
});

test("what lies behind a gap is not counted on by a later run", async () => {
  const output = await open();
  await output.begin(VERSION);
  await output.write(CONTENT.subarray(0, 10_000), 0);
  await output.write(CONTENT.subarray(20_000, 30_000), 20_000);
  assert.equal(await output.abandon(true), 10_000);
  const later = await open({ resume: true });
  assert.equal(await later.begin(VERSION), 10_000);
  assert.equal(later.takenBytes, 10_000);
  await later.abandon(false);
});

test("a wrong digest leaves nothing, neither at FILE nor beside it", async () => {
  const output = await open({ digests: [SHA256, `md5:${"0".repeat(32)}` as Digest] });
  await output.begin(VERSION);
  await output.write(CONTENT, 0);
  await assert.rejects(output.finish(), { code: "DIGEST_MISMATCH", message: /its md5 is/ });
  assert.equal(await output.abandon(true), 0);
  assert.deepEqual(readdirSync(directory), []);
});

test("an interrupted download goes on where it was, its first part hashed again", async () => {
  assert.equal(await partialRun(70_000), 70_000);
  assert.deepEqual(readdirSync(directory), ["FILE.part", "FILE.part.json"]);
  const output = await open({ resume: true });
  assert.equal(output.likelyStartByte, 70_000);
  assert.equal(await output.begin(VERSION), 70_000);
  await output.write(CONTENT.subarray(70_000), 70_000);
  await output.finish();
  assert.ok(readFileSync(path).equals(CONTENT));
  assert.deepEqual(readdirSync(directory), ["FILE"]);
});

test("what a crash left after the last checkpoint is not trusted", async () => {
  await partialRun(70_000);
  writeFileSync(`${path}.part`, Buffer.concat([CONTENT.subarray(0, 70_000), Buffer.alloc(20_000)]));
  const output = await open({ resume: true });
  assert.equal(await output.begin(VERSION), 70_000);
  await output.write(CONTENT.subarray(70_000), 70_000);
  await output.finish();
  assert.ok(readFileSync(path).equals(CONTENT));
});

test("over a slow link a crash costs ten seconds, however little came in them", async () => {
  let nowMs = 0;
  const output = await openFileOutput({ path, overwrite: false, resume: false, check: new DigestCheck([]), nowMs: () => nowMs });
  const savedBytes = (): number => (JSON.parse(readFileSync(`${path}.part.json`, "utf8")) as { readonly syncedBytes: number }).syncedBytes;
  await output.begin(VERSION);
  nowMs = 9_999;
  await output.write(CONTENT.subarray(0, 1_000), 0);
  assert.equal(savedBytes(), 0);
  nowMs = 10_000;
  await output.write(CONTENT.subarray(1_000, 3_000), 1_000);
  assert.equal(savedBytes(), 3_000);
  nowMs = 19_999;
  await output.write(CONTENT.subarray(3_000, 4_000), 3_000);
  assert.equal(savedBytes(), 3_000);
  await output.abandon(false);
});

test("a part that is shorter than its state says is taken as it is", async () => {
  await partialRun(70_000);
  writeFileSync(`${path}.part`, CONTENT.subarray(0, 10));
  const output = await open({ resume: true });
  assert.equal(await output.begin(VERSION), 10);
  await output.abandon(false);
});

test("another version of the file, a torn state, or no -c: from the start", async () => {
  await partialRun(70_000);
  const changed = await open({ resume: true });
  assert.equal(await changed.begin({ ...VERSION, etag: '"2"' }), 0);
  await changed.abandon(true);

  await partialRun(70_000);
  writeFileSync(`${path}.part.json`, '{"version":1,"pid"');
  const torn = await open({ resume: true });
  assert.equal(await torn.begin(VERSION), 0);
  await torn.abandon(true);

  await partialRun(70_000);
  const fresh = await open();
  assert.equal(fresh.likelyStartByte, 0);
  assert.equal(await fresh.begin(VERSION), 0);
  await fresh.abandon(true);
});

test("a run that fails before it learns anything leaves the earlier run's part alone", async () => {
  await partialRun(70_000);
  const output = await open();
  assert.equal(await output.abandon(true), 70_000);
  const again = await open({ resume: true });
  assert.equal(await again.begin(VERSION), 70_000);
  await again.abandon(false);
});

test("of a short part that makes way for the word of it nothing is said to be kept", async () => {
  await partialRun(70_000);
  const output = await open({ resume: true });
  assert.equal(await output.begin(VERSION), 70_000);
  // Nothing can be written there any more, as on a full disk.
  rmSync(directory, { recursive: true });
  assert.equal(await output.abandon(true), 0);
  mkdirSync(directory);
});

test("a part nobody could go on with is not kept, nor is one known to be bad", async () => {
  assert.equal(await partialRun(70_000, { ...VERSION, etag: null }), 0);
  assert.deepEqual(readdirSync(directory), []);
  const output = await open();
  await output.begin(VERSION);
  await output.write(CONTENT, 0);
  assert.equal(await output.abandon(false), 0);
  assert.deepEqual(readdirSync(directory), []);
});

test("a way that changes in mid-file goes on at the next byte, if it is the same file", async () => {
  const output = await open();
  await output.begin(VERSION);
  await output.write(CONTENT.subarray(0, 500), 0);
  assert.equal(await output.begin(VERSION), 500);
  assert.equal(await output.begin({ ...VERSION, etag: '"2"' }), 0);
  await output.write(CONTENT, 0);
  await output.finish();
  assert.ok(readFileSync(path).equals(CONTENT));
});

test("what exists is kept, unless it is to be overwritten", async () => {
  writeFileSync(path, "precious");
  await assert.rejects(open(), { code: "OUTPUT_EXISTS" });
  symlinkSync("nowhere", join(directory, "link"));
  const link = openFileOutput({
    path: join(directory, "link"),
    overwrite: false,
    resume: false,
    check: new DigestCheck([]),
  });
  await assert.rejects(link, { code: "OUTPUT_EXISTS" });
  const output = await open({ overwrite: true });
  await output.begin(VERSION);
  await output.write(CONTENT, 0);
  assert.equal(readFileSync(path, "utf8"), "precious");
  await output.finish();
  assert.ok(readFileSync(path).equals(CONTENT));
});

test("what replaces a file has its permissions, also while it comes", async () => {
  writeFileSync(path, "secret", { mode: 0o600 });
  const output = await open({ overwrite: true });
  await output.begin(VERSION);
  await output.write(CONTENT, 0);
  assert.equal(statSync(`${path}.part`).mode & 0o777, 0o600);
  chmodSync(path, 0o640);
  await output.finish();
  assert.equal(statSync(path).mode & 0o777, 0o640);
});

test("a part can be gone on with, also where what it replaces may not be written to", async () => {
  writeFileSync(path, "read only", { mode: 0o444 });
  const mode = (of: string): number => statSync(of).mode & 0o777;
  const first = await open({ overwrite: true });
  await first.begin(VERSION);
  await first.write(CONTENT.subarray(0, 70_000), 0);
  assert.equal(mode(`${path}.part`), 0o644);
  await first.abandon(true);
  const again = await open({ overwrite: true, resume: true });
  assert.equal(await again.begin({ ...VERSION, etag: '"2"' }), 0);
  assert.equal(mode(`${path}.part`), 0o644, "one that is begun anew, too");
  await again.write(CONTENT, 0);
  await again.finish();
  assert.equal(mode(path), 0o444);
});

test("a file that somebody makes meanwhile is kept, too", async () => {
  const output = await open();
  await output.begin(VERSION);
  await output.write(CONTENT, 0);
  writeFileSync(path, "precious");
  await assert.rejects(output.finish(), { code: "OUTPUT_EXISTS" });
  assert.equal(readFileSync(path, "utf8"), "precious");
});

test("a download that cannot be put in its place is whole in its part, and that is said", async () => {
  const output = await open({ overwrite: true });
  await output.begin({ ...VERSION, etag: null });
  await output.write(CONTENT, 0);
  mkdirSync(path);
  await assert.rejects(output.finish(), { code: "OUTPUT_UNWRITABLE", message: /cannot put .*FILE in its place: EISDIR.*; the download is whole in .*FILE\.part$/ });
  await output.abandon(true);
  assert.ok(readFileSync(`${path}.part`).equals(CONTENT));
});

test("no download fails for a directory in the place of its state", async () => {
  for (const name of [".part.json", ".part.json.new"]) {
    mkdirSync(`${path}${name}`);
    const output = await open();
    await output.begin(VERSION);
    await output.write(CONTENT, 0);
    await output.finish();
    assert.deepEqual(readdirSync(directory), ["FILE", `FILE${name}`]);
    for (const each of readdirSync(directory)) rmSync(join(directory, each), { recursive: true });
  }
});

test("an output that cannot be written is known before any download", async () => {
  const at = (target: string): Promise<FileOutput> =>
    openFileOutput({ path: target, overwrite: false, resume: false, check: new DigestCheck([]) });
  mkdirSync(join(directory, "dir"));
  await assert.rejects(at(join(directory, "dir")), { code: "OUTPUT_UNWRITABLE", message: /is a directory/ });
  await assert.rejects(at(join(directory, "new/")), { code: "OUTPUT_UNWRITABLE" });
  await assert.rejects(at(join(directory, "no/such/file")), {
    code: "OUTPUT_UNWRITABLE",
    message: /folder does not exist/,
  });
  writeFileSync(join(directory, "plain"), "");
  await assert.rejects(at(join(directory, "plain/below")), { code: "OUTPUT_UNWRITABLE" });
  symlinkSync("/etc/passwd", join(directory, "x.part"));
  await assert.rejects(at(join(directory, "x")), { code: "OUTPUT_UNWRITABLE", message: /symbolic link/ });
  if (process.getuid?.() !== 0) {
    chmodSync(directory, 0o555);
    await assert.rejects(at(path), { code: "OUTPUT_UNWRITABLE", message: /no permission/ });
    chmodSync(directory, 0o755);
  }
});

test("the state beside a part holds no URL, and its owner can read it", async () => {
  const source = { url: "http://u:p@o/f?sig=secret&v=1", headers: {}, filteredQueryParameters: ["sig"] };
  const info = {
    taskId: undefined,
    lengthBytes: 5,
    contentType: undefined,
    digest: undefined,
    headers: { etag: '"1"' },
  };
  const output = await open();
  await output.begin(fileVersion(source, info));
  assert.doesNotMatch(readFileSync(`${path}.part.json`, "utf8"), /secret|http/);
  assert.equal(statSync(`${path}.part.json`).mode & 0o400, 0o400);
  await output.abandon(false);
  const other = fileVersion({ ...source, url: "http://o/f?v=1&sig=another" }, info);
  assert.equal(isSameVersion(fileVersion(source, info), other), true);
});

test("with a state whose part is gone, what lies behind a gap when the way changes is not taken for the file's beginning", async () => {
  await partialRun(60_000);
  rmSync(`${path}.part`);
  const output = await open({ resume: true });
  assert.equal(await output.begin(VERSION), 0);
  await output.write(CONTENT.subarray(50_000, 60_000), 50_000);
  const at = await output.begin(VERSION);
  await output.write(CONTENT.subarray(at), at);
  await output.finish();
  assert.ok(readFileSync(path).equals(CONTENT));
});

test("a part that is nobody's of ours stays where a download never began", async () => {
  writeFileSync(`${path}.part`, "precious");
  const output = await open();
  await output.abandon(true);
  assert.equal(readFileSync(`${path}.part`, "utf8"), "precious");
});

test("a whole download whose place was taken stays, as the message says, also where nothing names its version", async () => {
  const output = await open();
  await output.begin({ ...VERSION, etag: null, lastModified: null, digest: null });
  await output.write(CONTENT, 0);
  writeFileSync(path, "somebody else's");
  await assert.rejects(output.finish(), { code: "OUTPUT_EXISTS", message: /the download is whole in/ });
  await output.abandon(true);
  assert.ok(readFileSync(`${path}.part`).equals(CONTENT));
});

test("who claims a part while another is being told what the file is has it, and the other cuts nothing", async (t) => {
  const other = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)", "dfget"], { stdio: "ignore" });
  t.after(() => other.kill("SIGKILL"));
  await once(other, "spawn");
  await partialRun(60_000);
  const slow = await open({ resume: true });
  const state = JSON.parse(readFileSync(`${path}.part.json`, "utf8")) as object;
  writeFileSync(`${path}.part.json`, JSON.stringify({ ...state, pid: other.pid }));
  await assert.rejects(slow.begin(VERSION), { code: "OUTPUT_UNWRITABLE" });
  assert.equal(readFileSync(`${path}.part`).length, 60_000);
  await slow.abandon(true);
});

test("reading or copying what an earlier run left can be given up, and all of it is left still", async () => {
  const content = Buffer.alloc(5 * 1024 * 1024, "x");
  const version = { ...VERSION, lengthBytes: content.length + 1 };
  for (const isShared of [false, true]) {
    const before = await open();
    await before.begin(version);
    await before.write(content, 0);
    assert.equal(await before.abandon(true), content.length);
    const statePath = `${path}.part.json`;
    const state = JSON.parse(readFileSync(statePath, "utf8")) as { readonly space: string };
    if (isShared) writeFileSync(statePath, JSON.stringify({ ...state, pid: 1, space: state.space.replace(/pid:\[\d+\]/, "pid:[1]") }));
    const output = await open({ resume: true });
    const given = new AbortController();
    setImmediate(() => given.abort(new Error("interrupted")));
    await assert.rejects(output.begin(version, given.signal));
    assert.equal(await output.abandon(true), content.length);
    assert.deepEqual(readdirSync(directory).toSorted(), ["out.part", "out.part.json"].map((name) => name.replace("out", path.slice(directory.length + 1))));
    const again = await open({ resume: true });
    assert.equal(await again.begin(version), content.length);
    await again.abandon(false);
  }
});

test("a part that another numbering of processes may still write to is gone on with as a copy, also after a run that failed before it had made one", async () => {
  await partialRun(60_000);
  const statePath = `${path}.part.json`;
  const state = JSON.parse(readFileSync(statePath, "utf8")) as { readonly space: string };
  writeFileSync(statePath, JSON.stringify({ ...state, pid: 1, space: state.space.replace(/pid:\[\d+\]/, "pid:[1]") }));
  const theirs = openSync(`${path}.part`, "r+");
  await (await open({ resume: true })).abandon(true);
  const output = await open({ resume: true });
  assert.equal(await output.begin(VERSION), 60_000);
  writeSync(theirs, Buffer.alloc(20_000), 0, 20_000, 50_000);
  closeSync(theirs);
  await output.write(CONTENT.subarray(60_000), 60_000);
  await output.finish();
  assert.ok(readFileSync(path).equals(CONTENT));
});

/** The next flush of a file of ours fails, and what was to be flushed may be lost; the one after it says nothing of that. */
async function failNextFlush({ mock }: TestContext, by: "sync" | "datasync"): Promise<void> {
  const handle = await openHandle(import.meta.filename);
  const type = Object.getPrototypeOf(handle) as FileHandle;
  await handle.close();
  mock.method(type, by, () => Promise.reject(Object.assign(new Error("EIO: i/o error"), { code: "EIO" })), { times: 1 });
}

test("of what a flush that failed may have lost nothing is kept, only what was flushed before", async (t) => {
  await partialRun(60_000);
  const output = await open({ resume: true });
  assert.equal(await output.begin(VERSION), 60_000);
  await output.write(CONTENT.subarray(60_000), 60_000);
  await failNextFlush(t, "sync");
  await assert.rejects(output.finish(), { code: "DISK_FAILED" });
  await assert.rejects(output.begin(VERSION), { code: "DISK_FAILED" }, "another way does not go on behind it");
  assert.equal(await output.abandon(true), 60_000);
  assert.equal((JSON.parse(readFileSync(`${path}.part.json`, "utf8")) as { readonly syncedBytes: number }).syncedBytes, 60_000);
});

test("a copy that does not reach the disk is none, and the part stays", async (t) => {
  await partialRun(60_000);
  const statePath = `${path}.part.json`;
  const state = JSON.parse(readFileSync(statePath, "utf8")) as { readonly space: string };
  writeFileSync(statePath, JSON.stringify({ ...state, pid: 1, space: state.space.replace(/pid:\[\d+\]/, "pid:[1]") }));
  const { ino } = statSync(`${path}.part`);
  const output = await open({ resume: true });
  await failNextFlush(t, "datasync");
  await assert.rejects(output.begin(VERSION), { code: "DISK_FAILED" });
  assert.equal(await output.abandon(true), 60_000);
  assert.equal(statSync(`${path}.part`).ino, ino);
  assert.deepEqual(readdirSync(directory), ["FILE.part", "FILE.part.json"]);
});

test("copies that a killed dfget had begun are gone with the next one, whatever that does with the part", async () => {
  for (const resume of [true, false]) {
    await partialRun(60_000);
    writeFileSync(`${path}.part.1234-0a1b2c`, CONTENT.subarray(0, 5_000));
    writeFileSync(`${path}.part.mine`, "precious");
    const output = await open({ resume });
    assert.equal(await output.begin(VERSION), resume ? 60_000 : 0);
    await output.write(CONTENT, 0);
    await output.finish();
    assert.deepEqual(readdirSync(directory), ["FILE", "FILE.part.mine"]);
    rmSync(path);
  }
});

test("who still copies when another claims the part ends without harm to it", async (t) => {
  await partialRun(60_000);
  const statePath = `${path}.part.json`;
  const state = JSON.parse(readFileSync(statePath, "utf8")) as { readonly space: string };
  writeFileSync(statePath, JSON.stringify({ ...state, pid: 1, space: state.space.replace(/pid:\[\d+\]/, "pid:[1]") }));
  const slow = await open({ resume: true });
  let others: Promise<FileOutput> | undefined;
  const whileItCopies = (): void => {
    removeCopies(`${path}.part`);
    others ??= open({ resume: true });
  };
  const given = Object.assign(new AbortController().signal, { throwIfAborted: whileItCopies });
  const ended = await slow.begin(VERSION, given).catch((thrown: unknown) => thrown as Error);
  if (others === undefined) return t.skip("this file system shares bytes: nobody comes between");
  assert.match(String(ended), /taken away or replaced while it was being written; is another dfget/);
  await slow.abandon(true);
  const other = await others;
  assert.equal(await other.begin(VERSION), 60_000);
  await other.write(CONTENT.subarray(60_000), 60_000);
  await other.finish();
  assert.ok(readFileSync(path).equals(CONTENT));
  assert.deepEqual(readdirSync(directory), ["FILE"]);
});

/** Does something as another user. */
async function asStranger<T>(work: () => Promise<T>): Promise<T> {
  process.setegid?.(STRANGER);
  process.seteuid?.(STRANGER);
  try {
    return await work();
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
  }
}

const STRANGER = 12_345;
const needsRoot = { skip: process.getuid?.() !== 0 && "root only" };

test("another user's part is gone on with as a file of one's own, of one's own mode, and given the replaced one's at the end", needsRoot, async () => {
  for (const mode of [0o666, 0o644, 0o4777]) {
    await partialRun(60_000);
    chmodSync(directory, 0o777);
    chmodSync(`${path}.part`, mode);
    writeFileSync(path, "old", { mode: 0o640 });
    await asStranger(async () => {
      const output = await open({ overwrite: true, resume: true });
      assert.equal(await output.begin(VERSION), 60_000);
      assert.equal(statSync(`${path}.part`).mode & 0o7777, 0o640);
      await output.write(CONTENT.subarray(60_000), 60_000);
      chmodSync(`${path}.part`, 0o600);
      await output.finish();
    });
    assert.deepEqual([statSync(path).uid, statSync(path).mode & 0o7777], [STRANGER, 0o640]);
    assert.ok(readFileSync(path).equals(CONTENT));
    rmSync(path);
    assert.deepEqual(readdirSync(directory), []);
  }
});

test("a part of one's own that is write-protected is gone on with in a copy", needsRoot, async () => {
  chmodSync(directory, 0o777);
  await asStranger(async () => {
    await partialRun(60_000);
    chmodSync(`${path}.part`, 0o400);
    const output = await open({ resume: true });
    assert.equal(await output.begin(VERSION), 60_000);
    await output.write(CONTENT.subarray(60_000), 60_000);
    await output.finish();
  });
  assert.ok(readFileSync(path).equals(CONTENT));
});

test("what could not be put in place at the end is refused in the beginning, with what to do", needsRoot, async () => {
  const isRefused = (message: RegExp, options: Parameters<typeof open>[0] = {}): Promise<void> =>
    assert.rejects(asStranger(() => open(options)), { code: "OUTPUT_UNWRITABLE", message });
  await partialRun(60_000);
  chmodSync(directory, 0o777);
  chmodSync(`${path}.part`, 0o600);
  await isRefused(/FILE\.part belongs to another user and cannot be read; remove it, or choose another file/, { resume: true });
  chmodSync(`${path}.part`, 0o666);
  chmodSync(directory, 0o1777);
  await isRefused(/FILE\.part belongs to another user, and its folder is sticky: have it removed, or choose another folder/, { resume: true });
  for (const name of readdirSync(directory)) rmSync(join(directory, name));
  writeFileSync(path, "old");
  await isRefused(/FILE belongs to another user, and its folder is sticky/, { overwrite: true });
  rmSync(path);
  // access(2) goes by the real user: this one is a process of his.
  writeFileSync(`${path}.part`, "");
  chownSync(`${path}.part`, STRANGER, STRANGER);
  chmodSync(directory, 0o755);
  const program = `
    const { openFileOutput } = await import(${JSON.stringify(join(import.meta.dirname, "open-file-output.ts"))});
    await openFileOutput({ path: ${JSON.stringify(path)}, overwrite: false, resume: false }).catch(({ message }) => console.log(message));`;
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", program], { uid: STRANGER, gid: STRANGER, encoding: "utf8" });
  assert.match(stdout, /no permission; choose another folder/);
});
