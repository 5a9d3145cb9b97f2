/** Control connections over real sockets: the client against the server, and the server against nonsense. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import type { AppError } from "../base/errors.ts";
import { ControlClient, type ControlClientOptions } from "../peer/control/control-client.ts";
import type { HostInfo } from "../protocol/control-messages.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import { ControlServer, type PeerMessage } from "./control-server.ts";
import { type ConnectedPeer, PeerTable } from "./peer-table.ts";
import { networkOf } from "./ip-network.ts";
import { PlaceMap } from "./place-map.ts";
import { silentLog } from "./cache/seed-fixture.test.ts";

const ownPeerId = "seed-1" as PeerId;
const taskId = "d".repeat(64) as TaskId;
const host: HostInfo = { address: "", port: 7, name: "h", program: "dfdaemon", version: "1", labels: {} };
const source = { url: "http://o/f", headers: {} };
const UPGRADE = "GET /v1/control HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: dragonfly-control/1\r\n\r\n";

const ignore = (): void => {};
const NO_HANDLERS: ControlClientOptions["handlers"] = {
  onRegistered: ignore, onNeighbours: ignore, onImports: ignore, onLength: ignore, onTaskFailed: ignore, onLease: ignore, onLeaseRevoked: ignore, onDisconnected: ignore,
};

interface Site {
  readonly port: number;
  readonly peers: PeerTable;
  readonly control: ControlServer;
  readonly placeMap: PlaceMap;
  readonly messages: PeerMessage[];
  readonly events: string[];
  onMessage: (peer: ConnectedPeer, message: PeerMessage) => void;
  close(): Promise<void>;
}

async function startSite(t: TestContext, token: string | undefined = "token", port = 0, connectionCountMax = 100, handshakeMs = 5_000): Promise<Site> {
  const peers = new PeerTable(() => performance.now());
  const placeMap = new PlaceMap([]);
  const messages: PeerMessage[] = [];
  const events: string[] = [];
  const control = new ControlServer({
    token,
    ownPeerId,
    publicKey: new Uint8Array([1, 2, 3]),
    peers,
    placeMap,
    keepers: [networkOf("127.0.0.0/9")],
    log: silentLog,
    handshakeMs,
    connectionCountMax,
    onConnected: ({ peerId }) => events.push(`+${peerId}`),
    onDisconnected: ({ peerId }) => events.push(`-${peerId}`),
    onMessage: (peer, message) => {
      messages.push(message);
      site.onMessage(peer, message);
    },
  });
  const server = createServer();
  server.on("upgrade", (request, socket, head) => {
    if (!control.handleUpgrade(request, socket, head)) socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  const close = async (): Promise<void> => {
    control.close();
    if (server.listening) await new Promise((resolve) => server.close(resolve));
  };
  t.after(close);
  const site: Site = { port: (server.address() as AddressInfo).port, peers, control, placeMap, messages, events, onMessage: () => {}, close };
  return site;
}

function startClient(t: TestContext, ports: readonly number[], options: Partial<ControlClientOptions> = {}) {
  const told: string[] = [];
  const waiting: { readonly event: string; readonly resolve: () => void }[] = [];
  const tell = (event: string): void => {
    told.push(event);
    for (const { event: wanted, resolve } of waiting) if (event === wanted) resolve();
  };
  /** Resolves the next time that `event` is told. */
  const next = (event: string): Promise<void> => new Promise((resolve) => waiting.push({ event, resolve }));
  const registered = next("registered");
  const client = new ControlClient({
    supernodes: ports.map((port) => ({ host: "127.0.0.1", port })),
    token: "token",
    peerId: "host-1" as PeerId,
    host,
    log: silentLog,
    random: () => 0,
    connectTimeoutMs: 3_000,
    handlers: {
      onRegistered: (publicKey, address) => {
        assert.deepEqual([...publicKey], [1, 2, 3]);
        assert.equal(address, "127.0.0.1");
        tell("registered");
      },
      onNeighbours: (_taskId, add, drop) => tell(`neighbours ${add.length} ${drop.length}`),
      onImports: () => {},
      onLength: (_taskId, lengthBytes) => tell(`length ${lengthBytes}`),
      onTaskFailed: ({ code }) => tell(`failed ${code}`),
      onLease: ({ leaseId }) => tell(`lease ${leaseId}`),
      onLeaseRevoked: (leaseId) => tell(`revoked ${leaseId}`),
      onDisconnected: () => tell("disconnected"),
    },
    ...options,
  });
  t.after(() => client.close());
  return { client, told, next, registered };
}

function joinWith(client: ControlClient, signal: AbortSignal = new AbortController().signal): ReturnType<ControlClient["join"]> {
  return client.join(source, { taskId, have: new Uint8Array([5]), download: true, signal });
}

const task = { taskId, lengthBytes: 5, pieceLengthBytes: 65536, contentType: null, digest: null, headers: {} };

function answerJoins(site: Site): void {
  site.onMessage = (peer, message) => {
    if (message.type !== "join") return;
    const { requestId } = message;
    peer.channel.send({ type: "joined", requestId, task, inline: null, ticket: "t.t", neighbours: [], imports: [], lengthSignature: null });
  };
}

test("a peer registers, joins, is told of changes, and leaves", async (t) => {
  const site = await startSite(t);
  answerJoins(site);
  const { client, registered, next } = startClient(t, [site.port]);
  await registered;
  assert.ok(client.connected);
  assert.equal((await joinWith(client)).ticket, "t.t");
  const told = Promise.all([next("neighbours 1 1"), next("length 9"), next("failed ORIGIN_CUT")]);
  const { channel } = site.peers.get("host-1" as PeerId) as ConnectedPeer;
  const neighbour = { peerId: "host-2" as PeerId, address: "10.0.0.1", port: 1, seed: false };
  channel.send({ type: "neighbours", taskId, add: [neighbour], drop: ["host-3"] });
  channel.send({ type: "length", taskId, lengthBytes: 9, signature: "AAAA" });
  channel.send({ type: "taskFailed", taskId, code: "ORIGIN_CUT", message: "m", details: {}, discard: false });
  await told;
  client.close();
  await assert.rejects(joinWith(client), { code: "SHUTTING_DOWN" });
});

test("who stands in a labelled network is told its labels, and told again when the labels are others", async (t) => {
  const site = await startSite(t);
  site.placeMap.setNetworks([{ network: "127.0.0.0/8", labels: { region: "eu", rack: "r1" } }]);
  const start = (name: string, labels: Record<string, string>): { readonly told: unknown[]; readonly next: () => Promise<void> } => {
    const told: unknown[] = [];
    let wake = (): void => {};
    const client = new ControlClient({
      supernodes: [{ host: "127.0.0.1", port: site.port }], token: "token", peerId: name as PeerId, host: { ...host, labels }, log: silentLog, random: () => 0,
      handlers: {
        ...NO_HANDLERS,
        onRegistered: (_publicKey, _address, _unixMs, place) => {
          told.push(place);
          wake();
        },
      },
    });
    t.after(() => client.close());
    return { told, next: () => new Promise((resolve) => (wake = resolve)) };
  };
  const [silent, decided] = [start("silent", {}), start("decided", { region: "us", rack: "r2" })];
  await Promise.all([silent.next(), decided.next()]);
  assert.deepEqual([silent.told, decided.told], [[{ region: "eu", rack: "r1" }], [{ region: "us", rack: "r2" }]]);
  assert.deepEqual(site.peers.get("silent" as PeerId)?.place.sources, { region: "127.0.0.0/8", rack: "127.0.0.0/8" });

  site.placeMap.setNetworks([{ network: "127.0.0.0/8", labels: { region: "eu", rack: "r9" } }]);
  const again = silent.next();
  site.control.endMoved();
  await again;
  assert.deepEqual(silent.told[1], { region: "eu", rack: "r9" });
  assert.equal(decided.told.length, 1, "who stands where it stood keeps its connection");
  const { channel } = site.peers.get("silent" as PeerId) as ConnectedPeer;
  site.placeMap.setNetworks([{ network: "127.0.0.0/8", labels: { region: "eu" } }, { network: "127.0.0.0/9", labels: { rack: "r9" } }]);
  site.control.endMoved();
  const { channel: kept, place } = site.peers.get("silent" as PeerId) as ConnectedPeer;
  assert.equal(kept, channel, "so does who is told the same by another network");
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal(silent.told.length, 2);
  assert.deepEqual(place.sources, { region: "127.0.0.0/8", rack: "127.0.0.0/9" });
});

test("a refused join says why, with its details", async (t) => {
  const site = await startSite(t);
  site.onMessage = (peer, message) => {
    if (message.type === "join") {
      const details = { wwwAuthenticate: "Basic" };
      peer.channel.send({ type: "joinFailed", requestId: message.requestId, code: "ORIGIN_UNAUTHORIZED", message: "m", details });
    }
  };
  const { client, registered } = startClient(t, [site.port]);
  await registered;
  await assert.rejects(joinWith(client), (error: AppError) => error.code === "ORIGIN_UNAUTHORIZED" && error.details["wwwAuthenticate"] === "Basic");
});

test("no supernode: a join waits a moment for one, and the next not at all", async (t) => {
  const connectTimeoutMs = 1_500;
  const { client } = startClient(t, [1], { connectTimeoutMs });
  await assert.rejects(joinWith(client), { code: "SUPERNODE_UNREACHABLE", retriable: true });
  const startedMs = performance.now();
  await assert.rejects(joinWith(client), { code: "SUPERNODE_UNREACHABLE" });
  assert.ok(performance.now() - startedMs < connectTimeoutMs);
});

test("the second supernode is taken when the first is down", async (t) => {
  const site = await startSite(t);
  answerJoins(site);
  const { client } = startClient(t, [1, site.port]);
  assert.equal((await joinWith(client)).ticket, "t.t");
});

/** A listener that does nothing with a connection for so long, then passes it on; without `port` never. */
async function startSlow(t: TestContext, delayMs: number, port?: number): Promise<number> {
  const server = createTcpServer({ pauseOnConnect: true }, (socket) => {
    socket.on("error", () => {});
    t.after(() => socket.destroy());
    if (port === undefined) return;
    setTimeout(() => {
      const onward = connect(port, "127.0.0.1").on("error", () => socket.destroy());
      socket.pipe(onward).pipe(socket);
      socket.resume();
    }, delayMs);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  return (server.address() as AddressInfo).port;
}

test("a supernode that has not refused us is waited for, as it may only be busy", async (t) => {
  const site = await startSite(t);
  answerJoins(site);
  const slow = await startSlow(t, 700, site.port);
  const { client } = startClient(t, [1, slow], { connectTimeoutMs: 100 });
  assert.equal((await joinWith(client)).ticket, "t.t");
});

test("who is not answered in time gives the next attempt more of it: a supernode that ten thousand ask at once answers each", { timeout: 60_000 }, async (t) => {
  const site = await startSite(t);
  answerJoins(site);
  // Each attempt alone takes longer than the first is given, 1,500 ms.
  const slow = await startSlow(t, 2_000, site.port);
  const { client, registered } = startClient(t, [slow], { connectTimeoutMs: 100, pendingTimeoutMs: 600 });
  await registered;
  assert.equal((await joinWith(client)).ticket, "t.t");
});

test("one that says nothing is waited for longer than one that refuses, not for ever", async (t) => {
  const times = { connectTimeoutMs: 100, pendingTimeoutMs: 3_000 };
  const timed = async (ports: readonly number[]): Promise<number> => {
    const { client } = startClient(t, ports, times);
    const startedMs = performance.now();
    await assert.rejects(joinWith(client), { code: "SUPERNODE_UNREACHABLE" });
    return performance.now() - startedMs;
  };
  const silent = await startSlow(t, 0);
  const [silentMs, besideMs, refusedMs] = await Promise.all([timed([silent]), timed([1, silent]), timed([1, 2])]);
  for (const ms of [silentMs, besideMs]) assert.ok(ms > 2_500 && ms < 20_000, `${ms} ms`);
  assert.ok(refusedMs < 2_500, `${refusedMs} ms`);
});

test("the heavier of several supernodes is tried first, equal ones in their order", async (t) => {
  const [light, heavy] = [await startSite(t), await startSite(t)];
  const supernodes = [{ host: "127.0.0.1", port: light.port, weight: 1 }, { host: "127.0.0.1", port: heavy.port, weight: 3 }];
  await startClient(t, [], { supernodes }).registered;
  assert.deepEqual([light.peers.size, heavy.peers.size], [0, 1]);
});

test("a wrong token is said at once", { timeout: 20_000 }, async (t) => {
  const site = await startSite(t);
  const { client } = startClient(t, [site.port], { token: "wrong", connectTimeoutMs: 60_000 });
  await assert.rejects(joinWith(client), { code: "TOKEN_REFUSED" });
  await assert.rejects(joinWith(client), { code: "TOKEN_REFUSED" });
  assert.deepEqual(site.events, []);
});

test("a wrong token is said also by a supernode that takes longer to say so than others are waited for", { timeout: 20_000 }, async (t) => {
  const site = await startSite(t, "another");
  const slow = await startSlow(t, 400, site.port);
  const { client } = startClient(t, [slow, 1], { connectTimeoutMs: 50, pendingTimeoutMs: 10_000 });
  await assert.rejects(joinWith(client), { code: "TOKEN_REFUSED" });
  await assert.rejects(joinWith(client), { code: "TOKEN_REFUSED" });
});

test("a join in flight survives a supernode that is quickly back", async (t) => {
  const first = await startSite(t);
  const { client, registered, told, next } = startClient(t, [first.port], { connectTimeoutMs: 5_000 });
  await registered;
  const asked = new Promise<void>((resolve) => (first.onMessage = () => resolve()));
  const joining = joinWith(client);
  await asked;
  const lost = next("disconnected");
  await first.close();
  await lost;
  const second = await startSite(t, "token", first.port);
  answerJoins(second);
  assert.equal((await joining).ticket, "t.t");
  assert.deepEqual(told, ["registered", "disconnected", "registered"]);
});

test("a supernode that goes away and stays away is waited for a moment, as at the start", { timeout: 20_000 }, async (t) => {
  const site = await startSite(t);
  const { client, registered, next } = startClient(t, [site.port], { connectTimeoutMs: 200 });
  await registered;
  const asked = new Promise<void>((resolve) => (site.onMessage = () => resolve()));
  const inFlight = joinWith(client);
  await asked;
  const lost = next("disconnected");
  await site.close();
  await lost;
  const waiting = joinWith(client);
  for (const join of [inFlight, waiting]) {
    // oxlint-disable-next-line no-await-in-loop -- cases
    await assert.rejects(join, { code: "SUPERNODE_UNREACHABLE" });
  }
});

test("a join that is given up is left when its answer comes", async (t) => {
  const site = await startSite(t);
  let answer = (): void => {};
  const asked = new Promise<void>((resolve) => {
    site.onMessage = (peer, { type, ...message }) => {
      if (type !== "join" || !("requestId" in message)) return;
      const { requestId } = message;
      answer = () => peer.channel.send({ type: "joined", requestId, task, inline: null, ticket: "t.t", neighbours: [], imports: [], lengthSignature: null });
      resolve();
    };
  });
  const { client, registered } = startClient(t, [site.port]);
  await registered;
  const giving = new AbortController();
  const joining = joinWith(client, giving.signal);
  await asked;
  giving.abort();
  await assert.rejects(joining, { code: "ABORTED" });
  const left = new Promise<PeerMessage>((resolve) => (site.onMessage = (_peer, message) => resolve(message)));
  answer();
  assert.deepEqual(await left, { type: "leave", taskId });
});

test("a task that is left while the connection breaks is left again when there is one, unless it was joined since", async (t) => {
  const site = await startSite(t);
  answerJoins(site);
  const { client, registered, next } = startClient(t, [site.port]);
  await registered;
  await joinWith(client);
  const others = ["e", "f"].map((letter) => letter.repeat(64) as TaskId);
  client.send({ type: "leave", taskId });
  client.send({ type: "leave", taskId: others[0] as TaskId });
  await joinWith(client);
  const disconnected = next("disconnected");
  await site.close();
  await disconnected;
  client.send({ type: "leave", taskId: others[1] as TaskId });
  const again = await startSite(t, "token", site.port);
  const registeredAgain = next("registered");
  answerJoins(again);
  const joined = joinWith(client);
  await Promise.all([registeredAgain, joined]);
  assert.deepEqual(again.messages.map((message) => [message.type, "taskId" in message ? message.taskId : ""]), [["leave", others[0]], ["leave", others[1]], ["join", taskId]]);
});

/** Registers a second time, at a new supernode on the same port. @returns what that one hears first */
async function leftAgain(t: TestContext, site: Site, next: (event: string) => Promise<void>, count: number): Promise<readonly PeerMessage[]> {
  const disconnected = next("disconnected");
  await site.close();
  await disconnected;
  const again = await startSite(t, "token", site.port);
  await new Promise<void>((resolve) => (again.onMessage = () => again.messages.length < count || resolve()));
  return again.messages;
}

const taskIdOf = (number: number): TaskId => number.toString(16).padStart(64, "0") as TaskId;

test("what was left long before the connection broke has arrived, and is not said again", async (t) => {
  let laterMs = 0;
  const nowMs = performance.now.bind(performance);
  t.mock.method(performance, "now", () => nowMs() + laterMs);
  const site = await startSite(t);
  const { client, registered, next } = startClient(t, [site.port]);
  await registered;
  client.send({ type: "leave", taskId: taskIdOf(1) });
  laterMs = 61_000;
  client.send({ type: "leave", taskId: taskIdOf(2) });
  assert.deepEqual(await leftAgain(t, site, next, 1), [{ type: "leave", taskId: taskIdOf(2) }]);
});

test("of very many tasks that were left of late the latest are said again", async (t) => {
  const site = await startSite(t);
  const { client, registered, next } = startClient(t, [site.port]);
  await registered;
  for (let number = 1; number <= 300; number++) client.send({ type: "leave", taskId: taskIdOf(number) });
  const heard = await leftAgain(t, site, next, 256);
  assert.deepEqual(heard, Array.from({ length: 256 }, (_, at) => ({ type: "leave", taskId: taskIdOf(45 + at) })));
});

test("who only asked what a file is and has gone is no member, and leaves nothing", async (t) => {
  const site = await startSite(t);
  const { client, registered } = startClient(t, [site.port]);
  await registered;
  const asked = new Promise<{ readonly peer: ConnectedPeer; readonly requestId: number }>((resolve) => {
    site.onMessage = (peer, message) => message.type === "join" && resolve({ peer, requestId: message.requestId });
  });
  const giving = new AbortController();
  const asking = client.join(source, { download: false, signal: giving.signal });
  const { peer, requestId } = await asked;
  giving.abort();
  await assert.rejects(asking, { code: "ABORTED" });
  site.messages.length = 0;
  const heard = new Promise<PeerMessage>((resolve) => (site.onMessage = (_peer, message) => resolve(message)));
  peer.channel.send({ type: "joined", requestId, task, inline: null, ticket: null, neighbours: [], imports: [], lengthSignature: null });
  // Answered in order: whatever is said to the first answer comes before the second question.
  peer.channel.send({ type: "joined", requestId, task: { ...task, taskId: taskIdOf(1) }, inline: null, ticket: "t.t", neighbours: [], imports: [], lengthSignature: null });
  assert.deepEqual(await heard, { type: "leave", taskId: taskIdOf(1) });
});

test("a slice of an origin's budget that is asked for when the connection breaks does not come: who waits is told", async (t) => {
  const site = await startSite(t);
  const { client, registered, next } = startClient(t, [site.port]);
  await registered;
  const asked = new Promise<void>((resolve) => (site.onMessage = () => resolve()));
  const slice = client.leaseOrigin("origin:80", "bytes");
  await asked;
  const lost = next("disconnected");
  await site.close();
  assert.equal(await slice, undefined);
  await lost;
  assert.equal(await client.leaseOrigin("origin:80", "bytes"), undefined, "nor is one waited for without a supernode");
});

test("a slice of an origin's budget comes to who asked for it", async (t) => {
  const site = await startSite(t);
  site.onMessage = ({ channel }) => {
    if (site.messages.length < 2) return;
    // The later question first.
    for (const asked of site.messages.toReversed()) {
      if (asked.type === "originLease") channel.send({ type: "originLeased", requestId: asked.requestId, amount: asked.kind === "bytes" ? 7 : null, forMs: 50 });
    }
  };
  const { client, registered } = startClient(t, [site.port]);
  await registered;
  assert.deepEqual(await Promise.all([client.leaseOrigin("a:80", "bytes"), client.leaseOrigin("b:80", "requests")]), [{ amount: 7, forMs: 50 }, { amount: null, forMs: 50 }]);
});

test("each time that a supernode goes away the log says once why there is none", async (t) => {
  const site = await startSite(t);
  const warned: string[] = [];
  let isTold = (): void => {};
  const log = { ...silentLog, warn: (_fields: object, message: string) => (warned.push(message), isTold()) } as unknown as typeof silentLog;
  const { registered, next } = startClient(t, [1, site.port], { log });
  await registered;
  assert.equal(warned.length, 1);
  const told = new Promise<void>((resolve) => (isTold = () => warned.length === 3 && resolve()));
  const registeredAgain = next("registered");
  (site.peers.get("host-1" as PeerId) as ConnectedPeer).channel.close();
  await Promise.all([told, registeredAgain]);
  assert.match(warned[0] as string, /cannot register/);
  assert.match(warned[1] as string, /connection to the supernode lost/);
  assert.equal(warned[2], warned[0]);
});

test("a supernode that refuses our token keeps nobody from the next one, nor once that is back", { timeout: 20_000 }, async (t) => {
  const refusing = await startSite(t, "another");
  const gone = await startSite(t);
  await gone.close();
  const { client, registered, next } = startClient(t, [refusing.port, gone.port], { connectTimeoutMs: 60_000 });
  await assert.rejects(joinWith(client), { code: "TOKEN_REFUSED" });
  const site = await startSite(t, "token", gone.port);
  answerJoins(site);
  await registered;
  assert.equal((await joinWith(client)).ticket, "t.t");
  const lost = next("disconnected");
  (site.peers.get("host-1" as PeerId) as ConnectedPeer).channel.close();
  await lost;
  assert.equal((await joinWith(client)).ticket, "t.t", "asked while the first refuses again");
});

/** What keeps this process from its end. */
const timerCount = (): number => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;

test("a client that is closed ends whoever waits for an answer, and keeps no process from its end", { timeout: 20_000 }, async (t) => {
  const site = await startSite(t);
  const before = timerCount();
  const { client, registered } = startClient(t, [site.port]);
  await registered;
  const asked = new Promise<void>((resolve) => (site.onMessage = () => site.messages.length === 2 && resolve()));
  const joining = joinWith(client);
  const slice = client.leaseOrigin("origin:80", "bytes");
  await asked;
  client.close();
  await assert.rejects(joining, { code: "SHUTTING_DOWN" });
  assert.equal(await slice, undefined);
  assert.equal(timerCount(), before);
});

test("nor does one that is closed between two attempts", { timeout: 20_000 }, async (t) => {
  const before = timerCount();
  let failed = (): void => {};
  const log = { ...silentLog, warn: () => failed() };
  const { client } = startClient(t, [1], { log });
  await new Promise<void>((resolve) => (failed = resolve));
  const joining = joinWith(client);
  // The next attempt is set for then.
  await new Promise((resolve) => setImmediate(resolve));
  client.close();
  await assert.rejects(joining, { code: "SHUTTING_DOWN" });
  assert.equal(timerCount(), before);
});

test("a client that is closed while a supernode keeps it waiting lets go of the connection", { timeout: 10_000 }, async (t) => {
  const server = createServer();
  t.after(() => (server.closeAllConnections(), server.close()));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const reached = new Promise<Socket>((resolve) => {
    server.on("upgrade", (_request, socket: Socket) => {
      socket.on("error", () => {}).on("end", () => socket.destroy()).resume();
      socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: dragonfly-control/1\r\n\r\n", () => resolve(socket));
    });
  });
  const { client } = startClient(t, [(server.address() as AddressInfo).port], { connectTimeoutMs: 60_000 });
  const socket = await reached;
  // The answer is in, and nothing follows it.
  await new Promise((resolve) => setTimeout(resolve, 50));
  client.close();
  await ended(socket);
});

test("what was said before a client is closed still arrives", { timeout: 20_000 }, async (t) => {
  const site = await startSite(t);
  const { client, registered } = startClient(t, [site.port]);
  await registered;
  const all = new Promise<void>((resolve) => (site.onMessage = () => site.messages.length === 200 && resolve()));
  const lost = Array.from({ length: 256 }, (_, at) => `${"h".repeat(90)}${at}` as PeerId);
  for (let at = 0; at < 200; at++) client.send({ type: "needNeighbours", taskId, lost });
  client.close();
  await all;
});

test("a peer that reconnects before its loss was noticed replaces itself", async (t) => {
  const site = await startSite(t);
  const first = startClient(t, [site.port]);
  await first.registered;
  first.client.close();
  const second = startClient(t, [site.port]);
  await second.registered;
  assert.equal(site.peers.size, 1);
  assert.equal(site.events.filter((event) => event.startsWith("+")).length, 2);
});

test("of a peer that connects a second time the first connection ends, and is lost only once", async (t) => {
  const site = await startSite(t);
  const first = startClient(t, [site.port]);
  await first.registered;
  const lost = first.next("disconnected").then(() => first.client.close());
  const second = startClient(t, [site.port]);
  await second.registered;
  await lost;
  answerJoins(site);
  await joinWith(second.client);
  assert.deepEqual(site.events, ["+host-1", "-host-1", "+host-1"]);
  assert.equal(site.peers.size, 1);
});

test("a peer that calls itself by the supernode's id is let go", async (t) => {
  const site = await startSite(t);
  const impostor = startClient(t, [site.port], { peerId: ownPeerId });
  const honest = startClient(t, [site.port]);
  await Promise.race([honest.registered, impostor.registered]);
  answerJoins(site);
  await joinWith(honest.client);
  assert.deepEqual(site.events, ["+host-1"]);
  assert.deepEqual(impostor.told, []);
});

function dial(port: number, bytes: Uint8Array | string): Promise<Socket> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => {
      socket.write(bytes);
      resolve(socket);
    });
    socket.on("error", () => {});
    socket.resume();
  });
}

function ended(socket: Socket): Promise<void> {
  return socket.destroyed ? Promise.resolve() : new Promise((resolve) => socket.on("close", () => resolve()));
}

function frame(value: unknown): Buffer {
  const json = Buffer.from(JSON.stringify(value));
  const header = Buffer.alloc(4);
  header.writeUInt32BE(json.length);
  return Buffer.concat([header, json]);
}

test("nonsense ends its own connection and nothing else", async (t) => {
  const site = await startSite(t, "token", 0, 100, 300);
  answerJoins(site);
  const { client, registered } = startClient(t, [site.port]);
  await registered;
  const nonsense = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 300 }),
    fc.json().map((json) => frame(JSON.parse(json))),
    fc.constantFrom(
      frame({ type: "register", host }),
      frame({ type: "hello", version: 1, peerId: "host-9", nonce: "A".repeat(22), proof: "A".repeat(43) }),
      frame({ type: "welcome", peerId: "host-9", proof: "A".repeat(43) }),
      frame({ type: "join", requestId: 1, source, download: true }),
      Buffer.from([0xff, 0xff, 0xff, 0xff]),
      Buffer.from([0, 1, 0, 1, 0x7b]),
    ),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(nonsense, { minLength: 1, maxLength: 4 }), async (parts) => {
      const socket = await dial(site.port, UPGRADE);
      for (const part of parts) socket.write(part);
      await ended(socket);
    }),
    { numRuns: 60 },
  );
  assert.deepEqual(site.events, ["+host-1"]);
  assert.equal((await joinWith(client)).ticket, "t.t");
});

test("who does not introduce itself in time is let go, however slowly it talks", async (t) => {
  const site = await startSite(t, "token", 0, 100, 300);
  const silent = await dial(site.port, UPGRADE);
  const slow = await dial(site.port, UPGRADE);
  const timer = setInterval(() => slow.write(Buffer.from([0])), 20);
  await Promise.all([ended(silent), ended(slow)]);
  clearInterval(timer);
  const { registered } = startClient(t, [site.port]);
  await registered;
});

test("another protocol and another path are refused", async (t) => {
  const site = await startSite(t);
  for (const request of [UPGRADE.replace("control/1", "control/9"), UPGRADE.replace("/v1/control", "/v1/other")]) {
    // oxlint-disable-next-line no-await-in-loop -- cases
    await ended(await dial(site.port, request));
  }
  const server = createServer((_request, response) => response.end("hello")).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.on("listening", resolve));
  t.after(() => server.close());
  const { client } = startClient(t, [(server.address() as AddressInfo).port]);
  await assert.rejects(joinWith(client), { code: "SUPERNODE_UNREACHABLE", message: /is it a supernode/ });
});

test("registered peers that break the rules lose their connection", async (t) => {
  const site = await startSite(t);
  for (const message of [{ type: "register", host }, { type: "join", requestId: -1 }, { type: "what" }]) {
    const { client, registered, next } = startClient(t, [site.port]);
    // oxlint-disable-next-line no-await-in-loop -- cases
    await registered;
    const lost = next("disconnected");
    client.send(message as Parameters<ControlClient["send"]>[0]);
    // oxlint-disable-next-line no-await-in-loop -- cases
    await lost;
    client.close();
  }
});

test("a supernode that is full says so, and takes the next one when there is room", async (t) => {
  const site = await startSite(t, "token", 0, 1);
  const first = startClient(t, [site.port]);
  await first.registered;
  const second = startClient(t, [site.port], { peerId: "host-2" as PeerId });
  await assert.rejects(joinWith(second.client), (error: AppError) => {
    assert.equal(error.code, "SUPERNODE_UNREACHABLE");
    assert.match(error.message, /takes no more peers/);
    return true;
  });
  first.client.close();
  await second.registered;
});
