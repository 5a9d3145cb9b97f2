/** Nonsense from users, files and strangers: a clear error with its code, and the services go on. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { Prng } from "../../src/base/prng.ts";
import { generatePeerId } from "../../src/peer/membership/credentials.ts";
import type { TaskId } from "../../src/protocol/ids.ts";
import { encodeDataHeader, encodeFrame, type LinkFrame } from "../../src/protocol/link-frames.ts";
import { command, type Dfdaemon, dfget, startDfget, startLoopbackDaemon, Supernode } from "./lib/dragonfly.ts";
import { Origin } from "./lib/origin.ts";
import { freePort } from "../lib/ports.ts";
import { type Finished, Lab } from "./lib/processes.ts";
import { type Address, controlFrame, json, linkFrame, openAsInsider, shakeHands, upgradeRequest, Wire } from "./lib/wire.ts";

const CONTENT = randomBytes(3 << 20);
const PROGRAMS = ["supernode", "dfdaemon", "dfget"] as const;
/** Of the fuzzer; a failure is repeated with the seed it printed. */
const FUZZ_SEED = Number(process.env["FUZZ_SEED"] ?? 1);
const FUZZ_ROUNDS = 60;
/** A frame that claims too much is refused before it has arrived: below the 15 s after which silence is death. */
const REFUSAL_MS = 12_000;

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
  assertExit(await dfget(lab, [url, "-O", dir, "--socket", daemon.socket]), [3], /OUTPUT_(?:EXISTS|UNWRITABLE)/);
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
  const sizes: readonly (readonly [string, string, RegExp])[] = [
    ["size-words.yaml", "cacheQuota: plenty\n", /cacheQuota/],
    ["size-negative.yaml", "cacheQuota: -1\n", /cacheQuota/],
    ["size-impossible.yaml", "cacheQuota: 99999999999TiB\n", /cacheQuota/],
  ];
  for (const [name, content, said] of sizes) {
    const config = lab.writeFile(name, content);
    for (const program of ["supernode", "dfdaemon"] as const) {
      const args = ["--data-dir", lab.path("unused-data"), "--config", config];
      assertExit(await command(lab, program, args), [2], said);
    }
  }
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
  assertExit(await command(lab, "supernode", ["--config", lab.path("absent.yaml")]), [2], /absent\.yaml/);
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
  const goesOn = await dfget(lab, [url, "-O", output, ...alone, "--join-token-file", wrong]);
  assertExit(goesOn, [0], /TOKEN_REFUSED.*reading the origin directly/);
});

check("without any supernode dfget reads the origin, unless told not to", async () => {
  const alone = ["--socket", lab.path("no.sock"), "--supernode", `127.0.0.1:${await freePort()}`];
  await assertWorks(alone);
  const output = newOutput();
  const refused = await dfget(lab, [url, "-O", output, ...alone, "--no-back-source"]);
  assertExit(refused, [11], /BACK_SOURCE_FORBIDDEN/);
  assert.equal(existsSync(output), false);
});

check("a supernode that hangs with its connections open costs a download some twenty seconds, then the origin is read", async () => {
  const fresh = origin.put("/while-it-hangs", randomBytes(1 << 20));
  const startMs = performance.now();
  supernode.service.signal("SIGSTOP");
  try {
    const output = newOutput();
    const done = await dfget(lab, [fresh, "-O", output, "--socket", daemon.socket]);
    assertExit(done, [0], /(?:)/);
    const tookMs = performance.now() - startMs;
    assert.ok(tookMs > 5_000 && tookMs < 30_000, `${tookMs} ms`);
  } finally {
    supernode.service.signal("SIGCONT");
  }
});

check("an interrupted download ends as the signal says, with nothing under the final name", async () => {
  const slow = origin.put("/slow", randomBytes(8 << 20));
  // What the first one began goes on: it must not be whole before the second one is interrupted.
  origin.bytesPerSecond = 1 << 18;
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
  const upgrade = upgradeRequest("link");
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
  await assertServiceGoesOn();
});

check("a stranger without the token gets neither a link, nor a control connection, nor a piece", async () => {
  const stranger = generatePeerId("stranger");
  const ports = [["link", daemon.peer], ["link", supernode.address], ["control", supernode.address]] as const;
  for (const [kind, address] of ports) {
    const { wire, answer } = await shakeHands(kind, address, randomBytes(32).toString("base64url"), stranger);
    assert.deepEqual([answer["type"], answer["code"]], ["refused", "TOKEN_REFUSED"]);
    assert.ok(await wire.isClosedWithin(REFUSAL_MS), `the ${kind} port keeps a stranger`);
  }
  const known = await knownTask();
  for (const { host, port } of [supernode.address, daemon.peer]) {
    const answers = await Promise.all(
      [known, "f".repeat(64)].map(async (taskId) => {
        const response = await fetch(`http://${host}:${port}/v1/tasks/${taskId}/pieces/0`, {
          headers: { authorization: "Bearer bm90aGluZw.bm90aGluZw", "x-dragonfly-peer": stranger },
        });
        const body = (await response.text()).replaceAll(taskId, "<task>");
        return { status: response.status, body };
      }),
    );
    assert.equal(answers[0]?.status, 403);
    assert.match(answers[0].body, /TICKET_REFUSED/);
    assert.deepEqual(answers[0], answers[1], "the answer tells whether there is such a task");
  }
});

check("messages that claim more than is allowed end their connection, before they have arrived", async () => {
  const token = readToken();
  const tooLong = 0xff_ff_ff_ff;
  for (const address of [supernode.address, daemon.peer]) {
    for (const type of [2, 4, 10, 99]) {
      const wire = await openAsInsider("link", address, token);
      wire.write(linkFrame(type, randomBytes(100), tooLong));
      assert.ok(await wire.isClosedWithin(REFUSAL_MS), `a link frame of type ${type} may claim ${tooLong} bytes`);
    }
  }
  const wire = await openAsInsider("control", supernode.address, token);
  wire.write(controlFrame(json({ type: "register", host: HOST_INFO })));
  wire.write(controlFrame(randomBytes(100), tooLong));
  assert.ok(await wire.isClosedWithin(REFUSAL_MS), "a control message may claim 4 GiB");
  await assertServiceGoesOn();
});

check("malformed frames on links and control connections, from one who knows the token", async () => {
  const token = readToken();
  const prng = new Prng(FUZZ_SEED);
  const taskId = await knownTask();
  for (let round = 0; round < FUZZ_ROUNDS; round += 1) {
    const link = await openAsInsider("link", round % 2 === 0 ? daemon.peer : supernode.address, token);
    for (let i = 0; i < 50; i += 1) link.write(fuzzedLinkFrame(prng, taskId));
    const control = await openAsInsider("control", supernode.address, token);
    if (prng.below(4) > 0) control.write(controlFrame(json({ type: "register", host: HOST_INFO })));
    for (let i = 0; i < 20; i += 1) control.write(fuzzedControlFrame(prng, taskId));
    // Some are read to the end, some cut in the middle of a frame.
    await Promise.all([link, control].map(async (wire) => await wire.isClosedWithin(prng.below(100))));
    link.destroy();
    control.destroy();
    assertAlive(`round ${round} of FUZZ_SEED=${FUZZ_SEED}`);
  }
  await assertServiceGoesOn();
  // What a stranger sends is at most a warning: nothing of it may look like a fault of ours.
  for (const { service } of [supernode, daemon]) {
    const faults = readFileSync(service.logFile, "utf8").split("\n").filter((line) => /"level":[56]0|"INTERNAL"/.test(line));
    assert.deepEqual(faults, [], `FUZZ_SEED=${FUZZ_SEED}`);
  }
});

const HOST_INFO = { address: "127.0.0.1", port: 9, name: "insider", program: "dfget", version: "0", labels: {} };

/** A frame as it should be, one that lies, or none at all. */
function fuzzedLinkFrame(prng: Prng, taskId: TaskId): Buffer {
  const number = (): number => (prng.below(3) === 0 ? prng.nextUint32() : prng.below(16));
  const bytes = (count: number): Buffer => Buffer.from(Array.from({ length: count }, () => prng.below(256)));
  const channel = prng.below(3) === 0 ? number() : 1;
  const well = (frame: LinkFrame): Buffer => Buffer.from(encodeFrame(frame));
  const pieces = Array.from({ length: prng.below(20) }, number);
  switch (prng.below(12)) {
    case 0:
      return well({ type: "join", channel, taskId, ticket: prng.below(2) === 0 ? "" : "e30.e30", have: bytes(prng.below(40)) });
    case 1:
      return well({ type: "have", channel, pieces });
    case 2:
      return well({ type: "want", channel, pieces });
    case 3:
      return well({ type: "proof", channel, piece: number(), lengthBytes: number(), digest: bytes(32), signature: bytes(64) });
    case 4:
      return well({ type: prng.below(2) === 0 ? "accept" : "cancel", channel, piece: number() });
    case 5:
      return well({ type: "withdraw", channel, piece: number() });
    case 6: {
      const payload = bytes(prng.below(200));
      return Buffer.concat([encodeDataHeader(channel, number(), number(), payload.length), payload]);
    }
    case 7:
      return well({ type: "length", channel, lengthBytes: prng.below(1 << 30), signature: bytes(64) });
    case 8:
      return well({ type: "status", incoming: prng.below(65_536), capacity: prng.below(65_536) });
    case 9: {
      // Cut short: its last fields are missing.
      const type = 2 + prng.below(14);
      return linkFrame(type === 10 ? 2 : type, bytes(prng.below(12)));
    }
    case 10: {
      const type = prng.below(256);
      return linkFrame(type === 10 ? 99 : type, bytes(prng.below(300)));
    }
    default:
      return prng.below(8) === 0 ? bytes(prng.below(64)) : well({ type: "ping" });
  }
}

function fuzzedControlFrame(prng: Prng, taskId: TaskId): Buffer {
  const value = (): unknown => {
    const values = [0, -1, 1e300, "", "x".repeat(5_000), null, true, [], {}, [[[]]], taskId, "http://[", url, { a: {} }];
    return values[prng.below(values.length)];
  };
  const types = ["register", "join", "progress", "needNeighbours", "accuse", "leave", "joined", "", "constructor"];
  switch (prng.below(6)) {
    case 0:
      return controlFrame(json(value()));
    case 1:
      return controlFrame(Buffer.from(['{"type":', "[".repeat(10_000), '"\ud800"', "\0", "{}{}"][prng.below(5)] as string));
    case 2:
      return controlFrame(json({ type: "join", requestId: 1, source: { url: value(), headers: value() }, download: value() }));
    case 3:
      return controlFrame(json({ type: "join", requestId: 2, source: { url, headers: {} }, download: true, taskId, have: "//////8=" }));
    case 4:
      return controlFrame(json({ type: "progress", taskId, pieceCount: 1e9, complete: true, sources: { seedBytes: 1e308, peerBytes: 0, originBytes: 0 } }));
    default: {
      const type = types[prng.below(types.length)] as string;
      return controlFrame(json({ type, taskId, requestId: value(), lost: value(), peerId: value(), piece: value(), host: value() }));
    }
  }
}

function readToken(): string {
  return readFileSync(supernode.tokenFile, "utf8").trim();
}

/** The id of a task whose pieces supernode and dfdaemon have. */
async function knownTask(): Promise<TaskId> {
  await assertWorks(["--socket", daemon.socket]);
  const { host, port } = supernode.address;
  const answer = (await (await fetch(`http://${host}:${port}/v1/cache`)).json()) as { tasks: { taskId: TaskId; url: string }[] };
  const found = answer.tasks.find((item) => item.url === url);
  assert.ok(found !== undefined, `${url} is not in ${JSON.stringify(answer)}`);
  return found.taskId;
}

function assertAlive(after: string): void {
  assert.equal(supernode.service.ended, undefined, `the supernode died of ${after}`);
  assert.equal(daemon.service.ended, undefined, `dfdaemon died of ${after}`);
}

/** Both live, and a file that neither had comes through them. */
async function assertServiceGoesOn(): Promise<void> {
  assertAlive("it");
  assert.equal(await supernode.isReady(), true);
  const content = randomBytes(CONTENT.length);
  const output = newOutput();
  const done = await dfget(lab, [origin.put(`/fresh-${outputs}`, content), "-O", output, "--socket", daemon.socket, "--no-back-source"]);
  assert.equal(done.code, 0, `${done.stdout}${done.stderr}`);
  assert.ok(readFileSync(output).equals(content));
}

/** Sends the bytes, and gives what came back within a second or until the other side hung up. */
async function throwAt(target: Address, message: Buffer): Promise<Buffer> {
  const wire = new Wire(target);
  wire.write(message);
  await wire.isClosedWithin(1_000);
  wire.destroy();
  return wire.received;
}
