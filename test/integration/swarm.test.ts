/** Real peers, real sockets, real disks, one process: what the brain and its driver do together. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { connect as connectByTls } from "node:tls";
import { pino } from "pino";
import { Agent, fetch } from "undici";
import { pieceCountOf, pieceLengthAt, pieceLengthFor } from "../../src/protocol/geometry.ts";
import type { PeerId, TaskId } from "../../src/protocol/ids.ts";
import { LINK_PROTOCOL } from "../../src/protocol/link-frames.ts";
import { generatePeerId, SigningKey } from "../../src/peer/membership/credentials.ts";
import { SiteTls } from "../../src/peer/membership/site-tls.ts";
import { DiskStore } from "../../src/peer/store/disk-store.ts";
import { Peer, type PeerTask } from "../../src/peer/peer.ts";
import type { TaskRecord } from "../../src/peer/store/piece-store.ts";
import { DEFAULT_SWARM_CONFIG } from "../../src/swarm/index.ts";

/** With DRAGONFLY_TEST_TLS all of this is over TLS, with keys that follow from the token. */
const IS_TLS = process.env["DRAGONFLY_TEST_TLS"] !== undefined;
const TOKEN = "integration-token".repeat(2);
const cleanups: (() => Promise<void> | void)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

interface TestPeer {
  readonly peer: Peer;
  readonly peerId: PeerId;
  readonly port: number;
  readonly tls: SiteTls | undefined;
}

interface Told {
  readonly stored?: (piece: number) => void;
  readonly needNeighbours?: (taskId: TaskId, useless: readonly PeerId[]) => void;
}

async function startPeer(name: string, token: string | undefined = TOKEN, { stored, needNeighbours }: Told = {}): Promise<TestPeer> {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-swarm-"));
  const store = await DiskStore.open({ directory, quotaBytes: undefined, reservedFreeBytes: 0, workerCount: 1, scrubBytesPerSecond: 0 });
  const peerId = generatePeerId(name);
  const log = pino({ level: process.env["TEST_LOG"] ?? "silent", name });
  const tls = IS_TLS ? new SiteTls({ config: { kind: "token" }, token, log }) : undefined;
  const peer = new Peer({
    peerId,
    token,
    tls,
    store,
    log,
    limits: { downloadBytesPerSecond: undefined, uploadBytesPerSecond: undefined },
    stored: (_session, piece) => stored?.(piece),
    needNeighbours: (taskId, useless) => needNeighbours?.(taskId, useless),
  });
  const server = tls?.createServer() ?? createServer();
  server.on("request", (request, response) => {
    if (!peer.handleRequest(request, response)) response.writeHead(404).end();
  });
  server.on("upgrade", (request, socket, head) => {
    if (!peer.handleUpgrade(request, socket, head)) socket.destroy();
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  cleanups.push(async () => {
    await peer.close();
    tls?.close();
    server.closeAllConnections();
    server.close();
    await store.close();
    rmSync(directory, { recursive: true, force: true });
  });
  return { peer, peerId, port: (server.address() as AddressInfo).port, tls };
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

function ticketFor(key: SigningKey, taskId: TaskId, peerId: PeerId, lifeMs = 60_000): string {
  const expiresUnixMs = Date.now() + lifeMs;
  return key.signTicket({ taskId, peerId, expiresUnixMs, outageUnixMs: expiresUnixMs });
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

/** Polls: for what happens at the other end of a link, too. */
async function until(condition: () => boolean): Promise<void> {
  for (const endMs = performance.now() + 20_000; !condition(); ) {
    assert.ok(performance.now() < endMs, `it did not come to pass: ${String(condition)}`);
    await setTimeout(10);
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
    assert.ok((await contentOf(task, content.length)).equals(content));
    const { seedBytes, peerBytes } = task.sources();
    assert.equal(seedBytes + peerBytes, content.length);
  }
  const seedCopies = seed.peer.counters.uploadedBytes / content.length;
  console.log(`# ${tookMs.toFixed(0)} ms, seed sent ${seedCopies.toFixed(2)} copies`);
  assert.ok(seedCopies < 1.7, `the seed sent ${seedCopies} copies to 4 peers`);
});

test("a peer that serves flipped bits is found and left alone, and the file is right", { timeout: 60_000 }, async () => {
  const key = SigningKey.generate();
  const { record, content } = makeTask(key, 8 * 1024 * 1024);
  const seed = await startPeer("seed");
  seed.peer.setLimits({ downloadBytesPerSecond: undefined, uploadBytesPerSecond: 20_000_000 });
  const seedTask = await seed.peer.openTask(record, "normal");
  await seedAll(seedTask, key, content);
  const liar = await startPeer("liar");
  const liarTask = await liar.peer.openTask(record, "normal");
  await seedAll(liarTask, key, content);
  // Its disk rots after the pieces were verified: offers are signed and look right, the bytes are not.
  const wrong = Buffer.alloc(1, 0x55);
  for (let at = 0; at < content.length; at += 4096) {
    wrong[0] = (content[at] as number) ^ 0x01;
    writeSync(liarTask.stored.dataFd, wrong, 0, 1, at);
  }
  const victim = await startPeer("victim");
  const task = await victim.peer.openTask(record, "normal");
  task.connect([neighbour(liar, false), neighbour(seed, true)], ticketFor(key, record.taskId, victim.peerId));
  await finished(task, 30_000);
  assert.ok((await contentOf(task, content.length)).equals(content));
  assert.ok(victim.peer.counters.rejectedPieces >= 1, "the liar was never caught");
  // What was under way when the first lie was found may still arrive, or wait to be verified; nothing after it is accepted.
  const underWayMax = DEFAULT_SWARM_CONFIG.downloadCountMax + DEFAULT_SWARM_CONFIG.verifyCountMax;
  assert.ok(victim.peer.counters.rejectedPieces <= underWayMax, `${victim.peer.counters.rejectedPieces} lies were taken`);
  assert.equal(task.sources().peerBytes, 0);
});

test("without the join token nobody gets a link, without a ticket nobody gets a piece", { timeout: 60_000 }, async () => {
  const key = SigningKey.generate();
  const { record, content } = makeTask(key, 1024 * 1024);
  const seed = await startPeer("seed");
  const seedTask = await seed.peer.openTask(record, "normal");
  await seedAll(seedTask, key, content);

  const stranger = await startPeer("stranger", "another-token".repeat(3));
  const strangerTask = await stranger.peer.openTask(record, "normal");
  strangerTask.connect([neighbour(seed, true)], ticketFor(key, record.taskId, stranger.peerId));

  const ticketless = await startPeer("ticketless");
  const ticketlessTask = await ticketless.peer.openTask(record, "normal");
  ticketlessTask.connect([neighbour(seed, true)], "");

  const forger = await startPeer("forger");
  const forgerTask = await forger.peer.openTask(record, "normal");
  forgerTask.connect([neighbour(seed, true)], ticketFor(SigningKey.generate(), record.taskId, forger.peerId));

  const honest = await startPeer("honest");
  const honestTask = await honest.peer.openTask(record, "normal");
  honestTask.connect([neighbour(seed, true)], ticketFor(key, record.taskId, honest.peerId));
  await finished(honestTask, 30_000);
  await setTimeout(300);
  assert.equal(strangerTask.stored.have.count, 0);
  assert.equal(stranger.peer.linkCount, 0);
  assert.equal(ticketlessTask.stored.have.count, 0);
  assert.equal(forgerTask.stored.have.count, 0);

  const base = `http${IS_TLS ? "s" : ""}://127.0.0.1:${seed.port}/v1/tasks/${record.taskId}`;
  const agent = new Agent({ connect: seed.tls?.toPeer() ?? {} });
  cleanups.push(() => agent.close());
  const ask = (path: string, headers: Record<string, string> = {}) => fetch(`${base}${path}`, { headers, dispatcher: agent });
  assert.equal((await ask("/pieces/0")).status, 403);
  assert.equal((await ask("/content", { authorization: "Bearer x.y" })).status, 403);
  const headers = {
    authorization: `Bearer ${ticketFor(key, record.taskId, honest.peerId)}`,
    "x-dragonfly-peer": honest.peerId,
  };
  const piece = await ask("/pieces/1", headers);
  assert.equal(piece.status, 200);
  const { pieceLengthBytes } = record;
  assert.deepEqual(Buffer.from(await piece.arrayBuffer()), content.subarray(pieceLengthBytes, pieceLengthBytes * 2));
  const part = await ask("/content", { ...headers, range: "bytes=100-299" });
  assert.equal(part.status, 206);
  assert.deepEqual(Buffer.from(await part.arrayBuffer()), content.subarray(100, 300));
});

test("garbage on the peer port ends that connection and nothing else", { timeout: 60_000 }, async () => {
  const key = SigningKey.generate();
  const { record, content } = makeTask(key, 256 * 1024);
  const seed = await startPeer("seed");
  const seedTask = await seed.peer.openTask(record, "normal");
  await seedAll(seedTask, key, content);
  const upgrade = `GET /v1/link HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ${LINK_PROTOCOL}\r\n\r\n`;
  const attacks = [
    randomBytes(4096),
    Buffer.from(`${upgrade}`),
    Buffer.concat([Buffer.from(upgrade), randomBytes(65_536)]),
    Buffer.concat([Buffer.from(upgrade), Buffer.from([0xff, 0xff, 0xff, 0xff, 7])]),
    Buffer.concat([Buffer.from(upgrade), Buffer.from([0, 0, 0, 13, 10]), Buffer.alloc(12)]),
    Buffer.from(upgrade.replace(LINK_PROTOCOL, "dragonfly-link/99")),
  ];
  for (const attack of attacks) {
    const where = { host: "127.0.0.1", port: seed.port };
    const socket = seed.tls === undefined ? connect(where) : connectByTls({ ...where, ...seed.tls.toPeer() });
    socket.on("error", () => undefined);
    socket.write(attack);
    socket.resume();
    await setTimeout(20);
    socket.destroy();
  }
  const honest = await startPeer("honest");
  const honestTask = await honest.peer.openTask(record, "normal");
  honestTask.connect([neighbour(seed, true)], ticketFor(key, record.taskId, honest.peerId));
  await finished(honestTask, 30_000);
  assert.ok((await contentOf(honestTask, content.length)).equals(content));
});

test("two peers that dial each other at once end up with one link", { timeout: 60_000 }, async () => {
  const key = SigningKey.generate();
  const { record, content } = makeTask(key, 2 * 1024 * 1024);
  const left = await startPeer("left");
  const right = await startPeer("right");
  const leftTask = await left.peer.openTask(record, "normal");
  const rightTask = await right.peer.openTask(record, "normal");
  leftTask.connect([neighbour(right, false)], ticketFor(key, record.taskId, left.peerId));
  rightTask.connect([neighbour(left, false)], ticketFor(key, record.taskId, right.peerId));
  await seedAll(leftTask, key, content);
  await finished(rightTask, 30_000);
  await until(() => left.peer.linkCount === 1 && right.peer.linkCount === 1);
});

test("a task left in mid-download leaves nothing behind, and joined again it is completed", { timeout: 60_000 }, async () => {
  const key = SigningKey.generate();
  const { record, content } = makeTask(key, 16 * 1024 * 1024);
  const seed = await startPeer("seed");
  seed.peer.setLimits({ downloadBytesPerSecond: undefined, uploadBytesPerSecond: 6_000_000 });
  const seedTask = await seed.peer.openTask(record, "normal");
  await seedAll(seedTask, key, content);
  const other = await startPeer("other");
  const ticket = ticketFor(key, record.taskId, other.peerId);
  for (let round = 0; round < 2; round++) {
    const task = await other.peer.openTask(record, "normal");
    task.connect([neighbour(seed, true)], ticket);
    const before = task.stored.have.count;
    await until(() => task.stored.have.count > before);
    assert.ok(!task.stored.complete, `${task.stored.have.count} pieces in mid-way`);
    task.release();
    await until(() => other.peer.receivingBytes === 0 && seed.peer.snapshot().tasks[0]?.outgoing.length === 0);
  }
  const task = await other.peer.openTask(record, "normal");
  task.connect([neighbour(seed, true)], ticket);
  await finished(task, 30_000);
  assert.ok((await contentOf(task, content.length)).equals(content));
});

test("a neighbour that takes part before our files are open is served once they are", { timeout: 60_000 }, async () => {
  const key = SigningKey.generate();
  const { record, content } = makeTask(key, 4 * 1024 * 1024);
  const [early, late] = [await startPeer("early"), await startPeer("late")];
  const earlyTask = await early.peer.openTask(record, "normal");
  earlyTask.connect([neighbour(late, false)], ticketFor(key, record.taskId, early.peerId));
  await until(() => late.peer.linkCount === 1);
  // Its join has been said by now, and is not said again.
  await setTimeout(500);
  assert.equal(late.peer.linkCount, 1);
  const lateTask = await late.peer.openTask(record, "normal");
  await seedAll(lateTask, key, content);
  lateTask.connect([neighbour(early, false)], ticketFor(key, record.taskId, late.peerId));
  await finished(earlyTask, 30_000);
  assert.ok((await contentOf(earlyTask, content.length)).equals(content));
});

test("what a reader who is on his way will begin with comes first, though he has not begun when the task is joined", { timeout: 60_000 }, async () => {
  const key = SigningKey.generate();
  const { record, content } = makeTask(key, 4 * 1024 * 1024);
  const order: number[] = [];
  const [seed, reader] = [await startPeer("seed"), await startPeer("reader", TOKEN, { stored: (piece) => void order.push(piece) })];
  const seedTask = await seed.peer.openTask(record, "normal");
  await seedAll(seedTask, key, content);
  const task = await reader.peer.openTask(record, "normal");
  task.expectReader(40 * record.pieceLengthBytes);
  task.connect([neighbour(seed, true)], ticketFor(key, record.taskId, reader.peerId));
  await finished(task, 30_000);
  assert.equal(order[0], 40, String(order));
});

test("pieces that vanish from a disk come back from the neighbour, whichever side lost them", { timeout: 60_000 }, async () => {
  const key = SigningKey.generate();
  const { record, content } = makeTask(key, 20 * 1024 * 1024);
  const [one, other] = [await startPeer("one"), await startPeer("other")];
  const oneTask = await one.peer.openTask(record, "normal");
  await seedAll(oneTask, key, content);
  const otherTask = await other.peer.openTask(record, "normal");
  oneTask.connect([], ticketFor(key, record.taskId, one.peerId));
  otherTask.connect([neighbour(one, false)], ticketFor(key, record.taskId, other.peerId));
  await finished(otherTask, 30_000);
  for (const [{ peer }, task] of [[other, otherTask], [one, oneTask]] as const) {
    const before = peer.counters.downloadedBytes;
    await task.stored.discard([0, 7, 8, 15]);
    await finished(task, 30_000);
    assert.ok((await contentOf(task, content.length)).equals(content));
    assert.equal(peer.counters.downloadedBytes - before, 4 * record.pieceLengthBytes);
  }
});

test("M14: a neighbour whose ticket has run out gets no piece more, until it shows another", { timeout: 60_000 }, async () => {
  const key = SigningKey.generate();
  const { record, content } = makeTask(key, 16 * 1024 * 1024);
  const seed = await startPeer("seed");
  seed.peer.setLimits({ downloadBytesPerSecond: undefined, uploadBytesPerSecond: 2_000_000 });
  const seedTask = await seed.peer.openTask(record, "normal");
  await seedAll(seedTask, key, content);
  const other = await startPeer("other");
  const task = await other.peer.openTask(record, "normal");
  const lifeMs = 3_000;
  task.connect([neighbour(seed, true)], ticketFor(key, record.taskId, other.peerId, lifeMs));
  await until(() => task.stored.have.count > 0);
  // What was under way may still come.
  await setTimeout(lifeMs + 1_000);
  const held = task.stored.have.count;
  await setTimeout(700);
  assert.equal(task.stored.have.count, held);
  assert.ok(!task.stored.complete);
  task.connect([], ticketFor(key, record.taskId, other.peerId));
  await finished(task, 30_000);
  assert.ok((await contentOf(task, content.length)).equals(content));
});

test("a neighbour whose link breaks before it has joined the task is asked for again", { timeout: 30_000 }, async () => {
  const named: PeerId[] = [];
  const reader = await startPeer("reader", TOKEN, { needNeighbours: (_taskId, useless) => void named.push(...useless) });
  // It knows nothing of the task, so it never joins.
  const silent = await startPeer("silent");
  const key = SigningKey.generate();
  const { record } = makeTask(key, 1_000_000);
  const task = await reader.peer.openTask(record, "normal");
  task.connect([neighbour(silent, true)], ticketFor(key, record.taskId, reader.peerId));
  await until(() => reader.peer.linkCount === 1);
  assert.deepEqual(named, []);
  await silent.peer.close();
  await until(() => named.length > 0);
  assert.deepEqual(named, [silent.peerId]);
  task.release();
});

test("a neighbour that cannot be dialled, and dials before that is told, stays a neighbour", { timeout: 30_000 }, async () => {
  const key = SigningKey.generate();
  const { record, content } = makeTask(key, 1_000_000);
  const named: PeerId[] = [];
  const reader = await startPeer("reader", TOKEN, { needNeighbours: (_taskId, useless) => void named.push(...useless) });
  const holder = await startPeer("holder");
  const [task, holderTask] = [await reader.peer.openTask(record, "normal"), await holder.peer.openTask(record, "normal")];
  await seedAll(holderTask, key, content);
  const ticket = ticketFor(key, record.taskId, reader.peerId);
  const nobody = { peerId: generatePeerId("nobody"), address: "127.0.0.1", port: 9, seed: false };
  task.connect([nobody], ticket);
  await until(() => named.length > 0);
  task.connect([{ ...neighbour(holder, false), port: 9 }], ticket);
  await setTimeout(100);
  holderTask.connect([neighbour(reader, false)], ticketFor(key, record.taskId, holder.peerId));
  await finished(task, 30_000);
  await setTimeout(1_200);
  assert.deepEqual(named, [nobody.peerId]);
  assert.ok([...task.session.neighbours.keys()].includes(holder.peerId));
});

test("a neighbour that refuses to be dialled, and is named again and again, is asked about once a second", { timeout: 30_000 }, async () => {
  const asked: PeerId[] = [];
  const key = SigningKey.generate();
  const { record } = makeTask(key, 1_000_000);
  const nobody = { peerId: generatePeerId("nobody"), address: "127.0.0.1", port: 9, seed: true };
  const connect = (): void => task.connect([nobody], ticketFor(key, record.taskId, reader.peerId));
  const reader = await startPeer("reader", TOKEN, {
    needNeighbours: (_taskId, useless) => {
      if (!useless.includes(nobody.peerId)) return;
      asked.push(nobody.peerId);
      connect();
    },
  });
  const task = await reader.peer.openTask(record, "normal");
  const startMs = performance.now();
  connect();
  await until(() => asked.length > 0);
  assert.ok(performance.now() - startMs < 1_000, "the first time soon");
  await setTimeout(2_500);
  assert.ok(asked.length <= 4, `${asked.length} times in two seconds and a half`);
  task.release();
});
