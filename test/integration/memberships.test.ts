/** What a host says of its part in tasks when things cross: the supernode's picture of it is the host's own. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { HttpOrigin } from "../../src/origin/http-origin.ts";
import { SigningKey } from "../../src/peer/membership/credentials.ts";
import { PeerNode } from "../../src/peer/peer-node.ts";
import type { SupernodeToPeer } from "../../src/protocol/control-messages.ts";
import type { PeerId, TaskId } from "../../src/protocol/ids.ts";
import { ControlServer, type PeerMessage } from "../../src/supernode/control-server.ts";
import { type ConnectedPeer, PeerTable } from "../../src/supernode/peer-table.ts";
import { PlaceMap } from "../../src/supernode/place-map.ts";
import { cacheIn, NO_LIMITS } from "./lib/supernode-config.ts";
import { log, MIB, temporaryFolder } from "./lib/peers.ts";

type JoinMessage = Extract<PeerMessage, { type: "join" }>;

const [taskId, otherTaskId] = ["a", "b"].map((letter) => letter.repeat(64)) as [TaskId, TaskId];
const request = { source: { url: "http://origin.test/file", headers: {} }, backToSource: false };
const { signal } = new AbortController();

/** A supernode that says what the test wants it to say, and one host at it. */
async function start(t: TestContext, quotaBytes?: number) {
  const key = SigningKey.generate();
  const heard: PeerMessage[] = [];
  const waiting: { readonly is: (message: PeerMessage) => boolean; readonly resolve: (message: PeerMessage) => void }[] = [];
  const connected: { peer: ConnectedPeer | undefined } = { peer: undefined };
  const control = new ControlServer({
    token: undefined, ownPeerId: "seed-1" as PeerId, publicKey: key.publicKey, peers: new PeerTable(() => performance.now()), placeMap: new PlaceMap([]), keepers: [], log, connectionCountMax: 10,
    onConnected: (peer) => (connected.peer = peer),
    onDisconnected: () => {},
    onMessage: ({ channel }, message) => {
      heard.push(message);
      if (message.type === "originLease") channel.send({ type: "originLeased", requestId: message.requestId, amount: null, forMs: 60_000 });
      for (const waiter of waiting.splice(0)) {
        if (waiter.is(message)) waiter.resolve(message);
        else waiting.push(waiter);
      }
    },
  });
  const server = createServer();
  server.on("upgrade", (asked, socket, head) => void (control.handleUpgrade(asked, socket, head) || socket.destroy()));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = new HttpOrigin({ userAgent: "peer" });
  const node = await PeerNode.start(
    {
      program: "dfdaemon", version: "0", supernodes: [{ host: "127.0.0.1", port: (server.address() as AddressInfo).port, weight: 1 }], joinToken: undefined,
      peerListen: { host: "127.0.0.1", port: 0 }, advertiseHost: "127.0.0.1", cache: { ...cacheIn(temporaryFolder(t)), quotaBytes }, limits: NO_LIMITS, labels: {},
    },
    { origin, log },
  );
  t.after(async () => {
    await node.close();
    await origin.close();
    control.close();
    server.close();
  });
  const peer = (): ConnectedPeer => connected.peer ?? assert.fail("nobody is registered");
  /** The next message of this kind from now on. */
  const next = <T extends PeerMessage["type"]>(type: T): Promise<Extract<PeerMessage, { type: T }>> =>
    new Promise((resolve) => waiting.push({ is: (message) => message.type === type, resolve: resolve as (message: PeerMessage) => void }));
  const answer = ({ requestId }: JoinMessage, task: TaskId = taskId, ticketMs = 600_000): void => {
    const { peerId, channel } = peer();
    const ticket = key.signTicket({ taskId: task, peerId, expiresUnixMs: Date.now() + ticketMs, outageUnixMs: Date.now() + ticketMs });
    const lengthSignature = Buffer.from(key.signLength(task, 4 * MIB)).toString("base64");
    const described = { taskId: task, lengthBytes: 4 * MIB, pieceLengthBytes: MIB, contentType: null, digest: null, headers: {} };
    channel.send({ type: "joined", requestId, task: described, inline: null, ticket, neighbours: [], imports: [], lengthSignature });
  };
  const refuse = ({ requestId }: JoinMessage): void => peer().channel.send({ type: "joinFailed", requestId, code: "ORIGIN_BUSY", message: "later", details: {} });
  const say = (message: SupernodeToPeer): void => peer().channel.send(message);
  const breakOff = (): void => peer().channel.close();
  const fail = (code: string): void => peer().channel.send({ type: "taskFailed", taskId, code, message: "it failed", details: {}, discard: false });
  const giveUp = (): void => peer().channel.send({ type: "taskFailed", taskId, code: "DIGEST_MISMATCH", message: "other bytes", details: {}, discard: true });
  /** One reader, and the connection lost and found again: the host's join of what it has open is not answered yet. */
  const rejoining = async (): Promise<JoinMessage> => {
    const asked = next("join");
    const opening = node.open(request, signal);
    answer(await asked);
    const content = await opening;
    t.after(() => content.close());
    const again = next("join");
    breakOff();
    return await again;
  };
  return { node, heard, next, answer, refuse, say, breakOff, fail, giveUp, rejoining };
}

test("a host that has no room for what it joined is no member of it", { timeout: 20_000 }, async (t) => {
  const { node, next, answer } = await start(t, MIB);
  const asked = next("join");
  const opening = node.open(request, signal);
  const left = next("leave");
  answer(await asked);
  await assert.rejects(opening, { code: "CACHE_QUOTA_EXCEEDED" });
  assert.deepEqual(await left, { type: "leave", taskId });
  assert.match(await node.metrics.metrics(), /^dragonfly_peer_open_tasks 0$/m, "nor are its files open");
});

test("a ticket whose renewal is refused is asked for again, as long as somebody reads", { timeout: 30_000 }, async (t) => {
  const { node, next, answer, refuse } = await start(t);
  const asked = next("join");
  const opening = node.open(request, signal);
  answer(await asked, taskId, 3_000);
  const content = await opening;
  for (let refusals = 0; refusals < 2; refusals++) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    const renewal = await next("join");
    assert.equal(renewal.taskId, taskId);
    refuse(renewal);
  }
  content.close();
});

test("a host that joins again what it has open, and is told of the file's new version, is no member of that", { timeout: 20_000 }, async (t) => {
  const { next, answer, rejoining } = await start(t);
  const again = await rejoining();
  assert.equal(again.taskId, taskId);
  const left = next("leave");
  answer(again, otherTaskId);
  assert.deepEqual(await left, { type: "leave", taskId: otherTaskId });
});

test("who is told of another task when he joins again waits for his neighbours as long as without a supernode", { timeout: 20_000 }, async (t) => {
  const { node, next, answer, breakOff } = await start(t);
  let passedMs = 0;
  const now = performance.now.bind(performance);
  t.mock.method(performance, "now", () => now() + passedMs);
  const asked = next("join");
  const opening = node.open(request, signal);
  answer(await asked);
  const content = await opening;
  t.after(() => content.close());
  const reading = content.read({ startByte: 0, endByte: undefined }, signal)[Symbol.asyncIterator]().next();
  const again = next("join");
  breakOff();
  const left = next("leave");
  answer(await again, otherTaskId);
  await left;
  passedMs = 10_000;
  await assert.rejects(reading, { code: "BACK_SOURCE_FORBIDDEN" });
  // The origin has the former version again: whoever asks now is let in there, and the supernode mends that swarm once more.
  const askedAnew = next("join");
  const openingAnew = node.open(request, signal);
  answer(await askedAnew);
  const anew = await openingAnew;
  t.after(() => anew.close());
  const patient = anew.read({ startByte: 0, endByte: undefined }, signal)[Symbol.asyncIterator]().next();
  passedMs = 30_000;
  assert.equal(await Promise.race([patient.then(() => "given up", () => "given up"), sleep(1_000, "waits")]), "waits");
  passedMs = 50_000;
  await assert.rejects(patient, { code: "BACK_SOURCE_FORBIDDEN" });
});

test("a host that let go of a task while it joined it again leaves once more when that is answered", { timeout: 20_000 }, async (t) => {
  const { next, answer, giveUp, rejoining } = await start(t);
  const again = await rejoining();
  const left = next("leave");
  giveUp();
  assert.deepEqual(await left, { type: "leave", taskId });
  // It came before the answer: the supernode counts on this host again.
  const leftAgain = next("leave");
  answer(again);
  assert.deepEqual(await leftAgain, { type: "leave", taskId });
});

test("a task that is left here just as the supernode lets another reader in is joined again for him", { timeout: 20_000 }, async (t) => {
  const { node, heard, next, answer, giveUp } = await start(t);
  const asked = next("join");
  const opening = node.open(request, signal);
  answer(await asked);
  (await opening).close();
  const askedAgain = next("join");
  const second = node.open(request, signal);
  const question = await askedAgain;
  const rejoined = next("join");
  giveUp();
  answer(question);
  (await second).close();
  assert.equal((await rejoined).taskId, taskId);
  assert.deepEqual(heard.map(({ type }) => type).filter((type) => type !== "progress"), ["join", "join", "leave", "join"]);
});

test("a task that fails while its files are opened has failed for its reader, and for the next one only if it fails again", { timeout: 20_000 }, async (t) => {
  const { node, next, answer, fail } = await start(t);
  const readFirst = async (content: Awaited<ReturnType<typeof node.open>>): Promise<void> => {
    for await (const _ of content.read({ startByte: 0, endByte: undefined }, signal)) assert.fail("nothing has come");
  };
  const open = async (): Promise<Awaited<ReturnType<typeof node.open>>> => {
    const asked = next("join");
    const opening = node.open(request, signal);
    answer(await asked);
    fail("ORIGIN_CUT");
    return await opening;
  };
  const first = await open();
  await assert.rejects(readFirst(first), { code: "ORIGIN_CUT" });
  const asked = next("join");
  const opening = node.open(request, signal);
  answer(await asked);
  const second = await opening;
  const reading = assert.rejects(readFirst(second), { code: "ORIGIN_BUSY" });
  await new Promise((resolve) => setImmediate(resolve));
  fail("ORIGIN_BUSY");
  await reading;
  for (const content of [first, second]) content.close();
});

test("a lease that comes before the task is open is taken up then, unless it was taken back meanwhile", { timeout: 20_000 }, async (t) => {
  for (const isRevoked of [false, true]) {
    // oxlint-disable-next-line no-await-in-loop -- cases
    const { node, next, answer, say, heard } = await start(t);
    const question = next("join");
    const opening = node.open(request, signal);
    // oxlint-disable-next-line no-await-in-loop -- cases
    answer(await question);
    say({ type: "lease", taskId, leaseId: 5, firstPiece: 0, endPiece: 2 });
    if (isRevoked) say({ type: "leaseRevoked", taskId, leaseId: 5 });
    // oxlint-disable-next-line no-await-in-loop -- cases
    const content = await opening;
    const after = next("join");
    node.stat(request, signal).catch(() => undefined);
    // oxlint-disable-next-line no-await-in-loop -- cases
    await after;
    // Nobody here lets this host read the origin.
    assert.deepEqual(heard.filter(({ type }) => type === "leaseFailed"), isRevoked ? [] : [{ type: "leaseFailed", taskId, leaseId: 5 }]);
    content.close();
  }
});

test("what a supernode lent that is gone is not read", { timeout: 20_000 }, async (t) => {
  let askedCount = 0;
  const web = createServer((_request, response) => {
    askedCount++;
    response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve));
  t.after(() => (web.closeAllConnections(), web.close()));
  const source = { url: `http://127.0.0.1:${(web.address() as AddressInfo).port}/file`, headers: {} };
  const { node, next, answer, say, breakOff } = await start(t);
  const question = next("join");
  const opening = node.open({ source, backToSource: true }, signal);
  answer(await question);
  say({ type: "lease", taskId, leaseId: 5, firstPiece: 0, endPiece: 2 });
  breakOff();
  const again = next("join");
  (await opening).close();
  await again;
  assert.equal(askedCount, 0);
});
