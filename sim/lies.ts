/** What a dishonest peer does. Its brain is the honest one; what it says and sends is spoilt on the way out. */
import type { Prng } from "../src/base/prng.ts";

export interface Lies {
  /** Of a hundred pieces it sends, how many are rubbish. */
  readonly rubbishPercent: number;
  /** Of a hundred pieces agreed, how many it never begins to send. */
  readonly silentPercent: number;
  /** Says from the start that it holds everything. */
  readonly boasts: boolean;
}

export function drawLies(prng: Prng): Lies {
  const percent = (): number => [0, 10, 100][prng.below(3)] as number;
  return { rubbishPercent: percent(), silentPercent: percent(), boasts: prng.below(2) === 0 };
}

export function sendsNothing(lies: Lies | undefined, prng: Prng): boolean {
  return lies !== undefined && prng.below(100) < lies.silentPercent;
}

export function sendsRubbish(lies: Lies | undefined, prng: Prng): boolean {
  return lies !== undefined && prng.below(100) < lies.rubbishPercent;
}
