import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { AppError } from "../base/errors.ts";
import { HostLimits } from "../peer/host-limits.ts";
import { RateGate } from "../peer/rate-gate.ts";
import { LocalApi } from "../dfdaemon/local/local-api.ts";
import type { Content, ContentInfo, ContentOpener, ContentPart, ContentRequest } from "../peer/content.ts";
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
  readUnordered?: () => AsyncIterable<ContentPart>,
): Promise<number[]> {
  const starts: number[] = [];
  const content: Content = {
    info: INFO,
    read: ({ startByte }) => {
      starts.push(startByte);
      return read(startByte);
    },
    ...(readUnordered === undefined ? {} : { readUnordered }),
    sources: () => SOURCES,
    explanation: () => undefined,
    close: () => undefined,
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
  await serve(digits, undefined, async function* () {
    yield { startByte: 7, bytes: Buffer.from("789") };
    yield { startByte: 0, bytes: Buffer.alloc(0) };
    yield { startByte: 0, bytes: Buffer.from("0123456") };
  });
  const content = await new DaemonClient(socketPath, { startByte: 0, unordered: true }).open(REQUEST, never);
  const parts: [number, string][] = [];
  for await (const { startByte, bytes } of content.readUnordered?.({ startByte: 0, endByte: undefined }, never) ?? []) {
    parts.push([startByte, Buffer.from(bytes).toString()]);
  }
  assert.deepEqual(parts, [[7, "789"], [0, "0123456"]]);
  assert.equal(await read(content, 4), "456789", "and in order, in another reading");
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
