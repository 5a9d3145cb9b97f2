/** The digest of a whole file whose pieces become whole in any order: hashed as far as the prefix is there. */
import { createHash, type Hash } from "node:crypto";
import { AppError } from "../../base/errors.ts";
import type { StoredTask } from "../../peer/store/piece-store.ts";
import { pieceLengthAt } from "../../protocol/geometry.ts";
import { type Digest, digestAlgorithm } from "../../protocol/ids.ts";

/**
 * Feeds on pieces in order from memory where it can, else reads them back from the disk.
 *
 * One caller at a time may wait for `catchUp` or `finish`; `feed` may be called at any time.
 */
export class PrefixDigest {
  readonly #expected: Digest;
  readonly #stored: StoredTask;
  readonly #hash: Hash;
  /** Pieces [0, next) are in the hash. */
  #next = 0;
  #chasing: Promise<void> | undefined;
  #isStopped = false;

  constructor(expected: Digest, stored: StoredTask) {
    this.#expected = expected;
    this.#stored = stored;
    this.#hash = createHash(digestAlgorithm(expected));
  }

  /** A piece is whole, and its bytes are at hand: hashed at once if it is the next. */
  feed(piece: number, bytes: Uint8Array): void {
    if (piece !== this.#next || this.#chasing !== undefined) return;
    this.#hash.update(bytes);
    this.#next++;
  }

  /** Hashes what is on disk after the prefix, while it is contiguous. @throws AppError as StoredTask.read */
  catchUp(): Promise<void> {
    this.#chasing ??= this.#chase().finally(() => (this.#chasing = undefined));
    return this.#chasing;
  }

  /**
   * Whether the whole file is right: all pieces are on disk but `withheld`, whose bytes are given.
   * @throws AppError as StoredTask.read; CACHE_CORRUPT when a piece is missing after all (retriable)
   */
  async finish(withheld: number, bytes: Uint8Array, pieceCount: number): Promise<boolean> {
    await this.#chasing;
    await this.catchUp();
    if (this.#next === withheld) this.feed(withheld, bytes);
    await this.catchUp();
    if (this.#next !== pieceCount) {
      throw new AppError("CACHE_CORRUPT", `piece ${this.#next} was here and is gone; it has to be fetched again`);
    }
    return this.#expected.endsWith(`:${this.#hash.digest("hex")}`);
  }

  /** Reads no more of the disk; resolves when nothing of this is under way. Never rejects. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#chasing?.catch(() => undefined);
  }

  async #chase(): Promise<void> {
    const { pieceLengthBytes } = this.#stored.record;
    let buffer: Uint8Array | undefined;
    while (!this.#isStopped && this.#stored.have.has(this.#next)) {
      const { lengthBytes } = this.#stored.record;
      buffer ??= new Uint8Array(pieceLengthBytes);
      const length = lengthBytes === undefined ? pieceLengthBytes : pieceLengthAt(this.#next, lengthBytes, pieceLengthBytes);
      const bytes = buffer.subarray(0, length);
      // oxlint-disable-next-line no-await-in-loop -- a digest is taken in order
      await this.#stored.read(this.#next * pieceLengthBytes, bytes);
      this.#hash.update(bytes);
      this.#next++;
    }
  }
}
