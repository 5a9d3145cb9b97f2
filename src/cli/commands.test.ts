/** The commands as a shell meets them: what they print, and their exit codes. */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { serveProxy } from "../origin/proxy-lab.test.ts";

const BIN = join(import.meta.dirname, "../../bin");
const CONTENT = randomBytes(1_000_000);
/** Another file, of the same length. */
const OTHER = randomBytes(CONTENT.length);
const SHA256 = `sha256:${createHash("sha256").update(CONTENT).digest("hex")}`;

let directory: string;
let origin: Server;
let url: string;
/** Bytes after which a body of /slow stops. */
const SLOW_BYTES = 300_000;
const ranges: (string | undefined)[] = [];

before(async () => {
  directory = mkdtempSync(join(tmpdir(), "commands-"));
  origin = createServer(answer);
  await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(origin.address() as AddressInfo).port}`;
});
beforeEach(() => {
  ranges.length = 0;
});
after(() => {
  origin.closeAllConnections();
  origin.close();
  rmSync(directory, { recursive: true });
});

function answer(request: IncomingMessage, response: ServerResponse): void {
  if (request.url === "/missing") {
    response.writeHead(404).end();
    return;
  }
  const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
  ranges.push(request.headers.range);
  response.setHeader("etag", '"1"');
  response.setHeader("accept-ranges", "bytes");
  response.setHeader("content-length", CONTENT.length - start);
  if (start > 0) response.setHeader("content-range", `bytes ${start}-${CONTENT.length - 1}/${CONTENT.length}`);
  response.writeHead(start > 0 ? 206 : 200);
  if (request.method === "HEAD") response.end();
  else if (request.url === "/slow" && start === 0) response.write(CONTENT.subarray(0, SLOW_BYTES));
  else response.end((request.url === "/other" ? OTHER : CONTENT).subarray(start));
}

interface Finished {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

function start(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): { readonly child: ChildProcess; readonly done: Promise<Finished> } {
  // Nothing of the machine the test runs on: no daemon, no supernode, no configuration.
  const clean = { PATH: process.env["PATH"] ?? "", HOME: directory, XDG_CACHE_HOME: directory, DRAGONFLY_SUPERNODE: "127.0.0.1:9", ...env };
  const child = spawn(command, args, { cwd: directory, env: clean, stdio: ["ignore", "pipe", "pipe"] });
  const out: Buffer[] = [];
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const done = new Promise<Finished>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, stdout: Buffer.concat(out), stderr }));
  });
  return { child, done };
}

function dfget(...args: readonly string[]): Promise<Finished> {
  return start(join(BIN, "dfget"), ["--socket", join(directory, "no.sock"), ...args]).done;
}

function assertError(finished: Finished, exitCode: number, code: string): void {
  assert.equal(finished.code, exitCode, finished.stderr);
  assert.match(finished.stderr, new RegExp(`^\\[(?:${code})\\] `, "m"));
  assert.doesNotMatch(finished.stderr, /^\s+at /m, "a stack trace is no message for a user");
}

test("all three say who they are, what they take, and what they were given", async () => {
  for (const name of ["supernode", "dfdaemon", "dfget"]) {
    const run = (...args: readonly string[]): Promise<Finished> => start(join(BIN, name), args).done;
    const [version, help, config, unknown] = await Promise.all([
      run("--version"),
      run("--help"),
      run("--print-config"),
      run("--no-such-flag"),
    ]);
    assert.match(version.stdout.toString(), new RegExp(`^${name} \\d+\\.\\d+\\.\\d+\\n$`));
    assert.match(help.stdout.toString(), /^Usage: .*\n[^]*--print-config/);
    assert.match(config.stdout.toString(), /^# file: none/m);
    assert.deepEqual([version.code, help.code, config.code], [0, 0, 0]);
    assertError(unknown, 2, "USAGE");
  }
});

test("the launcher finds its package through links, from any folder, and says so when there is none", async () => {
  symlinkSync(join(BIN, "dfget"), join(directory, "first"));
  mkdirSync(join(directory, "with space"));
  symlinkSync("../first", join(directory, "with space/dfget"));
  const linked = await start(join(directory, "with space/dfget"), ["--version"]).done;
  assert.match(linked.stdout.toString(), /^dfget /);
  const viaPath = await start("sh", ["-c", "dfget --version"], { PATH: `${BIN}:${process.env["PATH"] ?? ""}` }).done;
  assert.match(viaPath.stdout.toString(), /^dfget /);

  mkdirSync(join(directory, "alone/bin"), { recursive: true });
  const lonely = join(directory, "alone/bin/dfget");
  writeFileSync(lonely, readFileSync(join(BIN, "dfget")), { mode: 0o755 });
  assertError(await start(lonely, ["--version"]).done, 1, "INTERNAL");
  mkdirSync(join(directory, "alone/dist/cli"), { recursive: true });
  writeFileSync(join(directory, "alone/dist/cli/dfget.js"), "console.log('ran')");
  const old = join(directory, "old");
  mkdirSync(old);
  writeFileSync(join(old, "node"), "#!/bin/sh\necho v20.1.0\n", { mode: 0o755 });
  const tooOld = await start(lonely, [], { PATH: `${old}:/usr/bin:/bin` }).done;
  assert.match(tooOld.stderr, /needs Node.js 24 or newer \(found: v20\.1\.0\)/);
});

test("a file straight from its origin, checked and reported", async () => {
  const finished = await dfget(`${url}/file`, "-O", "direct", "--digest", SHA256, "--json");
  assert.equal(finished.code, 0, finished.stderr);
  assert.ok(readFileSync(join(directory, "direct")).equals(CONTENT));
  const report = JSON.parse(finished.stdout.toString()) as Record<string, unknown>;
  assert.deepEqual(
    [report["ok"], report["bytes"], report["via"], report["digests"]],
    [true, CONTENT.length, "origin", [SHA256]],
  );
  assert.match(finished.stderr, /^direct: 977 KiB in .*origin 100%$/m);
});

test("an origin behind the proxy that the environment names, whose password shows nowhere", async (t) => {
  const { url: proxyUrl, asked } = await serveProxy(t);
  const file = `${url.replace("127.0.0.1", "origin.test")}/file`;
  const run = (output: string, env: Readonly<Record<string, string>>): Promise<Finished> =>
    start(join(BIN, "dfget"), [file, "-O", output, "--digest", SHA256, "--verbose", "--socket", join(directory, "no.sock")], env).done;
  const finished = await run("proxied", { http_proxy: proxyUrl, no_proxy: "10.0.0.0/8" });
  assert.equal(finished.code, 0, finished.stderr);
  const login = `Basic ${btoa("me:pw")}`;
  assert.ok(asked.includes(`GET ${file} ${login}`), asked.join("\n"));
  assert.doesNotMatch(finished.stderr, /me:pw/);
  assertError(await run("past", { http_proxy: proxyUrl, no_proxy: ".test" }), 4, "HOST_UNRESOLVABLE");
});

test("to stdout, and quietly", async () => {
  const finished = await dfget(`${url}/file`, "-O", "-", "-q", "--json");
  assert.equal(finished.code, 0);
  assert.ok(finished.stdout.equals(CONTENT));
  assert.equal((JSON.parse(finished.stderr.split("\n").at(-2) ?? "") as { ok: boolean }).ok, true);
});

test("a link that leads to stdout is stdout, also where that is a file", async () => {
  const [link, file] = [join(directory, "link-to-stdout"), join(directory, "redirected")];
  symlinkSync("/proc/self/fd/1", link);
  const fd = openSync(file, "w");
  const child = spawn(join(BIN, "dfget"), [`${url}/file`, "--force", "-q", "-O", link], { cwd: directory, stdio: ["ignore", fd, "ignore"] });
  closeSync(fd);
  const [code] = (await once(child, "exit")) as [number];
  assert.equal(code, 0);
  assert.ok(readFileSync(file).equals(CONTENT));
  assert.ok(lstatSync(link).isSymbolicLink());
  for (const path of [link, file]) rmSync(path);
});

test("whoever reads stderr may go: the download goes on", async () => {
  const child = spawn(join(BIN, "dfget"), [`${url}/file`, "--verbose", "--supernode", "127.0.0.1:9", "-O", "unread"], { cwd: directory, stdio: ["ignore", "ignore", "pipe"] });
  child.stderr?.destroy();
  const [code] = (await once(child, "exit")) as [number];
  assert.equal(code, 0);
  assert.ok(readFileSync(join(directory, "unread")).equals(CONTENT));
  rmSync(join(directory, "unread"));
});

test("words on stdout that are lost are an error, in words, and the file is there all the same", { skip: !existsSync("/dev/full") }, async () => {
  const lost = async (program: string, ...args: readonly string[]): Promise<void> => {
    const fd = openSync("/dev/full", "w");
    const child = spawn(join(BIN, program), args, { cwd: directory, stdio: ["ignore", fd, "pipe"] });
    closeSync(fd);
    let stderr = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    const [code] = (await once(child, "close")) as [number];
    assertError({ code, stdout: Buffer.alloc(0), stderr }, 3, "OUTPUT_UNWRITABLE|DISK_FULL");
    assert.match(stderr, /cannot write stdout: /);
  };
  await lost("dfget", "--version");
  await lost("dfget", "--socket", join(directory, "no.sock"), `${url}/file`, "-q", "--json", "-O", "told");
  assert.ok(readFileSync(join(directory, "told")).equals(CONTENT));
  rmSync(join(directory, "told"));
  for (const args of [["--help"], ["--print-config"], ["setup", "--dry-run", "--engine", "podman", "--data-dir", directory]]) await lost("dfdaemon", ...args);
});

test("every failure has its code and its exit code, and leaves nothing behind", async () => {
  const before = readdirSync(directory);
  const file = join(directory, "existing");
  writeFileSync(file, "precious");
  const failures: readonly (readonly [readonly string[], number, string])[] = [
    [[], 2, "USAGE"],
    [["not a url"], 2, "URL_INVALID"],
    [["gopher://127.0.0.1/f"], 2, "SCHEME_UNSUPPORTED"],
    [[`${url}/file`, "-O", "x", "--limit-rate", "fast"], 2, "CONFIG_INVALID"],
    [[`${url}/file`, "-O", "x", "--digest", "sha256:short"], 2, "USAGE"],
    [[`${url}/file`, "-O", file], 3, "OUTPUT_EXISTS"],
    [[`${url}/file`, "-O", directory], 3, "OUTPUT_UNWRITABLE"],
    [[`${url}/file`, "-O", join(file, "below")], 3, "OUTPUT_UNWRITABLE"],
    [[`${url}/file`, "-O", "no/such/folder/x"], 3, "OUTPUT_UNWRITABLE"],
    [[`${url}/file`, "-O", "/dev/full"], 3, "DISK_FULL"],
    [[`${url}/file`, "-O", "/dev/stdout", "-c"], 2, "USAGE"],
    [[`${url}/file`, "-O", "-", "-c"], 2, "USAGE"],
    // With FILE.part.json.new beside it there is no room in a name.
    [[`${url}/file`, "-O", "n".repeat(242)], 3, "OUTPUT_UNWRITABLE"],
    [["http://127.0.0.1:9/file", "-O", "x"], 4, "ORIGIN_UNREACHABLE"],
    [[`${url}/missing`, "-O", "x"], 8, "ORIGIN_NOT_FOUND"],
    [[`${url}/file`, "-O", "x", "--digest", `sha256:${"0".repeat(64)}`], 9, "DIGEST_MISMATCH"],
    [[`${url}/file`, "-O", "x", "--no-back-source"], 11, "BACK_SOURCE_FORBIDDEN"],
  ];
  const finished = await Promise.all(
    failures.map(([args], index) => dfget(...args.map((arg) => (arg === "x" ? `x${index}` : arg)))),
  );
  for (const [index, [, exitCode, code]] of failures.entries())
    assertError(finished[index] as Finished, exitCode, code);
  assert.equal(readFileSync(file, "utf8"), "precious");
  rmSync(file);
  assert.deepEqual(readdirSync(directory), before);
});

test("of two that begin to write one file at the same moment, who says that it is there is right", async () => {
  for (let round = 0; round < 4; round++) {
    const name = `shared-${round}`;
    // oxlint-disable-next-line no-await-in-loop -- one pair after the other: they are to meet each other alone
    const [one, other] = await Promise.all(["file", "other"].map((path) => dfget(`${url}/${path}`, "-O", name)));
    const won = [[one, CONTENT], [other, OTHER]].filter(([finished]) => (finished as Finished).code === 0);
    assert.ok(won.length <= 1, "both say so");
    for (const [, content] of won) assert.ok(readFileSync(join(directory, name)).equals(content as Buffer), `round ${round}: not what was downloaded`);
    const lost = [one, other].filter((finished) => finished?.code !== 0);
    for (const finished of lost) assert.match(finished?.stderr ?? "", /another dfget|exists and stays|made by somebody else/);
  }
});

test("a timeout is 10, and -c goes on with what came", async () => {
  const failed = await dfget(`${url}/slow`, "-O", "resumed", "-T", "8s", "--json");
  assertError(failed, 10, "TIMEOUT");
  assert.match(failed.stderr, /resumed\.part keeps .*go on with -c/);
  assert.deepEqual((JSON.parse(failed.stdout.toString()) as { exitCode: number }).exitCode, 10);
  assert.equal(existsSync(join(directory, "resumed")), false);
  ranges.length = 0;
  const finished = await dfget(`${url}/slow`, "-O", "resumed", "-c", "--digest", SHA256, "--json");
  assert.equal(finished.code, 0, finished.stderr);
  assert.ok((JSON.parse(finished.stdout.toString()) as { resumedBytes: number }).resumedBytes > 0);
  assert.match(ranges.at(-1) ?? "", /^bytes=\d{3,}-/);
  assert.ok(readFileSync(join(directory, "resumed")).equals(CONTENT));
});

test("a signal ends it with 128 and its number, and what came is kept for -c", async () => {
  for (const [signal, exitCode] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    const { child, done } = start(join(BIN, "dfget"), ["--socket", "none.sock", `${url}/slow`, "-O", signal]);
    const part = join(directory, `${signal}.part`);
    for (let tries = 0; tries < 1_200 && (!existsSync(part) || statSync(part).size === 0); tries++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    child.kill(signal);
    const finished = await done;
    assert.equal(finished.code, exitCode, finished.stderr);
    assert.match(finished.stderr, /\[ABORTED\] interrupted by/);
    assert.deepEqual([existsSync(join(directory, signal)), existsSync(part)], [false, true]);
  }
});
