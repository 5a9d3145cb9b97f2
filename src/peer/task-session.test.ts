import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test, type TestContext } from "node:test";
import type { RateFlow } from "../base/rate-budget.ts";
import type { TaskId } from "../protocol/ids.ts";
import { PieceSet } from "../protocol/piece-set.ts";
import { SigningKey } from "./membership/credentials.ts";
import { OWN_CLOCK } from "./membership/tickets.ts";
import type { StoredTask } from "./store/piece-store.ts";
import type { TaskAccount } from "./task-account.ts";
import { TaskSession } from "./task-session.ts";

function open() {
  const said: string[] = [];
  const stored = {
    have: new PieceSet(),
    record: { taskId: "a".repeat(64) as TaskId, publicKey: SigningKey.generate().publicKey, lengthBytes: 2_500, pieceLengthBytes: 1_000 },
    release: () => said.push("released"),
    onLost: () => () => said.push("listens no more"),
  } as unknown as StoredTask;
  const flow = {} as RateFlow;
  const session = new TaskSession(stored, { upload: flow, download: flow }, OWN_CLOCK, {} as TaskAccount, () => undefined);
  return { session, stored, said };
}

test("files from which a transfer reads stay open until it is over, though the task is let go of", () => {
  const { session, said } = open();
  session.pin();
  session.pin();
  session.release();
  session.unpin();
  assert.deepEqual(said, ["listens no more"]);
  session.unpin();
  assert.deepEqual(said, ["listens no more", "released"]);
});

test("the end of a transfer closes no files of a task that is open", () => {
  const { session, said } = open();
  session.pin();
  session.unpin();
  assert.deepEqual(said, []);
  session.release();
  assert.deepEqual(said, ["listens no more", "released"]);
});

/** Whether it is over by now. */
async function isOver(wait: Promise<void>): Promise<boolean> {
  let over = false;
  void wait.then(() => (over = true));
  for (let turn = 0; turn < 5; turn++) await Promise.resolve();
  return over;
}

test("a wait ends with enough news, with its time, or with its signal, and leaves nothing at the signal", async (t: TestContext) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { session } = open();
  const stop = new AbortController();
  let isEnough = false;
  const woken = session.changed(1_000, stop.signal, () => isEnough);
  session.wake();
  assert.equal(await isOver(woken), false, "not enough yet");
  isEnough = true;
  session.wake();
  assert.equal(await isOver(woken), true);
  const timed = session.changed(1_000, stop.signal);
  t.mock.timers.tick(999);
  assert.equal(await isOver(timed), false);
  t.mock.timers.tick(1);
  assert.equal(await isOver(timed), true);
  assert.deepEqual(getEventListeners(stop.signal, "abort"), []);
  const given = session.changed(1_000, stop.signal);
  stop.abort();
  assert.equal(await isOver(given), true);
  assert.equal(await isOver(session.changed(1_000, stop.signal)), true, "given up before");
});

test("what is held is as long as the file has it, and what fits is what the file has there", () => {
  const { session, stored } = open();
  stored.have.add(0);
  assert.equal(session.heldBytes, 1_000);
  stored.have.add(2);
  assert.equal(session.heldBytes, 1_500);
  assert.deepEqual([[0, 1_000], [0, 999], [2, 500], [2, 1_000], [3, 1]].map(([piece, bytes]) => session.fits(piece as number, bytes as number)), [true, false, true, false, false]);
  assert.deepEqual([0, 2, 3].map((piece) => session.lengthOf(piece)), [1_000, 500, undefined]);
});
