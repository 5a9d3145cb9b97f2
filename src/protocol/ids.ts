/**
 * The identities two processes must agree on. Branded strings: a task id cannot be passed where a peer id is meant.
 */

/** One version of one remote file: 64 lower-case hex digits. */
export type TaskId = string & { readonly __brand: "TaskId" };
/** One peer for the life of its process: `<host name>-<16 hex>`, at most 96 visible ASCII characters. */
export type PeerId = string & { readonly __brand: "PeerId" };
/** A content digest, `<algorithm>:<lower-case hex>`. */
export type Digest = string & { readonly __brand: "Digest" };

export type DigestAlgorithm = "sha256" | "sha512" | "sha1" | "md5";

/** Hex digits of each digest algorithm that a user may give. */
export const DIGEST_HEX_LENGTH: Readonly<Record<DigestAlgorithm, number>> = {
  sha256: 64,
  sha512: 128,
  sha1: 40,
  md5: 32,
};

const HEX = /^[0-9a-f]+$/;
const PEER_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/;

export function isTaskId(text: string): text is TaskId {
  return text.length === 64 && HEX.test(text);
}

export function isPeerId(text: string): text is PeerId {
  return PEER_ID.test(text);
}

/** @returns the digest in canonical form (lower case), or undefined when `text` is none we know */
export function parseDigest(text: string): Digest | undefined {
  const lower = text.toLowerCase();
  const colon = lower.indexOf(":");
  const algorithm = lower.slice(0, colon);
  if (!Object.hasOwn(DIGEST_HEX_LENGTH, algorithm)) return undefined;
  const hex = lower.slice(colon + 1);
  return hex.length === DIGEST_HEX_LENGTH[algorithm as DigestAlgorithm] && HEX.test(hex) ? (lower as Digest) : undefined;
}

export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.slice(0, digest.indexOf(":")) as DigestAlgorithm;
}

export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(":") + 1);
}
