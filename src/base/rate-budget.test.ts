import assert from "node:assert/strict";
import { test } from "node:test";
import { PRIORITY_STEP, RateBudget, type RateFlow } from "./rate-budget.ts";
import type { Priority } from "./priority.ts";

/** What an asker does in virtual time: one request after the other, the next `thinkMs` after it was granted. */
interface Asker {
  readonly flow: RateFlow;
  /** Undefined: a chunk, as the budget advises. */
  readonly requestBytes?: number;
  readonly thinkMs?: number;
  readonly fromMs?: number;
  readonly untilMs?: number;
  moved: { readonly atMs: number; readonly bytes: number }[];
}

function asker(budget: RateBudget, priority: Priority, more: Partial<Asker> = {}): Asker {
  return { flow: budget.flow(priority), moved: [], ...more };
}

interface World {
  readonly untilMs: number;
  /** How late a timer comes; 0 = to the microsecond. */
  readonly lateMs?: (wakeUp: number) => number;
  readonly at?: ReadonlyMap<number, () => void>;
}

/** Runs the askers against the budget; wakes only when the budget says so, or somebody asks. */
function run(budget: RateBudget, askers: readonly Asker[], { untilMs, lateMs = () => 0, at = new Map() }: World): void {
  const due: { ms: number; act: () => void }[] = [...at].map(([ms, act]) => ({ ms, act }));
  let nowMs = 0;
  let wakeUps = 0;
  const ask = (who: Asker): void => {
    if (nowMs >= (who.untilMs ?? untilMs)) return;
    const bytes = who.requestBytes ?? budget.chunkBytes(who.flow, 400);
    budget.request(who.flow, bytes, () => {
      who.moved.push({ atMs: nowMs, bytes });
      due.push({ ms: nowMs + (who.thinkMs ?? 0), act: () => ask(who) });
    }, nowMs);
  };
  for (const who of askers) due.push({ ms: who.fromMs ?? 0, act: () => ask(who) });
  for (;;) {
    const budgetMs = budget.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
    const dueMs = Math.min(...due.map(({ ms }) => ms));
    const wakeMs = Math.max(nowMs, budgetMs) + (budgetMs > nowMs ? lateMs(wakeUps) : 0);
    nowMs = Math.max(nowMs, Math.min(wakeMs, dueMs));
    if (nowMs >= untilMs) return;
    wakeUps++;
    for (let i = due.length - 1; i >= 0; i--) if ((due[i] as { ms: number }).ms <= nowMs) due.splice(i, 1)[0]?.act();
    for (let granted = budget.grant(nowMs); granted !== undefined; granted = budget.grant(nowMs)) granted.go();
  }
}

function bytesIn({ moved }: Asker, fromMs: number, toMs: number): number {
  return moved.reduce((sum, { atMs, bytes }) => (atMs >= fromMs && atMs < toMs ? sum + bytes : sum), 0);
}

function sumIn(askers: readonly Asker[], fromMs: number, toMs: number): number {
  return askers.reduce((sum, who) => sum + bytesIn(who, fromMs, toMs), 0);
}

function assertWithin(value: number, expected: number, share: number, what = ""): void {
  assert.ok(Math.abs(value - expected) <= expected * share, `${value} instead of ${expected} ${what}`);
}

/** Jain's index: 1 = all the same. */
function fairness(values: readonly number[]): number {
  const sum = values.reduce((left, right) => left + right, 0);
  return sum ** 2 / (values.length * values.reduce((left, right) => left + right ** 2, 0));
}

/** Any second, wherever it begins. */
function assertEverySecond(askers: readonly Asker[], rate: number, fromMs: number, toMs: number): void {
  for (let startMs = fromMs; startMs + 1000 <= toMs; startMs += 37) {
    assertWithin(sumIn(askers, startMs, startMs + 1000), rate, 0.05, `in the second from ${startMs} ms on`);
  }
}

for (const rate of [10_000, 100_000, 1_000_000, 12_500_000, 125_000_000, 1_250_000_000]) {
  for (const count of [1, 7, 40]) {
    test(`at ${rate} bytes per second, ${count} tasks together move that much in any second, to 5 %`, () => {
      const budget = new RateBudget(rate);
      const askers = Array.from({ length: count }, (_, i) => asker(budget, i % 2 === 0 ? "normal" : "interactive"));
      // Timers come 0 to 4 ms late, now and then 30.
      run(budget, askers, { untilMs: 6000, lateMs: (wakeUp) => (wakeUp % 97 === 0 ? 30 : wakeUp % 5) });
      assertEverySecond(askers, rate, 0, 6000);
    });
  }
}

test("after an idle time hardly anything is saved up", () => {
  const budget = new RateBudget(1_000_000);
  const early = asker(budget, "normal", { untilMs: 500 });
  const late = asker(budget, "normal", { fromMs: 60_000 });
  run(budget, [early, late], { untilMs: 62_000 });
  assertWithin(bytesIn(late, 60_000, 61_000), 1_000_000, 0.05);
});

test("a pause of the process is not made up for by a second that has far too much", () => {
  const budget = new RateBudget(1_000_000);
  const who = asker(budget, "normal");
  run(budget, [who], { untilMs: 5000, lateMs: (wakeUp) => (wakeUp === 100 ? 400 : 0) });
  for (let ms = 0; ms <= 4000; ms += 13) assert.ok(bytesIn(who, ms, ms + 1000) <= 1_065_000, `${bytesIn(who, ms, ms + 1000)} from ${ms}`);
});

test("requests far larger than a chunk keep the rate: what is owed is waited for", () => {
  const budget = new RateBudget(1_000_000);
  const who = asker(budget, "normal", { requestBytes: 1_048_576 });
  run(budget, [who], { untilMs: 100_000 });
  assertWithin(bytesIn(who, 0, 100_000), 100_000_000, 0.02);
});

test("tasks share equally, however many connections each has and however much each asks for", () => {
  const budget = new RateBudget(10_000_000);
  const [many, one, large] = [budget.flow("normal"), budget.flow("normal"), budget.flow("normal")];
  const askers: Asker[] = Array.from({ length: 20 }, () => ({ flow: many, moved: [] }));
  askers.push({ flow: one, moved: [], thinkMs: 2 }, { flow: large, moved: [], requestBytes: 1_000_000 });
  run(budget, askers, { untilMs: 20_000 });
  const shares = [sumIn(askers.slice(0, 20), 0, 20_000), bytesIn(askers[20] as Asker, 0, 20_000), bytesIn(askers[21] as Asker, 0, 20_000)];
  assert.ok(fairness(shares) > 0.99, shares.join(" "));
  assertWithin(shares[0] as number, 66_666_666, 0.05);
});

test("who is away between two requests, while timers are late, loses no turn to who always has several waiting", () => {
  const budget = new RateBudget(10_000_000);
  const [many, one] = [budget.flow("normal"), budget.flow("normal")];
  const askers: Asker[] = Array.from({ length: 4 }, () => ({ flow: many, moved: [], requestBytes: 14_000, thinkMs: 1 }));
  const alone: Asker = { flow: one, moved: [], requestBytes: 14_000, thinkMs: 1 };
  run(budget, [...askers, alone], { untilMs: 20_000, lateMs: (wakeUp) => (wakeUp % 3 === 0 ? 8 : 1) });
  const shares = [sumIn(askers, 0, 20_000), bytesIn(alone, 0, 20_000)];
  assert.ok(fairness(shares) > 0.99, shares.join(" "));
});

test("who comes later gets its share at once, and takes back nothing", () => {
  const budget = new RateBudget(1_000_000);
  const first = asker(budget, "normal");
  const second = asker(budget, "normal", { fromMs: 10_000 });
  run(budget, [first, second], { untilMs: 12_000 });
  assertWithin(bytesIn(second, 10_000, 11_000), 500_000, 0.05);
  assertWithin(bytesIn(first, 11_000, 12_000), 500_000, 0.05);
});

test("a higher priority gets a multiple of a lower one's rate, whatever their numbers; nobody starves", () => {
  const budget = new RateBudget(1_000_000);
  const interactive = [asker(budget, "interactive")];
  const normal = [asker(budget, "normal"), asker(budget, "normal")];
  const preheat = Array.from({ length: 30 }, () => asker(budget, "preheat"));
  run(budget, [...preheat, ...normal, ...interactive], { untilMs: 60_000 });
  const parts = PRIORITY_STEP ** 2 + PRIORITY_STEP + 1;
  assertWithin(sumIn(interactive, 0, 60_000), (60_000_000 * PRIORITY_STEP ** 2) / parts, 0.02);
  assertWithin(sumIn(normal, 0, 60_000), (60_000_000 * PRIORITY_STEP) / parts, 0.02);
  assertWithin(sumIn(preheat, 0, 60_000), 60_000_000 / parts, 0.1);
  assert.ok(preheat.every((who) => bytesIn(who, 0, 60_000) > 0));
});

test("a task that becomes more urgent is served as such from then on, with what it waits for", () => {
  const budget = new RateBudget(1_000_000);
  const raised = asker(budget, "preheat");
  const other = asker(budget, "normal");
  run(budget, [raised, other], { untilMs: 20_000, at: new Map([[10_000, () => budget.setFlowPriority(raised.flow, "interactive")]]) });
  assertWithin(bytesIn(raised, 0, 10_000), 10_000_000 / (PRIORITY_STEP + 1), 0.05);
  assertWithin(bytesIn(raised, 10_000, 20_000), (10_000_000 * PRIORITY_STEP) / (PRIORITY_STEP + 1), 0.05);
});

test("what a higher priority leaves, the lower ones get", () => {
  const budget = new RateBudget(1_000_000);
  const some = asker(budget, "interactive", { thinkMs: 100 });
  const rest = asker(budget, "preheat");
  run(budget, [some, rest], { untilMs: 10_000 });
  assertEverySecond([some, rest], 1_000_000, 0, 10_000);
  assert.ok(bytesIn(rest, 0, 10_000) > 8_500_000);
  assert.ok(bytesIn(some, 0, 10_000) > 800_000, "and it does not queue behind them");
});

test("a task's own limit holds below the budget's, the others get what it leaves, and it saves nothing up", () => {
  const budget = new RateBudget(1_000_000);
  const capped = asker(budget, "interactive");
  budget.setFlowLimit(capped.flow, 100_000, 0);
  const open = asker(budget, "interactive");
  const newcomer = asker(budget, "interactive", { fromMs: 20_000 });
  run(budget, [capped, open, newcomer], { untilMs: 22_000 });
  assertEverySecond([capped], 100_000, 1000, 20_000);
  assertWithin(bytesIn(open, 5000, 6000), 900_000, 0.05);
  assertWithin(bytesIn(newcomer, 20_000, 21_000), 450_000, 0.06);
});

test("a priority that only its own limit holds back does not shut the others out later", () => {
  const budget = new RateBudget(1_000_000);
  const capped = asker(budget, "interactive");
  budget.setFlowLimit(capped.flow, 1000, 0);
  const normal = asker(budget, "normal");
  const burst = asker(budget, "interactive", { fromMs: 30_000 });
  run(budget, [capped, normal, burst], { untilMs: 31_000 });
  assertWithin(bytesIn(normal, 30_000, 31_000), 1_000_000 / (PRIORITY_STEP + 1), 0.15);
});

test("a task's own limit holds where the budget has none, and nobody else need ask", () => {
  const budget = new RateBudget(undefined);
  const capped = asker(budget, "normal");
  budget.setFlowLimit(capped.flow, 50_000, 0);
  assert.equal(budget.limits(capped.flow), true);
  assert.equal(budget.limits(budget.flow("normal")), false);
  run(budget, [capped], { untilMs: 5000 });
  assertEverySecond([capped], 50_000, 0, 5000);
});

test("a change of rate holds from then on, up and down, with requests waiting", () => {
  const budget = new RateBudget(1_000_000);
  const askers = [asker(budget, "normal"), asker(budget, "preheat")];
  const at = new Map([
    [3000, () => budget.setRate(10_000_000, 3000)],
    [6000, () => budget.setRate(10_000, 6000)],
    [12_000, () => budget.setRate(2_000_000, 12_000)],
  ]);
  run(budget, askers, { untilMs: 15_000, at });
  assertEverySecond(askers, 1_000_000, 0, 3000);
  assertEverySecond(askers, 10_000_000, 3000, 6000);
  assertWithin(sumIn(askers, 12_000, 13_000), 2_000_000, 0.05);
  // What was asked for under the high rate is one chunk of it: owed at the low one, and once only.
  assert.ok(sumIn(askers, 6000, 12_000) <= 60_000 + 2 * 100_000);
});

test("the first second of a far lower rate is right: what was ahead of the old one leaves no gap in it", () => {
  for (const changeMs of [3000, 3003, 3007]) {
    const budget = new RateBudget(5_000_000);
    const who = asker(budget, "normal");
    run(budget, [who], { untilMs: 5000, lateMs: () => 1, at: new Map([[changeMs, () => budget.setRate(200_000, changeMs)]]) });
    assertWithin(bytesIn(who, changeMs, changeMs + 1000), 200_000, 0.05);
    assertWithin(bytesIn(who, changeMs + 1000, changeMs + 2000), 200_000, 0.05);
  }
});

test("what moved without asking is charged to those who ask", () => {
  const budget = new RateBudget(1_000_000);
  const who = asker(budget, "normal");
  const at = new Map(Array.from({ length: 100 }, (_, i) => [i * 20, () => budget.spend(10_000, i * 20)] as const));
  run(budget, [who], { untilMs: 2000, at });
  assertWithin(bytesIn(who, 0, 2000), 1_000_000, 0.05);
});

test("a request taken back costs nothing, and leaves nothing to wait for", () => {
  const budget = new RateBudget(1_000);
  const flow = budget.flow("normal");
  const never = (): void => assert.fail("it was taken back");
  assert.equal(budget.grant(0), undefined);
  budget.request(flow, 500, () => undefined, 1000);
  assert.equal(budget.grant(1000)?.bytes, 500);
  const request = budget.request(flow, 1_000_000, never, 1000);
  assert.ok((budget.nextDeadlineMs() as number) > 1000);
  assert.equal(budget.cancel(request), true);
  assert.equal(budget.cancel(request), false);
  assert.equal(budget.nextDeadlineMs(), undefined);
  assert.equal(budget.waitingCount, 0);
  budget.request(flow, 500, () => undefined, 2000);
  assert.equal(budget.grant(2000)?.bytes, 500);
});

test("chunks follow the rate, the lower of the two, and have a least size", () => {
  const budget = new RateBudget(10_000);
  const flow = budget.flow("normal");
  assert.equal(budget.chunkBytes(flow, 400), 400);
  budget.setRate(100_000_000, 0);
  assert.equal(budget.chunkBytes(flow, 400), 1_000_000);
  budget.setFlowLimit(flow, 1_000_000, 0);
  assert.equal(budget.chunkBytes(flow, 400), 10_000);
  budget.setFlowLimit(flow, undefined, 0);
  budget.setRate(undefined, 0);
  assert.equal(budget.chunkBytes(flow, 400), Number.POSITIVE_INFINITY);
});
