import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request, type IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { AppError } from "../../base/errors.ts";
import type { Content, ContentInfo, ContentOpener, ContentRequest } from "../../peer/content.ts";
import { HostLimits } from "../../peer/host-limits.ts";
import { RateGate } from "../../peer/rate-gate.ts";
import { encodeLocalFrame, LOCAL_CONTENT_PROTOCOL } from "../../protocol/local-frames.ts";
import { LocalApi } from "./local-api.ts";
import type { LocalRequestStatus } from "./local-requests.ts";

const LOG = { info: () => undefined, warn: () => undefined };
const INFO: ContentInfo = {
  taskId: undefined,
  lengthBytes: 10,
  contentType: "text/plain",
  digest: undefined,
  headers: { etag: '"é"' },
};

const gates = { download: new RateGate(1000), upload: new RateGate(undefined), origin: new RateGate(undefined) };
const limits = new HostLimits(gates);

let directory: string;
let socketPath: string;
let api: LocalApi | undefined;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "local-api-"));
  socketPath = join(directory, "run/d.sock");
});

afterEach(async () => {
  await api?.close();
  api = undefined;
  rmSync(directory, { recursive: true });
});

/** A content whose bytes `read` makes up; remembers what was asked of it. */
class FakeOpener implements ContentOpener {
  readonly asked: ContentRequest[] = [];
  closed = 0;
  aborted = 0;
  filePath: string | undefined;
  info = INFO;
  read: (start: number, end: number | undefined, signal: AbortSignal) => AsyncIterable<Uint8Array> = async function* (
    start,
    end,
  ) {
    yield Buffer.from("0123456789").subarray(start, end);
  };

  open(asked: ContentRequest): Promise<Content> {
    this.asked.push(asked);
    return Promise.resolve({
      info: this.info,
      filePath: this.filePath,
      read: ({ startByte, endByte }, signal) => {
        signal.addEventListener("abort", () => this.aborted++);
        return this.read(startByte, endByte, signal);
      },
      sources: () => ({ seedBytes: 1, peerBytes: 2, originBytes: 3, cacheBytes: 4 }),
      explanation: () => undefined,
      close: () => void this.closed++,
    });
  }

  stat(): Promise<ContentInfo> {
    return Promise.resolve(this.info);
  }
}

async function start(opener: ContentOpener, backToSource = true): Promise<void> {
  api = await LocalApi.listen({ opener, tasks: () => [], limits, socketPath, version: "1.2.3", log: LOG, backToSource });
}

function send(method: string, path: string, body?: unknown): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, method, path }, resolve);
    sent.on("error", reject);
    sent.end(body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body));
  });
}

/** A connection that was upgraded, and on which this was said. */
function inFrames(said: Uint8Array): Socket {
  const socket = connect(socketPath);
  socket.write(`GET /v1/content HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: ${LOCAL_CONTENT_PROTOCOL}\r\n\r\n`);
  socket.write(said);
  return socket;
}

async function text(message: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of message as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function statusOf(requestId: string): Promise<LocalRequestStatus> {
  return JSON.parse(await text(await send("GET", `/v1/requests/${requestId}`))) as LocalRequestStatus;
}

const WANTED = { requestId: "r1", source: { url: "http://o/f", headers: {} }, backToSource: true };

test("streams a range with what is known about the file, and keeps the split of its bytes", async () => {
  const opener = new FakeOpener();
  await start(opener);
  const answer = await send("POST", "/v1/content", { ...WANTED, startByte: 2, endByte: 5 });
  assert.equal(answer.statusCode, 200);
  assert.equal(answer.headers["content-length"], "3");
  assert.equal(answer.headers["content-type"], "text/plain");
  assert.deepEqual(JSON.parse(String(answer.headers["dragonfly-info"])), {
    lengthBytes: 10,
    contentType: "text/plain",
    headers: { etag: '"é"' },
  });
  assert.equal(await text(answer), "234");
  assert.deepEqual(await statusOf("r1"), {
    state: "done",
    sentBytes: 3,
    sources: { seedBytes: 1, peerBytes: 2, originBytes: 3, cacheBytes: 4 },
  });
  assert.equal(opener.closed, 1);
  const beyond = await send("POST", "/v1/content", { ...WANTED, requestId: "r2", startByte: 2, endByte: 100 });
  assert.deepEqual([beyond.headers["content-length"], await text(beyond)], ["8", "23456789"]);
});

test("no caller makes a host read an origin that is not to", async () => {
  const opener = new FakeOpener();
  await start(opener, false);
  await text(await send("POST", "/v1/content", WANTED));
  const socket = connect(socketPath);
  socket.write(`GET /v1/content HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: ${LOCAL_CONTENT_PROTOCOL}\r\n\r\n`);
  socket.write(encodeLocalFrame("request", Buffer.from(JSON.stringify(WANTED))));
  for await (const _ of socket) continue;
  assert.deepEqual(opener.asked.map(({ backToSource }) => backToSource), [false, false]);
});

test("an error before the first byte is an answer with its code and status", async () => {
  const opener = new FakeOpener();
  opener.open = () =>
    Promise.reject(new AppError("ORIGIN_UNAUTHORIZED", "no", { details: { wwwAuthenticate: "Basic" } }));
  await start(opener);
  const answer = await send("POST", "/v1/content", WANTED);
  assert.equal(answer.statusCode, 401);
  assert.deepEqual(JSON.parse(await text(answer)), {
    code: "ORIGIN_UNAUTHORIZED",
    message: "no",
    details: { wwwAuthenticate: "Basic" },
  });
});

test("an error in mid-stream cuts the connection, and the reason can be asked for", async () => {
  const opener = new FakeOpener();
  opener.read = async function* () {
    yield Buffer.from("01234");
    throw new AppError("DIGEST_MISMATCH", "wrong bytes");
  };
  await start(opener);
  for (const [requestId, lengthBytes] of [["r1", 10], ["r2", undefined]] as const) {
    opener.info = { ...INFO, lengthBytes };
    // oxlint-disable-next-line no-await-in-loop -- one content after the other
    const answer = await send("POST", "/v1/content", { ...WANTED, requestId });
    // oxlint-disable-next-line no-await-in-loop -- one content after the other
    await assert.rejects(text(answer), `${lengthBytes}`);
    // oxlint-disable-next-line no-await-in-loop -- one content after the other
    const status = await statusOf(requestId);
    assert.equal(status.state, "failed");
    assert.deepEqual(status.error, { code: "DIGEST_MISMATCH", message: "wrong bytes", details: {} });
  }
});

test("a client that hangs up ends the reading", async () => {
  const opener = new FakeOpener();
  const ended = Promise.withResolvers<void>();
  opener.info = { ...INFO, lengthBytes: undefined };
  opener.read = async function* (_start, _end, signal) {
    try {
      while (!signal.aborted) yield Buffer.alloc(65536);
    } finally {
      ended.resolve();
    }
  };
  await start(opener);
  const answer = await send("POST", "/v1/content", WANTED);
  answer.on("error", () => undefined);
  answer.destroy();
  await ended.promise;
  assert.equal(opener.aborted, 1);
});

test("a client that does not read holds the reading up", async () => {
  const opener = new FakeOpener();
  let yielded = 0;
  opener.info = { ...INFO, lengthBytes: undefined };
  opener.read = async function* () {
    for (; yielded < 1000; yielded++) yield Buffer.alloc(65536);
  };
  await start(opener);
  const answer = await send("POST", "/v1/content", WANTED);
  await new Promise((resolve) => setTimeout(resolve, 200));
  const held = yielded;
  assert.ok(held < 100, `${held} chunks went out to nobody`);
  assert.equal(Buffer.byteLength(await text(answer)), 65536 * 1000);
});

test("what is no request is refused, and so is a request id in use", async () => {
  const opener = new FakeOpener();
  await start(opener);
  for (const body of [
    "{",
    {},
    { ...WANTED, more: 1 },
    { ...WANTED, startByte: 5, endByte: 4 },
    { ...WANTED, requestId: "../x" },
  ]) {
    const answer = await send("POST", "/v1/content", body);
    assert.equal(answer.statusCode, 400);
    assert.equal((JSON.parse(await text(answer)) as { code: string }).code, "USAGE");
  }
  const large = await send("POST", "/v1/content", " ".repeat(4 * 1024 * 1024 + 1));
  assert.equal((JSON.parse(await text(large)) as { code: string }).code, "MESSAGE_TOO_LARGE");
  assert.equal(opener.asked.length, 0);
  await text(await send("POST", "/v1/content", WANTED));
  assert.equal((await send("POST", "/v1/content", WANTED)).statusCode, 400);
  assert.equal((await send("POST", "/v1/content", { ...WANTED, requestId: "r2", startByte: 11 })).statusCode, 416);
  assert.equal((await send("GET", "/v1/requests/unknown")).statusCode, 404);
  assert.equal((await send("GET", "/v1/else")).statusCode, 400);
  assert.equal(await text(await send("GET", "/v1/version")), '{"version":"1.2.3","protocol":"dragonfly-local/1"}');
});

test("the socket is for owner and group; a dead one is taken over, a live one and a plain file are not", async () => {
  const opener = new FakeOpener();
  await start(opener);
  assert.equal(statSync(socketPath).mode & 0o777, 0o660);
  await assert.rejects(LocalApi.listen({ opener, tasks: () => [], limits, socketPath, version: "1", log: LOG }), {
    code: "LISTEN_FAILED",
    message: /another dfdaemon/,
  });

  const file = join(directory, "file");
  writeFileSync(file, "precious");
  await assert.rejects(LocalApi.listen({ opener, tasks: () => [], limits, socketPath: file, version: "1", log: LOG }), {
    code: "LISTEN_FAILED",
    message: /no socket/,
  });

  // What a killed daemon leaves: a socket file with nobody behind it.
  const stale = join(directory, "stale.sock");
  const program = `require("net").createServer().listen(${JSON.stringify(stale)}, () => process.kill(process.pid, "SIGKILL"))`;
  assert.equal(spawnSync(process.execPath, ["-e", program]).signal, "SIGKILL");
  const second = await LocalApi.listen({ opener, tasks: () => [], limits, socketPath: stale, version: "1", log: LOG });
  await second.close();
});

test("a folder that cannot be made is LISTEN_FAILED", async () => {
  const file = join(directory, "a-file");
  writeFileSync(file, "");
  const opener = new FakeOpener();
  await assert.rejects(LocalApi.listen({ opener, tasks: () => [], limits, socketPath: join(file, "d.sock"), version: "1", log: LOG }), {
    code: "LISTEN_FAILED",
  });
  await assert.rejects(LocalApi.listen({ opener, tasks: () => [], limits, socketPath: `/tmp/${"x".repeat(110)}`, version: "1", log: LOG }), {
    code: "LISTEN_FAILED",
  });
});

test("the host's limits are told and changed at once, only those that are named", async () => {
  await start(new FakeOpener());
  const told = JSON.parse(await text(await send("GET", "/v1/limits")));
  assert.deepEqual(told.download, { limitBytesPerSecond: 1000, bytesPerSecond: 0, totalBytes: 0, waitingCount: 0 });
  assert.equal(told.upload.limitBytesPerSecond, null);
  const changed = await send("PUT", "/v1/limits", { downloadBytesPerSecond: null, originBytesPerSecond: 5000 });
  assert.equal(changed.statusCode, 200);
  assert.deepEqual([gates.download.bytesPerSecond, gates.upload.bytesPerSecond, gates.origin.bytesPerSecond], [undefined, undefined, 5000]);
  assert.equal(JSON.parse(await text(changed)).origin.limitBytesPerSecond, 5000);
  for (const wrong of [{ downloadBytesPerSecond: 0 }, { download: 5 }, { uploadBytesPerSecond: "10MiB" }, "nonsense"]) {
    const refused = await send("PUT", "/v1/limits", wrong);
    assert.equal(refused.statusCode, 400);
    assert.equal(JSON.parse(await text(refused)).code, "USAGE");
  }
  assert.equal(gates.origin.bytesPerSecond, 5000);
});

test("who was named a file has to say whether it has it open; else the stream ends, and the content is given back", async () => {
  const filePath = join(directory, "data");
  writeFileSync(filePath, "0123456789");
  for (const answer of [encodeLocalFrame("place", Buffer.from("{}")), encodeLocalFrame("request", Buffer.from("{}"))]) {
    const opener = new FakeOpener();
    opener.filePath = filePath;
    // oxlint-disable-next-line no-await-in-loop -- one socket
    await start(opener);
    const socket = connect(socketPath);
    socket.write(`GET /v1/content HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: ${LOCAL_CONTENT_PROTOCOL}\r\n\r\n`);
    socket.write(encodeLocalFrame("request", Buffer.from(JSON.stringify({ ...WANTED, order: "in-place" }))));
    socket.write(answer);
    // oxlint-disable-next-line no-await-in-loop -- one socket
    for await (const _ of socket) continue;
    assert.equal(opener.closed, 1);
    // oxlint-disable-next-line no-await-in-loop -- one socket
    await api?.close();
    api = undefined;
  }
});

test("a caller in frames who goes while nothing comes ends the reading", { timeout: 10_000 }, async () => {
  const opener = new FakeOpener();
  const ended = Promise.withResolvers<void>();
  opener.read = async function* (_start, _end, signal) {
    yield Buffer.from("01234");
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    ended.resolve();
  };
  await start(opener);
  const socket = inFrames(encodeLocalFrame("request", Buffer.from(JSON.stringify(WANTED))));
  let got = "";
  for await (const chunk of socket) if ((got += String(chunk)).includes("01234")) break;
  socket.destroy();
  await ended.promise;
});

test("a caller in frames who reads nothing holds the reading up, and ends it when he goes", { timeout: 10_000 }, async () => {
  const opener = new FakeOpener();
  const ended = Promise.withResolvers<void>();
  let yielded = 0;
  opener.info = { ...INFO, lengthBytes: undefined };
  opener.read = async function* () {
    try {
      for (; yielded < 1000; yielded++) yield Buffer.alloc(65536);
    } finally {
      ended.resolve();
    }
  };
  await start(opener);
  const socket = inFrames(encodeLocalFrame("request", Buffer.from(JSON.stringify(WANTED))));
  await new Promise((resolve) => void socket.once("readable", resolve));
  for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => void setImmediate(resolve));
  assert.ok(yielded > 0 && yielded < 100, `${yielded} chunks went out to nobody`);
  socket.destroy();
  await ended.promise;
  assert.ok(yielded < 100);
});

test("a caller in frames who says nothing is let go, and one who says too much is cut off", { timeout: 10_000 }, async (t) => {
  const opener = new FakeOpener();
  await start(opener);
  const request = encodeLocalFrame("request", Buffer.from(JSON.stringify(WANTED)));
  const cut = inFrames(Buffer.concat([request, request, request]));
  let heard = "";
  cut.on("error", () => {}).on("data", (chunk) => void (heard += String(chunk)));
  await new Promise((resolve) => void cut.once("close", resolve));
  assert.doesNotMatch(heard, /0123456789/);
  const askedCount = opener.asked.length;
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const silent = inFrames(new Uint8Array());
  await new Promise((resolve) => void silent.once("readable", resolve));
  t.mock.timers.tick(10_000);
  let got = "";
  for await (const chunk of silent) got += String(chunk);
  assert.match(got, /"code":"TIMEOUT"/);
  assert.equal(opener.asked.length, askedCount);
});

test("a caller that has its answer and keeps its connection does not hold up the daemon's end", async (t) => {
  await start(new FakeOpener());
  const socket = connect({ path: socketPath, allowHalfOpen: true });
  t.after(() => socket.destroy());
  socket.write(`GET /v1/content HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: ${LOCAL_CONTENT_PROTOCOL}\r\n\r\n`);
  socket.write(encodeLocalFrame("request", Buffer.from(JSON.stringify(WANTED))));
  await new Promise((resolve) => void socket.resume().once("end", resolve));
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const closed = api?.close();
  t.mock.timers.tick(10_000);
  await closed;
});

test("a caller who asks for another protocol and is gone when he is refused does not end the process", async () => {
  await start(new FakeOpener());
  const socket = connect(socketPath);
  // The answer to a closed socket is an error, which fails this test where nobody listens to it.
  socket.write("GET /v1/content HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", () => socket.destroy());
  await new Promise((resolve) => void socket.once("close", resolve));
  assert.equal((await send("GET", "/v1/version")).statusCode, 200);
});
