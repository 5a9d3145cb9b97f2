/** Real peers, real sockets, real disks, one process: what the brain and its driver do together. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { pino } from "pino";
import { pieceCountOf, pieceLengthAt, pieceLengthFor } from "../../src/protocol/geometry.ts";
import type { PeerId, TaskId } from "../../src/protocol/ids.ts";
import { generatePeerId, SigningKey } from "../../src/peer/credentials.ts";
import { DiskStore } from "../../src/peer/disk-store.ts";
import { Peer, type PeerTask } from "../../src/peer/peer.ts";
import type { TaskRecord } from "../../src/peer/piece-store.ts";

const TOKEN = "integration-token";
const cleanups: (() => Promise<void> | void)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

interface TestPeer {
  readonly peer: Peer;
  readonly peerId: PeerId;
  readonly port: number;
}

async function startPeer(name: string, token: string | undefined = TOKEN): Promise<TestPeer> {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-swarm-"));
  const store = await DiskStore.open({ directory, quotaBytes: undefined, reservedFreeBytes: 0, workerCount: 1 });
  const peerId = generatePeerId(name);
  const peer = new Peer({
    peerId,
    token,
    store,
    log: pino({ level: process.env["TEST_LOG"] ?? "silent", name }),
    limits: { downloadBytesPerSecond: undefined, uploadBytesPerSecond: undefined },
  });
  const server = createServer((request, response) => {
    if (!peer.handleRequest(request, response)) response.writeHead(404).end();
  });
  server.on("upgrade", (request, socket, head) => {
    if (!peer.handleUpgrade(request, socket, head)) socket.destroy();
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  cleanups.push(async () => {
    await peer.close();
    server.closeAllConnections();
    server.close();
    await store.close();
    rmSync(directory, { recursive: true, force: true });
  });
  return { peer, peerId, port: (server.address() as AddressInfo).port };
}

function neighbour({ peerId, port }: TestPeer, seed: boolean) {
  return { peerId, address: "127.0.0.1", port, seed };
}

function makeTask(key: SigningKey, lengthBytes: number): { readonly record: TaskRecord; readonly content: Buffer } {
  const taskId = createHash("sha256").update(randomBytes(16)).digest("hex") as TaskId;
  return {
    content: randomBytes(lengthBytes),
    record: {
      taskId,
      displayUrl: "http://origin.test/file",
      lengthBytes,
      lengthSignature: key.signLength(taskId, lengthBytes),
      pieceLengthBytes: pieceLengthFor(lengthBytes),
      contentType: undefined,
      digest: undefined,
      headers: {},
      publicKey: key.publicKey,
    },
  };
}

function ticketFor(key: SigningKey, taskId: TaskId, peerId: PeerId): string {
  return key.signTicket({ taskId, peerId, expiresUnixMs: Date.now() + 60_000 });
}

async function seedAll(task: PeerTask, key: SigningKey, content: Buffer): Promise<void> {
  const { record } = task.stored;
  const count = pieceCountOf(content.length, record.pieceLengthBytes);
  for (let piece = 0; piece < count; piece++) {
    const length = pieceLengthAt(piece, content.length, record.pieceLengthBytes);
    const bytes = new Uint8Array(new SharedArrayBuffer(length));
    bytes.set(content.subarray(piece * record.pieceLengthBytes, piece * record.pieceLengthBytes + length));
    await task.addOwn(piece, bytes, (digest) => key.signPiece(record.taskId, piece, length, digest));
  }
}

async function finished(task: PeerTask, limitMs: number): Promise<void> {
  const until = performance.now() + limitMs;
  while (!task.stored.complete) {
    if (performance.now() > until) throw new Error(`only ${task.stored.have.count} pieces after ${limitMs} ms`);
    await task.session.changed(50, new AbortController().signal);
  }
}

async function contentOf(task: PeerTask, lengthBytes: number): Promise<Buffer> {
  const bytes = Buffer.alloc(lengthBytes);
  await task.stored.read(0, bytes);
  return bytes;
}

test("four peers get a file from one seed and from each other, every byte right", { timeout: 60_000 }, async () => {
  const key = SigningKey.generate();
  const { record, content } = makeTask(key, 50 * 1024 * 1024 + 12_345);
  const seed = await startPeer("seed");
  // The seed's uplink is what is scarce; on loopback it would feed everybody by itself.
  seed.peer.setLimits({ downloadBytesPerSecond: undefined, uploadBytesPerSecond: 40_000_000 });
  const seedTask = await seed.peer.openTask(record, "normal");
  const others: TestPeer[] = [];
  const tasks: PeerTask[] = [];
  for (let i = 0; i < 4; i++) {
    const other = await startPeer(`peer${i}`);
    const task = await other.peer.openTask(record, "normal");
    task.connect([neighbour(seed, true), ...others.map((peer) => neighbour(peer, false))], ticketFor(key, record.taskId, other.peerId));
    others.push(other);
    tasks.push(task);
  }
  const startMs = performance.now();
  await seedAll(seedTask, key, content);
  await Promise.all(tasks.map((task) => finished(task, 30_000)));
  const tookMs = performance.now() - startMs;
  for (const task of tasks) {
    assert.deepEqual(await contentOf(task, content.length), content);
    const { seedBytes, peerBytes } = task.sources();
    assert.equal(seedBytes + peerBytes, content.length);
  }
  const seedCopies = seed.peer.counters.uploadedBytes / content.length;
  console.log(`# ${tookMs.toFixed(0)} ms, seed sent ${seedCopies.toFixed(2)} copies`);
  assert.ok(seedCopies < 1.7, `the seed sent ${seedCopies} copies to 4 peers`);
});
