/**
 * The thread that hashes and writes pieces. Descriptors are process-wide, so the main thread opens the files and
 * passes their numbers; it must not close one before the job's answer has come.
 */
import { createHash, createPublicKey, type KeyObject, verify } from "node:crypto";
import { readSync, writeSync } from "node:fs";
import { isMainThread, parentPort } from "node:worker_threads";
import type { DigestAlgorithm } from "../../protocol/ids.ts";
import { createPieceHasher, pieceDigest } from "./piece-hash.ts";
import { diskFailure, type DiskFailure } from "./errors.ts";
import { LentMemory } from "./lent-memory.ts";

/** A piece on disk and what it must hash to. */
export interface PieceOnDisk {
  readonly piece: number;
  readonly offsetByte: number;
  readonly lengthBytes: number;
  readonly digest: Uint8Array;
}

/** `publicKey`: Ed25519, SPKI DER; `signature`: 64 bytes. */
export interface SignedStatement {
  readonly publicKey: Uint8Array;
  readonly statement: Uint8Array;
  readonly signature: Uint8Array;
}

/** `mismatch`: other bytes than the digest says; `forged`: what is signed is not signed by that key. Nothing is written then. */
export type WriteOutcome = "written" | "mismatch" | "forged";

/** Every job: what goes in, what comes out. `bytes` lies in shared memory and is not changed until the answer. */
export interface StoreJobs {
  /** Hashes, compares, checks what is signed of it, and only when all is right writes. */
  verifyAndWrite: {
    readonly input: {
      readonly fd: number;
      readonly offsetByte: number;
      readonly bytes: Uint8Array;
      readonly digest: Uint8Array;
      /** Undefined: known to be right. */
      readonly signed: SignedStatement | undefined;
    };
    readonly output: WriteOutcome;
  };
  /** @returns the digest of what was written */
  digestAndWrite: {
    readonly input: { readonly fd: number; readonly offsetByte: number; readonly bytes: Uint8Array };
    readonly output: Uint8Array;
  };
  /** @returns the pieces whose bytes are not there, unreadable, or not right */
  verifyOnDisk: {
    readonly input: { readonly fd: number; readonly pieces: readonly PieceOnDisk[] };
    readonly output: readonly number[];
  };
  /** @returns hex of the first `lengthBytes` bytes, or undefined when the file is shorter */
  fileDigest: {
    readonly input: { readonly fd: number; readonly algorithm: DigestAlgorithm; readonly lengthBytes: number };
    readonly output: string | undefined;
  };
}

export type StoreJobKind = keyof StoreJobs;

/** One request: `id` is the asker's. */
export type StoreRequest = { [K in StoreJobKind]: { readonly id: number; readonly kind: K; readonly input: StoreJobs[K]["input"] } }[StoreJobKind];

export type StoreReply =
  | { readonly id: number; readonly output: StoreJobs[StoreJobKind]["output"] }
  | { readonly id: number; readonly failure: DiskFailure };

/** Reads of a file to hash it: stays in the second-level cache, and no gain was measured above. */
const READ_LENGTH_BYTES = 256 * 1024;
/**
 * Written at a time. A MiB at a time cost four times as much CPU on a virtual machine whose free memory goes back to its host (0.8 to
 * 1.0 against 0.2 s per GB): the page cache takes a write in pages of about its length, and long ones have to be fetched from there.
 */
const WRITE_LENGTH_BYTES = 256 * 1024;
/** Bytes of a whole-file digest between two looks at the queue (about 3 ms): pieces do not wait for it. */
const DIGEST_TURN_BYTES = 4 * 1024 * 1024;

let readBuffer: Uint8Array | undefined;

if (!isMainThread && parentPort !== null) {
  const port = parentPort;
  const lent = new LentMemory();
  port.on("message", (request: StoreRequest) => {
    void doStoreJob(request).then(
      (output) => port.postMessage({ id: request.id, output } satisfies StoreReply),
      (error: unknown) => port.postMessage({ id: request.id, failure: diskFailure(error) } satisfies StoreReply),
    ).then(() => lent.used("bytes" in request.input ? request.input.bytes.length : 0));
  });
}

/** Does one job on the thread that calls it. @throws what the disk says, as Node says it */
export async function doStoreJob(request: StoreRequest): Promise<StoreJobs[StoreJobKind]["output"]> {
  switch (request.kind) {
    case "verifyAndWrite": {
      const { fd, offsetByte, bytes, digest, signed } = request.input;
      if (!isEqual(pieceDigest(bytes), digest)) return "mismatch";
      if (signed !== undefined && !isSigned(signed)) return "forged";
      writeAll(fd, bytes, offsetByte);
      return "written";
    }
    case "digestAndWrite": {
      const { fd, offsetByte, bytes } = request.input;
      const digest = pieceDigest(bytes);
      writeAll(fd, bytes, offsetByte);
      // A copy: a native Buffer may be a view of a larger pool, which would travel with it.
      return Uint8Array.from(digest);
    }
    case "verifyOnDisk":
      return request.input.pieces.filter((piece) => !isOnDisk(request.input.fd, piece)).map(({ piece }) => piece);
    case "fileDigest":
      return await digestFile(request.input);
  }
}

/** A site has one key: parsing it costs a third of a check. */
let lastKey: { readonly bytes: Uint8Array; readonly key: KeyObject } | undefined;

function isSigned({ publicKey, statement, signature }: SignedStatement): boolean {
  if (lastKey === undefined || !isEqual(lastKey.bytes, publicKey)) {
    lastKey = { bytes: Uint8Array.from(publicKey), key: createPublicKey({ key: Buffer.from(publicKey), type: "spki", format: "der" }) };
  }
  return verify(null, statement, lastKey.key, signature);
}

function writeAll(fd: number, bytes: Uint8Array, offsetByte: number): void {
  let written = 0;
  while (written < bytes.length) {
    written += writeSync(fd, bytes, written, Math.min(WRITE_LENGTH_BYTES, bytes.length - written), offsetByte + written);
  }
}

function isOnDisk(fd: number, piece: PieceOnDisk): boolean {
  const hasher = createPieceHasher();
  let read: boolean;
  try {
    read = readParts(fd, piece.offsetByte, piece.lengthBytes, (part) => hasher.update(part));
  } catch (error) {
    if (diskFailure(error).code === "EIO") return false;
    throw error;
  }
  return read && isEqual(hasher.digest(), piece.digest);
}

async function digestFile(input: StoreJobs["fileDigest"]["input"]): Promise<string | undefined> {
  const hash = createHash(input.algorithm);
  for (let offsetByte = 0; offsetByte < input.lengthBytes; offsetByte += DIGEST_TURN_BYTES) {
    const lengthBytes = Math.min(DIGEST_TURN_BYTES, input.lengthBytes - offsetByte);
    if (!readParts(input.fd, offsetByte, lengthBytes, (part) => void hash.update(part))) return undefined;
    await new Promise(setImmediate);
  }
  return hash.digest("hex");
}

/** @returns false when the file ends before the range does */
function readParts(fd: number, offsetByte: number, lengthBytes: number, take: (part: Uint8Array) => void): boolean {
  readBuffer ??= new Uint8Array(READ_LENGTH_BYTES);
  let done = 0;
  while (done < lengthBytes) {
    const count = readSync(fd, readBuffer, 0, Math.min(READ_LENGTH_BYTES, lengthBytes - done), offsetByte + done);
    if (count === 0) return false;
    take(readBuffer.subarray(0, count));
    done += count;
  }
  return true;
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
