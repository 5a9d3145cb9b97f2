/**
 * A delay for a timer whose length is not the same each time: at most `delayMs`, and one of 16 per power of two from a second on.
 *
 * Node keeps a list per length of timers. The one of timers that are unref'd stays for as long as they were to run, though all
 * have been cleared (lib/internal/timers.js, `unenroll`): of tickets that are good for hours it kept a list per millisecond. Who
 * needs the exact moment looks how much is left and waits again: of a day that is five times.
 */
export function coarseDelayMs(delayMs: number): number {
  if (delayMs < EXACT_MS_MAX) return Math.max(1, delayMs);
  const stepMs = 2 ** (Math.floor(Math.log2(delayMs)) - 4);
  return Math.min(Math.floor(delayMs / stepMs) * stepMs, TIMER_MS_MAX);
}

const EXACT_MS_MAX = 1_000;
/** What a timer of Node takes. */
const TIMER_MS_MAX = 2 ** 31 - 1;
