/** The hit rule, cell by cell: docs/cache.md is the table, and names these tests. */
import assert from "node:assert/strict";
import { createHash, randomFillSync } from "node:crypto";
import { renameSync, utimesSync, writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { gzipSync } from "node:zlib";

import { type Asked, inWords } from "./lib/asked.ts";
import { type Dfdaemon, dfget, startLoopbackDaemon, Supernode } from "./lib/dragonfly.ts";
import { type Fetched, fetchThrough, type Wanted } from "./lib/local-client.ts";
import { type Habits, Nginx } from "./lib/nginx.ts";
import { answerWell, type OddFile, OddOrigin } from "./lib/odd-origin.ts";
import { Lab, waitFor } from "./lib/processes.ts";

const INTERVAL_MS = 300;
/** More than fits into a join's answer, less than a file whose ranges are asked about beforehand. */
const LENGTH_BYTES = 900 * 1024;
/** So that there is a middle of a read, and time to find it. */
const SLOW_BYTES_PER_SECOND = 200 * 1024;
const DATE = "Thu, 01 Jan 2026 00:00:00 GMT";
const LATER = "Thu, 01 Jan 2026 00:00:02 GMT";
const OLD = content();
const NEW = content();

const HABITS: Readonly<Record<string, Habits>> = {
  "ETag and Last-Modified, ranges": { etag: true, lastModified: true, ranges: true },
  "Last-Modified only, ranges": { etag: false, lastModified: true, ranges: true },
  "ETag only, ranges": { etag: true, lastModified: false, ranges: true },
  "ETag and Last-Modified, no ranges": { etag: true, lastModified: true, ranges: false },
  "Last-Modified only, no ranges": { etag: false, lastModified: true, ranges: false },
};
const locationOf = (name: string): string => name.replaceAll(/\W+/g, "-");

const lab = new Lab("hit-rule");
let nginx: Nginx;
let odd: OddOrigin;
/** Asks again after {@link INTERVAL_MS}, and gives out nothing stale. */
let strict: Dfdaemon;
let strictSupernode: Supernode;
/** Gives out what is at most an hour stale. */
let lenient: Dfdaemon;
/** Asks about a file once an hour. */
let lazy: Dfdaemon;
let files = 0;
let passed = 0;
let tests = 0;

before(async () => {
  const locations = Object.entries(HABITS).flatMap(([name, habits]) => [
    [locationOf(name), habits] as const,
    [`slow-${locationOf(name)}`, { ...habits, bytesPerSecond: SLOW_BYTES_PER_SECOND }] as const,
  ]);
  locations.push(["nameless", { etag: false, lastModified: false, ranges: true }]);
  nginx = await Nginx.start(lab, Object.fromEntries(locations));
  odd = await OddOrigin.start(lab);
  const startSupernode = async (name: string, ...flags: string[]): Promise<Supernode> => await Supernode.start(lab, "127.0.0.1", flags, `supernode-${name}`);
  const start = async (name: string, ...flags: string[]): Promise<Dfdaemon> =>
    await startLoopbackDaemon(lab, `dfdaemon-${name}`, await startSupernode(name, ...flags));
  strictSupernode = await startSupernode("strict", "--revalidate-interval", `${INTERVAL_MS}ms`);
  strict = await startLoopbackDaemon(lab, "dfdaemon-strict", strictSupernode);
  lenient = await start("lenient", "--revalidate-interval", `${INTERVAL_MS}ms`, "--serve-stale", "1h");
  lazy = await start("lazy", "--revalidate-interval", "1h");
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

function content(): Buffer {
  return randomFillSync(Buffer.allocUnsafe(LENGTH_BYTES));
}

function assertBrings(fetched: Fetched, wanted: Buffer): void {
  assert.equal(fetched.code, undefined, fetched.message);
  assert.ok(fetched.content.equals(wanted), "other bytes than the origin's");
}

/** Long enough for the next download to be a new question. */
async function nextQuestion(): Promise<void> {
  await delay(INTERVAL_MS + 50);
}

/** Begins a download, and comes back amid it: a part of the file is here, and more of it on its way. */
async function begin(url: string): Promise<{ readonly ended: Promise<Fetched> }> {
  const before = await storedPieceCount();
  const ended = fetchThrough(strict.socket, { url });
  await waitFor("the first piece is here", async () => (await storedPieceCount()) > before);
  return { ended };
}

/** Of all files, at the strict supernode. */
async function storedPieceCount(): Promise<number> {
  const metrics = await (await fetch(`http://${strictSupernode.listen}/metrics`)).text();
  return Number(/^dragonfly_supernode_pieces_total (\d+)$/m.exec(metrics)?.[1] ?? assert.fail(metrics));
}

/** What an origin was asked about one path since the last look. */
class Watch {
  readonly #all: () => readonly Asked[];
  #seen = 0;

  constructor(all: () => readonly Asked[]) {
    this.#all = all;
  }

  /** The next `count` questions, once they are there; and no others. */
  async next(wanted: readonly string[]): Promise<void> {
    const since = (): readonly string[] => this.#all().slice(this.#seen).map(inWords);
    await waitFor("the origin has noted all", () => since().length >= wanted.length, { timeoutMs: 30_000 }).catch(() => undefined);
    assert.deepEqual(since(), wanted);
    this.#seen += wanted.length;
  }

  get last(): Asked {
    return this.#all().at(-1) as Asked;
  }
}

// ── A real nginx ────────────────────────────────────────────────────────────────────────────────────────────────

/** Puts a file under its name in one step, as publishers do. */
function publish(name: string, bytes: Buffer, unixSeconds: number): void {
  writeFileSync(`${nginx.root}/${name}.new`, bytes);
  utimesSync(`${nginx.root}/${name}.new`, unixSeconds, unixSeconds);
  renameSync(`${nginx.root}/${name}.new`, `${nginx.root}/${name}`);
}

function nginxFile(location: string): { readonly name: string; readonly url: string; readonly watch: Watch } {
  files += 1;
  const name = `file-${files}`;
  publish(name, OLD, 1_700_000_000);
  const path = `/${location}/${name}`;
  return { name, url: nginx.url + path, watch: new Watch(() => nginx.asked(path)) };
}

for (const [name, { ranges }] of Object.entries(HABITS)) {
  const first = ["HEAD 200", ranges ? "GET 206 @0" : "GET 200", "HEAD if 304"];

  check(`nginx, ${name}: 304 is a hit, 200 is a new version`, async () => {
    const { url, name: file, watch } = nginxFile(locationOf(name));
    assertBrings(await fetchThrough(strict.socket, { url }), OLD);
    await watch.next(first);
    await nextQuestion();
    assertBrings(await fetchThrough(strict.socket, { url }), OLD);
    await watch.next(["HEAD if 304"]);
    publish(file, NEW, 1_700_000_002);
    await nextQuestion();
    assertBrings(await fetchThrough(strict.socket, { url }), NEW);
    await watch.next(["HEAD if 200", ...first.slice(1)]);
  });

  check(`nginx, ${name}: of a file that is not whole ${ranges ? "only the missing part" : "all"} is read again`, async () => {
    const { url, watch } = nginxFile(`slow-${locationOf(name)}`);
    const { ended } = await begin(url);
    await nginx.kill();
    assert.equal((await ended).code, "ORIGIN_UNREACHABLE");
    await nginx.restart();
    // A killed nginx has not noted the answer that it was giving.
    await watch.next(["HEAD 200"]);
    await nextQuestion();
    assertBrings(await fetchThrough(strict.socket, { url }), OLD);
    await watch.next(["HEAD if 304", ranges ? "GET 206 @n" : "GET 200", "HEAD if 304"]);
  });
}

check("nginx: a download of the old version that runs ends with the old bytes", async () => {
  const { url, name, watch } = nginxFile(locationOf("ETag and Last-Modified, ranges"));
  const slow = fetchThrough(strict.socket, { url, bytesPerSecond: 400 * 1024 });
  await watch.next(["HEAD 200", "GET 206 @0", "HEAD if 304"]);
  publish(name, NEW, 1_700_000_002);
  await nextQuestion();
  assertBrings(await fetchThrough(strict.socket, { url }), NEW);
  assertBrings(await slow, OLD);
});

check("nginx: a file overwritten in place while it is read is noticed, and nobody gets a mixture", async () => {
  const { url, name } = nginxFile(`slow-${locationOf("ETag and Last-Modified, ranges")}`);
  const { ended } = await begin(url);
  writeFileSync(`${nginx.root}/${name}`, NEW);
  assert.equal((await ended).code, "ORIGIN_CHANGED");
  await nextQuestion();
  assertBrings(await fetchThrough(strict.socket, { url }), NEW);
});

check("nginx: without validators a file is fetched anew", async () => {
  const { url, watch } = nginxFile("nameless");
  assertBrings(await fetchThrough(strict.socket, { url }), OLD);
  await watch.next(["HEAD 200", "GET 206 @0"]);
  // A file without a name is taken for the same for two seconds, and while somebody is at it: dfdaemon is, for two minutes.
  await delay(2_100);
  assertBrings(await fetchThrough(lenient.socket, { url }), OLD);
  await watch.next(["HEAD 200", "GET 206 @0"]);
});

check("however many want a file, it is asked about once in the interval", async () => {
  const { url, name, watch } = nginxFile(locationOf("ETag and Last-Modified, ranges"));
  for (const fetched of await Promise.all(Array.from({ length: 20 }, () => fetchThrough(lazy.socket, { url })))) assertBrings(fetched, OLD);
  publish(name, NEW, 1_700_000_002);
  await delay(1_500);
  assertBrings(await fetchThrough(lazy.socket, { url }), OLD);
  await watch.next(["HEAD 200", "GET 206 @0", "HEAD if 304"]);
});

check("content known by its digest is not asked about again", async () => {
  const { url, watch } = nginxFile(locationOf("ETag and Last-Modified, ranges"));
  const digest = `sha256:${createHash("sha256").update(OLD).digest("hex")}`;
  for (let round = 0; round < 3; round += 1) {
    assertBrings(await fetchThrough(strict.socket, { url, digest }), OLD);
    await nextQuestion();
  }
  await watch.next(["HEAD 200", "GET 206 @0"]);
  // Another caller's right to it is asked for, not whether it changed.
  assertBrings(await fetchThrough(strict.socket, { url, digest, headers: { "x-caller": "other" } }), OLD);
  assert.equal(watch.last.ifNoneMatch, undefined);
});

// ── An origin of the test's own ─────────────────────────────────────────────────────────────────────────────────

function oddFile(file: Omit<OddFile, "content">): { readonly file: OddFile; readonly url: string; readonly watch: Watch } {
  files += 1;
  const path = `/odd-${files}`;
  const made: OddFile = { content: OLD, ...file };
  odd.files.set(path, made);
  return { file: made, url: odd.url + path, watch: new Watch(() => odd.asked(path)) };
}

/** What stands in the way of a good answer to everything but the first download. */
interface Cell {
  readonly file: Omit<OddFile, "content">;
  /** What happens to the file between the downloads. */
  readonly change?: (file: OddFile) => void;
  readonly first?: readonly string[];
  readonly second: readonly string[];
  /** What the second download brings: bytes, or the code of its error. */
  readonly brings: Buffer | string;
}

const FIRST = ["HEAD 200", "GET 206 @0", "HEAD if 304"];
const strong = { etag: '"v1"', lastModified: DATE };
const status = (code: number) => (file: OddFile): void => {
  file.answer = (_request, response) => (response.writeHead(code, { "content-length": "0" }).end(), true);
};
/** HEAD is refused with this status; GET is answered well. */
const headRefused = (code: number): NonNullable<OddFile["answer"]> => (request, response) => {
  if (request.method !== "HEAD") return false;
  response.writeHead(code, { "content-length": "0" }).end();
  return true;
};

const CELLS: Readonly<Record<string, Cell>> = {
  "200 with the same strong ETag: conditions were not looked at, a hit": {
    file: { ...strong, conditional: false },
    first: ["HEAD 200", "GET 206 @0", "HEAD if 200"],
    second: ["HEAD if 200"],
    brings: OLD,
  },
  "200 with the same strong ETag and another date, as of another replica: a hit": {
    file: { ...strong, conditional: false },
    change: (file) => (file.lastModified = LATER),
    first: ["HEAD 200", "GET 206 @0", "HEAD if 200"],
    second: ["HEAD if 200"],
    brings: OLD,
  },
  "a weak ETag, 304: a hit": { file: { etag: 'W/"v1"', lastModified: DATE }, second: ["HEAD if 304"], brings: OLD },
  "a weak ETag and another date: a new version": {
    file: { etag: 'W/"v1"', lastModified: DATE, conditional: false },
    change: (file) => Object.assign(file, { lastModified: LATER, content: NEW }),
    first: ["HEAD 200", "GET 206 @0", "HEAD if 200"],
    second: ["HEAD if 200", "GET 206 @0", "HEAD if 200"],
    brings: NEW,
  },
  "a date in the future: the origin's clock is wrong, a hit all the same": {
    file: { lastModified: "Fri, 01 Jan 2100 00:00:00 GMT", headers: { date: "Thu, 01 Jan 1970 00:00:00 GMT" } },
    second: ["HEAD if 304"],
    brings: OLD,
  },
  "a date in the future that the origin ignores, as it must: 200 with the same date and length is a hit": {
    file: { lastModified: "Fri, 01 Jan 2100 00:00:00 GMT", conditional: false },
    first: ["HEAD 200", "GET 206 @0", "HEAD if 200"],
    second: ["HEAD if 200"],
    brings: OLD,
  },
  "a date that went back: a new version": {
    file: { lastModified: LATER },
    change: (file) => Object.assign(file, { lastModified: DATE, content: NEW }),
    second: ["HEAD if 200", "GET 206 @0", "HEAD if 304"],
    brings: NEW,
  },
  "a 304 with another ETag contradicts itself: asked again without conditions": {
    file: strong,
    change: (file) => {
      Object.assign(file, { etag: '"v2"', content: NEW });
      file.answer = ({ headers }, response) => {
        if (headers["if-none-match"] !== '"v1"') return false;
        response.writeHead(304, { etag: '"v2"' }).end();
        return true;
      };
    },
    second: ["HEAD if 304", "HEAD 200", "GET 206 @0", "HEAD if 304"],
    brings: NEW,
  },
  "chunked without a length: a hit when 304": {
    file: { ...strong, ranges: false, length: false },
    first: ["HEAD 200", "GET one 200", "GET 200", "HEAD if 304"],
    second: ["HEAD if 304"],
    brings: OLD,
  },
  "404: the file is gone, and so is what is here": { file: strong, change: status(404), second: ["HEAD if 404"], brings: "ORIGIN_NOT_FOUND" },
  "410: likewise": { file: strong, change: status(410), second: ["HEAD if 410"], brings: "ORIGIN_NOT_FOUND" },
  "401: an answer": { file: strong, change: status(401), second: ["HEAD if 401"], brings: "ORIGIN_UNAUTHORIZED" },
  "403 to HEAD and GET: an answer": { file: strong, change: status(403), second: ["HEAD if 403", "GET one if 403"], brings: "ORIGIN_FORBIDDEN" },
  "418: the source is broken or the address is": { file: strong, change: status(418), second: ["HEAD if 418"], brings: "ORIGIN_STATUS" },
  "a 304 to who did not ask: an error": { file: { ...strong, answer: (_request, response) => (response.writeHead(304).end(), true) }, first: ["HEAD 304"], second: ["HEAD 304"], brings: "ORIGIN_STATUS" },
  "500 for ever: asked four times, then an error": {
    file: strong,
    change: status(500),
    second: ["HEAD if 500", "HEAD if 500", "HEAD if 500", "HEAD if 500"],
    brings: "ORIGIN_BUSY",
  },
  "gzip in the way: an error that says so": {
    file: {
      ...strong,
      answer: (request, response) => {
        response.writeHead(200, { "content-encoding": "gzip", etag: '"v1"' });
        response.end(request.method === "HEAD" ? undefined : gzipSync(OLD));
        return true;
      },
    },
    first: ["HEAD 200"],
    second: ["HEAD 200"],
    brings: "ORIGIN_PROTOCOL",
  },
};
for (const code of [403, 405, 501]) {
  Object.assign(CELLS, {
    [`HEAD is refused with ${code}: one byte is asked for, with the same conditions`]: {
      file: { ...strong, answer: headRefused(code) },
      first: [`HEAD ${code}`, "GET one 206", "GET 206 @0", `HEAD if ${code}`, "GET one if 304"],
      second: [`HEAD if ${code}`, "GET one if 304"],
      brings: OLD,
    } satisfies Cell,
  });
}

for (const [name, cell] of Object.entries(CELLS)) {
  check(name, async () => {
    const { file, url, watch } = oddFile(cell.file);
    const isEverBad = typeof cell.brings === "string" && cell.change === undefined;
    const first = await fetchThrough(strict.socket, { url });
    if (isEverBad) assert.equal(first.code, cell.brings, first.message);
    else assertBrings(first, OLD);
    await watch.next(cell.first ?? FIRST);
    cell.change?.(file);
    await delay(Math.max(INTERVAL_MS, isEverBad ? 1_000 : 0) + 50);
    const second = await fetchThrough(strict.socket, { url });
    if (typeof cell.brings === "string") assert.equal(second.code, cell.brings, second.message);
    else assertBrings(second, cell.brings);
    await watch.next(cell.second);
  });
}

// ── Parts that lie ──────────────────────────────────────────────────────────────────────────────────────────────

/** What answers the question for the rest of a file of which half is here, and what becomes of it. */
interface PartCell {
  readonly answer: NonNullable<OddFile["answer"]>;
  readonly rest: readonly string[];
  readonly brings: Buffer | string;
}

const HALF = LENGTH_BYTES / 2;
/** A 206 for the asked start, but for what `lie` says. */
const partial = (lie: Readonly<Record<string, string>>, bytes: Buffer = OLD): NonNullable<OddFile["answer"]> => ({ headers, method }, response, n) => {
  const start = Number(/^bytes=(\d+)-/.exec(headers.range ?? "")?.[1] ?? 0);
  if (method !== "GET" || start === 0 || n > 3) return false;
  const body = bytes.subarray(start);
  response.writeHead(206, { etag: '"v1"', "content-range": `bytes ${start}-${LENGTH_BYTES - 1}/${LENGTH_BYTES}`, "content-length": body.length, ...lie });
  response.end(body);
  return true;
};

const PARTS: Readonly<Record<string, PartCell>> = {
  "a 200 instead of a part: the whole file is read, and what is here has to come again": {
    answer: ({ headers, method }, response, n) => {
      if (method !== "GET" || headers.range === undefined || n !== 3) return false;
      response.writeHead(200, { etag: '"v1"', "content-length": LENGTH_BYTES });
      response.end(OLD);
      return true;
    },
    rest: ["GET 200 @n", "GET 200", "HEAD if 304"],
    brings: OLD,
  },
  "a 200 instead of a part, and other bytes under the same ETag: the file changed": {
    answer: ({ headers, method }, response, n) => {
      if (method !== "GET" || n < 3 || (headers.range !== undefined && n > 3)) return false;
      response.writeHead(200, { etag: '"v1"', "content-length": LENGTH_BYTES });
      response.end(n === 3 ? OLD : NEW);
      return true;
    },
    rest: ["GET 200 @n", "GET 200"],
    brings: "ORIGIN_CHANGED",
  },
  "a 206 for other bytes than asked: the whole file is read": {
    answer: partial({ "content-range": `bytes 0-${LENGTH_BYTES - 1}/${LENGTH_BYTES}` }),
    rest: ["GET 206 @n", "GET 200", "HEAD if 304"],
    brings: OLD,
  },
  "a 206 without Content-Range: the whole file is read": {
    answer: (request, response, n) => {
      if (request.headers.range === undefined || n !== 3) return false;
      response.writeHead(206, { etag: '"v1"', "content-length": LENGTH_BYTES });
      response.end(OLD);
      return true;
    },
    rest: ["GET 206 @n", "GET 200", "HEAD if 304"],
    brings: OLD,
  },
  "a 206 of another length: the file changed": {
    answer: partial({ "content-range": `bytes ${HALF}-${LENGTH_BYTES}/${LENGTH_BYTES + 1}`, "content-length": String(HALF + 1) }, Buffer.concat([OLD, OLD.subarray(0, 1)])),
    rest: ["GET 206 @n"],
    brings: "ORIGIN_CHANGED",
  },
  "a 206 with another ETag: the file changed": { answer: partial({ etag: '"v2"' }, NEW), rest: ["GET 206 @n"], brings: "ORIGIN_CHANGED" },
  "a 412: the file changed": {
    answer: ({ headers, method }, response, n) => {
      if (method !== "GET" || headers["if-match"] !== '"v1"' || n !== 3) return false;
      response.writeHead(412, { "content-length": "0" }).end();
      return true;
    },
    rest: ["GET 412 @n"],
    brings: "ORIGIN_CHANGED",
  },
  "a 200 of another version instead of a part: the file changed": {
    answer: ({ headers, method }, response, n) => {
      if (method !== "GET" || headers.range === undefined || n !== 3) return false;
      response.writeHead(200, { etag: '"v2"', "content-length": LENGTH_BYTES });
      response.end(NEW);
      return true;
    },
    rest: ["GET 200 @n"],
    brings: "ORIGIN_CHANGED",
  },
  "a redirect that leads elsewhere now: another ETag there is another version": {
    answer: ({ headers, method }, response, n) => {
      if (method !== "GET" || headers.range === undefined || n !== 3) return false;
      response.writeHead(302, { location: "/elsewhere", "content-length": "0" }).end();
      return true;
    },
    rest: ["GET 302 @n"],
    brings: "ORIGIN_CHANGED",
  },
};

for (const [name, { answer, rest, brings }] of Object.entries(PARTS)) {
  check(name, async () => {
    odd.files.set("/elsewhere", { content: NEW, etag: '"v2"', lastModified: DATE });
    const { file, url, watch } = oddFile(strong);
    // The first GET breaks in the middle, the second is forbidden: half the file is here.
    file.answer = (request, response, n) => {
      if (request.method !== "GET" || n > 2) return answer(request, response, n);
      if (n === 2) response.writeHead(403, { "content-length": "0" }).end();
      else {
        response.writeHead(206, { etag: '"v1"', "content-range": `bytes 0-${LENGTH_BYTES - 1}/${LENGTH_BYTES}`, "content-length": LENGTH_BYTES });
        response.write(OLD.subarray(0, HALF + 1000), () => setTimeout(() => response.destroy(), 100));
      }
      return true;
    };
    assert.equal((await fetchThrough(strict.socket, { url })).code, "ORIGIN_FORBIDDEN");
    await watch.next(["HEAD 200", "GET 206 @0", "GET 403 @n"]);
    await nextQuestion();
    const fetched = await fetchThrough(strict.socket, { url });
    if (typeof brings === "string") assert.equal(fetched.code, brings, fetched.message);
    else assertBrings(fetched, brings);
    await watch.next(["HEAD if 304", ...rest]);
  });
}

check("a redirect to another file of the same name is a new version, to a replica with the same strong ETag a hit", async () => {
  odd.files.set("/here", { content: OLD, ...strong });
  odd.files.set("/replica", { content: OLD, etag: '"v1"', lastModified: LATER });
  odd.files.set("/there", { content: NEW, etag: '"v9"', lastModified: DATE });
  let location = "/here";
  const { url } = oddFile({ answer: (_request, response) => (response.writeHead(302, { location, "content-length": "0" }).end(), true) });
  assertBrings(await fetchThrough(strict.socket, { url }), OLD);
  location = "/replica";
  await nextQuestion();
  assertBrings(await fetchThrough(strict.socket, { url }), OLD);
  assert.deepEqual(odd.asked("/replica").map(inWords), ["HEAD if 304"]);
  location = "/there";
  await nextQuestion();
  assertBrings(await fetchThrough(strict.socket, { url }), NEW);
});

check("another signature of the same address is asked for itself, and held against the file that is here", async () => {
  const { url, watch } = oddFile(strong);
  const signed = (signature: string): Wanted => ({ url: `${url}?X-Amz-Date=d&X-Amz-Signature=${signature}` });
  assertBrings(await fetchThrough(strict.socket, signed("a")), OLD);
  await watch.next(FIRST);
  assertBrings(await fetchThrough(strict.socket, signed("b")), OLD);
  await watch.next(["HEAD if 304"]);
});

// ── An origin that cannot be asked ──────────────────────────────────────────────────────────────────────────────

for (const [name, break_] of Object.entries({
  "500": status(500),
  "a connection that breaks": (file: OddFile) => {
    file.answer = (request) => (request.socket.destroy(), true);
  },
})) {
  check(`${name}: what is stale is given out only where the operator allows it, and its age is said`, async () => {
    const { file, url } = oddFile(strong);
    assertBrings(await fetchThrough(lenient.socket, { url }), OLD);
    assertBrings(await fetchThrough(strict.socket, { url }), OLD);
    break_(file);
    await delay(1_100);
    const stale = await fetchThrough(lenient.socket, { url });
    assertBrings(stale, OLD);
    assert.match(stale.headers["warning"] ?? "", /^110 /);
    assert.ok(Number(stale.headers["age"]) >= 1, stale.headers["age"]);
    assert.match((await fetchThrough(strict.socket, { url })).code ?? "", /^ORIGIN_(?:BUSY|UNREACHABLE)$/);
    // To whom the origin has not said what it has, nothing.
    assert.match((await fetchThrough(lenient.socket, { url, headers: { authorization: "Bearer x" } })).code ?? "", /^ORIGIN_/);
    const output = lab.path(`stale-${files}`);
    const said = await dfget(lab, [url, "-O", output, "--socket", lenient.socket]);
    assert.equal(said.code, 0, said.stderr);
    assert.match(said.stderr, /could not be asked .* \d+ s ago/);
    // An answer is an answer: nothing stale then.
    status(404)(file);
    await delay(1_100);
    assert.equal((await fetchThrough(lenient.socket, { url })).code, "ORIGIN_NOT_FOUND");
  });
}

check("small files follow the same rule", async () => {
  const { file, url, watch } = oddFile(strong);
  file.content = Buffer.from("small");
  assertBrings(await fetchThrough(strict.socket, { url }), file.content);
  await nextQuestion();
  assertBrings(await fetchThrough(strict.socket, { url }), file.content);
  await watch.next(["HEAD 200", "GET 200", "HEAD if 304"]);
  file.content = Buffer.from("other");
  file.etag = '"v2"';
  await nextQuestion();
  assertBrings(await fetchThrough(strict.socket, { url }), file.content);
});

check("after all that, well is well", async () => {
  const { url } = oddFile({ ...strong, answer: (request, response) => (answerWell({ content: OLD, ...strong }, request, response), true) });
  for (const { socket } of [strict, lenient, lazy]) assertBrings(await fetchThrough(socket, { url }), OLD);
});
