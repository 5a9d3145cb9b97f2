/** What a host says of its part in tasks when things cross: the supernode's picture of it is the host's own. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { HttpOrigin } from "../../src/origin/http-origin.ts";
import { SigningKey } from "../../src/peer/membership/credentials.ts";
import { PeerNode } from "../../src/peer/peer-node.ts";
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
    onMessage: (_peer, message) => {
      heard.push(message);
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
  const answer = ({ requestId }: JoinMessage, task: TaskId = taskId): void => {
    const { peerId, channel } = peer();
    const ticket = key.signTicket({ taskId: task, peerId, expiresUnixMs: Date.now() + 600_000, outageUnixMs: Date.now() + 600_000 });
    const lengthSignature = Buffer.from(key.signLength(task, 4 * MIB)).toString("base64");
    const described = { taskId: task, lengthBytes: 4 * MIB, pieceLengthBytes: MIB, contentType: null, digest: null, headers: {} };
    channel.send({ type: "joined", requestId, task: described, inline: null, ticket, neighbours: [], imports: [], lengthSignature });
  };
  const giveUp = (): void => peer().channel.send({ type: "taskFailed", taskId, code: "DIGEST_MISMATCH", message: "other bytes", details: {}, discard: true });
  /** One reader, and the connection lost and found again: the host's join of what it has open is not answered yet. */
  const rejoining = async (): Promise<JoinMessage> => {
    const asked = next("join");
    const opening = node.open(request, signal);
    answer(await asked);
    const content = await opening;
    t.after(() => content.close());
    const again = next("join");
    peer().channel.close();
    return await again;
  };
  return { node, heard, next, answer, giveUp, rejoining };
}

test("a host that has no room for what it joined is no member of it", { timeout: 20_000 }, async (t) => {
  const { node, next, answer } = await start(t, MIB);
  const asked = next("join");
  const opening = node.open(request, signal);
  const left = next("leave");
  answer(await asked);
  await assert.rejects(opening, { code: "CACHE_QUOTA_EXCEEDED" });
  assert.deepEqual(await left, { type: "leave", taskId });
});

test("a host that joins again what it has open, and is told of the file's new version, is no member of that", { timeout: 20_000 }, async (t) => {
  const { next, answer, rejoining } = await start(t);
  const again = await rejoining();
  assert.equal(again.taskId, taskId);
  const left = next("leave");
  answer(again, otherTaskId);
  assert.deepEqual(await left, { type: "leave", taskId: otherTaskId });
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
