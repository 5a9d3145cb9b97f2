/**
 * Virtual time: what is due, ordered by (time, order of asking). Nothing here knows what a peer is.
 *
 * A calendar queue: the near future lies in a ring of buckets, the far one in a heap, and only the bucket that is
 * running is kept sorted. With hundreds of thousands of events pending, one heap for all cost more than the brains did.
 */

/** Something that will happen. May be queued again once it has run: a chunk passes its stages as one object. */
export abstract class SimEvent {
  dueUs = 0;
  seq = 0;
  abstract run(): void;
}

class Call extends SimEvent {
  readonly #call: () => void;

  constructor(call: () => void) {
    super();
    this.#call = call;
  }

  override run(): void {
    this.#call();
  }
}

const BUCKET_COUNT = 8192;
const MASK = BUCKET_COUNT - 1;
const WORD_COUNT = BUCKET_COUNT >>> 5;

export class World {
  readonly #bucketUs: number;
  readonly #ring: SimEvent[][] = Array.from({ length: BUCKET_COUNT }, () => []);
  /** One bit per bucket that holds something. */
  readonly #occupied = new Uint32Array(WORD_COUNT);
  #ringCount = 0;
  /** Number (time ÷ bucketUs) of the bucket that is running. */
  #bucket = 0;
  readonly #running = new Heap();
  readonly #far = new Heap();
  #seq = 0;
  #nowUs = 0;
  /** Events run so far. */
  eventCount = 0;

  /** @param bucketUs width of a bucket: with few events per bucket and few empty ones it is fastest; changes no result */
  constructor(bucketUs = 32) {
    this.#bucketUs = bucketUs;
  }

  /** Microseconds since the start; fractions occur (a chunk's time on a wire is not a whole number). */
  get nowUs(): number {
    return this.#nowUs;
  }

  /** What the brains are given: whole milliseconds. */
  get nowMs(): number {
    return Math.floor(this.#nowUs / 1000);
  }

  /** Events that are still due. */
  get pendingCount(): number {
    return this.#ringCount + this.#running.size + this.#far.size;
  }

  /** Runs `call` after `delayUs` ≥ 0; events of one moment run in the order in which they were asked for. */
  after(delayUs: number, call: () => void): void {
    this.schedule(new Call(call), this.#nowUs + delayUs);
  }

  at(dueUs: number, call: () => void): void {
    this.schedule(new Call(call), dueUs);
  }

  /** As {@link at}, without an object per call. The event must not be queued already. */
  schedule(event: SimEvent, dueUs: number): void {
    event.dueUs = Math.max(dueUs, this.#nowUs);
    event.seq = this.#seq++;
    const bucket = Math.floor(event.dueUs / this.#bucketUs);
    if (bucket <= this.#bucket) this.#running.push(event);
    else if (bucket < this.#bucket + BUCKET_COUNT) this.#enter(event, bucket);
    else this.#far.push(event);
  }

  /** Runs until `done` holds, `untilUs` is reached or nothing is left to do. */
  run(untilUs: number, done: () => boolean): void {
    while (!done()) {
      if (this.#running.size === 0 && !this.#advance()) return;
      const next = this.#running.first as SimEvent;
      if (next.dueUs > untilUs) return;
      this.#running.pop();
      this.#nowUs = next.dueUs;
      this.eventCount++;
      next.run();
    }
  }

  #enter(event: SimEvent, bucket: number): void {
    const slot = bucket & MASK;
    (this.#ring[slot] as SimEvent[]).push(event);
    this.#occupied[slot >>> 5] = (this.#occupied[slot >>> 5] as number) | (1 << (slot & 31));
    this.#ringCount++;
  }

  /** Makes the next bucket that holds something the running one. @returns false when nothing is left */
  #advance(): boolean {
    const far = this.#far.first;
    const farBucket = far === undefined ? Number.POSITIVE_INFINITY : Math.floor(far.dueUs / this.#bucketUs);
    const bucket = Math.min(farBucket, this.#ringCount === 0 ? Number.POSITIVE_INFINITY : this.#nextOccupied());
    if (bucket === Number.POSITIVE_INFINITY) return false;
    this.#bucket = bucket;
    const slot = bucket & MASK;
    const events = this.#ring[slot] as SimEvent[];
    for (const event of events) this.#running.push(event);
    this.#ringCount -= events.length;
    events.length = 0;
    this.#occupied[slot >>> 5] = (this.#occupied[slot >>> 5] as number) & ~(1 << (slot & 31));
    for (let event = this.#far.first; event !== undefined; event = this.#far.first) {
      const eventBucket = Math.floor(event.dueUs / this.#bucketUs);
      if (eventBucket >= bucket + BUCKET_COUNT) break;
      this.#far.pop();
      if (eventBucket <= bucket) this.#running.push(event);
      else this.#enter(event, eventBucket);
    }
    return true;
  }

  #nextOccupied(): number {
    const from = this.#bucket + 1;
    for (let step = 0; step <= WORD_COUNT; step++) {
      const wordAt = ((from >>> 5) + step) & (WORD_COUNT - 1);
      let word = this.#occupied[wordAt] as number;
      if (step === 0) word &= -1 << (from & 31);
      else if (step === WORD_COUNT) word &= ~(-1 << (from & 31));
      if (word === 0) continue;
      const slot = wordAt * 32 + 31 - Math.clz32(word & -word);
      return from + ((slot - from) & MASK);
    }
    throw new Error("the ring says that it holds something, and does not");
  }
}

class Heap {
  readonly #entries: SimEvent[] = [];

  get size(): number {
    return this.#entries.length;
  }

  get first(): SimEvent | undefined {
    return this.#entries[0];
  }

  push(event: SimEvent): void {
    const entries = this.#entries;
    let hole = entries.length;
    entries.push(event);
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      const above = entries[parent] as SimEvent;
      if (!isBefore(event, above)) break;
      entries[hole] = above;
      hole = parent;
    }
    entries[hole] = event;
  }

  pop(): void {
    const entries = this.#entries;
    const last = entries.pop();
    const length = entries.length;
    if (length === 0 || last === undefined) return;
    let hole = 0;
    for (;;) {
      let child = hole * 2 + 1;
      if (child >= length) break;
      if (child + 1 < length && isBefore(entries[child + 1] as SimEvent, entries[child] as SimEvent)) child++;
      const below = entries[child] as SimEvent;
      if (!isBefore(below, last)) break;
      entries[hole] = below;
      hole = child;
    }
    entries[hole] = last;
  }
}

function isBefore(a: SimEvent, b: SimEvent): boolean {
  return a.dueUs < b.dueUs || (a.dueUs === b.dueUs && a.seq < b.seq);
}
