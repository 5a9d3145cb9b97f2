import assert from "node:assert/strict";
import { connect } from "node:net";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import type { Digest } from "../../protocol/ids.ts";
import { errorCode, eventually, openLab, patterned, type Lab } from "./lab.test.ts";

const MIB = 1024 * 1024;

/** A lab with one blob, and its path. */
async function withBlob(lab: Lab, lengthBytes: number): Promise<{ bytes: Buffer; digest: Digest; path: string }> {
  const bytes = patterned(lengthBytes);
  const digest = lab.registry.putBlob("team/app", bytes);
  await Promise.resolve();
  return { bytes, digest, path: `/v2/team/app/blobs/${digest}` };
}

void test("M5: HEAD and GET of a blob say the same, GET gives the bytes", async (t) => {
  const lab = await openLab(t);
  const { bytes, digest, path } = await withBlob(lab, 300_000);
  const get = await lab.ask(path);
  const head = await lab.ask(path, { method: "HEAD" });
  assert.equal(get.status, 200);
  assert.deepEqual(get.body, bytes);
  assert.equal(head.status, 200);
  assert.equal(head.body.length, 0);
  assert.match(String(get.headers["server-timing"]), /^ttfb;dur=\d+(\.\d)?$/);
  const ofThisAnswer = { date: "", "x-dragonfly-sources": "", "server-timing": "" };
  assert.deepEqual({ ...head.headers, ...ofThisAnswer }, { ...get.headers, ...ofThisAnswer });
  assert.equal(head.headers["content-length"], "300000");
  assert.equal(head.headers["docker-content-digest"], digest);
  assert.equal(head.headers["accept-ranges"], "bytes");
  assert.equal(head.headers.etag, `"${digest}"`);
  assert.equal(head.headers["content-type"], "application/octet-stream");
  assert.equal(head.headers["docker-distribution-api-version"], "registry/2.0");
});

void test("M3: open-ended ranges, many at once, each 206 with its Content-Range", async (t) => {
  const lab = await openLab(t);
  const { bytes, path } = await withBlob(lab, 900_000);
  const starts = Array.from({ length: 9 }, (_, index) => index * 100_000);
  const answers = await Promise.all(starts.map((start) => lab.ask(path, { headers: { range: `bytes=${start}-` } })));
  for (const [index, answer] of answers.entries()) {
    const start = starts[index] ?? 0;
    assert.equal(answer.status, 206);
    assert.equal(answer.headers["content-range"], `bytes ${start}-899999/900000`);
    assert.equal(answer.headers["content-length"], String(900_000 - start));
    assert.ok(answer.body.equals(bytes.subarray(start)));
  }
});

void test("closed, suffix and impossible ranges", async (t) => {
  const lab = await openLab(t);
  const { bytes, path } = await withBlob(lab, 1000);
  const closed = await lab.ask(path, { headers: { range: "bytes=10-19" } });
  assert.equal(closed.status, 206);
  assert.deepEqual(closed.body, bytes.subarray(10, 20));
  const suffix = await lab.ask(path, { headers: { range: "bytes=-5" } });
  assert.deepEqual(suffix.body, bytes.subarray(995));
  const beyond = await lab.ask(path, { headers: { range: "bytes=1000-" } });
  assert.equal(beyond.status, 416);
  assert.equal(beyond.headers["content-range"], "bytes */1000");
  assert.equal(errorCode(beyond), "RANGE_INVALID");
  assert.equal(lab.opener.openCount, 0);
});

void test("several ranges come as multipart/byteranges", async (t) => {
  const lab = await openLab(t);
  const { bytes, path } = await withBlob(lab, 200_000);
  const answer = await lab.ask(path, { headers: { range: "bytes=0-9,70000-140000" } });
  assert.equal(answer.status, 206);
  const boundary = /boundary=(.+)$/.exec(answer.headers["content-type"] ?? "")?.[1] ?? "";
  const part = (range: string): string => `\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes ${range}/200000\r\n\r\n`;
  const expected = Buffer.concat([
    Buffer.from(`--${boundary}${part("0-9")}`), bytes.subarray(0, 10),
    Buffer.from(`\r\n--${boundary}${part("70000-140000")}`), bytes.subarray(70_000, 140_001),
    Buffer.from(`\r\n--${boundary}--\r\n`),
  ]);
  assert.ok(answer.body.equals(expected));
});

void test("M12: whatever codings the client accepts, the bytes are the raw ones", async (t) => {
  const lab = await openLab(t);
  const { bytes, path } = await withBlob(lab, 5000);
  const answer = await lab.ask(path, { headers: { "accept-encoding": "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5" } });
  assert.equal(answer.headers["content-encoding"], undefined);
  assert.deepEqual(answer.body, bytes);
  assert.deepEqual(lab.opener.opened[0]?.headers, { authorization: "" }, "nothing but that he is nobody");
});

void test("If-None-Match: what the client has is not sent, and not downloaded", async (t) => {
  const lab = await openLab(t);
  const { digest, path } = await withBlob(lab, 5000);
  const answer = await lab.ask(path, { headers: { "if-none-match": `"${digest}"` } });
  assert.equal(answer.status, 304);
  assert.equal(answer.headers.etag, `"${digest}"`);
  assert.equal(lab.opener.opened.length, 0);
});

void test("an empty blob, and one of unknown length, are whole", async (t) => {
  const lab = await openLab(t);
  const empty = await withBlob(lab, 0);
  assert.equal((await lab.ask(empty.path)).headers["content-length"], "0");
  lab.opener.behaviour = { lengthUnknown: true };
  const unknown = await withBlob(lab, 100_000);
  const answer = await lab.ask(unknown.path, { headers: { range: "bytes=5-" } });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers["transfer-encoding"], "chunked");
  assert.ok(answer.body.equals(unknown.bytes));
});

void test("M1: an error before the first byte has its status, one after it cuts the connection, never a short body", async (t) => {
  const lab = await openLab(t);
  const { path } = await withBlob(lab, 300_000);
  const failAt = (atByte: number) => (at: number): void => {
    if (at === atByte) throw new AppError("ORIGIN_CUT", "the origin broke off");
  };
  lab.opener.behaviour = { before: failAt(0) };
  const early = await lab.ask(path);
  assert.equal(early.status, 502);
  assert.equal(errorCode(early), "UNAVAILABLE");
  assert.equal(early.headers["docker-content-digest"], undefined);
  lab.opener.behaviour = { before: failAt(131_072) };
  await assert.rejects(lab.ask(path), { code: "ECONNRESET" });
  await eventually(() => lab.lines.length === 2, "two lines of log");
  assert.equal(lab.lines[1]?.["result"], "error");
  assert.equal(lab.lines[1]["status"], 200);
  assert.equal(lab.opener.openCount, 0);
});

void test("M1: a content that ends early is cut off, not ended", async (t) => {
  const lab = await openLab(t);
  const { path } = await withBlob(lab, 300_000);
  const open = lab.opener.open.bind(lab.opener);
  lab.opener.open = async (request, signal) => {
    const content = await open(request, signal);
    return { ...content, read: (range, stop) => content.read({ ...range, endByte: 200_000 }, stop) };
  };
  await assert.rejects(lab.ask(path), { code: "ECONNRESET" });
});

void test("M1: a body that fails is never ended as if it were whole: neither one without a length, nor on a connection that stays", async (t) => {
  const lab = await openLab(t);
  const { path } = await withBlob(lab, 300_000);
  const before = (at: number): void => {
    if (at === 131_072) throw new AppError("ORIGIN_CUT", "the origin broke off");
  };
  for (const lengthUnknown of [true, false]) {
    lab.opener.behaviour = { before, lengthUnknown };
    // oxlint-disable-next-line no-await-in-loop -- one behaviour after the other
    await assert.rejects(lab.ask(path, { headers: { connection: "keep-alive" } }), { code: "ECONNRESET" });
  }
  lab.opener.behaviour = {};
  const open = lab.opener.open.bind(lab.opener);
  for (const [asked, endByte] of [[undefined, 200_000], ["bytes=0-99999", 200_000]] as const) {
    lab.opener.open = async (request, signal) => {
      const content = await open(request, signal);
      return { ...content, read: (range, stop) => content.read({ ...range, endByte }, stop) };
    };
    const headers = { connection: "keep-alive", ...(asked === undefined ? {} : { range: asked }) };
    // oxlint-disable-next-line no-await-in-loop -- one behaviour after the other
    await assert.rejects(lab.ask(path, { headers }), { code: "ECONNRESET" }, `${asked}`);
  }
});

void test("M2: a wrong digest is known before the last byte leaves", async (t) => {
  const lab = await openLab(t);
  const { path } = await withBlob(lab, 100);
  lab.opener.behaviour = {
    before: (at) => {
      if (at === 0) throw new AppError("DIGEST_MISMATCH", "bad bytes");
    },
  };
  assert.equal((await lab.ask(path)).status, 502);
});

void test("M7: headers leave in time though no byte is there yet", async (t) => {
  const lab = await openLab(t, { headersWithinMs: 20 });
  const { bytes, path } = await withBlob(lab, 1000);
  const gate = Promise.withResolvers<void>();
  lab.opener.behaviour = { before: (at) => (at === 0 ? gate.promise : undefined) };
  const socket = connect(lab.port, "127.0.0.1");
  t.after(() => socket.destroy());
  let received = "";
  socket.setEncoding("latin1").on("data", (text: string) => (received += text));
  socket.write(`GET ${path}?ns=reg.test HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
  await eventually(() => received.includes("\r\n\r\n"), "headers");
  assert.match(received, /^HTTP\/1.1 200 OK\r\n/);
  assert.ok(received.endsWith("\r\n\r\n"));
  gate.resolve();
  await eventually(() => received.endsWith(bytes.toString("latin1")), "the body");
});

void test("M7: a swarm that does not even answer is a 504 in time", async (t) => {
  const lab = await openLab(t, { openTimeoutMs: 20 });
  const { path } = await withBlob(lab, 1000);
  lab.opener.open = (_request, signal) =>
    new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));
  const answer = await lab.ask(path);
  assert.equal(answer.status, 504);
  assert.equal(errorCode(answer), "UNAVAILABLE");
});

void test("M3: a client that hangs up harms nobody: reading stops, the content is closed, others go on", async (t) => {
  const lab = await openLab(t);
  const { bytes, path } = await withBlob(lab, 32 * MIB);
  const socket = connect(lab.port, "127.0.0.1");
  socket.write(`GET ${path}?ns=reg.test HTTP/1.1\r\nhost: x\r\n\r\n`);
  await new Promise((resolve) => socket.once("data", resolve));
  const other = lab.ask(path);
  socket.destroy();
  assert.ok((await other).body.equals(bytes));
  await eventually(() => lab.opener.openCount === 0, "both contents closed");
  await eventually(() => lab.lines.length === 2, "two lines of log");
  assert.ok(lab.lines.some((line) => line["result"] === "aborted"));
});

void test("M3: a client that hangs up while no byte comes is let go of at once", async (t) => {
  const lab = await openLab(t, { headersWithinMs: 20 });
  const { path } = await withBlob(lab, 1000);
  const open = lab.opener.open.bind(lab.opener);
  let waiting = 0;
  lab.opener.open = async (request, signal) => {
    const content = await open(request, signal);
    // As a swarm's: who waits for a byte is woken by the signal only.
    const read = (_range: unknown, stop: AbortSignal): AsyncIterable<Uint8Array> => {
      waiting++;
      const next = (): Promise<never> => new Promise((_resolve, reject) => stop.addEventListener("abort", () => reject(stop.reason as Error)));
      return { [Symbol.asyncIterator]: () => ({ next }) };
    };
    return { ...content, read };
  };
  const socket = connect(lab.port, "127.0.0.1");
  socket.write(`GET ${path}?ns=reg.test HTTP/1.1\r\nhost: x\r\n\r\n`);
  await eventually(() => waiting === 1, "the read");
  socket.destroy();
  await eventually(() => lab.opener.openCount === 0, "the content closed");
  await eventually(() => lab.lines.length === 1, "a line of log");
  assert.equal(lab.lines[0]?.["result"], "aborted");
});

void test("a client that hangs up while the content is being opened leaves nothing behind", async (t) => {
  const lab = await openLab(t);
  const { path } = await withBlob(lab, 1000);
  const gate = Promise.withResolvers<void>();
  lab.opener.behaviour = { before: (at) => (at === -1 ? gate.promise : undefined) };
  const socket = connect(lab.port, "127.0.0.1");
  socket.write(`GET ${path}?ns=reg.test HTTP/1.1\r\nhost: x\r\n\r\n`);
  await eventually(() => lab.opener.opened.length === 1, "the open");
  socket.destroy();
  await new Promise((resolve) => socket.once("close", resolve));
  await new Promise((resolve) => setImmediate(resolve));
  gate.resolve();
  await eventually(() => lab.lines.length === 1, "a line of log");
  assert.equal(lab.lines[0]?.["result"], "aborted");
  assert.equal(lab.opener.openCount, 0);
});

void test("M3: a client that does not read is not read ahead for: memory stays bounded", async (t) => {
  const lab = await openLab(t);
  lab.opener.behaviour = { chunkBytes: MIB };
  const { path } = await withBlob(lab, 64 * MIB);
  const socket = connect(lab.port, "127.0.0.1");
  t.after(() => socket.destroy());
  socket.pause();
  socket.write(`GET ${path}?ns=reg.test HTTP/1.1\r\nhost: x\r\n\r\n`);
  let last = -1;
  // Until the kernel's buffers are full: nothing moves for a while, which is many turns of this process and not only a long one.
  await eventually(() => lab.opener.readBytes > 0, "the first chunk");
  for (let quietCount = 0; quietCount < 20; quietCount++) {
    if (last !== lab.opener.readBytes) quietCount = 0;
    last = lab.opener.readBytes;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.ok(last < 24 * MIB, `${last} bytes were taken for a client that read none`);
  socket.destroy();
  await eventually(() => lab.opener.openCount === 0, "the content is closed");
  assert.equal(lab.opener.readBytes, last);
});

void test("the caller's Authorization goes along, and nothing else of his headers", async (t) => {
  const lab = await openLab(t);
  const { digest, path } = await withBlob(lab, 10);
  await lab.ask(path, { headers: { authorization: "Bearer x", cookie: "a=b", "x-secret": "s", accept: "a/b" } });
  const [source] = lab.opener.opened;
  assert.deepEqual(source?.headers, { authorization: "Bearer x" });
  assert.equal(source.digest, digest);
  assert.match(source.url, /^http:\/\/127\.0\.0\.1:\d+\/v2\/team\/app\/blobs\/sha256:/);
});

void test("one log line and the headers tell what came from where", async (t) => {
  const lab = await openLab(t);
  const { digest, path } = await withBlob(lab, 100_000);
  const answer = await lab.ask(path, { headers: { authorization: "Bearer secret-token", "user-agent": "containerd/2" } });
  assert.match(String(answer.headers["x-dragonfly-task-id"]), /^[0-9a-f]{64}$/);
  assert.equal(answer.headers["x-dragonfly-sources"], "cache=0, seed=0, peers=0, origin=0");
  await eventually(() => lab.lines.length === 1, "a line of log");
  const [line = {}] = lab.lines;
  assert.equal(line["peerBytes"], 100_000);
  assert.equal(line["sentBytes"], 100_000);
  assert.equal(line["reference"], digest);
  assert.equal(line["registry"], "reg.test");
  assert.equal(line["result"], "miss");
  assert.equal(line["taskId"], answer.headers["x-dragonfly-task-id"]);
  assert.equal(typeof line["ttfbMs"], "number");
  assert.doesNotMatch(JSON.stringify(lab.lines), /secret-token/);
  const metrics = await lab.mirror.metrics.registry.metrics();
  assert.match(metrics, /dragonfly_mirror_requests_total\{kind="blob",result="miss"\} 1/);
  assert.match(metrics, /dragonfly_mirror_bytes_total\{source="peer"\} 100000/);
  assert.match(metrics, /dragonfly_mirror_ttfb_seconds_count\{kind="blob"\} 1/);
  assert.match(metrics, /dragonfly_mirror_requests_in_flight 0/);
});

void test("bytes that came with the opening are counted to where they came from, not to the cache", async (t) => {
  const lab = await openLab(t);
  const { path } = await withBlob(lab, 300);
  const open = lab.opener.open.bind(lab.opener);
  const inline = { cacheBytes: 0, seedBytes: 300, peerBytes: 0, originBytes: 0 };
  lab.opener.open = async (request, signal) => ({ ...(await open(request, signal)), sources: () => inline });
  await lab.ask(path);
  await eventually(() => lab.lines.length === 1, "a line of log");
  assert.equal(lab.lines[0]?.["seedBytes"], 300);
  assert.equal(lab.lines[0]["cacheBytes"], 0);
  assert.equal(lab.lines[0]["result"], "miss");
});

void test("M3: a client that hangs up while the registry is asked whether he may has nothing opened for him", async (t) => {
  const lab = await openLab(t);
  const { path } = await withBlob(lab, 1000);
  const held: (() => void)[] = [];
  lab.registry.intercept = (request, response) => {
    if (request.method !== "HEAD") return false;
    held.push(() => response.writeHead(200, { "content-length": 1000, "accept-ranges": "bytes" }).end());
    return true;
  };
  const socket = connect(lab.port, "127.0.0.1");
  socket.write(`GET ${path}?ns=reg.test HTTP/1.1\r\nhost: x\r\n\r\n`);
  await eventually(() => held.length === 1, "the question");
  socket.destroy();
  // An answer that another client has: his end has been heard by then, too.
  await fetch(`http://127.0.0.1:${lab.port}/healthz`);
  for (const answer of held) answer();
  await eventually(() => lab.lines.length === 1, "a line of log");
  assert.equal(lab.lines[0]?.["result"], "aborted");
  assert.equal(lab.opener.opened.length, 0);
});
