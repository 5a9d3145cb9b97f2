/**
 * Signatures of pieces: one of the supernode's for several of a task, as a signature costs as much to check as half a MiB
 * to hash. It signs the root of a Merkle tree over their statements; each piece carries that signature and its own way to the root.
 *
 * A piece's signature is 64 bytes (Ed25519) of the piece's statement alone, or, of one signed together with others, 64 of the
 * root's, then its place in the tree u8, how many are in it u8, and up to four hashes of 32 bytes. The tree is that of RFC 6962
 * (SHA-256), its paths are checked as in RFC 9162, 2.1.3.2.
 */
import { hash } from "node:crypto";
import { SIGNATURE_BYTES, treeStatement } from "../../protocol/link-frames.ts";

/** Pieces signed together, at most: a path has four hashes then; with twice as many little more would be saved. */
export const SIGNED_TOGETHER_MAX = 16;
const HASH_BYTES = 32;
const PATH_OFFSET = SIGNATURE_BYTES + 2;

/** What was signed, and the signature of it: 64 bytes. */
export interface Signed {
  readonly statement: Uint8Array;
  readonly signature: Uint8Array;
}

/**
 * @param statements of pieces, 1 … {@link SIGNED_TOGETHER_MAX}
 * @param sign Ed25519: 64 bytes
 * @returns their signatures, in the same order
 */
export function signTogether(statements: readonly Uint8Array[], sign: (statement: Uint8Array) => Uint8Array): readonly Uint8Array[] {
  if (statements.length <= 1) return statements.map((statement) => sign(statement));
  const leaves = statements.map((statement) => hashOf(LEAF, statement));
  const signature = sign(treeStatement(leaves.length, rootOf(leaves)));
  // Copies: what `concat` returns may be a view of a pool, which each of them would keep.
  return leaves.map((_, at) => Uint8Array.from(Buffer.concat([signature, Uint8Array.of(at, leaves.length), ...pathOf(at, leaves)])));
}

/**
 * What the Ed25519 part of a piece's signature is to be a signature of: whoever finds that it is has a signed piece.
 *
 * @returns undefined for what can be no piece's signature
 */
export function signedOf(statement: Uint8Array, signature: Uint8Array): Signed | undefined {
  if (signature.length === SIGNATURE_BYTES) return { statement, signature };
  if (signature.length < PATH_OFFSET || (signature.length - PATH_OFFSET) % HASH_BYTES !== 0) return undefined;
  let place = signature[SIGNATURE_BYTES] as number;
  const count = signature[SIGNATURE_BYTES + 1] as number;
  let last = count - 1;
  if (place > last || last >= SIGNED_TOGETHER_MAX) return undefined;
  let node = hashOf(LEAF, statement);
  for (let at = PATH_OFFSET; at < signature.length; at += HASH_BYTES) {
    if (last === 0) return undefined;
    const other = signature.subarray(at, at + HASH_BYTES);
    const isRight = (place & 1) === 1 || place === last;
    node = isRight ? hashOf(NODE, other, node) : hashOf(NODE, node, other);
    // The last of an odd number has no neighbour for a while.
    if (isRight) while ((place & 1) === 0 && place !== 0) [place, last] = [place >> 1, last >> 1];
    [place, last] = [place >> 1, last >> 1];
  }
  return last === 0 ? { statement: treeStatement(count, node), signature: signature.subarray(0, SIGNATURE_BYTES) } : undefined;
}

/** So that no node passes for a leaf. */
const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

function hashOf(...parts: readonly Uint8Array[]): Uint8Array {
  return hash("sha256", Buffer.concat(parts), "buffer");
}

function rootOf(leaves: readonly Uint8Array[]): Uint8Array {
  if (leaves.length === 1) return leaves[0] as Uint8Array;
  const middle = middleOf(leaves.length);
  return hashOf(NODE, rootOf(leaves.slice(0, middle)), rootOf(leaves.slice(middle)));
}

/** From the leaf upwards. */
function pathOf(at: number, leaves: readonly Uint8Array[]): readonly Uint8Array[] {
  if (leaves.length === 1) return [];
  const middle = middleOf(leaves.length);
  const [left, right] = [leaves.slice(0, middle), leaves.slice(middle)];
  return at < middle ? [...pathOf(at, left), rootOf(right)] : [...pathOf(at - middle, right), rootOf(left)];
}

/** The largest power of two below `count`. */
function middleOf(count: number): number {
  return 2 ** (31 - Math.clz32(count - 1));
}
