import { broken } from "../base/assert.ts";

/**
 * A set of piece indices, as bits in 32-bit words. It grows by itself, so a file of unknown length needs no capacity.
 *
 * Wire form ({@link PieceSet.toBytes}): piece 0 is the lowest bit of byte 0, trailing zero bytes are dropped.
 */
export class PieceSet {
  #words: Uint32Array;
  #count = 0;

  constructor(capacity = 0) {
    this.#words = new Uint32Array((capacity + 31) >>> 5);
  }

  /** @returns the set of all pieces in [0, count) */
  static full(count: number): PieceSet {
    const set = new PieceSet(count);
    set.#words.fill(0xffffffff, 0, count >>> 5);
    if ((count & 31) !== 0) set.#words[count >>> 5] = 2 ** (count & 31) - 1;
    set.#count = count;
    return set;
  }

  static fromBytes(bytes: Uint8Array): PieceSet {
    const set = new PieceSet(bytes.length * 8);
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i] as number;
      set.#words[i >>> 2] = (set.#words[i >>> 2] as number) | (byte << ((i & 3) * 8));
      set.#count += popcount(byte);
    }
    return set;
  }

  toBytes(): Uint8Array {
    const bytes = new Uint8Array(this.#words.length * 4);
    let used = 0;
    for (let i = 0; i < bytes.length; i++) {
      const byte = ((this.#words[i >>> 2] as number) >>> ((i & 3) * 8)) & 0xff;
      bytes[i] = byte;
      if (byte !== 0) used = i + 1;
    }
    return bytes.subarray(0, used);
  }

  /** How many pieces are in the set. */
  get count(): number {
    return this.#count;
  }

  /** The words themselves, for scans over several sets at once. Do not write to them; `add` may replace them. */
  get words(): Uint32Array {
    return this.#words;
  }

  has(index: number): boolean {
    const word = this.#words[index >>> 5];
    return word !== undefined && (word & (1 << (index & 31))) !== 0;
  }

  /** @returns false when `index` was in the set already */
  add(index: number): boolean {
    if (index < 0) broken(`piece index ${index} is negative`);
    const at = index >>> 5;
    if (at >= this.#words.length) this.#grow(at + 1);
    const bit = 1 << (index & 31);
    if (((this.#words[at] as number) & bit) !== 0) return false;
    this.#words[at] = (this.#words[at] as number) | bit;
    this.#count++;
    return true;
  }

  /** @returns false when `index` was not in the set */
  delete(index: number): boolean {
    if (!this.has(index)) return false;
    this.#words[index >>> 5] = (this.#words[index >>> 5] as number) & ~(1 << (index & 31));
    this.#count--;
    return true;
  }

  /** The highest index in the set, or −1. */
  get last(): number {
    for (let at = this.#words.length - 1; at >= 0; at--) {
      const word = this.#words[at] as number;
      if (word !== 0) return at * 32 + 31 - Math.clz32(word);
    }
    return -1;
  }

  /** The lowest index ≥ `from` that is not in the set. */
  firstMissing(from = 0): number {
    let index = from;
    while (index < this.#words.length * 32) {
      if ((index & 31) === 0 && this.#words[index >>> 5] === 0xffffffff) index += 32;
      else if (this.has(index)) index++;
      else return index;
    }
    return index;
  }

  *[Symbol.iterator](): Iterator<number> {
    for (let at = 0; at < this.#words.length; at++) {
      let word = this.#words[at] as number;
      while (word !== 0) {
        const lowest = word & -word;
        yield at * 32 + 31 - Math.clz32(lowest);
        word ^= lowest;
      }
    }
  }

  #grow(wordCount: number): void {
    const grown = new Uint32Array(Math.max(wordCount, this.#words.length * 2));
    grown.set(this.#words);
    this.#words = grown;
  }
}

function popcount(byte: number): number {
  let count = 0;
  for (let rest = byte; rest !== 0; rest &= rest - 1) count++;
  return count;
}
