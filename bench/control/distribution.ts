/** Many measurements of one thing, and what is said of them. */
export interface Spread {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export class Distribution {
  readonly #values: number[] = [];

  add(value: number): void {
    this.#values.push(value);
  }

  /** Of none: NaN. */
  spread(): Spread {
    const sorted = this.#values.toSorted((a, b) => a - b);
    const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
    return { p50: at(0.5), p99: at(0.99), max: at(1) };
  }
}
