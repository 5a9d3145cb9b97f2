/**
 * The least program that does what must be done of a file that comes in: one connection, sendfile(2) at its one end; at the other
 * reads into shared memory, and two threads that hash (BLAKE3) and write. No frames, offers, proofs, signatures, journal, other
 * peers. What a peer takes beside it is what those cost here. Roles of role.ts; started by main.ts.
 */
import { ftruncateSync, openSync, writeSync } from "node:fs";
import { type AddressInfo, connect, createServer, type NetConnectOpts, type Socket } from "node:net";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { fdOf } from "../../src/peer/link/link-writer.ts";
import { nativeSocket } from "../../src/peer/link/native-socket.ts";
import { pieceDigest } from "../../src/peer/store/piece-hash.ts";
import { systemPreallocation } from "../../src/peer/store/preallocation.ts";

const PIECE_BYTES = 1024 * 1024;
const WRITE_BYTES = 256 * 1024;
/** Pieces in memory: as many as a peer has. */
const SLOT_COUNT = 16;
const THREAD_COUNT = 2;

interface Shared {
  readonly memory: SharedArrayBuffer;
  readonly fileFd: number;
}

interface Job {
  readonly slot: number;
  readonly piece: number;
}

if (!isMainThread && parentPort !== null) {
  const port = parentPort;
  const { memory, fileFd } = workerData as Shared;
  port.on("message", ({ slot, piece }: Job) => {
    const bytes = new Uint8Array(memory, slot * PIECE_BYTES, PIECE_BYTES);
    pieceDigest(bytes);
    for (let at = 0; at < PIECE_BYTES; at += WRITE_BYTES) writeSync(fileFd, bytes, at, WRITE_BYTES, piece * PIECE_BYTES + at);
    port.postMessage(slot);
  });
}

/** Sends the file once to everyone who says a word. @returns the port it listens on */
export async function floorSender(path: string, lengthBytes: number): Promise<number> {
  const native = nativeSocket();
  if (native === undefined) throw new Error("needs koffi");
  const fileFd = openSync(path, "r");
  const server = createServer((socket) => socket.on("error", () => undefined).once("data", () => sendAll(socket)));
  const sendAll = (socket: Socket): void => {
    const socketFd = fdOf(socket) as number;
    let at = 0;
    const step = (): void => {
      for (let sent = 1; at < lengthBytes && sent > 0; at += sent) sent = Math.max(0, native.sendfile(socketFd, fileFd, at, Math.min(PIECE_BYTES, lengthBytes - at)));
      // One byte through the stream tells when there is room for more; which one does not matter to what is measured.
      if (at++ < lengthBytes) socket.write("x", step);
    };
    step();
  };
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** Threads that are up, and how the file is then taken. `lengthBytes` is a multiple of a MiB. */
export async function floorReceiver(port: number, path: string, lengthBytes: number): Promise<() => Promise<void>> {
  const fileFd = openSync(path, "w");
  ftruncateSync(fileFd, lengthBytes);
  const memory = new SharedArrayBuffer(SLOT_COUNT * PIECE_BYTES);
  const threads = Array.from({ length: THREAD_COUNT }, () => new Worker(new URL(import.meta.url), { workerData: { memory, fileFd } satisfies Shared }));
  await Promise.all(threads.map((thread) => new Promise((resolve) => thread.once("online", resolve))));
  return () =>
    new Promise((resolve, reject) => {
      const free = Array.from({ length: SLOT_COUNT }, (_, slot) => slot);
      let slot = free.pop();
      let filledBytes = 0;
      let begun = 0;
      let stored = 0;
      const buffer = (): Uint8Array => new Uint8Array(memory, (slot ?? 0) * PIECE_BYTES + filledBytes, PIECE_BYTES - filledBytes);
      const callback = (bytes: number): boolean => {
        filledBytes += bytes;
        if (filledBytes < PIECE_BYTES) return true;
        const piece = begun++;
        systemPreallocation().room(fileFd, piece * PIECE_BYTES, PIECE_BYTES);
        threads[piece % THREAD_COUNT]?.postMessage({ slot, piece });
        filledBytes = 0;
        slot = free.pop();
        if (slot === undefined) socket.pause();
        return true;
      };
      const socket = connect({ port, host: "127.0.0.1", onread: { buffer, callback } } as NetConnectOpts);
      for (const thread of threads) {
        thread.on("message", (done: number) => {
          free.push(done);
          if (slot === undefined) {
            slot = free.pop();
            socket.resume();
          }
          if (++stored * PIECE_BYTES === lengthBytes) resolve();
        });
      }
      socket.on("error", reject).write("x");
    });
}
