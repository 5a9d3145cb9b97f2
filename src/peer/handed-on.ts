/** What a reading has handed on, so that the same file read again from its start can be held against it. */
import { createHash, type Hash } from "node:crypto";
import { AppError } from "../base/errors.ts";

export interface HandedOnOptions {
  readonly algorithm: string;
  /** First byte that is told by `add`. */
  readonly baseByte: number;
  /** The bytes before that, when they are here. */
  readonly before: (() => AsyncIterable<Uint8Array>) | undefined;
}

export class HandedOn {
  readonly #options: HandedOnOptions;
  readonly #hash: Hash;
  #at: number;

  constructor(options: HandedOnOptions) {
    this.#options = options;
    this.#hash = createHash(options.algorithm);
    this.#at = options.baseByte;
  }

  add(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    this.#at += bytes.length;
  }

  /** Of all that was added. */
  digestHex(): string {
    return this.#hash.copy().digest("hex");
  }

  /**
   * For a body that begins at byte 0 again: takes its chunks until the end of what was handed on.
   * @returns a function that gives back what of a chunk is new
   * @throws AppError ORIGIN_CHANGED when the bytes are others
   */
  skipping(): (chunk: Uint8Array) => Promise<Uint8Array> {
    const { algorithm, baseByte, before } = this.#options;
    const head = createHash(algorithm);
    const tail = createHash(algorithm);
    const endByte = this.#at;
    let at = 0;
    return async (chunk) => {
      if (at === endByte) return chunk;
      const known = chunk.subarray(0, endByte - at);
      const headLength = Math.max(0, Math.min(known.length, baseByte - at));
      head.update(known.subarray(0, headLength));
      tail.update(known.subarray(headLength));
      at += known.length;
      if (at === endByte) {
        const isSame = tail.digest("hex") === this.digestHex() && (before === undefined || (await hashOf(before, algorithm)) === head.digest("hex"));
        if (!isSame) throw new AppError("ORIGIN_CHANGED", "the origin now sends other bytes than those handed on already; start again");
      }
      return chunk.subarray(known.length);
    };
  }
}

async function hashOf(bytes: () => AsyncIterable<Uint8Array>, algorithm: string): Promise<string> {
  const hash = createHash(algorithm);
  for await (const chunk of bytes()) hash.update(chunk);
  return hash.digest("hex");
}
