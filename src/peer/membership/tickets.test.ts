import assert from "node:assert/strict";
import { test } from "node:test";
import type { PeerId, TaskId } from "../../protocol/ids.ts";
import { SignatureVerifier, SigningKey } from "./credentials.ts";
import { SupernodeClock } from "./supernode-clock.ts";
import { parseTicket, TicketVerifier } from "./tickets.ts";

const taskId = "a".repeat(64) as TaskId;
const otherTaskId = "b".repeat(64) as TaskId;
const peerId = "host-1" as PeerId;
const claims = { taskId, peerId, expiresUnixMs: 2000, outageUnixMs: 60_000 };

interface Rig {
  readonly key: SigningKey;
  readonly tickets: TicketVerifier;
  readonly time: { unixMs: number; outageSinceUnixMs: number | undefined };
}

function rig(): Rig {
  const key = SigningKey.generate();
  const time: Rig["time"] = { unixMs: 1000, outageSinceUnixMs: undefined };
  const clock = { unixMs: () => time.unixMs, outageSinceUnixMs: () => time.outageSinceUnixMs };
  return { key, tickets: new TicketVerifier(new SignatureVerifier(key.publicKey), clock), time };
}

test("a ticket is good for its peer and task until it expires", () => {
  const { key, tickets, time } = rig();
  const ticket = key.signTicket(claims);
  assert.deepEqual(tickets.verify(ticket, taskId, peerId), claims);
  assert.equal(tickets.remainingMs(claims), 1000);
  assert.throws(() => tickets.verify(ticket, otherTaskId, peerId), { code: "TICKET_REFUSED", message: /another task/ });
  assert.throws(() => tickets.verify(ticket, taskId, "host-2" as PeerId), { code: "TICKET_REFUSED", message: /another peer/ });
  time.unixMs = 2000;
  assert.equal(tickets.remainingMs(claims), 0);
  assert.throws(() => tickets.verify(ticket, taskId, peerId), { code: "TICKET_REFUSED", message: /expired/ });
});

test("a ticket that was good when the supernode went away lasts until its outage end, and no longer than the outage", () => {
  const { key, tickets, time } = rig();
  const ticket = key.signTicket(claims);
  time.outageSinceUnixMs = 1500;
  time.unixMs = 59_999;
  assert.deepEqual(tickets.verify(ticket, taskId, peerId), claims);
  assert.equal(tickets.remainingMs(claims), 1);
  time.unixMs = 30_000;
  assert.equal(tickets.remainingMs(claims), 5000, "to be looked at again: the supernode may be back");
  time.outageSinceUnixMs = undefined;
  assert.throws(() => tickets.verify(ticket, taskId, peerId), { code: "TICKET_REFUSED" });
  time.outageSinceUnixMs = 2000;
  assert.throws(() => tickets.verify(ticket, taskId, peerId), { code: "TICKET_REFUSED" }, "it had run out before");
  time.outageSinceUnixMs = 1500;
  time.unixMs = 60_000;
  assert.throws(() => tickets.verify(ticket, taskId, peerId), { code: "TICKET_REFUSED" });
});

test("a forged ticket is refused", () => {
  const { key, tickets } = rig();
  const ticket = key.signTicket(claims);
  const [, signature] = ticket.split(".");
  const body = Buffer.from(JSON.stringify({ ...claims, taskId: otherTaskId })).toString("base64url");
  const stranger = SigningKey.generate().signTicket(claims);
  const statement = key.signLength(taskId, 1);
  for (const forged of [
    `${body}.${signature}`,
    stranger,
    "",
    ".",
    "a.b.c",
    `${ticket}.`,
    `${ticket.split(".")[0]}.${Buffer.from(statement).toString("base64url")}`,
  ]) {
    assert.throws(() => tickets.verify(forged, taskId, peerId), { code: "TICKET_REFUSED" });
  }
});

test("one's own ticket is read without its signature; what is none says nothing", () => {
  assert.deepEqual(parseTicket(SigningKey.generate().signTicket(claims)), claims);
  for (const none of ["", "x.y", `${Buffer.from("{}").toString("base64url")}.`]) assert.equal(parseTicket(none), undefined);
});

test("the supernode's time is what it said, and what has passed since: this machine's clock may be wrong", () => {
  const machine = { now: 500, unix: 9_000_000 };
  const clock = new SupernodeClock({ nowMs: () => machine.now, unixMs: () => machine.unix });
  assert.equal(clock.unixMs(), 9_000_000);
  clock.registered(1000);
  machine.now += 250;
  machine.unix = 0;
  assert.equal(clock.unixMs(), 1250);
});

test("an outage lasts from the loss of the supernode until tickets could be renewed after its return", () => {
  const machine = { now: 0 };
  const clock = new SupernodeClock({ nowMs: () => machine.now, unixMs: () => machine.now });
  assert.equal(clock.outageSinceUnixMs(), 0, "from the start, there is none yet");
  clock.registered(0);
  assert.equal(clock.outageSinceUnixMs(), undefined);
  machine.now = 50_000;
  clock.disconnected();
  machine.now = 60_000;
  assert.equal(clock.outageSinceUnixMs(), 50_000);
  clock.registered(60_000);
  machine.now = 61_000;
  clock.disconnected();
  assert.equal(clock.outageSinceUnixMs(), 50_000, "it was back for too short a time");
  clock.registered(61_000);
  machine.now = 70_999;
  assert.equal(clock.outageSinceUnixMs(), 50_000);
  machine.now = 71_000;
  assert.equal(clock.outageSinceUnixMs(), undefined);
});

test("of tickets that were found good the last used are remembered, a bounded number of them", () => {
  let checkCount = 0;
  const verifier = { verify: () => ++checkCount > 0 } as unknown as SignatureVerifier;
  const tickets = new TicketVerifier(verifier, { unixMs: () => 1000, outageSinceUnixMs: () => undefined });
  const show = (number: number): void => {
    const body = Buffer.from(JSON.stringify({ ...claims, expiresUnixMs: 2000 + number })).toString("base64url");
    tickets.verify(`${body}.AA`, taskId, peerId);
  };
  for (let number = 0; number < 4096; number++) show(number);
  show(0);
  assert.equal(checkCount, 4096);
  // One more than there is room for: the one that was not used for the longest time goes.
  show(4096);
  show(0);
  assert.equal(checkCount, 4097);
  show(1);
  assert.equal(checkCount, 4098);
});
