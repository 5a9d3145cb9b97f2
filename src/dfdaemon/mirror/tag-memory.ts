import type { Digest } from "../../protocol/ids.ts";
import type { Place } from "./access.ts";

export interface TagMemoryOptions {
  /** For how long a tag is taken to mean what it meant, in ms; 0: it is asked for each time. */
  readonly freshMs: number;
  /** For how long it is while the registry cannot be asked, in ms; 0: never. */
  readonly staleMs: number;
  /** Monotonic ms. */
  readonly nowMs: () => number;
}

/** What a tag meant when it was last asked for. */
export interface TagMeaning {
  readonly digest: Digest;
  readonly ageMs: number;
}

/** What tags mean. Says nothing of who may know: ask `MirrorAccess` first. */
export class TagMemory {
  readonly #options: TagMemoryOptions;
  /** Oldest first. */
  readonly #tags = new Map<string, { readonly digest: Digest; readonly askedMs: number }>();

  constructor(options: TagMemoryOptions) {
    this.#options = options;
  }

  /** @param askedMs when the registry was asked */
  remember(place: Place, tag: string, digest: Digest, askedMs: number): void {
    const key = keyOf(place, tag);
    const known = this.#tags.get(key);
    if (known !== undefined && known.askedMs > askedMs) return;
    this.#tags.delete(key);
    this.#tags.set(key, { digest, askedMs });
    const [oldest] = this.#tags.keys();
    if (this.#tags.size > TAGS_MAX && oldest !== undefined) this.#tags.delete(oldest);
  }

  /** The registry no longer has it. */
  forget(place: Place, tag: string): void {
    this.#tags.delete(keyOf(place, tag));
  }

  fresh(place: Place, tag: string): TagMeaning | undefined {
    return this.#youngerThan(this.#options.freshMs, place, tag);
  }

  /** For when the registry cannot be asked. */
  stale(place: Place, tag: string): TagMeaning | undefined {
    return this.#youngerThan(this.#options.staleMs, place, tag);
  }

  #youngerThan(limitMs: number, place: Place, tag: string): TagMeaning | undefined {
    const known = this.#tags.get(keyOf(place, tag));
    if (known === undefined) return undefined;
    const ageMs = this.#options.nowMs() - known.askedMs;
    return ageMs < limitMs ? { digest: known.digest, ageMs } : undefined;
  }
}

function keyOf({ registry, repository }: Place, tag: string): string {
  return `${registry} ${repository} ${tag}`;
}

/** Some 200 bytes each. */
const TAGS_MAX = 4096;
