/**
 * Who agrees to send and never begins, or withdraws, or lets a piece trickle. A few such peers can hold a piece for ever
 * between them: each is given up after seconds, and offers anew at once, before those who mean it. So they are refused
 * for a while, longer each time; by name, since they may leave and join again. One broken promise is nothing: links break.
 */

const REFUSED_MS_MIN = 5_000;
/** Bounded, for it may only be slow, and the only one who has the piece. */
const REFUSED_MS_MAX = 20_000;
/** More than any mesh has, so that many names cost no memory. */
const REMEMBERED_COUNT_MAX = 256;

interface Record {
  readonly count: number;
  readonly brokenMs: number;
  readonly refusedUntilMs: number;
}

export class Promises {
  /** By who has broken it, or who and which piece. */
  readonly #broken = new Map<string, Record>();

  /** It began to send. */
  kept(name: string): void {
    this.#broken.delete(name);
  }

  /** What it agreed to at `agreedMs` has ended without a byte. Promises of before the last breach broke with that one. */
  broke(name: string, agreedMs: number, nowMs: number): void {
    const former = this.#broken.get(name);
    if (former !== undefined && agreedMs < former.brokenMs) return;
    const count = (former?.count ?? 0) + 1;
    const refusedMs = count < 2 ? 0 : Math.min(REFUSED_MS_MAX, REFUSED_MS_MIN * 2 ** (count - 2));
    this.#broken.delete(name);
    this.#broken.set(name, { count, brokenMs: nowMs, refusedUntilMs: nowMs + refusedMs });
    if (this.#broken.size <= REMEMBERED_COUNT_MAX) return;
    for (const oldest of this.#broken.keys()) {
      this.#broken.delete(oldest);
      return;
    }
  }

  isRefused(name: string, nowMs: number): boolean {
    if (this.#broken.size === 0) return false;
    return nowMs < (this.#broken.get(name)?.refusedUntilMs ?? 0);
  }
}
