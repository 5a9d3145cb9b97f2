import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../base/errors.ts";
import { withRetries } from "./retry.ts";
import type { RetryPolicy } from "./retry.ts";

function policy(slept: number[], more: Partial<RetryPolicy> = {}): RetryPolicy {
  return {
    attempts: 4,
    signal: new AbortController().signal,
    sleep: (delayMs) => Promise.resolve(void slept.push(delayMs)),
    random: () => 0.5,
    ...more,
  };
}

const busy = (retryAfterMs: number): AppError => new AppError("ORIGIN_BUSY", "busy", { details: { retryAfterMs } });
const cut = new AppError("ORIGIN_CUT", "cut");

test("waits grow, within a bound, and the last error is thrown", async () => {
  const slept: number[] = [];
  const attempts: number[] = [];
  const failing = (attempt: number): Promise<never> => {
    attempts.push(attempt);
    return Promise.reject(cut);
  };
  await assert.rejects(withRetries(failing, policy(slept, { attempts: 5, baseDelayMs: 100, maxDelayMs: 300 })), cut);
  assert.deepEqual(attempts, [0, 1, 2, 3, 4]);
  assert.deepEqual(slept, [75, 150, 225, 225]);
});

test("the origin's own wait is kept, and one beyond the bound ends it", async () => {
  const slept: number[] = [];
  assert.equal(
    await withRetries((attempt) => (attempt === 0 ? Promise.reject(busy(5000)) : Promise.resolve("ok")), policy(slept)),
    "ok",
  );
  assert.deepEqual(slept, [5000]);
  await assert.rejects(withRetries(() => Promise.reject(busy(60_000)), policy(slept)), /busy/);
  assert.deepEqual(slept, [5000]);
});

test("what no retry can help is thrown at once", async () => {
  for (const error of [new AppError("ORIGIN_NOT_FOUND", "gone"), new TypeError("bug")]) {
    let calls = 0;
    const fn = (): Promise<never> => {
      calls += 1;
      return Promise.reject(error);
    };
    await assert.rejects(withRetries(fn, policy([])), error);
    assert.equal(calls, 1);
  }
});

test("an abort ends the retrying, before and during the wait", async () => {
  const slept: number[] = [];
  await assert.rejects(withRetries(() => Promise.reject(cut), policy(slept, { signal: AbortSignal.abort() })), cut);
  assert.deepEqual(slept, []);
  const controller = new AbortController();
  const sleep = (): Promise<never> => {
    controller.abort();
    return Promise.reject(new Error("aborted"));
  };
  const attempts: number[] = [];
  const failing = (attempt: number): Promise<never> => {
    attempts.push(attempt);
    return Promise.reject(cut);
  };
  await assert.rejects(withRetries(failing, policy([], { signal: controller.signal, sleep })), cut);
  assert.deepEqual(attempts, [0]);
});
