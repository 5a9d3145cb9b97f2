import { createHash, type Hash } from "node:crypto";
import { AppError } from "../base/errors.ts";
import { digestAlgorithm, digestHex, parseDigest, type Digest, type DigestAlgorithm } from "../protocol/ids.ts";

/** Hashes a file as it goes by, once per algorithm that somebody gave a digest of. */
export class DigestCheck {
  readonly #expected: readonly Digest[];
  #hashes: ReadonlyMap<DigestAlgorithm, Hash>;

  constructor(expected: readonly Digest[]) {
    this.#expected = expected;
    this.#hashes = newHashes(expected);
  }

  /** False: `update` has nothing to do. */
  get isExpecting(): boolean {
    return this.#hashes.size > 0;
  }

  /** The bytes must come in the file's order; they may change after the call. */
  update(bytes: Uint8Array): void {
    for (const hash of this.#hashes.values()) hash.update(bytes);
  }

  /** Forgets every byte. */
  restart(): void {
    this.#hashes = newHashes(this.#expected);
  }

  /**
   * Ends the check. Once.
   *
   * @param what the file in a message
   * @returns the digests found, equal to those expected
   * @throws AppError DIGEST_MISMATCH
   */
  finish(what: string): readonly Digest[] {
    const found = new Map([...this.#hashes].map(([algorithm, hash]) => [algorithm, hash.digest("hex")]));
    for (const expected of this.#expected) {
      const algorithm = digestAlgorithm(expected);
      const hex = found.get(algorithm);
      if (hex === digestHex(expected)) continue;
      throw new AppError(
        "DIGEST_MISMATCH",
        `${what} is not what was asked for: its ${algorithm} is ${hex}, not ${digestHex(expected)}; nothing of it was kept`,
        { details: { expected, found: `${algorithm}:${hex}` } },
      );
    }
    return this.#expected;
  }
}

/** @throws AppError USAGE, naming `flag` */
export function requireDigest(text: string, flag: string): Digest {
  const digest = parseDigest(text);
  if (digest !== undefined) return digest;
  throw new AppError(
    "USAGE",
    `${flag}: ${JSON.stringify(text.slice(0, 160))} is no digest; write sha256:HEX (or sha512, sha1, md5) with all its hex digits`,
  );
}

/** Of several digests of one file, the one that is hardest to forge. */
export function strongestDigest(digests: readonly Digest[]): Digest | undefined {
  return (["sha256", "sha512", "sha1", "md5"] as const)
    .map((algorithm) => digests.find((digest) => digestAlgorithm(digest) === algorithm))
    .find((digest) => digest !== undefined);
}

function newHashes(expected: readonly Digest[]): ReadonlyMap<DigestAlgorithm, Hash> {
  return new Map(expected.map((digest) => [digestAlgorithm(digest), createHash(digestAlgorithm(digest))]));
}
