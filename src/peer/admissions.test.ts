import assert from "node:assert/strict";
import { mock, test } from "node:test";
import type { TicketClaims } from "../protocol/control-messages.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import { Admissions } from "./admissions.ts";

const taskId = "a".repeat(64) as TaskId;

function ticket(expiresUnixMs: number): TicketClaims {
  return { taskId, peerId: "p" as PeerId, expiresUnixMs, outageUnixMs: expiresUnixMs };
}

test("an admission ends with its ticket; a newer ticket replaces it, an outage lengthens it, a neighbour that left is let be", (t) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  let nowMs = 0;
  let extraMs = 0;
  const over: number[] = [];
  const admissions = new Admissions((linkId) => over.push(linkId));
  const remainingMs = ({ expiresUnixMs }: TicketClaims): number => Math.max(0, expiresUnixMs + extraMs - nowMs);
  const pass = (ms: number): void => {
    nowMs += ms;
    mock.timers.tick(ms);
  };
  for (const linkId of [1, 2, 3, 4]) admissions.admit(linkId, taskId, ticket(100), remainingMs);
  admissions.admit(2, taskId, ticket(200), remainingMs);
  admissions.end(3, taskId);
  admissions.endLink(4);
  pass(99);
  assert.deepEqual(over, []);
  pass(1);
  assert.deepEqual(over, [1]);
  extraMs = 50;
  pass(100);
  assert.deepEqual(over, [1], "it ran out in an outage");
  pass(50);
  assert.deepEqual(over, [1, 2]);
  admissions.admit(5, taskId, ticket(1000), remainingMs);
  admissions.close();
  pass(2000);
  assert.deepEqual(over, [1, 2]);
});

test("tickets of many lengths share a few timers' lengths: Node keeps a list of each for hours", (t) => {
  const setTimeout = t.mock.method(globalThis, "setTimeout");
  const admissions = new Admissions(() => assert.fail("hours too early"));
  for (let i = 0; i < 1_000; i++) admissions.admit(1, taskId, ticket(0), () => 12 * 3_600_000 - i);
  admissions.close();
  assert.ok(new Set(setTimeout.mock.calls.map((call) => call.arguments[1])).size <= 2);
});
