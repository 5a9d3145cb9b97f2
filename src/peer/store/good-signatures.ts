/** Signatures that were found right: of pieces signed together only the first is checked (src/peer/membership/piece-signature.ts). */
import type { Signed } from "../membership/piece-signature.ts";

/** A file of 1,024 pieces has at most so many, and a peer gets its pieces in any order. */
const COUNT_MAX = 1024;

export class GoodSignatures {
  readonly #keys = new Set<string>();

  /** True when `add` was told of the same signature of the same statement, and it is not long ago. */
  has(signed: Signed): boolean {
    return this.#keys.has(keyOf(signed));
  }

  add(signed: Signed): void {
    this.#keys.add(keyOf(signed));
    if (this.#keys.size <= COUNT_MAX) return;
    for (const oldest of this.#keys) return void this.#keys.delete(oldest);
  }

  forget(): void {
    this.#keys.clear();
  }
}

/** Of both: a true statement with another signature would be passed on, and be taken for a lie of ours. */
function keyOf({ statement, signature }: Signed): string {
  return Buffer.concat([statement, signature]).toString("latin1");
}
