/** Nonsense from users, files and strangers: a clear error with its code, and the services go on. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { command, type Dfdaemon, dfget, startDfget, startLoopbackDaemon, Supernode } from "./lib/dragonfly.ts";
import { Origin } from "./lib/origin.ts";
import { freePort } from "./lib/ports.ts";
import { type Finished, Lab } from "./lib/processes.ts";

const CONTENT = randomBytes(3 << 20);
const PROGRAMS = ["supernode", "dfdaemon", "dfget"] as const;

const lab = new Lab("bad-input");
let origin: Origin;
let supernode: Supernode;
let daemon: Dfdaemon;
let url: string;
let outputs = 0;
let passed = 0;
let tests = 0;

before(async () => {
  origin = await Origin.start(lab);
  url = origin.put("/file", CONTENT);
  supernode = await Supernode.start(lab, "127.0.0.1");
  daemon = await startLoopbackDaemon(lab, "dfdaemon", supernode);
});

after(async () => {
  if (passed < tests) lab.printLogs();
  await lab.close();
});

function check(name: string, body: () => Promise<void>): void {
  tests += 1;
  void test(name, async () => {
    await body();
    passed += 1;
  });
}

function newOutput(): string {
  outputs += 1;
  return lab.path(`out-${outputs}`);
}

function assertExit(done: Finished, exitCodes: readonly number[], said: RegExp): void {
  const text = `exit ${done.code ?? done.signal}\n${done.stdout}${done.stderr}`;
  assert.ok(exitCodes.includes(done.code ?? -1), `want exit ${exitCodes.join(" or ")}: ${text}`);
  assert.match(done.stderr, said);
  assert.doesNotMatch(done.stderr, /^\s+at .*\(?\S+:\d+:\d+\)?$/m, "a stack trace is no message for a user");
}

/** A download through the daemon that has to fail, and leave nothing under the output's name. */
async function assertRefused(
  address: string,
  flags: readonly string[],
  exitCodes: readonly number[],
  said: RegExp,
): Promise<void> {
  const output = newOutput();
  assertExit(await dfget(lab, [address, "-O", output, "--socket", daemon.socket, ...flags]), exitCodes, said);
  assert.equal(existsSync(output), false, "a failed download left a file under the final name");
}

async function assertWorks(flags: readonly string[]): Promise<void> {
  const output = newOutput();
  const done = await dfget(lab, [url, "-O", output, ...flags]);
  assert.equal(done.code, 0, `${done.stdout}${done.stderr}`);
  assert.ok(readFileSync(output).equals(CONTENT));
}

check("an address that is no URL", async () => {
  await assertRefused("http://[", [], [2], /URL_INVALID/);
  await assertRefused("not a url", [], [2], /URL_INVALID/);
});

check("a scheme nobody reads", async () => {
  await assertRefused("gopher://127.0.0.1/file", [], [2], /SCHEME_UNSUPPORTED/);
});

check("a host that does not resolve", async () => {
  // A label of more than 63 characters: no name server needs to be asked.
  await assertRefused(`http://${"x".repeat(64)}.invalid/file`, [], [4], /HOST_UNRESOLVABLE/);
});

check("a port where nobody listens", async () => {
  await assertRefused(`http://127.0.0.1:${await freePort()}/file`, [], [4], /ORIGIN_UNREACHABLE/);
});

check("a digest that does not match, and one that is none", async () => {
  await assertRefused(url, ["--digest", `sha256:${"0".repeat(64)}`], [9], /DIGEST_MISMATCH/);
  await assertRefused(url, ["--digest", "sha256:short"], [2], /digest/i);
  await assertRefused(url, ["--digest", "crc0:00"], [2], /digest/i);
});

check("an output that cannot be written", async () => {
  const file = lab.writeFile("a-file", "");
  for (const output of [`${file}/below`, lab.path("no", "such", "dir", "file")]) {
    assertExit(await dfget(lab, [url, "-O", output, "--socket", daemon.socket]), [3], /OUTPUT_UNWRITABLE/);
  }
});

check("an output that exists is kept, whatever it is", async () => {
  const file = lab.writeFile("precious", "precious");
  assertExit(await dfget(lab, [url, "-O", file, "--socket", daemon.socket]), [3], /OUTPUT_EXISTS/);
  assert.equal(readFileSync(file, "utf8"), "precious");
  const dir = lab.makeDir("a-directory");
  assertExit(await dfget(lab, [url, "-O", dir, "--socket", daemon.socket]), [3], /OUTPUT_(EXISTS|UNWRITABLE)/);
});

check("unknown flags and impossible values", async () => {
  assertExit(await dfget(lab, []), [2], /./);
  assertExit(await dfget(lab, [url, "--no-such-flag"]), [2], /no-such-flag/);
  await assertRefused(url, ["--limit-rate", "fast"], [2], /limit-rate/);
  for (const program of ["supernode", "dfdaemon"] as const) {
    assertExit(await command(lab, program, ["--no-such-flag"]), [2], /no-such-flag/);
    assertExit(await command(lab, program, ["--listen", "127.0.0.1:notaport"]), [2], /listen/);
    assertExit(await command(lab, program, ["--cache-quota", "lots"]), [2], /cache-quota/);
  }
});

check("config files with unknown keys, wrong types, or no YAML in them", async () => {
  const configs: readonly (readonly [string, string, RegExp])[] = [
    ["unknown-key.yaml", "noSuchSetting: 1\n", /noSuchSetting/],
    ["wrong-type.yaml", "supernode: { a: { b: 1 } }\nlisten: { a: 1 }\n", /listen|supernode/],
    ["broken.yaml", "listen: [\n", /broken\.yaml/],
  ];
  for (const [name, content, said] of configs) {
    const config = lab.writeFile(name, content);
    for (const program of PROGRAMS) {
      const args = ["--config", config];
      const done =
        program === "dfget"
          ? await dfget(lab, [url, "-O", newOutput(), ...args])
          : await command(lab, program, ["--data-dir", lab.path("unused-data"), ...args]);
      assertExit(done, [2], said);
    }
  }
  assertExit(await command(lab, "supernode", ["--config", lab.path("absent.yaml")]), [2, 3], /absent\.yaml/);
});

check("an address in use", async () => {
  const args = ["--listen", supernode.listen, "--data-dir", lab.path("second-supernode")];
  assertExit(await command(lab, "supernode", args), [4], /LISTEN_FAILED/);
});

check("dfget is its own peer with the token, and nobody without it", async () => {
  const alone = ["--socket", lab.path("no.sock"), "--supernode", supernode.listen];
  await assertWorks([...alone, "--join-token-file", supernode.tokenFile]);
  const wrong = lab.writeFile("wrong-token", `${randomBytes(32).toString("base64url")}\n`);
  const output = newOutput();
  const flags = [...alone, "--join-token-file", wrong, "--no-back-source"];
  assertExit(await dfget(lab, [url, "-O", output, ...flags]), [6], /TOKEN_REFUSED/);
  assert.equal(existsSync(output), false);
});

check("without any supernode dfget reads the origin, unless told not to", async () => {
  const alone = ["--socket", lab.path("no.sock"), "--supernode", `127.0.0.1:${await freePort()}`];
  await assertWorks(alone);
  const output = newOutput();
  const refused = await dfget(lab, [url, "-O", output, ...alone, "--no-back-source"]);
  assertExit(refused, [4, 11], /SUPERNODE_UNREACHABLE|BACK_SOURCE_FORBIDDEN/);
  assert.equal(existsSync(output), false);
});

check("an interrupted download ends as the signal says, with nothing under the final name", async () => {
  const slow = origin.put("/slow", randomBytes(8 << 20));
  origin.bytesPerSecond = 1 << 20;
  for (const [signal, exitCode] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    const output = newOutput();
    const running = startDfget(lab, [slow, "-O", output, "--socket", daemon.socket]);
    await delay(1_500);
    assert.equal(running.ended, undefined, `it did not even begin: ${readFileSync(running.logFile, "utf8")}`);
    running.signal(signal);
    const exit = await running.exited;
    assert.ok(exit.code === exitCode || exit.signal === signal, `${signal}: exit ${exit.code ?? exit.signal}`);
    assert.equal(existsSync(output), false);
  }
  origin.bytesPerSecond = Number.POSITIVE_INFINITY;
});

check("garbage and oversized messages on the ports of both services", async () => {
  const upgrade = "GET /v1/link HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: dragonfly-link/1\r\n\r\n";
  const messages: readonly Buffer[] = [
    randomBytes(100_000),
    Buffer.concat([Buffer.from(upgrade), randomBytes(100_000)]),
    Buffer.concat([Buffer.from(upgrade), Buffer.alloc(1 << 20, 0xff)]),
    Buffer.from(`GET / HTTP/1.1\r\nHost: x\r\nX-Long: ${"x".repeat(1 << 20)}\r\n\r\n`),
    Buffer.from("POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{"),
    Buffer.from(`GET /v2/%00/../..//blobs/sha256:garbage HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`),
    Buffer.from("GET /v1/tasks/..%2f..%2fetc%2fpasswd/pieces/-1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
  ];
  const mirror = new URL(daemon.mirror);
  for (const target of [supernode.address, daemon.peer, { host: mirror.hostname, port: Number(mirror.port) }]) {
    for (const message of messages) {
      const answer = await throwAt(target, message);
      assert.doesNotMatch(answer.toString("latin1"), /^HTTP\/1\.1 (?:2\d\d|500)/, message.toString("latin1", 0, 200));
    }
  }
  assert.equal(supernode.service.ended, undefined, "the supernode died of it");
  assert.equal(daemon.service.ended, undefined, "dfdaemon died of it");
  assert.equal(await supernode.isReady(), true);
  await assertWorks(["--socket", daemon.socket]);
});

/** Sends the bytes, and gives what came back within a second or until the other side hung up. */
async function throwAt(target: { readonly host: string; readonly port: number }, message: Buffer): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const socket = connect(target);
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.on("error", () => undefined);
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.write(message);
  await Promise.race([closed, delay(1_000)]);
  socket.destroy();
  return Buffer.concat(chunks);
}
