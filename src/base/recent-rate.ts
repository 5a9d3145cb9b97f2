/** Bytes per second over the last second, on a virtual clock, in constant memory. */
export class RecentRate {
  /** The current slot and the ten before it. */
  readonly #slots = new Float64Array(SLOT_COUNT + 1);
  #slot = 0;

  add(bytes: number, nowMs: number): void {
    this.#moveTo(nowMs);
    const at = this.#slot % this.#slots.length;
    this.#slots[at] = (this.#slots[at] as number) + bytes;
  }

  /** Of the ten whole tenths before `nowMs`. */
  bytesPerSecond(nowMs: number): number {
    this.#moveTo(nowMs);
    const current = this.#slots[this.#slot % this.#slots.length] as number;
    return this.#slots.reduce((sum, bytes) => sum + bytes, 0) - current;
  }

  #moveTo(nowMs: number): void {
    const slot = Math.floor(nowMs / SLOT_MS);
    if (slot - this.#slot >= this.#slots.length) this.#slots.fill(0);
    else for (let next = this.#slot + 1; next <= slot; next++) this.#slots[next % this.#slots.length] = 0;
    this.#slot = Math.max(this.#slot, slot);
  }
}

const SLOT_MS = 100;
const SLOT_COUNT = 10;
