/** Notices a read that brings less than the operator wants, though nothing of ours holds it back. */

export interface SlowReadOptions {
  readonly bytesPerSecondMin: number;
  /** All that has come so far. */
  readonly bytes: () => number;
  /** True when our own limits made it wait within the last `withinMs`. */
  readonly isHeldBack: (withinMs: number) => boolean;
  /** Called once. */
  readonly onSlow: () => void;
  /** Default 10,000. */
  readonly windowMs?: number;
}

/** Watches from now on. @returns ends that */
export function watchForSlowness({ bytesPerSecondMin, bytes, isHeldBack, onSlow, windowMs = WINDOW_MS }: SlowReadOptions): () => void {
  let before = bytes();
  const timer = setInterval(() => {
    const now = bytes();
    const isSlow = ((now - before) * 1000) / windowMs < bytesPerSecondMin && !isHeldBack(windowMs);
    before = now;
    if (!isSlow) return;
    clearInterval(timer);
    onSlow();
  }, windowMs);
  timer.unref();
  return () => clearInterval(timer);
}

/** Long enough for a connection that has to be made anew, and for an origin that thinks before it gives. */
const WINDOW_MS = 10_000;
