import { AppError } from "../base/errors.ts";
import { assert } from "../base/assert.ts";

/** How {@link withRetries} goes on. */
export interface RetryPolicy {
  /** Calls of `fn` in all, the first included; 1 = no retry. */
  readonly attempts: number;
  /** Ends the waiting, and with it the retrying: the last error is thrown. */
  readonly signal: AbortSignal;
  /** Resolves after `delayMs`, or rejects when `signal` aborts. */
  readonly sleep: (delayMs: number, signal: AbortSignal) => Promise<void>;
  /** Uniform in [0, 1): the jitter. */
  readonly random: () => number;
  /** Upper bound of the first wait; it doubles with each attempt. Default 200. */
  readonly baseDelayMs?: number;
  /** Upper bound of any wait; an origin that asks for more (`retryAfterMs`) is not asked again. Default 30,000. */
  readonly maxDelayMs?: number;
}

/**
 * Calls `fn` until it succeeds, while its error is a retriable AppError and attempts are left.
 *
 * Waits between half and all of an exponentially growing bound, and never less than the error's `retryAfterMs`.
 *
 * @param fn gets the number of the attempt, from 0
 * @throws the error of the last attempt as it is; an error that is no AppError at once
 * Source of the jitter: "equal jitter", AWS Architecture Blog, Exponential Backoff And Jitter.
 */
export async function withRetries<T>(fn: (attempt: number) => Promise<T>, policy: RetryPolicy): Promise<T> {
  assert(Number.isSafeInteger(policy.attempts) && policy.attempts >= 1, `attempts ${policy.attempts} is not >= 1`);
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await fn(attempt);
    } catch (error) {
      const delayMs = attempt + 1 < policy.attempts ? delayBefore(attempt + 1, error, policy) : undefined;
      if (delayMs === undefined || !(await slept(delayMs, policy))) throw error;
    }
  }
}

/** The wait before attempt number `attempt`; `undefined` when it would be pointless. */
function delayBefore(attempt: number, error: unknown, policy: RetryPolicy): number | undefined {
  if (!(error instanceof AppError) || !error.retriable || policy.signal.aborted) return undefined;
  const { baseDelayMs = 200, maxDelayMs = 30_000 } = policy;
  const asked = error.details["retryAfterMs"];
  const leastMs = typeof asked === "number" ? asked : 0;
  if (leastMs > maxDelayMs) return undefined;
  const boundMs = Math.min(maxDelayMs, baseDelayMs * 2 ** (attempt - 1));
  return Math.max(leastMs, Math.round(boundMs / 2 + policy.random() * (boundMs / 2)));
}

async function slept(delayMs: number, policy: RetryPolicy): Promise<boolean> {
  try {
    await policy.sleep(delayMs, policy.signal);
  } catch (error) {
    if (!policy.signal.aborted) throw error;
  }
  return !policy.signal.aborted;
}
