import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test, type TestContext } from "node:test";
import { RateGate } from "./rate-gate.ts";

/** A gate on the virtual clock of the test's timers. */
function gateAt(rate: number | undefined, { mock }: Pick<TestContext, "mock">): { gate: RateGate; advance: (ms: number) => Promise<void>; nowMs: () => number } {
  let now = 0;
  mock.timers.enable({ apis: ["setTimeout"] });
  const gate = new RateGate(rate, () => now);
  const advance = async (ms: number): Promise<void> => {
    for (let i = 0; i < ms; i++) {
      now++;
      mock.timers.tick(1);
      // Whoever was let through asks again within the same millisecond.
      for (let turn = 0; turn < 20; turn++) await Promise.resolve();
    }
  };
  return { gate, advance, nowMs: () => now };
}

const never = new AbortController().signal;

test("without a limit everything passes at once, is counted, and sets no timer", (t) => {
  const { gate } = gateAt(undefined, t);
  t.mock.timers.reset();
  const armed = t.mock.method(globalThis, "setTimeout");
  const flow = gate.flow("normal");
  for (let i = 0; i < 100; i++) assert.equal(gate.pass(flow, 1_000_000, () => assert.fail("called")), undefined);
  assert.equal(gate.passedBytes, 100_000_000);
  assert.equal(armed.mock.callCount(), 0);
});

test("a second moves the rate, to 5 %, whatever the size of what is passed", async (t) => {
  const { gate, advance } = gateAt(10_000, t);
  const reader = async (bytes: number): Promise<void> => {
    const flow = gate.flow("normal");
    for (;;) await gate.passed(flow, bytes, never);
  };
  void reader(65_536);
  void reader(1000);
  void reader(17);
  for (let second = 0; second < 10; second++) {
    const before = gate.passedBytes;
    await advance(1000);
    const moved = gate.passedBytes - before;
    assert.ok(Math.abs(moved - 10_000) <= 500, `${moved} in second ${second}`);
  }
});

test("paced bytes come in chunks of a hundredth of a second, all of them and in order", async (t) => {
  const { gate, advance, nowMs } = gateAt(100_000, t);
  const bytes = Uint8Array.from({ length: 20_000 }, (_, i) => i % 251);
  const got: { readonly atMs: number; readonly slice: Uint8Array }[] = [];
  void (async () => {
    for await (const slice of gate.paced(gate.flow("interactive"), bytes, never)) got.push({ atMs: nowMs(), slice });
  })();
  await advance(300);
  assert.deepEqual(Buffer.concat(got.map(({ slice }) => slice)), Buffer.from(bytes));
  assert.ok(got.every(({ slice }) => slice.length <= 1000));
  assert.ok((got.at(-1) as { atMs: number }).atMs >= 170);
});

test("a new rate is felt by those who wait already, also no limit at all", async (t) => {
  const { gate, advance } = gateAt(1000, t);
  const flow = gate.flow("normal");
  let passed = 0;
  const wait = (): void => void gate.passed(flow, 100_000, never).then(() => passed++);
  wait();
  await advance(1000);
  assert.equal(passed, 0);
  gate.setRate(1_000_000);
  await advance(120);
  assert.equal(passed, 1);
  gate.setRate(1000);
  wait();
  await advance(100);
  gate.setRate(undefined);
  await advance(1);
  assert.equal(passed, 2);
  assert.equal(gate.waitingCount, 0);
});

test("who gives up leaves the queue, and the others move up", async (t) => {
  const { gate, advance } = gateAt(1000, t);
  const flow = gate.flow("normal");
  await gate.passed(flow, 64, never);
  const stop = new AbortController();
  const given = gate.passed(flow, 1_000_000, stop.signal);
  await advance(10);
  stop.abort();
  await assert.rejects(given, { code: "ABORTED" });
  await assert.rejects(gate.passed(flow, 1, stop.signal), { code: "ABORTED" });
  assert.equal(gate.waitingCount, 0);
  let isThrough = false;
  void gate.passed(flow, 64, never).then(() => (isThrough = true));
  await advance(200);
  assert.equal(isThrough, true);
});

test("who asks again from within a grant waits his turn, and is called once", async (t) => {
  const { gate, advance } = gateAt(10_000, t);
  const flow = gate.flow("normal");
  let calls = 0;
  const again = (): void => {
    calls++;
    if (gate.pass(flow, 100, again) === undefined) again();
  };
  gate.pass(flow, 100, again);
  gate.pass(flow, 100, again);
  gate.pass(flow, 100, again);
  await advance(1000);
  assert.ok(Math.abs(calls - 100) <= 5, `${calls}`);
});

test("a task that its limit holds back says so, and stops saying so", async (t) => {
  const { gate, advance } = gateAt(1000, t);
  const flow = gate.flow("normal");
  assert.equal(gate.heldBack(flow, 1000), false);
  void gate.passed(flow, 500, never);
  await advance(300);
  assert.equal(gate.heldBack(flow, 1000), true);
  await advance(2000);
  assert.equal(gate.heldBack(flow, 1000), false);
});

test("what has moved already is paid for by those who come after", async (t) => {
  const { gate, advance } = gateAt(10_000, t);
  const flow = gate.flow("normal");
  gate.spend(5_000);
  assert.equal(gate.passedBytes, 5_000);
  let isThrough = false;
  void gate.passed(flow, 64, never).then(() => (isThrough = true));
  await advance(400);
  assert.equal(isThrough, false);
  await advance(200);
  assert.equal(isThrough, true);
});

test("a task's own limit is felt by those who wait already, also no limit any more", async (t) => {
  const { gate, advance } = gateAt(undefined, t);
  const flow = gate.flow("normal");
  gate.setFlowLimit(flow, 100);
  let isThrough = false;
  void gate.passed(flow, 10_000, never).then(() => (isThrough = true));
  await advance(1000);
  assert.equal(isThrough, false);
  gate.setFlowLimit(flow, undefined);
  await advance(1);
  assert.equal(isThrough, true);
});

test("who wants a task less urgently than another does not make it less urgent", () => {
  const gate = new RateGate(1000);
  const flow = gate.flow("normal");
  gate.raise(flow, "interactive");
  gate.raise(flow, "normal");
  assert.equal(flow.priority, "interactive");
});

test("who was let through is no longer bound to the signal that could have ended his wait", async (t) => {
  const { gate, advance } = gateAt(1000, t);
  const flow = gate.flow("normal");
  const stop = new AbortController();
  const through = gate.passed(flow, 300, stop.signal);
  await advance(400);
  await through;
  assert.deepEqual(getEventListeners(stop.signal, "abort"), []);
});

test("a wait that is given up keeps no process from its end", async () => {
  const timerCount = (): number => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  const gate = new RateGate(64);
  const stop = new AbortController();
  const before = timerCount();
  const waiting = gate.passed(gate.flow("normal"), 1_000_000, stop.signal);
  // The first bytes pass at once.
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(timerCount(), before + 1);
  stop.abort();
  await assert.rejects(waiting, { code: "ABORTED" });
  assert.equal(timerCount(), before);
});
