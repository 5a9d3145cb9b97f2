/**
 * What the store's tests share: directories, tasks with known bytes, a store that logs to an array. No tests of its own.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { pieceCountOf } from "../../protocol/geometry.ts";
import type { TaskId } from "../../protocol/ids.ts";
import { pieceStatement } from "../../protocol/link-frames.ts";
import { SigningKey } from "../membership/credentials.ts";
import { signTogether } from "../membership/piece-signature.ts";
import { DiskStore, type DiskStoreDeps } from "./disk-store.ts";
import { pieceDigest } from "./piece-hash.ts";
import type { PieceProof, PieceStoreConfig, StoredTask, StoreOutcome, TaskRecord } from "./piece-store.ts";

export const PIECE_LENGTH_BYTES = 64 * 1024;
/** Signs every task's pieces. */
const KEY = SigningKey.generate();

/** Compares pieces. `deepEqual` would, when they differ, look for the shortest difference of 65,536 elements: in all memory there is. */
export function assertSameBytes(actual: Uint8Array, expected: Uint8Array, message = "the bytes"): void {
  assert.ok(Buffer.compare(actual, expected) === 0, `${message} differ`);
}

/** A fresh directory, removed after the test. */
export function temporaryDirectory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "piece-store-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

export function taskId(name: string): TaskId {
  return createHash("sha256").update(name).digest("hex") as TaskId;
}

export function taskDirectory(directory: string, id: TaskId): string {
  return join(directory, "tasks", id.slice(0, 2), id);
}

export function recordOf(name: string, lengthBytes: number | undefined, pieceLengthBytes: number = PIECE_LENGTH_BYTES): TaskRecord {
  return {
    taskId: taskId(name),
    displayUrl: `https://origin.test/${name}`,
    lengthBytes,
    lengthSignature: lengthBytes === undefined ? undefined : new Uint8Array(64).fill(3),
    pieceLengthBytes,
    contentType: "application/octet-stream",
    digest: undefined,
    headers: { etag: '"1"' },
    publicKey: Uint8Array.from(KEY.publicKey),
  };
}

/** The bytes of a piece, the same each time, in shared memory. */
export function pieceBytes(name: string, piece: number, lengthBytes: number = PIECE_LENGTH_BYTES): Uint8Array {
  const seed = createHash("sha256").update(`${name}/${piece}`).digest();
  const bytes = new Uint8Array(new SharedArrayBuffer(lengthBytes));
  for (let at = 0; at < lengthBytes; at++) bytes[at] = (seed[at & 31] as number) ^ ((at >>> 5) & 0xff);
  return bytes;
}

/** What the supernode says of `bytes` as a piece of the task. */
export function proofOf({ record }: StoredTask, piece: number, bytes: Uint8Array, key: SigningKey = KEY): PieceProof {
  const digest = pieceDigest(bytes);
  return { digest, signature: Uint8Array.from(key.signPiece(record.taskId, piece, bytes.length, digest)) };
}

/** What the supernode says of pieces that it signs together. @param pieces from the first on */
export function proofsTogether({ record }: StoredTask, pieces: readonly Uint8Array[]): readonly PieceProof[] {
  const digests = pieces.map((bytes) => pieceDigest(bytes));
  const statements = pieces.map((bytes, piece) => pieceStatement(record.taskId, piece, bytes.length, digests[piece] as Uint8Array));
  return signTogether(statements, (statement) => KEY.sign(statement)).map((signature, piece) => ({ digest: digests[piece] as Uint8Array, signature: Uint8Array.from(signature) }));
}

export async function storePiece(task: StoredTask, name: string, piece: number, lengthBytes?: number): Promise<StoreOutcome> {
  const bytes = pieceBytes(name, piece, lengthBytes);
  return await task.storeVerified(piece, bytes, proofOf(task, piece, bytes));
}

/** Stores every piece of a task whose last piece is whole. */
export async function storeAll(task: StoredTask, name: string): Promise<void> {
  const { lengthBytes = 0, pieceLengthBytes } = task.record;
  const count = pieceCountOf(lengthBytes, pieceLengthBytes);
  await Promise.all(Array.from({ length: count }, (_, piece) => storePiece(task, name, piece)));
}

export interface OpenedStore {
  readonly store: DiskStore;
  readonly logged: string[];
}

/** A store that is closed after the test. */
export async function openStore(
  t: TestContext,
  directory: string,
  config: Partial<PieceStoreConfig> = {},
  deps: DiskStoreDeps = {},
): Promise<OpenedStore> {
  const logged: string[] = [];
  const store = await DiskStore.open(
    { directory, quotaBytes: undefined, reservedFreeBytes: 0, workerCount: 2, scrubBytesPerSecond: 0, ...config },
    { log: (level, message) => void logged.push(`${level}: ${message}`), ...deps },
  );
  t.after(() => store.close());
  return { store, logged };
}
