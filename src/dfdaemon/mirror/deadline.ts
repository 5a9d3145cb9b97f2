import { AppError } from "../../base/errors.ts";

/**
 * Runs `work` with a signal that aborts after `timeoutMs`, or when `outer` does.
 *
 * @param what ends the sentence "took too long: "
 * @throws AppError TIMEOUT when the time ran out, whatever `work` makes of its signal; else what `work` throws
 */
export async function withDeadline<T>(
  timeoutMs: number,
  what: string,
  outer: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const deadline = new AbortController();
  const timer = setTimeout(() => {
    deadline.abort(new AppError("TIMEOUT", `took too long (${timeoutMs} ms): ${what}; try again later`));
  }, timeoutMs);
  const signal = outer === undefined ? deadline.signal : AbortSignal.any([outer, deadline.signal]);
  try {
    return await work(signal);
  } catch (error) {
    throw deadline.signal.aborted && outer?.aborted !== true ? deadline.signal.reason : error;
  } finally {
    clearTimeout(timer);
  }
}
