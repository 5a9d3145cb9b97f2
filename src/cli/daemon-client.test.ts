import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chownSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { AppError } from "../base/errors.ts";
import { HostLimits } from "../peer/host-limits.ts";
import { RateGate } from "../peer/rate-gate.ts";
import { LocalApi } from "../dfdaemon/local/local-api.ts";
import type { Content, ContentInfo, ContentOpener, ContentPart, ContentRequest, HeldRange } from "../peer/content.ts";
import type { Explanation } from "../protocol/explanation.ts";
import { encodeLocalBytesHeader, encodeLocalFrame } from "../protocol/local-frames.ts";
import { DaemonClient } from "./daemon-client.ts";

const REQUEST = { source: { url: "http://o/f", headers: {} }, backToSource: true };
const INFO: ContentInfo = {
  taskId: undefined,
  lengthBytes: 10,
  contentType: "text/plain",
  digest: undefined,
  headers: { etag: '"ü"' },
};
const NOTHING_SPENT = { waiting: 0, origin: 0, downlink: 0, seed: 0, neighbours: 0, disk: 0, cpu: 0, reader: 0 };
const SOURCES = { seedBytes: 1, peerBytes: 2, originBytes: 3, cacheBytes: 4 };

let directory: string;
let socketPath: string;
let api: LocalApi | undefined;
let server: Server | undefined;
const never = new AbortController().signal;
/** What the daemon was asked to open. */
let opened: ContentRequest[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "daemon-client-"));
  socketPath = join(directory, "d.sock");
});

afterEach(async () => {
  await api?.close();
  server?.closeAllConnections();
  server?.close();
  api = server = undefined;
  opened = [];
  rmSync(directory, { recursive: true });
});

async function serve(
  read: (startByte: number) => AsyncIterable<Uint8Array>,
  openError?: AppError,
  more: Partial<Content> = {},
): Promise<number[]> {
  const starts: number[] = [];
  const content: Content = {
    info: INFO,
    read: ({ startByte }) => {
      starts.push(startByte);
      return read(startByte);
    },
    sources: () => SOURCES,
    explanation: () => undefined,
    close: () => undefined,
    ...more,
  };
  const opener: ContentOpener = {
    open: (request) => {
      opened.push(request);
      return openError === undefined ? Promise.resolve(content) : Promise.reject(openError);
    },
    stat: () => Promise.resolve(INFO),
  };
  api = await LocalApi.listen({
    tasks: () => [],
    limits: new HostLimits({ download: new RateGate(undefined), upload: new RateGate(undefined), origin: new RateGate(undefined) }),
    opener,
    socketPath,
    version: "1",
    log: { info: () => undefined, warn: () => undefined },
  });
  return starts;
}

async function* digits(startByte: number): AsyncGenerator<Uint8Array> {
  yield Buffer.from("0123456789").subarray(startByte);
}

async function* sevenFirst(): AsyncGenerator<ContentPart> {
  yield { startByte: 7, bytes: Buffer.from("789") };
  yield { startByte: 0, bytes: Buffer.alloc(0) };
  yield { startByte: 0, bytes: Buffer.from("0123456") };
}

async function readParts(content: Content): Promise<[number, string][]> {
  const parts: [number, string][] = [];
  for await (const { startByte, bytes } of content.readUnordered?.({ startByte: 0, endByte: undefined }, never) ?? []) {
    parts.push([startByte, Buffer.from(bytes).toString()]);
  }
  return parts;
}

/** A daemon with a file that cannot be had: what comes instead. */
async function serveAgain(more: Partial<Content>, expected: readonly [number, string][]): Promise<void> {
  await api?.close();
  const readInPlace = async function* (): AsyncGenerator<HeldRange> {
    yield { startByte: 0, endByte: 10 };
  };
  await serve(digits, undefined, { readUnordered: sevenFirst, readInPlace, ...more });
  const before = opened.length;
  assert.deepEqual(await readParts(await new DaemonClient(socketPath, { startByte: 0, unordered: true }).open(REQUEST, never)), expected);
  assert.equal(opened.length, before + 1, "in the same request");
}

async function read(content: Content, startByte: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of content.read({ startByte, endByte: undefined }, never)) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

test("content, what it is, and where its bytes came from", async () => {
  const starts = await serve(digits);
  const content = await new DaemonClient(socketPath).open(REQUEST, never);
  assert.deepEqual(content.info, INFO);
  assert.equal(await read(content, 0), "0123456789");
  assert.deepEqual(content.sources(), SOURCES);
  assert.deepEqual(starts, [0]);
});

test("a task's limit and priority reach the daemon", async () => {
  await serve(digits);
  const wanted = { ...REQUEST, source: { ...REQUEST.source, priority: "preheat" as const }, limitBytesPerSecond: 12_345 };
  for (const request of [wanted, REQUEST]) assert.equal(await read(await new DaemonClient(socketPath).open(request, never), 0), "0123456789");
  assert.deepEqual(opened.map(({ limitBytesPerSecond }) => limitBytesPerSecond), [12_345, undefined]);
  assert.equal(opened[0]?.source.priority, "preheat");
});

test("a reading that begins where it was expected costs one request, elsewhere two", async () => {
  const starts = await serve(digits);
  assert.equal(await read(await new DaemonClient(socketPath, { startByte: 4, unordered: false }).open(REQUEST, never), 4), "456789");
  assert.deepEqual(starts, [4]);
  assert.equal(await read(await new DaemonClient(socketPath, { startByte: 4, unordered: false }).open(REQUEST, never), 0), "0123456789");
  assert.deepEqual(starts, [4, 4, 0]);
  // What an earlier run left is longer than the file is now.
  assert.equal(await read(await new DaemonClient(socketPath, { startByte: 11, unordered: false }).open(REQUEST, never), 0), "0123456789");
});

test("an error is the daemon's own, before the first byte and in mid-stream", async () => {
  await serve(digits, new AppError("ORIGIN_NOT_FOUND", "not there", { details: { status: 404 } }));
  await assert.rejects(new DaemonClient(socketPath).open(REQUEST, never), {
    code: "ORIGIN_NOT_FOUND",
    message: "not there",
    details: { status: 404 },
  });
  await api?.close();
  await serve(async function* () {
    yield Buffer.from("01234");
    throw new AppError("ORIGIN_CUT", "cut off");
  });
  const content = await new DaemonClient(socketPath).open(REQUEST, never);
  await assert.rejects(read(content, 0), { code: "ORIGIN_CUT", message: "cut off" });
});

test("a daemon that is not there, or dies, is DAEMON_UNREACHABLE", async () => {
  await assert.rejects(new DaemonClient(socketPath).open(REQUEST, never), {
    code: "DAEMON_UNREACHABLE",
    message: /no such socket/,
  });
  server = createServer().on("upgrade", (_, socket) => {
    socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: dragonfly-content/1\r\n\r\n");
    socket.write(encodeLocalFrame("info", Buffer.from('{"lengthBytes":10,"headers":{}}')));
    socket.write(encodeLocalBytesHeader(0, 10));
    socket.end("01234");
    server?.close();
  });
  await new Promise<void>((resolve) => server?.listen(socketPath, resolve));
  const content = await new DaemonClient(socketPath).open(REQUEST, never);
  await assert.rejects(read(content, 0), { code: "DAEMON_UNREACHABLE", message: /went away/ });
});

test("parts come in the order in which the daemon has them, for who takes them so", async () => {
  await serve(digits, undefined, { readUnordered: sevenFirst });
  const content = await new DaemonClient(socketPath, { startByte: 0, unordered: true }).open(REQUEST, never);
  assert.deepEqual(await readParts(content), [[7, "789"], [0, "0123456"]]);
  assert.equal(await read(content, 4), "456789", "and in order, in another reading");
});

test("what lies in a file that we may open is read there; what does not comes as bytes", async () => {
  const filePath = join(directory, "data");
  writeFileSync(filePath, "01234----9");
  await serve(digits, undefined, {
    filePath,
    readUnordered: sevenFirst,
    readInPlace: async function* () {
      yield { startByte: 9, endByte: 10 };
      yield { startByte: 5, bytes: Buffer.from("5678") };
      yield { startByte: 3, endByte: 3 };
      yield { startByte: 0, endByte: 5 };
    },
  });
  const content = await new DaemonClient(socketPath, { startByte: 0, unordered: true }).open(REQUEST, never);
  // As an eviction would: who has it open goes on.
  rmSync(filePath);
  assert.deepEqual(await readParts(content), [[9, "9"], [5, "5678"], [0, "01234"]]);
  // Gone, or another one under its path, as in a container: the daemon sends the bytes.
  await serveAgain({ filePath: join(directory, "no such file") }, [[7, "789"], [0, "0123456"]]);
});

test("a file of somebody else's than the daemon's is not opened", { skip: process.getuid?.() !== 0 }, async () => {
  const filePath = join(directory, "data");
  writeFileSync(filePath, "0123456789");
  chownSync(filePath, 12_345, 12_345);
  await serveAgain({ filePath }, [[7, "789"], [0, "0123456"]]);
  chownSync(filePath, 0, 0);
  const folder = join(directory, "folder");
  mkdirSync(folder);
  await serveAgain({ filePath: folder }, [[7, "789"], [0, "0123456"]]);
  renameSync(filePath, `${filePath}.real`);
  symlinkSync(`${filePath}.real`, filePath);
  await serveAgain({ filePath }, [[7, "789"], [0, "0123456"]]);
});

test("a file that is shorter than the daemon says is an error, not a short file", async () => {
  const filePath = join(directory, "data");
  writeFileSync(filePath, "01234");
  await serve(digits, undefined, {
    filePath,
    readInPlace: async function* () {
      yield { startByte: 0, endByte: 10 };
    },
  });
  const content = await new DaemonClient(socketPath, { startByte: 0, unordered: true }).open(REQUEST, never);
  await assert.rejects(readParts(content), { code: "CACHE_CORRUPT", message: /ends at byte 5/ });
});

test("why a file was cut while it was read is what the daemon says of it", async () => {
  const filePath = join(directory, "data");
  writeFileSync(filePath, "01234");
  await serve(digits, undefined, {
    filePath,
    readInPlace: async function* () {
      yield { startByte: 0, endByte: 5 };
      // The caller is at it when what it has not read yet is thrown away.
      yield { startByte: 5, endByte: 10 };
      throw new AppError("ORIGIN_CHANGED", "the file has changed");
    },
  });
  const content = await new DaemonClient(socketPath, { startByte: 0, unordered: true }).open(REQUEST, never);
  await assert.rejects(readParts(content), { code: "ORIGIN_CHANGED" });
});

test("that we were slower than the daemon is told as the reader's time", async () => {
  const filePath = join(directory, "data");
  writeFileSync(filePath, "0123456789");
  const bytes = SOURCES;
  const pieces = { offered: 0, declined: 0, late: 0, doubled: 0, rejected: 0 };
  const explanation: Explanation = { boundBy: "disk", tookMs: 1, openedMs: 0, firstByteMs: 0, spentMs: { ...NOTHING_SPENT, disk: 1 }, bytes, neighbours: [], pieces, wastedBytes: 0 };
  await serve(digits, undefined, {
    filePath,
    explanation: () => explanation,
    readInPlace: async function* () {
      yield { startByte: 0, endByte: 5 };
      yield { startByte: 5, endByte: 10 };
    },
  });
  const content = await new DaemonClient(socketPath, { startByte: 0, unordered: true }).open(REQUEST, never);
  await new Promise((resolve) => setTimeout(resolve, 50));
  await readParts(content);
  const { tookMs = 0, spentMs, boundBy } = content.explanation() ?? {};
  assert.ok(tookMs >= 50);
  assert.equal(spentMs?.disk, 1);
  assert.equal(spentMs?.reader, tookMs - 1);
  assert.ok(Number.isInteger(tookMs), `${tookMs}`);
  assert.equal(boundBy, "reader");
});

test("a reader that takes its time holds the daemon back, and gets every byte", async () => {
  const bytes = randomBytes(3_000_000);
  await serve(async function* () {
    for (let at = 0; at < bytes.length; at += 100_000) yield bytes.subarray(at, at + 100_000);
  });
  const content = await new DaemonClient(socketPath).open(REQUEST, never);
  const chunks: Uint8Array[] = [];
  for await (const chunk of content.read({ startByte: 0, endByte: undefined }, never)) {
    chunks.push(chunk);
    await new Promise(setImmediate);
  }
  assert.ok(Buffer.concat(chunks).equals(bytes));
});

test("somebody else on the socket is a violation of the protocol, not a crash", async () => {
  server = createServer((_, response) => response.end("hello"));
  await new Promise<void>((resolve) => server?.listen(socketPath, resolve));
  await assert.rejects(new DaemonClient(socketPath).open(REQUEST, never), { code: "PROTOCOL_VIOLATION" });
});

test("an abort ends the waiting", async () => {
  server = createServer(() => undefined);
  await new Promise<void>((resolve) => server?.listen(socketPath, resolve));
  const abort = new AbortController();
  setImmediate(() => abort.abort());
  await assert.rejects(new DaemonClient(socketPath).open(REQUEST, abort.signal), { code: "ABORTED" });
});
