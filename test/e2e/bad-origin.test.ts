/** Origins that fail, lie or change: the right file, or a clear error with its exit code and nothing under the name. */
import assert from "node:assert/strict";
import { createHash, randomFillSync } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { type Dfdaemon, dfget, startLoopbackDaemon, Supernode } from "./lib/dragonfly.ts";
import { Origin } from "./lib/origin.ts";
import { type Finished, Lab } from "./lib/processes.ts";
import { bytesSentTwice } from "./lib/requests.ts";

const MIB = 1 << 20;
const CONTENT = randomFillSync(Buffer.allocUnsafe(16 * MIB));
/** A cut may waste a piece, of 256 KiB at most for this length, on each of a few connections. */
const MAX_REREAD_AFTER_CUT = 2 * MIB;
/** The supernode asks an origin about a file once a second at most, however many want it. */
const REVALIDATION_MS = 1_000;
/** A failure is told as soon as it is known, on a busy machine, too: before the 30 s after which a silent swarm is given up. */
const MAX_FAILURE_MS = 25_000;

const lab = new Lab("bad-origin");
let origin: Origin;
let other: Origin;
let daemon: Dfdaemon;
let outputs = 0;
let passed = 0;
let tests = 0;

before(async () => {
  origin = await Origin.start(lab);
  other = await Origin.start(lab);
  daemon = await startLoopbackDaemon(lab, "dfdaemon", await Supernode.start(lab, "127.0.0.1"));
});

after(async () => {
  if (passed < tests) lab.printLogs();
  await lab.close();
});

interface Outcome extends Finished {
  readonly content: Buffer | undefined;
}

async function fetchFile(url: string, flags: readonly string[] = []): Promise<Outcome> {
  outputs += 1;
  const output = lab.path(`out-${outputs}`);
  const done = await dfget(lab, [url, "-O", output, "--socket", daemon.socket, ...flags]);
  return { ...done, content: existsSync(output) ? readFileSync(output) : undefined };
}

function assertContent(outcome: Outcome, content: Buffer): void {
  assert.equal(outcome.code, 0, `exit ${outcome.code ?? outcome.signal}\n${outcome.stdout}${outcome.stderr}`);
  assert.ok(outcome.content?.equals(content), "other bytes than the origin's");
}

function assertFails(outcome: Outcome, exitCodes: readonly number[], code: RegExp): void {
  const said = `exit ${outcome.code ?? outcome.signal}\n${outcome.stdout}${outcome.stderr}`;
  assert.ok(exitCodes.includes(outcome.code ?? -1), `want exit ${exitCodes.join(" or ")}: ${said}`);
  assert.match(outcome.stderr, code);
  assert.equal(outcome.content, undefined, "a failed download left a file under the final name");
}

function check(name: string, body: () => Promise<void>): void {
  tests += 1;
  void test(name, async () => {
    await body();
    passed += 1;
  });
}

check("404 is said as such", async () => {
  assertFails(await fetchFile(`${origin.url}/nothing-here`), [8], /ORIGIN_NOT_FOUND/);
});

check("403 is said as such", async () => {
  const url = origin.put("/forbidden", CONTENT, { behaviour: () => ({ status: 403 }) });
  const outcome = await fetchFile(url);
  assertFails(outcome, [6], /ORIGIN_FORBIDDEN/);
  assert.ok(outcome.ms < MAX_FAILURE_MS, `it took ${outcome.ms} ms to say so`);
});

check("401 without credentials fails, and works with the header the user gives, which no output shows", async () => {
  const url = origin.put("/private", CONTENT, {
    behaviour: ({ headers }) =>
      headers.authorization === "Bearer s3cret"
        ? undefined
        : { status: 401, headers: { "WWW-Authenticate": 'Bearer realm="test"' } },
  });
  assertFails(await fetchFile(url), [6], /ORIGIN_UNAUTHORIZED/);
  const allowed = await fetchFile(url, ["--header", "Authorization: Bearer s3cret"]);
  assertContent(allowed, CONTENT);
  assert.doesNotMatch(allowed.stdout + allowed.stderr, /s3cret/);
  assertFails(await fetchFile(url), [6], /ORIGIN_UNAUTHORIZED/);
});

check("503 is waited out", async () => {
  const url = origin.put("/busy", CONTENT, {
    behaviour: ({ n }) => (n <= 2 ? { status: 503, headers: { "Retry-After": "1" } } : undefined),
  });
  assertContent(await fetchFile(url), CONTENT);
});

check("503 for ever is said as such", async () => {
  const url = origin.put("/closed", CONTENT, { behaviour: () => ({ status: 503 }) });
  assertFails(await fetchFile(url), [8], /ORIGIN_BUSY/);
});

check("a body cut half-way is continued where it broke", async () => {
  const url = origin.put("/cut", CONTENT, {
    behaviour: ({ n, start, end }) => (n === 1 ? { cutAfter: Math.floor((end - start) / 2) } : undefined),
  });
  assertContent(await fetchFile(url), CONTENT);
  const twice = bytesSentTwice(origin.log.intervals("/cut"));
  assert.ok(twice <= MAX_REREAD_AFTER_CUT, `${twice} bytes read twice\n${origin.log.toString()}`);
});

check("a length that the origin never delivers is an error", async () => {
  const half = CONTENT.length / 2;
  const url = origin.put("/short", CONTENT, {
    behaviour: ({ start, end }) => (end > half ? { cutAfter: Math.max(0, half - start) } : undefined),
  });
  assertFails(await fetchFile(url), [4], /ORIGIN_CUT/);
});

check("a length that is another when the file is read is an error", async () => {
  const url = origin.put("/shrunk", CONTENT, { behaviour: () => ({ totalBytes: CONTENT.length / 2 }) });
  assertFails(await fetchFile(url), [8], /ORIGIN_(?:CHANGED|LENGTH_WRONG)/);
});

check("an origin without ranges or length delivers", async () => {
  assertContent(await fetchFile(origin.put("/chunked", CONTENT, { ranges: false })), CONTENT);
});

check("empty and tiny files are files", async () => {
  assertContent(await fetchFile(origin.put("/empty", Buffer.alloc(0))), Buffer.alloc(0));
  assertContent(await fetchFile(origin.put("/tiny", Buffer.from("x"))), Buffer.from("x"));
});

check("credentials do not follow a redirect to another host", async () => {
  const target = other.put("/moved", CONTENT);
  // The same machine by another name is another host.
  const location = target.replace("127.0.0.1", "localhost");
  const url = origin.put("/moving", CONTENT, { behaviour: () => ({ status: 302, headers: { Location: location } }) });
  assertContent(await fetchFile(url, ["--header", "Authorization: Bearer s3cret"]), CONTENT);
  assert.ok(origin.log.of("/moving").some((entry) => entry.authorization === "Bearer s3cret"));
  assert.deepEqual(new Set(other.log.entries.map((entry) => entry.authorization)), new Set([undefined]));
});

check("a redirect that never ends is an error", async () => {
  const url = origin.put("/loop", CONTENT, { behaviour: () => ({ status: 302, headers: { Location: "/loop" } }) });
  assertFails(await fetchFile(url), [7], /ORIGIN_PROTOCOL/);
});

check("a file that changed under its URL comes in its new version", async () => {
  const changed = randomFillSync(Buffer.allocUnsafe(CONTENT.length));
  assertContent(await fetchFile(origin.put("/changing", CONTENT)), CONTENT);
  await delay(REVALIDATION_MS + 100);
  assertContent(await fetchFile(origin.put("/changing", changed)), changed);
});

check("a file that changes in mid-download is never a mixture of both versions", async () => {
  const changed = randomFillSync(Buffer.allocUnsafe(CONTENT.length));
  const url = origin.put("/swapped", CONTENT, {
    behaviour: ({ n, start, end }) => {
      if (n > 1) return undefined;
      origin.put("/swapped", changed);
      return { cutAfter: Math.floor((end - start) / 2) };
    },
  });
  const first = await fetchFile(url);
  if (first.code === 0) assertContent(first, changed);
  else assertFails(first, [8], /ORIGIN_CHANGED/);
  assertContent(await fetchFile(url), changed);
});

check("content without its digest is thrown away, and the right content comes once the origin has it", async () => {
  const right = randomFillSync(Buffer.allocUnsafe(CONTENT.length));
  const flags = ["--digest", `sha256:${createHash("sha256").update(right).digest("hex")}`];
  const refused = await fetchFile(origin.put("/digested", CONTENT), flags);
  assertFails(refused, [9], /DIGEST_MISMATCH/);
  assert.ok(refused.ms < MAX_FAILURE_MS, `it took ${refused.ms} ms to say so`);
  const served = await fetchFile(origin.put("/digested", right), flags);
  assertContent(served, right);
  assert.ok(served.ms < MAX_FAILURE_MS, `what came before held it up: ${served.ms} ms`);
});

check("whatever an origin did, nobody but the supernode asked it", async () => {
  const askers = new Set([...origin.log.entries, ...other.log.entries].map((entry) => entry.userAgent));
  assert.deepEqual([...askers].map((agent) => agent.split("/")[0]), ["dragonfly"], `${origin.log.toString()}`);
});

check("after all that, the service goes on", async () => {
  assert.equal(daemon.service.ended, undefined);
  assertContent(await fetchFile(origin.put("/good", CONTENT)), CONTENT);
});
