/**
 * One program of the data plane's bench, forked by main.ts. It tells its parent when it is ready and what it used.
 *
 * `seed` and `peer` are whole peers: links, digests, store. `sender` is a link's sending side alone, for connections that
 * are merely drained; `drain` is the other end of those, of nginx's as of ours. `floor-sender` and `floor`: see floor.ts.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { openSync, readFileSync, readSync } from "node:fs";
import { createServer, type IncomingMessage } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer, type NetConnectOpts, type Socket } from "node:net";
import { type ConnectionOptions, connect as connectByTls, createServer as createTlsServer } from "node:tls";
import { pino } from "pino";
import { floorReceiver, floorSender } from "./floor.ts";
import { SigningKey } from "../../src/peer/membership/credentials.ts";
import { SiteTls } from "../../src/peer/membership/site-tls.ts";
import { LinkWriter } from "../../src/peer/link/link-writer.ts";
import { LoopLoad } from "../../src/peer/loop-load.ts";
import { Peer } from "../../src/peer/peer.ts";
import { RateGate } from "../../src/peer/rate-gate.ts";
import { DiskStore } from "../../src/peer/store/disk-store.ts";
import type { TaskRecord } from "../../src/peer/store/piece-store.ts";
import { pieceCountOf, pieceLengthAt, pieceLengthFor } from "../../src/protocol/geometry.ts";
import type { PeerId, TaskId } from "../../src/protocol/ids.ts";
import { SigningDesk, SYSTEM_CLOCK } from "../../src/supernode/cache/signing-desk.ts";

const LENGTH_BYTES = 1024 ** 3;
/** Long enough for TLS keys to follow from it. */
const TOKEN = "bench".repeat(8);
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

/** Roles that end in `-tls` speak TLS 1.3, as the whole site does then. */
const isTls = process.argv[2]?.endsWith("-tls") === true;
const siteTls = isTls ? new SiteTls({ config: { kind: "token" }, token: TOKEN, log: pino({ level: "silent" }) }) : undefined;

async function startPeer(peerId: PeerId, directory: string): Promise<{ peer: Peer; port: number }> {
  const store = await DiskStore.open({ directory, quotaBytes: undefined, reservedFreeBytes: 0, workerCount: 2, scrubBytesPerSecond: 0 });
  const limits = { downloadBytesPerSecond: undefined, uploadBytesPerSecond: undefined };
  const peer = new Peer({ peerId, token: TOKEN, store, log: pino({ level: "silent" }), limits, tls: siteTls });
  const server = siteTls?.createServer() ?? createServer();
  server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => peer.handleUpgrade(request, socket, head));
  return { peer, port: await listenOn(server) };
}

interface Invitation {
  readonly port: number;
  readonly tasks: readonly { readonly record: JsonRecord; readonly ticket: string }[];
}

type JsonRecord = Omit<TaskRecord, "publicKey" | "lengthSignature"> & { readonly publicKey: string; readonly lengthSignature: string };

/** As many as a supernode signs together of this length, when an origin is quick. */
const PIECES_AT_A_TIME = 4;
/** The same content as so many tasks: a peer that has had one runs warm, and is measured with the next. */
const TASK_NAMES = ["first", "second"];

async function seed(directory: string, path: string): Promise<void> {
  const { peer, port } = await startPeer(SEED_ID, directory);
  const key = SigningKey.generate();
  const fd = openSync(path, "r");
  const pieceLengthBytes = pieceLengthFor(LENGTH_BYTES);
  // The same buffers for all: the store gives them back each time, and what is measured later is not its memory.
  const buffers = Array.from({ length: PIECES_AT_A_TIME }, () => new SharedArrayBuffer(pieceLengthBytes));
  const tasks = [];
  for (const name of TASK_NAMES) {
    const taskId = createHash("sha256").update(name).digest("hex") as TaskId;
    const record = {
      taskId, displayUrl: `http://bench/${name}`, lengthBytes: LENGTH_BYTES, pieceLengthBytes, contentType: undefined, digest: undefined, headers: {},
      lengthSignature: key.signLength(taskId, LENGTH_BYTES), publicKey: key.publicKey,
    };
    const task = await peer.openTask(record, "normal");
    const desk = new SigningDesk({ sign: (statement) => key.sign(statement), ...SYSTEM_CLOCK }, taskId, pieceLengthBytes);
    const pieceCount = pieceCountOf(LENGTH_BYTES, pieceLengthBytes);
    for (let first = 0; first < pieceCount; first += PIECES_AT_A_TIME) {
      const adding = buffers.slice(0, pieceCount - first).map((buffer, at) => {
        const piece = first + at;
        const bytes = new Uint8Array(buffer, 0, pieceLengthAt(piece, LENGTH_BYTES, pieceLengthBytes));
        readSync(fd, bytes, 0, bytes.length, piece * pieceLengthBytes);
        return task.addOwn(piece, bytes, (digest) => desk.sign(piece, bytes.length, digest));
      });
      await Promise.all(adding);
    }
    const expiresUnixMs = Date.now() + 3_600_000;
    const ticket = key.signTicket({ taskId, peerId: PEER_ID, expiresUnixMs, outageUnixMs: expiresUnixMs });
    tasks.push({ record: { ...record, lengthSignature: Buffer.from(record.lengthSignature).toString("base64"), publicKey: Buffer.from(record.publicKey).toString("base64") }, ticket });
  }
  say({ port, tasks } satisfies Invitation);
}

/** Takes the file when told to begin. */
async function receiveByFloor(port: number, path: string): Promise<void> {
  const take = await floorReceiver(port, path, LENGTH_BYTES);
  say({});
  await once(process, "message");
  begin();
  const startMs = performance.now();
  await take();
  say(use((performance.now() - startMs) / 1000));
}

/** Takes one task after the other, each when told to begin. */
async function receive(directory: string, { port, tasks }: Invitation): Promise<void> {
  const { peer } = await startPeer(PEER_ID, directory);
  for (const { record, ticket } of tasks) {
    const task = await peer.openTask({ ...record, publicKey: Buffer.from(record.publicKey, "base64"), lengthSignature: Buffer.from(record.lengthSignature, "base64") }, "normal");
    say({});
    await once(process, "message");
    begin();
    const startMs = performance.now();
    task.connect([{ peerId: SEED_ID, address: "127.0.0.1", port, seed: true }], ticket);
    while (!task.stored.complete) await task.session.changed(1_000, new AbortController().signal);
    say(use((performance.now() - startMs) / 1000));
  }
}

async function sender(path: string): Promise<void> {
  const gate = new RateGate(undefined);
  const fileFd = openSync(path, "r");
  const pieceBytes = pieceLengthFor(LENGTH_BYTES);
  const serve = (socket: Socket): void => {
    socket.on("error", () => undefined);
    const writer = new LinkWriter(socket, { limit: gate, nowMs: () => Math.floor(performance.now()), failed: () => socket.destroy() });
    const flow = gate.flow("normal");
    const send = (piece: number): void => {
      if (piece * pieceBytes >= LENGTH_BYTES) return void socket.end();
      writer.sendPiece({ flow, channel: 1, piece, fileFd, fileOffset: piece * pieceBytes, lengthBytes: pieceBytes, progressed: () => undefined, ended: () => send(piece + 1), released: () => undefined });
    };
    socket.once("data", () => send(0));
  };
  const server = siteTls === undefined ? createTcpServer(serve) : createTlsServer(siteTls.serverOptions(), serve);
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
      const to = { port, host: "127.0.0.1", onread: { buffer, callback } };
      // Whose certificate it is does not matter to what is measured.
      const socket = isTls ? connectByTls({ ...to, rejectUnauthorized: false } as ConnectionOptions) : connect(to as NetConnectOpts);
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
switch (role?.replace("-tls", "")) {
  case "seed":
    await seed(given[0], given[1]);
    break;
  case "peer":
    await receive(given[0], JSON.parse(given[1]) as Invitation);
    break;
  case "floor-sender":
    say({ port: await floorSender(given[0], LENGTH_BYTES) });
    break;
  case "floor":
    await receiveByFloor(Number(given[0]), given[1]);
    break;
  case "sender":
    await sender(given[0]);
    break;
  case "drain":
    await drain(Number(given[0]), given[1], Number(given[2]));
}
