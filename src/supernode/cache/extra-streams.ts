/**
 * Who of several reads of one origin may have more than one stream. Streams share a link evenly, so reads with as many
 * streams each would all end last, together; an engine unpacks layers one after the other, and wants the first soon.
 */

export interface ReadInTurn {
  /** What is still to come, in bytes. */
  readonly leftBytes: () => number;
  /** It may have more streams from now on, while {@link Place.isFirst}. Called from within calls about any read of the origin. */
  readonly onFirst: () => void;
}

/** A read's place among the others; left exactly once. */
export interface Place {
  readonly isFirst: boolean;
  leave(): void;
}

/**
 * The extra streams of each origin go to the read that has the least to come: it is done soonest, and a long one holds
 * nobody up. Whose they are keeps them to its end, unless another comes to have less than half as much before it.
 */
export class ExtraStreams {
  readonly #turns = new Map<string, Turns>();

  /** @param origin of the URL that is read */
  enter(origin: string, read: ReadInTurn): Place {
    const turns = this.#turns.get(origin) ?? new Turns();
    this.#turns.set(origin, turns);
    turns.add(read);
    return {
      get isFirst() {
        return turns.first() === read;
      },
      leave: () => {
        turns.remove(read);
        if (turns.isOver && this.#turns.get(origin) === turns) this.#turns.delete(origin);
      },
    };
  }
}

/** The reads of one origin. */
class Turns {
  readonly #reads = new Set<ReadInTurn>();
  #first: ReadInTurn | undefined;

  get isOver(): boolean {
    return this.#reads.size === 0;
  }

  add(read: ReadInTurn): void {
    this.#reads.add(read);
    this.first();
  }

  remove(read: ReadInTurn): void {
    this.#reads.delete(read);
    if (this.#first === read) this.#first = undefined;
    this.first();
  }

  /** Told when it is another one than before. */
  first(): ReadInTurn | undefined {
    const before = this.#first;
    const least = [...this.#reads].reduce<ReadInTurn | undefined>((a, b) => (a === undefined || b.leftBytes() < a.leftBytes() ? b : a), undefined);
    if (least === undefined || before === least) return before;
    if (before !== undefined && 2 * least.leftBytes() >= before.leftBytes()) return before;
    this.#first = least;
    least.onFirst();
    return least;
  }
}
