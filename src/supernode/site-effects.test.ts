/** What the scheduler decides, done; and what a peer says, passed on as his. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ControlChannel } from "../peer/control/control-channel.ts";
import { SigningKey } from "../peer/membership/credentials.ts";
import type { SupernodeToPeer } from "../protocol/control-messages.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import type { SchedulerInput } from "../scheduler/index.ts";
import { silentLog } from "./cache/seed-fixture.test.ts";
import type { OriginSlice } from "./origin-budgets.ts";
import { type ConnectedPeer, PeerTable } from "./peer-table.ts";
import { SiteEffects, type SiteEffectsDeps } from "./site-effects.ts";

const ownPeerId = "seed" as PeerId;
const taskId = "d".repeat(64) as TaskId;
const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
};

function lab() {
  /** Calls of seeds, desk, joins and meter, in order. */
  const done: string[] = [];
  const pushed: SchedulerInput[] = [];
  const lent = new Set<TaskId>();
  const asked: { readonly signal: AbortSignal; readonly give: (slice: OriginSlice) => void }[] = [];
  const peers = new PeerTable(() => 0);
  const note = (what: string) => (): void => void done.push(what);
  const joins = { forget: note("joins.forget"), disconnected: note("joins.disconnected"), left: note("joins.left") };
  const effects = new SiteEffects({
    ownPeerId,
    advertised: { host: undefined, port: 1 },
    peers,
    budgets: {
      lease: (_host, _kind, signal) =>
        new Promise((give, fail) => {
          asked.push({ signal, give });
          signal.addEventListener("abort", () => fail(new Error("given up")));
        }),
    },
    seeds: { get: () => undefined, grantLease: note("seeds.grantLease"), connect: note("seeds.connect"), disconnect: note("seeds.disconnect"), forget: note("seeds.forget") },
    desk: { isActive: (id) => lent.has(id), granted: () => lent.has(taskId), revoked: note("desk.revoked"), failed: note("desk.failed"), nobodyReads: note("desk.nobodyReads"), end: note("desk.end") },
    joins: joins as unknown as SiteEffectsDeps["joins"],
    meter: { forget: note("meter.forget") },
    key: SigningKey.generate(),
    metrics: { originReads: { inc: () => {} } } as unknown as SiteEffectsDeps["metrics"],
    push: (input) => void pushed.push(input),
    log: silentLog,
    unixMs: () => 0,
  });
  const connect = (id: string): { readonly peer: ConnectedPeer; readonly sent: SupernodeToPeer[] } => {
    const sent: SupernodeToPeer[] = [];
    const host = { address: "", port: 9, name: id, program: "dfdaemon", version: "0", labels: {} } as const;
    const channel = { send: (message: SupernodeToPeer) => sent.push(message) } as unknown as ControlChannel;
    const peer = { peerId: id as PeerId, host, place: { topology: {}, sources: {} }, keeper: false, remoteAddress: "10.0.0.7", localAddress: "10.0.0.1", connectedUnixMs: 0, channel };
    peers.add(peer);
    return { peer, sent };
  };
  const ask = (peer: ConnectedPeer, requestId = 1): void => effects.peerSaid(peer, { type: "originLease", requestId, host: "h", kind: "bytes" });
  return { effects, peers, done, pushed, lent, asked, connect, ask };
}

test("a task that rests takes no more from those who read for it, and its files are let go; one that is forgotten leaves nothing", () => {
  const { effects, done } = lab();
  effects.execute({ type: "restTask", taskId });
  assert.deepEqual(done.splice(0), ["desk.end", "seeds.forget"]);
  effects.execute({ type: "forgetTask", taskId });
  assert.deepEqual(done, ["desk.end", "joins.forget", "seeds.forget", "meter.forget"]);
});

test("the seed reads nothing that peers read for it meanwhile", () => {
  const { effects, done, pushed, lent } = lab();
  lent.add(taskId);
  effects.execute({ type: "grantLease", taskId, holder: ownPeerId });
  assert.deepEqual([done, pushed], [[], [{ type: "originRead", taskId, holder: ownPeerId, outcome: "failed" }]]);
  lent.clear();
  effects.execute({ type: "grantLease", taskId, holder: ownPeerId });
  assert.deepEqual(done, ["seeds.grantLease"]);
});

test("a span of a task that nobody reads any more is lent to nobody", () => {
  const { effects, lent, connect } = lab();
  const { sent } = connect("host");
  const span = { type: "grantSpan", taskId, holder: "host" as PeerId, leaseId: 1, firstPiece: 0, endPiece: 2 } as const;
  effects.execute(span);
  assert.deepEqual(sent, []);
  lent.add(taskId);
  effects.execute(span);
  assert.deepEqual(sent, [{ type: "lease", taskId, leaseId: 1, firstPiece: 0, endPiece: 2 }]);
});

test("who goes takes nothing more of a budget, and one who has come back is not given what he asked for before", async () => {
  const { effects, asked, connect, ask } = lab();
  const gone = connect("host");
  ask(gone.peer);
  effects.peerDisconnected(gone.peer);
  assert.equal(asked[0]?.signal.aborted, true);
  const before = connect("other");
  ask(before.peer);
  const after = connect("other");
  asked[1]?.give({ amount: 5, forMs: 1 });
  await turns();
  assert.deepEqual([gone.sent, before.sent, after.sent], [[], [], []]);
});

test("a peer has so many questions for slices under way, and any number one after the other", async () => {
  const { asked, connect, ask } = lab();
  const { peer, sent } = connect("host");
  for (let n = 0; n < 256; n++) ask(peer, n);
  assert.throws(() => ask(peer, 256), { code: "PROTOCOL_VIOLATION" });
  asked[7]?.give({ amount: 5, forMs: 1 });
  await turns();
  assert.deepEqual(sent, [{ type: "originLeased", requestId: 7, amount: 5, forMs: 1 }]);
  ask(peer, 256);
});
