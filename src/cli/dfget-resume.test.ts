import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";
import { fileVersion, isSameVersion, mayWriteStill, processSpace, type FileVersion } from "./dfget-resume.ts";

const VERSION: FileVersion = { urlHash: "u", lengthBytes: 100_000, digest: null, etag: '"1"', lastModified: null };

test("versions: a digest or a strong ETag is proof, a date only without ETag, a weak ETag never", () => {
  const none = { ...VERSION, etag: null };
  const same = (a: FileVersion, b: FileVersion = a): boolean => isSameVersion(a, b);
  assert.equal(same(VERSION), true);
  assert.equal(same(VERSION, { ...VERSION, lengthBytes: 1 }), false);
  assert.equal(same(VERSION, { ...VERSION, urlHash: "v" }), false);
  assert.equal(same({ ...VERSION, etag: 'W/"1"' }), false);
  assert.equal(same(none), false);
  assert.equal(same({ ...none, lastModified: "d" }), true);
  assert.equal(same({ ...none, lastModified: "d" }, { ...VERSION, lastModified: "d" }), false);
  assert.equal(same({ ...none, digest: "sha256:x" }, { ...VERSION, digest: "sha256:x" }), true);
});

test("after a start of this machine nobody writes there any more; a machine that says not who it is may be another", () => {
  const [machine = "", start = "", pids = ""] = processSpace().split(" ");
  assert.deepEqual(
    [processSpace(), `${machine} earlier ${pids}`, `other ${start} ${pids}`, `${machine} ${start} pid:[1]`, `- earlier ${pids}`, undefined].map(mayWriteStill),
    [false, machine === "-", true, true, true, true],
  );
});

test("what callers with headers of their own were given is gone on with within one run only, unless its name tells it apart", () => {
  const info = { taskId: undefined, lengthBytes: 5, contentType: undefined, digest: undefined, headers: { "last-modified": "Tue, 01 Sep 2026 00:00:00 GMT" } };
  const of = (headers: Record<string, string>, more: object = {}): FileVersion => fileVersion({ url: "http://h/f", headers, ...more }, info);
  const later = { ...of({ "x-tenant": "alice" }), caller: "an earlier run" };
  assert.equal(isSameVersion(later, of({ "x-tenant": "bob" })), false);
  assert.equal(isSameVersion(of({}), of({})), true);
  assert.equal(isSameVersion({ ...later, etag: '"1"' }, { ...of({ "x-tenant": "bob" }), etag: '"1"' }), true);
  assert.equal(isSameVersion(of({}), of({}, { tag: "other" })), false);
});

test("two dfgets see each other on a machine that has no id, as most containers have none", async (t) => {
  const module = JSON.stringify(join(import.meta.dirname, "dfget-resume.ts"));
  const program = `
    const fs = require("node:fs");
    const { readFileSync } = fs;
    fs.readFileSync = (path, ...more) => { if (path === "/etc/machine-id") throw new Error("ENOENT"); return readFileSync(path, ...more); };
    require("node:module").syncBuiltinESMExports();
    import(${module}).then(({ processSpace }) => { console.log(processSpace()); setInterval(() => {}, 1000); });`;
  const spaces = await Promise.all([1, 2].map(async () => {
    const child = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "inherit"] });
    t.after(() => child.kill("SIGKILL"));
    return String(((await once(child.stdout, "data")) as [Buffer])[0]);
  }));
  assert.equal(spaces[0], spaces[1]);
  assert.match(spaces[0] ?? "", /^- /);
});
