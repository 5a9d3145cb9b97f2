/** What was reached in each second, from a count that is looked at often. */

export interface Reached {
  /** Bytes per second in each whole second, one after the other. */
  readonly seconds: readonly number[];
}

/** Looks at `count` every few ms for `seconds` seconds; the count at a second's end is interpolated. */
export async function reachedPerSecond(count: () => number, seconds: number): Promise<Reached> {
  const startMs = performance.now();
  const atEnds = [count()];
  let before = { atMs: startMs, value: count() };
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const now = { atMs: performance.now(), value: count() };
      for (let endMs = startMs + atEnds.length * 1000; endMs <= now.atMs && atEnds.length <= seconds; endMs = startMs + atEnds.length * 1000) {
        const share = (endMs - before.atMs) / (now.atMs - before.atMs);
        atEnds.push(before.value + share * (now.value - before.value));
      }
      before = now;
      if (atEnds.length <= seconds) return;
      clearInterval(timer);
      resolve();
    }, 5);
  });
  return { seconds: atEnds.slice(1).map((value, i) => value - (atEnds[i] as number)) };
}

/** The largest distance of any second from what was set, as a share of it, with its sign. */
export function worstDeviation({ seconds }: Reached, set: number): number {
  return seconds.map((reached) => reached / set - 1).reduce((worst, each) => (Math.abs(each) > Math.abs(worst) ? each : worst), 0);
}

/** Jain's index: 1 = all the same, 1/n = one has all. */
export function fairness(values: readonly number[]): number {
  const sum = values.reduce((left, right) => left + right, 0);
  return sum ** 2 / (values.length * values.reduce((left, right) => left + right ** 2, 0));
}
