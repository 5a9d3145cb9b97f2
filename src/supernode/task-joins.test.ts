/** Joins: who is answered, how long his ticket is good, and what is remembered of him. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../base/errors.ts";
import type { ControlChannel } from "../peer/control/control-channel.ts";
import { SignatureVerifier, SigningKey } from "../peer/membership/credentials.ts";
import { TicketVerifier } from "../peer/membership/tickets.ts";
import type { Source, SupernodeToPeer } from "../protocol/control-messages.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import { PieceSet } from "../protocol/piece-set.ts";
import type { SchedulerInput } from "../scheduler/index.ts";
import { FakeOrigin, FakeStore, resolvedTask, seedLab, silentLog } from "./cache/seed-fixture.test.ts";
import { SupernodeMetrics } from "./metrics.ts";
import { type ConnectedPeer, PeerTable } from "./peer-table.ts";
import { TaskJoins } from "./task-joins.ts";
import type { ResolvedTask } from "./tasks/task-resolver.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const GRANT_MS = 10 * MINUTE_MS;
const PUBLIC: Source = { url: "http://origin/file", headers: {} };
const PRIVATE: Source = { ...PUBLIC, headers: { authorization: "Bearer token" } };

function lab() {
  const key = SigningKey.generate();
  const { seeds } = seedLab(new FakeOrigin(Buffer.alloc(200_000)), new FakeStore(), key);
  const base = resolvedTask(new FakeOrigin(Buffer.alloc(200_000)), key);
  const clock = { unixMs: 1_000_000_000 };
  const pushed: Extract<SchedulerInput, { type: "taskJoined" }>[] = [];
  const peers = new PeerTable(() => 0);
  /** What the origin says. */
  const origin: { answer: () => Partial<ResolvedTask> } = { answer: () => ({}) };
  const joins = new TaskJoins({
    resolver: {
      resolve: async (source) => {
        await Promise.resolve();
        return { ...base, source, ...origin.answer() };
      },
    },
    seeds,
    inline: () => Promise.reject(new AppError("INTERNAL", "not asked for")),
    push: (input) => void (input.type === "taskJoined" && pushed.push(input)),
    peers,
    key,
    metrics: new SupernodeMetrics("0"),
    log: silentLog,
    unixMs: () => clock.unixMs,
    grantMs: GRANT_MS,
  });
  const connect = (id: string, keeper = false): { readonly peer: ConnectedPeer; readonly sent: SupernodeToPeer[] } => {
    const sent: SupernodeToPeer[] = [];
    const host = { address: "", port: 9, name: id, program: "dfdaemon", version: "0", labels: {} } as const;
    const channel = { send: (message: SupernodeToPeer) => sent.push(message) } as unknown as ControlChannel;
    const peer = { peerId: id as PeerId, host, place: { topology: {}, sources: {} }, keeper, remoteAddress: "10.0.0.7", localAddress: "10.0.0.1", connectedUnixMs: 0, channel };
    peers.add(peer);
    return { peer, sent };
  };
  /** Joins, and is answered by the scheduler if it hears of it. @returns what the peer is told */
  const join = async ({ peer, sent }: ReturnType<typeof connect>, source: Source, more: { taskId?: TaskId; have?: string } = {}): Promise<SupernodeToPeer | undefined> => {
    const before = sent.length;
    const known = pushed.length;
    joins.join(peer, { type: "join", requestId: 7, source, download: true, ...more });
    for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
    for (const { requestId } of pushed.slice(known)) joins.assigned(requestId, { neighbours: [], imports: [] }, () => undefined);
    return sent[before];
  };
  const verifierAt = (unixMs: number, outageSinceUnixMs?: number): TicketVerifier =>
    new TicketVerifier(new SignatureVerifier(key.publicKey), { unixMs: () => unixMs, outageSinceUnixMs: () => outageSinceUnixMs });
  return { joins, seeds, clock, pushed, origin, connect, join, verifierAt, taskId: base.taskId };
}

function ticketOf(answer: SupernodeToPeer | undefined): string {
  assert.equal(answer?.type, "joined");
  return (answer as { ticket: string }).ticket;
}

const codeOf = (answer: SupernodeToPeer | undefined): string | undefined => (answer?.type === "joinFailed" ? answer.code : answer?.type);
const runOut = (): never => {
  throw new AppError("ORIGIN_UNAUTHORIZED", "the token has run out");
};

test("a ticket of private content is good for half a grant, of public for twelve hours", async () => {
  const { join, connect, clock, verifierAt, taskId } = lab();
  const alice = connect("alice");
  for (const [source, lifeMs] of [[PRIVATE, GRANT_MS / 2], [PUBLIC, 12 * HOUR_MS]] as const) {
    // oxlint-disable-next-line no-await-in-loop -- cases
    const ticket = ticketOf(await join(alice, source));
    verifierAt(clock.unixMs + lifeMs - 1).verify(ticket, taskId, "alice" as PeerId);
    assert.throws(() => verifierAt(clock.unixMs + lifeMs).verify(ticket, taskId, "alice" as PeerId), { code: "TICKET_REFUSED" });
    assert.throws(() => verifierAt(clock.unixMs).verify(ticket, taskId, "bob" as PeerId), { code: "TICKET_REFUSED" });
  }
});

test("without a supernode a ticket of private content is good for half an hour more", async () => {
  const { join, connect, clock, verifierAt, taskId } = lab();
  const ticket = ticketOf(await join(connect("alice"), PRIVATE));
  const endMs = clock.unixMs + GRANT_MS / 2 + 30 * MINUTE_MS;
  verifierAt(endMs - 1, clock.unixMs).verify(ticket, taskId, "alice" as PeerId);
  assert.throws(() => verifierAt(endMs, clock.unixMs).verify(ticket, taskId, "alice" as PeerId), { code: "TICKET_REFUSED" });
});

test("a token that has run out ends no download within an hour of the origin's word, and any after it", async () => {
  const { join, connect, clock, origin, taskId } = lab();
  const alice = connect("alice");
  await join(alice, PRIVATE);
  origin.answer = runOut;
  clock.unixMs += HOUR_MS - 1;
  assert.equal(codeOf(await join(alice, PRIVATE, { taskId })), "joined");
  clock.unixMs += 1;
  assert.equal(codeOf(await join(alice, PRIVATE, { taskId })), "ORIGIN_UNAUTHORIZED");
});

test("what the origin said before it could not be asked does not count as its word again", async () => {
  const { join, connect, clock, origin, taskId } = lab();
  const alice = connect("alice");
  await join(alice, PRIVATE);
  clock.unixMs += HOUR_MS;
  origin.answer = () => ({ info: undefined });
  assert.equal(codeOf(await join(alice, PRIVATE, { taskId })), "joined");
  origin.answer = runOut;
  assert.equal(codeOf(await join(alice, PRIVATE, { taskId })), "ORIGIN_UNAUTHORIZED");
});

test("only a member that still reads goes on with a token that has run out", async () => {
  const { joins, join, connect, origin, taskId } = lab();
  const alice = connect("alice");
  const bob = connect("bob");
  await join(alice, PRIVATE);
  origin.answer = runOut;
  assert.equal(codeOf(await join(bob, PRIVATE, { taskId })), "ORIGIN_UNAUTHORIZED", "no member");
  assert.equal(codeOf(await join(alice, PRIVATE, { taskId: "f".repeat(64) as TaskId })), "ORIGIN_UNAUTHORIZED", "of another task");
  assert.equal(codeOf(await join(alice, PUBLIC, { taskId })), "ORIGIN_UNAUTHORIZED", "brought nothing that could have run out");
  joins.progressed(alice.peer.peerId, taskId, { type: "progress", taskId, pieceCount: 4, complete: true, sources: { seedBytes: 1, peerBytes: 0, originBytes: 0 }, explanation: undefined });
  assert.equal(codeOf(await join(alice, PRIVATE, { taskId })), "ORIGIN_UNAUTHORIZED", "has all of it");
});

test("who has left has to be let in again", async () => {
  const { joins, join, connect, origin, taskId } = lab();
  const alice = connect("alice");
  await join(alice, PRIVATE);
  joins.left(alice.peer.peerId, taskId);
  assert.deepEqual(joins.membersOf(taskId), []);
  origin.answer = runOut;
  assert.equal(codeOf(await join(alice, PRIVATE, { taskId })), "ORIGIN_UNAUTHORIZED");
});

test("only a keeper follows an invitation, and only to what others are at; it does not go on with a token", async () => {
  const { join, connect, origin, taskId } = lab();
  const invited: Source = { ...PRIVATE, invited: true };
  const keeper = connect("keeper", true);
  assert.equal(codeOf(await join(keeper, invited, { taskId })), "TASK_UNKNOWN", "nobody is at it");
  await join(connect("alice"), PRIVATE);
  assert.equal(codeOf(await join(connect("bob"), invited, { taskId })), "TASK_UNKNOWN", "no keeper");
  assert.equal(codeOf(await join(keeper, invited)), "TASK_UNKNOWN", "to nothing");
  assert.equal(codeOf(await join(keeper, invited, { taskId })), "joined");
  origin.answer = runOut;
  assert.equal(codeOf(await join(keeper, PRIVATE, { taskId })), "ORIGIN_UNAUTHORIZED");
});

test("what a peer says that it holds counts for the task that it says it of", async () => {
  const { join, connect, pushed, taskId } = lab();
  const have = new PieceSet();
  have.add(0);
  have.add(2);
  const told = Buffer.from(have.toBytes()).toString("base64");
  const alice = connect("alice");
  await join(alice, PUBLIC, { taskId, have: told });
  await join(alice, PUBLIC, { taskId: "f".repeat(64) as TaskId, have: told });
  assert.deepEqual(pushed.map(({ pieceCount, totalCount }) => [pieceCount, totalCount]), [[2, 4], [undefined, 4]]);
});

test("who is gone, or has come back, while the origin was asked is no member, and hears nothing of it", async () => {
  const { joins, connect, pushed, origin, taskId } = lab();
  const first = connect("alice");
  origin.answer = () => {
    connect("alice");
    return {};
  };
  joins.join(first.peer, { type: "join", requestId: 7, source: PUBLIC, download: true });
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([pushed.length, first.sent.length, joins.isActive(taskId)], [0, 0, false]);
});

test("a connection that has ended is not answered, others are", async () => {
  const { joins, connect, pushed } = lab();
  const [alice, bob] = [connect("alice"), connect("bob")];
  for (const { peer } of [alice, bob]) joins.join(peer, { type: "join", requestId: 7, source: PUBLIC, download: true });
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
  joins.disconnected(alice.peer);
  for (const { requestId } of pushed) joins.assigned(requestId, { neighbours: [], imports: [] }, () => undefined);
  assert.deepEqual([alice.sent.length, bob.sent.length], [0, 1]);
});

test("a caller is told of a file in the words of the origin that he asked", async () => {
  const { join, connect, origin } = lab();
  await join(connect("alice"), PUBLIC);
  origin.answer = () => {
    const other = resolvedTask(new FakeOrigin(Buffer.alloc(200_000)), SigningKey.generate());
    return { record: { ...other.record, contentType: "text/other", headers: { "x-secret-of": "bob" } } };
  };
  const bob = await join(connect("bob"), PUBLIC);
  assert.equal(bob?.type === "joined" && bob.task.contentType, "text/other");
  origin.answer = () => ({});
  const carol = await join(connect("carol"), PUBLIC);
  assert.doesNotMatch(JSON.stringify(carol), /secret-of/);
});
