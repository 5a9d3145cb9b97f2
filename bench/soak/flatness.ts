/** Does a series of samples grow? Pure. */

export interface Sample {
  readonly atMs: number;
  readonly value: number;
}

/** Of the troughs: what a collector of garbage leaves, and what is never given back. */
export interface Trend {
  /** Medians of the first and the last third: single samples of a process wander by more than a leak makes. */
  readonly first: number;
  readonly last: number;
  /** Theil-Sen: the median of the slopes between all pairs, which single ones do not move. */
  readonly perMinute: number;
  /** What the slope makes over the whole series. */
  readonly growth: number;
}

/** @param samples at least two, in order */
export function trendOf(samples: readonly Sample[]): Trend {
  const count = Math.min(TROUGH_COUNT, samples.length);
  const troughs = Array.from({ length: count }, (_, i) => {
    const part = samples.slice(Math.floor((i * samples.length) / count), Math.floor(((i + 1) * samples.length) / count));
    return part.reduce((lowest, sample) => (sample.value < lowest.value ? sample : lowest));
  });
  const slopes: number[] = [];
  for (const [i, from] of troughs.entries()) {
    for (const to of troughs.slice(i + 1)) slopes.push((to.value - from.value) / (to.atMs - from.atMs));
  }
  const slope = median(slopes);
  const spanMs = (samples.at(-1) as Sample).atMs - (samples[0] as Sample).atMs;
  const third = Math.max(1, Math.floor(count / 3));
  const values = troughs.map(({ value }) => value);
  return {
    first: median(values.slice(0, third)),
    last: median(values.slice(-third)),
    perMinute: slope * 60_000,
    growth: slope * spanMs,
  };
}

const TROUGH_COUNT = 10;

/**
 * Flat: neither the slope makes more than `allowed` over the series, nor is what is left at its end that much more. A leak
 * does both; of one that begins late, or stops, the ends tell.
 */
export function isFlat({ first, last, growth }: Trend, allowed: number): boolean {
  return growth <= allowed && last - first <= allowed;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}
