/** Small content: read once, right or not at all, and nobody's refusal is another's. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { test } from "node:test";
import { AppError } from "../base/errors.ts";
import { RateGate } from "../peer/rate-gate.ts";
import { SigningKey } from "../peer/membership/credentials.ts";
import type { TaskId } from "../protocol/ids.ts";
import { OriginMeter } from "./cache/origin-meter.ts";
import { FakeOrigin, FakeStore, resolvedTask, silentLog } from "./cache/seed-fixture.test.ts";
import { SmallContent } from "./small-content.ts";
import type { ResolvedTask } from "./tasks/task-resolver.ts";

const key = SigningKey.generate();

function lab(content: Buffer = randomBytes(1000), digest?: string) {
  const origin = new FakeOrigin(content);
  const store = new FakeStore();
  const asked: string[] = [];
  const meter = new OriginMeter({ limit: new RateGate(undefined), onBytes: () => {}, onRequest: (code) => asked.push(code) });
  const small = new SmallContent({ origin, store, key, meter, log: silentLog, random: () => 0, sleep: () => Promise.resolve() });
  const task = resolvedTask(origin, key, digest);
  const of = (taskId: TaskId): ResolvedTask => ({ ...task, taskId, record: { ...task.record, taskId } });
  const as = (authorization: string): ResolvedTask => ({ ...task, source: { ...task.source, headers: { authorization } } });
  return { origin, store, asked, small, task, of, as, content };
}

test("a thousand callers are one read; later ones are answered from memory, then from the disk", async () => {
  const { origin, store, small, task, of, content } = lab();
  for (const bytes of await Promise.all(Array.from({ length: 1000 }, () => small.get(task)))) assert.ok(content.equals(bytes));
  const stored = store.tasks.get(task.taskId);
  assert.ok(stored?.complete);
  for (let n = 0; n < 64; n++) {
    assert.ok(content.equals(await small.get(task)));
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await small.get(of(n.toString(16).padStart(64, "0") as TaskId));
  }
  assert.equal(stored.releases, 1, "not opened for those");
  assert.equal(origin.requests.length, 65);
  assert.ok(content.equals(await small.get(task)));
  assert.equal(stored.releases, 2, "only so many answers are kept in memory");
  assert.equal(origin.requests.length, 65);
});

test("what is refused to the first of several callers is asked for in the others' own names, once for each", async () => {
  const { origin, small, as, content } = lab();
  origin.fault = (n) => (n <= 2 ? { error: new AppError("ORIGIN_UNAUTHORIZED", "no") } : undefined);
  const answers = await Promise.allSettled(["out", "out", "wrong", "wrong", "good", "good"].map((authorization) => small.get(as(authorization))));
  assert.deepEqual(answers.map((answer) => answer.status), ["rejected", "rejected", "rejected", "rejected", "fulfilled", "fulfilled"]);
  assert.deepEqual(origin.requests.map(({ headers }) => headers["authorization"]), ["out", "wrong", "good"]);
  assert.ok(content.equals(await small.get(as("good"))));
});

test("what no name would mend fails for all who wait", async () => {
  const { origin, small, as } = lab();
  origin.fault = () => ({ error: new AppError("ORIGIN_PROTOCOL", "no") });
  const answers = await Promise.allSettled(["one", "two"].map((authorization) => small.get(as(authorization))));
  assert.deepEqual(answers.map((answer) => answer.status), ["rejected", "rejected"]);
  assert.equal(origin.requests.length, 1);
});

test("a file that is another by now is asked for once, and nothing of it is given", async () => {
  const { origin, small, task, asked } = lab();
  origin.etag = '"v2"';
  await assert.rejects(small.get(task), { code: "ORIGIN_CHANGED" });
  assert.deepEqual(asked, ["ORIGIN_CHANGED"]);
});

for (const [what, content, spoil] of [
  ["more", 1000, Buffer.alloc(1001)],
  ["less", 1000, Buffer.alloc(999)],
] as const) {
  test(`${what} than was said is no file: asked again, then given up, and nothing kept`, async () => {
    const { origin, store, small, task } = lab(Buffer.alloc(content));
    origin.open = (request) => {
      origin.requests.push(request);
      return Promise.resolve({ info: origin.info, startByte: 0, body: Readable.from([spoil]) });
    };
    await assert.rejects(small.get(task), { code: "ORIGIN_LENGTH_WRONG" });
    assert.equal(origin.requests.length, 4);
    assert.equal(store.tasks.size, 0);
  });
}

test("an answer without end is left after the first byte too many", async () => {
  const { origin, small, task } = lab(Buffer.alloc(1000));
  let sentBytes = 0;
  const endless = async function* (): AsyncGenerator<Buffer> {
    for (; sentBytes < 1_000_000; sentBytes += 500) yield Buffer.alloc(500);
  };
  origin.open = () => Promise.resolve({ info: origin.info, startByte: 0, body: Readable.from(endless(), { highWaterMark: 1 }) });
  await assert.rejects(small.get(task), { code: "ORIGIN_LENGTH_WRONG" });
  assert.ok(sentBytes < 50_000, `${sentBytes} bytes were taken`);
});

test("nothing is what a digest of something is not", async () => {
  const empty = lab(Buffer.alloc(0));
  assert.equal((await empty.small.get(empty.task)).length, 0);
  assert.equal(empty.origin.requests.length, 0, "there is nothing to ask for");
  const named = lab(Buffer.alloc(0), `sha256:${createHash("sha256").update("x").digest("hex")}`);
  await assert.rejects(named.small.get(named.task), { code: "DIGEST_MISMATCH" });
});

test("a part on the disk, or one of another length, is not given out", async () => {
  const { origin, store, small, task, content } = lab();
  const stored = await store.open({ ...task.record, lengthBytes: 2000 });
  await stored.storeOwn(0, new Uint8Array(new SharedArrayBuffer(2000)), () => new Uint8Array(64));
  assert.ok(stored.complete);
  assert.ok(content.equals(await small.get(task)));
  assert.equal(origin.requests.length, 1);
});

test("an origin that says nothing is called off after six seconds, a limit of ours is no silence", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const turns = async (): Promise<void> => {
    for (let n = 0; n < 20; n++) await new Promise((resolve) => setImmediate(resolve));
  };
  const { origin, small, task } = lab();
  const signals: AbortSignal[] = [];
  origin.open = (_request, _range, _expected, signal?: AbortSignal) => {
    signals.push(signal as AbortSignal);
    return new Promise((_resolve, reject) => signal?.addEventListener("abort", () => reject(signal.reason as Error)));
  };
  const answer = small.get(task).catch((error: unknown) => error);
  for (let attempt = 1; attempt <= 4; attempt++) {
    await turns();
    assert.equal(signals.length, attempt);
    t.mock.timers.tick(5_999);
    assert.equal(signals.at(-1)?.aborted, false);
    t.mock.timers.tick(1);
  }
  assert.equal(((await answer) as AppError).code, "TIMEOUT");

  let go: () => void = () => {};
  const held = new Promise<void>((resolve) => (go = resolve));
  const limited = lab();
  const meter = new OriginMeter({ limit: new RateGate(undefined), onBytes: () => {}, onRequest: () => {} });
  meter.received = () => held;
  const open = limited.origin.open.bind(limited.origin);
  let listening: AbortSignal | undefined;
  limited.origin.open = (request, range, expected, signal?: AbortSignal) => {
    listening = signal;
    return open(request, range, expected);
  };
  const patient = new SmallContent({ origin: limited.origin, store: limited.store, key, meter, log: silentLog, random: () => 0 });
  const content = patient.get(limited.task);
  await turns();
  t.mock.timers.tick(60_000);
  assert.equal(listening?.aborted, false);
  go();
  assert.ok(limited.content.equals(await content));
  assert.equal(limited.origin.requests.length, 1);
});

test("the end of the supernode ends what is read", { timeout: 5_000 }, async () => {
  const { origin, small, task } = lab();
  origin.open = (_request, _range, _expected, signal?: AbortSignal) =>
    new Promise((_resolve, reject) => signal?.addEventListener("abort", () => reject(new AppError("ABORTED", "ended"))));
  const answer = assert.rejects(small.get(task), { code: "ABORTED" });
  await new Promise((resolve) => setImmediate(resolve));
  await small.close();
  await answer;
});
