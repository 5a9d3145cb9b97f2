/** Peers on loopback, each with a store of its own, and tasks to give them: what limits are measured and tested with. */
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { pino } from "pino";
import { generatePeerId, SigningKey } from "../../src/peer/membership/credentials.ts";
import type { SiteTls } from "../../src/peer/membership/site-tls.ts";
import { Peer, type PeerTask } from "../../src/peer/peer.ts";
import { DiskStore } from "../../src/peer/store/disk-store.ts";
import type { TaskRecord } from "../../src/peer/store/piece-store.ts";
import { pieceCountOf, pieceLengthAt, pieceLengthFor } from "../../src/protocol/geometry.ts";
import type { PeerId, TaskId } from "../../src/protocol/ids.ts";

export interface LonePeer {
  readonly peer: Peer;
  readonly peerId: PeerId;
  readonly port: number;
  close(): Promise<void>;
}

/** @param folder where its cache is made; @param tls over which its links go */
export async function startPeer(name: string, folder: string, tls?: SiteTls): Promise<LonePeer> {
  const directory = mkdtempSync(join(folder, "dragonfly-limits-"));
  const store = await DiskStore.open({ directory, quotaBytes: undefined, reservedFreeBytes: 0, workerCount: 1, scrubBytesPerSecond: 0 });
  const peerId = generatePeerId(name);
  const peer = new Peer({
    peerId,
    token: "limits-token",
    tls,
    store,
    log: pino({ level: "silent" }),
    limits: { downloadBytesPerSecond: undefined, uploadBytesPerSecond: undefined },
  });
  const server = tls?.createServer() ?? createServer();
  server.on("request", (request, response) => {
    if (!peer.handleRequest(request, response)) response.writeHead(404).end();
  });
  server.on("upgrade", (request, socket, head) => {
    if (!peer.handleUpgrade(request, socket, head)) socket.destroy();
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const close = async (): Promise<void> => {
    await peer.close();
    server.closeAllConnections();
    server.close();
    await store.close();
    rmSync(directory, { recursive: true, force: true });
  };
  return { peer, peerId, port: (server.address() as AddressInfo).port, close };
}

export function makeTask(key: SigningKey, lengthBytes: number): TaskRecord {
  const taskId = createHash("sha256").update(randomBytes(16)).digest("hex") as TaskId;
  return {
    taskId,
    displayUrl: "http://origin.test/file",
    lengthBytes,
    lengthSignature: key.signLength(taskId, lengthBytes),
    pieceLengthBytes: pieceLengthFor(lengthBytes),
    contentType: undefined,
    digest: undefined,
    headers: {},
    publicKey: key.publicKey,
  };
}

/** Gives the peer all pieces of the task, of one random piece repeated. */
export async function fill(task: PeerTask, key: SigningKey): Promise<void> {
  const { taskId, lengthBytes = 0, pieceLengthBytes } = task.stored.record;
  const bytes = new Uint8Array(new SharedArrayBuffer(pieceLengthBytes));
  bytes.set(randomBytes(pieceLengthBytes));
  for (let piece = 0; piece < pieceCountOf(lengthBytes, pieceLengthBytes); piece++) {
    const length = pieceLengthAt(piece, lengthBytes, pieceLengthBytes);
    await task.addOwn(piece, bytes.subarray(0, length), (digest) => key.signPiece(taskId, piece, length, digest));
  }
}

/** Lets `to` load the task from `from`. */
export function connectTo(task: PeerTask, to: LonePeer, from: readonly LonePeer[], key: SigningKey): void {
  const { taskId } = task.stored.record;
  const expiresUnixMs = Date.now() + 3_600_000;
  const ticket = key.signTicket({ taskId, peerId: to.peerId, expiresUnixMs, outageUnixMs: expiresUnixMs });
  task.connect(from.map(({ peerId, port }) => ({ peerId, address: "127.0.0.1", port, seed: true })), ticket);
}
