/** Virtual time: one heap of what is due, ordered by (time, sequence). Nothing here knows what a peer is. */
interface Entry {
  readonly dueUs: number;
  readonly seq: number;
  readonly run: () => void;
}

export class World {
  readonly #heap: Entry[] = [];
  #seq = 0;
  #nowUs = 0;
  /** Events run so far. */
  eventCount = 0;

  /** Microseconds since the start; fractions occur (a chunk's time on a wire is not a whole number). */
  get nowUs(): number {
    return this.#nowUs;
  }

  /** What the brains are given: whole milliseconds. */
  get nowMs(): number {
    return Math.floor(this.#nowUs / 1000);
  }

  /** Runs `run` after `delayUs` ≥ 0; events of one moment run in the order in which they were asked for. */
  after(delayUs: number, run: () => void): void {
    this.at(this.#nowUs + delayUs, run);
  }

  at(dueUs: number, run: () => void): void {
    const heap = this.#heap;
    const entry: Entry = { dueUs: Math.max(dueUs, this.#nowUs), seq: this.#seq++, run };
    let hole = heap.length;
    heap.push(entry);
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      const above = heap[parent] as Entry;
      if (!isBefore(entry, above)) break;
      heap[hole] = above;
      hole = parent;
    }
    heap[hole] = entry;
  }

  /** Runs until `done` holds, `untilUs` is reached or nothing is left to do. */
  run(untilUs: number, done: () => boolean): void {
    while (!done()) {
      const next = this.#heap[0];
      if (next === undefined || next.dueUs > untilUs) return;
      this.#pop();
      this.#nowUs = next.dueUs;
      this.eventCount++;
      next.run();
    }
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop() as Entry;
    const length = heap.length;
    if (length === 0) return;
    let hole = 0;
    for (;;) {
      let child = hole * 2 + 1;
      if (child >= length) break;
      if (child + 1 < length && isBefore(heap[child + 1] as Entry, heap[child] as Entry)) child++;
      const below = heap[child] as Entry;
      if (!isBefore(below, last)) break;
      heap[hole] = below;
      hole = child;
    }
    heap[hole] = last;
  }
}

function isBefore(a: Entry, b: Entry): boolean {
  return a.dueUs < b.dueUs || (a.dueUs === b.dueUs && a.seq < b.seq);
}
