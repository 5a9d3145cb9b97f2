/**
 * BLAKE3-256, the digest of every piece: native where the optional package loads, else portable; same answers.
 */
import { createRequire } from "node:module";
import { blake3 as portableBlake3 } from "@noble/hashes/blake3.js";

/** Takes bytes in any number of parts; `digest` ends it. It keeps no reference to what `update` was given. */
export interface PieceHasher {
  update(bytes: Uint8Array): void;
  /** @returns 32 bytes, the caller's */
  digest(): Uint8Array;
}

export interface PieceHash {
  /** @returns the 32-byte digest of `bytes`, which may be empty and may lie in shared memory */
  digest(bytes: Uint8Array): Uint8Array;
  create(): PieceHasher;
}

/** @noble/hashes: plain TypeScript, a tenth of the native speed, runs everywhere. */
export const portableHash: PieceHash = {
  digest: (bytes) => portableBlake3(bytes),
  create() {
    const hasher = portableBlake3.create();
    return { update: (bytes) => void hasher.update(bytes), digest: () => hasher.digest() };
  },
};

/** `@napi-rs/blake-hash` (6.8 GB/s on one thread), or undefined when it is not installed for this platform. */
export const nativeHash: PieceHash | undefined = loadNative();

const chosen = nativeHash ?? portableHash;

/** Which of the two this process uses; decided once, when the module loads. For metrics and the start's log. */
export const blake3Backend: "native" | "portable" = nativeHash === undefined ? "portable" : "native";

/** The BLAKE3-256 digest of a whole piece: 32 bytes, the caller's. `bytes` may be empty and may lie in shared memory. */
export function pieceDigest(bytes: Uint8Array): Uint8Array {
  return chosen.digest(bytes);
}

/** Starts a digest over bytes that come in parts. */
export function createPieceHasher(): PieceHasher {
  return chosen.create();
}

/** The part of the native package in use; declared here, because the package may be missing at compile time. */
interface NativeModule {
  readonly Blake3Hasher: new () => { update(bytes: Uint8Array): unknown; digestBuffer(): Uint8Array };
  blake3(bytes: Uint8Array): Uint8Array;
}

function loadNative(): PieceHash | undefined {
  let native: NativeModule;
  try {
    native = createRequire(import.meta.url)("@napi-rs/blake-hash") as NativeModule;
  } catch {
    // Optional by design: not installed, or no binary for this platform. blake3Backend tells.
    return undefined;
  }
  return {
    digest: (bytes) => native.blake3(bytes),
    create() {
      const hasher = new native.Blake3Hasher();
      return { update: (bytes) => void hasher.update(bytes), digest: () => hasher.digestBuffer() };
    },
  };
}
