/** `supernode cache …` beside a running supernode, as an operator uses it. */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

const BIN = join(import.meta.dirname, "../../bin");
const CONTENT = randomBytes(1_000_000);

let directory: string;
let origin: Server;
let supernode: ChildProcess;
let address: string;

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function run(program: string, ...args: readonly string[]): Promise<Ended> {
  const env = { PATH: process.env["PATH"] ?? "", HOME: directory, XDG_CACHE_HOME: directory };
  return new Promise((resolve) => {
    execFile(join(BIN, program), args, { env }, (error, stdout, stderr) => {
      resolve({ code: typeof error?.code === "number" ? error.code : error === null ? 0 : -1, stdout, stderr });
    });
  });
}

function cache(...args: readonly string[]): Promise<Ended> {
  return run("supernode", "cache", ...args, "--supernode", address, "--data-dir", join(directory, "supernode"));
}

before(async () => {
  directory = mkdtempSync(join(tmpdir(), "supernode-cache-"));
  origin = createServer((request, response) => {
    response.writeHead(200, { "content-length": CONTENT.length, etag: `"${request.url}"` }).end(request.method === "HEAD" ? undefined : CONTENT);
  });
  await new Promise<void>((resolve) => void origin.listen(0, "127.0.0.1", resolve));
  const args = ["--listen", "127.0.0.1:0", "--data-dir", join(directory, "supernode"), "--scrub-rate", "0"];
  supernode = spawn(join(BIN, "supernode"), args, { env: { PATH: process.env["PATH"] ?? "", HOME: directory }, stdio: ["ignore", "pipe", "ignore"] });
  let output = "";
  supernode.stdout?.on("data", (chunk: Buffer) => (output += chunk.toString()));
  for (let tries = 0; tries < 2_400 && !output.includes('"port":'); tries++) await sleep(25);
  address = `127.0.0.1:${/"port":(\d+)/.exec(output)?.[1]}`;
  const url = `http://127.0.0.1:${(origin.address() as AddressInfo).port}`;
  const token = ["--supernode", address, "--join-token-file", join(directory, "supernode/join-token")];
  for (const name of ["one", "two"]) {
    const { code, stderr } = await run("dfget", `${url}/${name}?sig=secret`, "-O", join(directory, name), "--socket", join(directory, "none"), ...token);
    assert.equal(code, 0, stderr);
  }
});
after(() => {
  supernode.kill("SIGKILL");
  origin.closeAllConnections();
  origin.close();
  rmSync(directory, { recursive: true });
});

interface Listed {
  readonly usedBytes: number;
  readonly tasks: readonly { readonly taskId: string; readonly url: string; readonly heldBytes: number; readonly pinned: boolean }[];
}

async function listed(): Promise<Listed> {
  return JSON.parse((await cache("ls", "--json")).stdout) as Listed;
}

async function idOf(name: string): Promise<string> {
  const task = (await listed()).tasks.find(({ url }) => new URL(url).pathname === `/${name}`);
  assert.ok(task, name);
  return task.taskId;
}

test("ls shows what is cached, for people and as JSON, without what was secret in an address", async () => {
  const { code, stdout } = await cache("ls");
  assert.equal(code, 0);
  assert.match(stdout, /^ID +HELD +OF IT +USED \(UTC\) +STATE +FILE\n/);
  assert.match(stdout, /\n[0-9a-f]{12} +.* 100% +\d{4}-\d\d-\d\d \d\d:\d\d +.*http:\/\/127\.0\.0\.1:\d+\/one/);
  assert.match(stdout, /2 files, .* no quota\n$/);
  assert.doesNotMatch(stdout, /secret/);
  const { usedBytes, tasks } = await listed();
  assert.equal(usedBytes, 2 * CONTENT.length);
  assert.deepEqual(tasks.map(({ heldBytes }) => heldBytes), [CONTENT.length, CONTENT.length]);
});

test("a pinned file stays until it is unpinned; then it goes", async () => {
  const id = await idOf("two");
  assert.deepEqual(await cache("pin", id.slice(0, 8)), { code: 0, stdout: `${id.slice(0, 12)} pinned\n`, stderr: "" });
  assert.equal((await listed()).tasks.find(({ taskId }) => taskId === id)?.pinned, true);
  const refused = await cache("rm", id);
  assert.equal(refused.code, 2);
  assert.match(refused.stdout, /\[USAGE\] task .* is not removed: it is pinned; unpin it first/);
  assert.equal((await cache("unpin", id)).code, 0);
  const removed = await cache("rm", id, "--json");
  assert.deepEqual([removed.code, JSON.parse(removed.stdout)], [0, [{ taskId: id, ok: true }]]);
  assert.equal((await listed()).tasks.length, 1);
});

test("verify finds what the disk no longer has as it was, and says so by its exit code", async () => {
  const id = await idOf("one");
  const right = await cache("verify", "--all");
  assert.deepEqual([right.code, right.stdout], [0, `${id.slice(0, 12)} 16 pieces are right\n`]);
  const path = join(directory, "supernode/cache/tasks", id.slice(0, 2), id, "data");
  assert.ok(readdirSync(join(path, "..")).includes("journal"));
  const data = readFileSync(path);
  data[500_000] = (data[500_000] as number) ^ 1;
  writeFileSync(path, data);
  const damaged = await cache("verify", id, "--json");
  assert.equal(damaged.code, 3);
  const [outcome] = JSON.parse(damaged.stdout) as [{ checkedPieces: number; damagedPieces: number; error: { code: string } }];
  assert.deepEqual([outcome.checkedPieces, outcome.damagedPieces, outcome.error.code], [16, 1, "CACHE_CORRUPT"]);
  assert.deepEqual((await cache("verify", id)).code, 0, "what is damaged is dropped");
});

test("what cannot be done is said with a code", async () => {
  const nobody = await cache("rm", "ffffffffffff");
  assert.deepEqual([nobody.code, /\[TASK_UNKNOWN\] no cached file has an id that starts with ffffffffffff/.test(nobody.stderr)], [1, true], nobody.stderr);
  const none = await cache("rm");
  assert.deepEqual([none.code, /\[USAGE\] name the files by their ids/.test(none.stderr)], [2, true], none.stderr);
  const elsewhere = await run("supernode", "cache", "ls", "--supernode", "127.0.0.1:9");
  assert.deepEqual([elsewhere.code, /\[SUPERNODE_UNREACHABLE\] no supernode answers at .*127\.0\.0\.1:9/.test(elsewhere.stderr)], [4, true], elsewhere.stderr);
});
