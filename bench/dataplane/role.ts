/**
 * One program of the data plane's bench, forked by main.ts. It tells its parent when it is ready and what it used.
 *
 * `seed` and `peer` are whole peers: links, digests, store. `sender` is a link's sending side alone, for connections that
 * are merely drained; `drain` is the other end of those, of nginx's as of ours.
 */
import { createHash } from "node:crypto";
import { openSync, readFileSync, readSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer, type NetConnectOpts } from "node:net";
import { pino } from "pino";
import { SigningKey } from "../../src/peer/membership/credentials.ts";
import { LinkWriter } from "../../src/peer/link/link-writer.ts";
import { LoopLoad } from "../../src/peer/loop-load.ts";
import { Peer } from "../../src/peer/peer.ts";
import { RateGate } from "../../src/peer/rate-gate.ts";
import { DiskStore } from "../../src/peer/store/disk-store.ts";
import type { TaskRecord } from "../../src/peer/store/piece-store.ts";
import { pieceCountOf, pieceLengthAt, pieceLengthFor } from "../../src/protocol/geometry.ts";
import type { PeerId, TaskId } from "../../src/protocol/ids.ts";

const LENGTH_BYTES = 1024 ** 3;
const TOKEN = "bench";
const SEED_ID = "bench-0000000000000001" as PeerId;
const PEER_ID = "bench-0000000000000002" as PeerId;

/** What a run took, in the units of its name. */
export interface RoleUse {
  readonly cpuSeconds: number;
  readonly rssMiB: number;
  readonly loopP99Ms: number;
  readonly seconds?: number;
}

/** Every millisecond: a run takes two seconds. */
const load = new LoopLoad(1);
let cpuBefore = process.cpuUsage();

function begin(): void {
  cpuBefore = process.cpuUsage();
}

function use(seconds?: number): RoleUse {
  const { user, system } = process.cpuUsage(cpuBefore);
  const peakKiB = Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "latin1"))?.[1]);
  return { cpuSeconds: (user + system) / 1e6, rssMiB: peakKiB / 1024, loopP99Ms: load.delaySeconds(99) * 1000, ...(seconds === undefined ? {} : { seconds }) };
}

function say(message: object): void {
  process.send?.(message);
}

async function listenOn(server: { listen(port: number, host: string, done: () => void): unknown; address(): unknown }): Promise<number> {
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

async function startPeer(peerId: PeerId, directory: string): Promise<{ peer: Peer; port: number }> {
  const store = await DiskStore.open({ directory, quotaBytes: undefined, reservedFreeBytes: 0, workerCount: 2, scrubBytesPerSecond: 0 });
  const limits = { downloadBytesPerSecond: undefined, uploadBytesPerSecond: undefined };
  const peer = new Peer({ peerId, token: TOKEN, store, log: pino({ level: "silent" }), limits });
  const server = createServer();
  server.on("upgrade", (request, socket, head) => peer.handleUpgrade(request, socket, head));
  return { peer, port: await listenOn(server) };
}

interface Invitation {
  readonly port: number;
  readonly record: Omit<TaskRecord, "publicKey" | "lengthSignature"> & { readonly publicKey: string; readonly lengthSignature: string };
  readonly ticket: string;
}

async function seed(directory: string, path: string): Promise<void> {
  const { peer, port } = await startPeer(SEED_ID, directory);
  const key = SigningKey.generate();
  const taskId = createHash("sha256").update("bench").digest("hex") as TaskId;
  const record = {
    taskId, displayUrl: "http://bench/file", lengthBytes: LENGTH_BYTES, pieceLengthBytes: pieceLengthFor(LENGTH_BYTES), contentType: undefined, digest: undefined, headers: {},
    lengthSignature: key.signLength(taskId, LENGTH_BYTES), publicKey: key.publicKey,
  };
  const task = await peer.openTask(record, "normal");
  const fd = openSync(path, "r");
  // One buffer for all: the store gives it back each time, and what is measured later is not its memory.
  const shared = new SharedArrayBuffer(record.pieceLengthBytes);
  for (let piece = 0; piece < pieceCountOf(LENGTH_BYTES, record.pieceLengthBytes); piece++) {
    const bytes = new Uint8Array(shared, 0, pieceLengthAt(piece, LENGTH_BYTES, record.pieceLengthBytes));
    readSync(fd, bytes, 0, bytes.length, piece * record.pieceLengthBytes);
    await task.addOwn(piece, bytes, (digest) => key.signPiece(taskId, piece, bytes.length, digest));
  }
  const expiresUnixMs = Date.now() + 3_600_000;
  const ticket = key.signTicket({ taskId, peerId: PEER_ID, expiresUnixMs, outageUnixMs: expiresUnixMs });
  const plain = { ...record, lengthSignature: Buffer.from(record.lengthSignature).toString("base64"), publicKey: Buffer.from(record.publicKey).toString("base64") };
  say({ port, record: plain, ticket } satisfies Invitation);
}

async function receive(directory: string, invitation: Invitation): Promise<void> {
  const { peer } = await startPeer(PEER_ID, directory);
  const { record, ticket, port } = invitation;
  const task = await peer.openTask({ ...record, publicKey: Buffer.from(record.publicKey, "base64"), lengthSignature: Buffer.from(record.lengthSignature, "base64") }, "normal");
  begin();
  const startMs = performance.now();
  task.connect([{ peerId: SEED_ID, address: "127.0.0.1", port, seed: true }], ticket);
  while (!task.stored.complete) await task.session.changed(1_000, new AbortController().signal);
  say(use((performance.now() - startMs) / 1000));
}

async function sender(path: string): Promise<void> {
  const gate = new RateGate(undefined);
  const fileFd = openSync(path, "r");
  const pieceBytes = pieceLengthFor(LENGTH_BYTES);
  const server = createTcpServer((socket) => {
    socket.on("error", () => undefined);
    const writer = new LinkWriter(socket, { limit: gate, nowMs: () => Math.floor(performance.now()), failed: () => socket.destroy() });
    const flow = gate.flow("normal");
    const send = (piece: number): void => {
      if (piece * pieceBytes >= LENGTH_BYTES) return void socket.end();
      writer.sendPiece({ flow, channel: 1, piece, fileFd, fileOffset: piece * pieceBytes, lengthBytes: pieceBytes, progressed: () => undefined, ended: () => send(piece + 1), released: () => undefined });
    };
    socket.once("data", () => send(0));
  });
  say({ port: await listenOn(server) });
}

/** Reads everything from so many connections, and drops it. */
async function drain(port: number, hello: string, connectionCount: number): Promise<void> {
  const buffer = Buffer.allocUnsafeSlow(256 * 1024);
  let receivedBytes = 0;
  const callback = (bytes: number): boolean => {
    receivedBytes += bytes;
    return true;
  };
  begin();
  const startMs = performance.now();
  await Promise.all(
    Array.from({ length: connectionCount }, async () => {
      const socket = connect({ port, host: "127.0.0.1", onread: { buffer, callback } } as NetConnectOpts);
      socket.write(hello);
      await new Promise((resolve, reject) => void socket.on("end", resolve).on("error", reject));
    }),
  );
  if (receivedBytes < LENGTH_BYTES * connectionCount) throw new Error(`only ${receivedBytes} bytes came`);
  say(use((performance.now() - startMs) / 1000));
}

const [role, ...given] = process.argv.slice(2) as [string, string, string, string];
process.on("message", (message: "begin" | "use") => {
  if (message === "begin") begin();
  else say(use());
});
if (role === "seed") await seed(given[0], given[1]);
else if (role === "peer") await receive(given[0], JSON.parse(given[1]) as Invitation);
else if (role === "sender") await sender(given[0]);
else if (role === "drain") await drain(Number(given[0]), given[1], Number(given[2]));
