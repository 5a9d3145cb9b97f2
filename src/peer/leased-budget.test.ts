import assert from "node:assert/strict";
import { test } from "node:test";
import { LeasedBudget, type Slice } from "./leased-budget.ts";

const never = new AbortController().signal;
const URL_A = "https://reg.example/v2/a/manifests/1";

/** A supernode that answers in order what it was told to. */
function rig(...slices: (Slice | undefined)[]): { budget: LeasedBudget; asked: string[]; clock: { ms: number } } {
  const asked: string[] = [];
  const clock = { ms: 0 };
  const lease = (host: string, kind: string): Promise<Slice | undefined> => {
    asked.push(`${kind} ${host}`);
    if (slices.length === 0) return new Promise(() => undefined);
    return Promise.resolve(slices.shift());
  };
  return { budget: new LeasedBudget({ lease, nowMs: () => clock.ms }), asked, clock };
}

test("one slice serves many requests; the next is asked for when it is used up", async () => {
  const { budget, asked } = rig({ amount: 5, forMs: 5000 }, { amount: 5, forMs: 5000 });
  for (let i = 0; i < 7; i++) await budget.request(URL_A, never);
  assert.deepEqual(asked, ["requests reg.example", "requests reg.example"]);
});

test("those who wait share one question", async () => {
  const { budget, asked } = rig({ amount: 10, forMs: 5000 });
  await Promise.all(Array.from({ length: 10 }, () => budget.request(URL_A, never)));
  assert.equal(asked.length, 1);
});

test("bytes take as many slices as they need, in a budget of their own", async () => {
  const { budget, asked } = rig({ amount: 100, forMs: 5000 }, { amount: 100, forMs: 5000 }, { amount: 100, forMs: 5000 });
  await budget.reading(URL_A)(250, never);
  await budget.reading(URL_A)(50, never);
  assert.deepEqual(asked, Array(3).fill("bytes reg.example"));
});

test("each host has a slice of its own, for requests and for bytes; a thousand are remembered", async () => {
  const { budget, asked } = rig(...Array.from({ length: 1_100 }, () => ({ amount: 100, forMs: 5000 })));
  await budget.request("http://a/", never);
  await budget.request("http://b/", never);
  await budget.reading("http://a/")(10, never);
  for (const url of ["http://a/", "http://b/"]) await budget.request(url, never);
  assert.deepEqual(asked, ["requests a", "requests b", "bytes a"]);
  for (let i = 0; i < 1_000; i++) await budget.request(`http://host-${i}/`, never);
  await budget.request("http://a/", never);
  assert.equal(asked.filter((question) => question === "requests a").length, 2, "asked longest ago, forgotten");
});

test("a slice that is not used in time is lost", async () => {
  const { budget, asked, clock } = rig({ amount: 5, forMs: 5000 }, { amount: 5, forMs: 5000 });
  await budget.request(URL_A, never);
  clock.ms = 5000;
  await budget.request(URL_A, never);
  assert.equal(asked.length, 2);
});

test("where nothing limits the host, one question is enough for a while", async () => {
  const { budget, asked, clock } = rig({ amount: null, forMs: 10_000 }, { amount: 1, forMs: 5000 });
  for (let i = 0; i < 1000; i++) await budget.request(URL_A, never);
  assert.equal(asked.length, 1);
  clock.ms = 10_000;
  await budget.request(URL_A, never);
  assert.equal(asked.length, 2);
});

test("without a supernode nobody waits, and it is asked again a second later", async () => {
  const { budget, asked, clock } = rig(undefined, { amount: 1, forMs: 5000 });
  for (let i = 0; i < 10; i++) await budget.request(URL_A, never);
  assert.equal(asked.length, 1);
  clock.ms = 1000;
  await budget.request(URL_A, never);
  assert.equal(asked.length, 2);
});

test("who gives up stops waiting; the question stands for the others", async () => {
  const { budget, asked } = rig();
  const stop = new AbortController();
  const given = budget.request(URL_A, stop.signal);
  stop.abort();
  await assert.rejects(given, { code: "ABORTED" });
  assert.equal(asked.length, 1);
});
