/**
 * One open task of the disk store: its two files and what they hold.
 */
import { read } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { assert } from "../../base/assert.ts";
import { AppError } from "../../base/errors.ts";
import { isFileLength } from "../../protocol/geometry.ts";
import type { Digest, DigestAlgorithm } from "../../protocol/ids.ts";
import type { PieceSet } from "../../protocol/piece-set.ts";
import type { Journal, JournaledPiece } from "./journal.ts";
import type { PieceProof, StoredTask, TaskRecord } from "./piece-store.ts";
import { diskError } from "./errors.ts";
import { HeldPieces } from "./held.ts";
import type { StoreRunner } from "./pool.ts";
import type { StoreSpace } from "./space.ts";
import { TaskSync } from "./sync.ts";

export interface StoreTaskDeps {
  readonly record: TaskRecord;
  readonly data: FileHandle;
  readonly dataPath: string;
  readonly journal: Journal;
  readonly runner: StoreRunner;
  readonly space: StoreSpace;
  onRelease(): void;
  /** A piece of ours could not be read back. */
  onDamage(pieces: readonly number[], why: string): void;
  onSyncFailed(error: AppError): void;
}

export class StoreTask implements StoredTask {
  readonly #deps: StoreTaskDeps;
  readonly #held: HeldPieces;
  readonly #sync: TaskSync;
  readonly #writing = new Map<number, Promise<unknown>>();
  /** A discard of everything under way, which stores wait for; never rejects. */
  #discarding: Promise<unknown> | undefined;
  readonly #lostListeners = new Set<(pieces: readonly number[]) => void>();
  #busyCount = 0;
  #onIdle: (() => void) | undefined;
  #isClosing = false;

  /** @param held pieces known to be right; their bytes are the caller's to count in `deps.space` */
  constructor(deps: StoreTaskDeps, held: Map<number, JournaledPiece>) {
    this.#deps = deps;
    this.#held = new HeldPieces(deps.record, held);
    this.#sync = new TaskSync(deps.data, deps.dataPath, deps.journal, (error) => deps.onSyncFailed(error));
  }

  get record(): TaskRecord {
    return this.#held.record;
  }

  get have(): PieceSet {
    return this.#held.have;
  }

  /** Bytes of the pieces held. */
  get heldBytes(): number {
    return this.#held.heldBytes;
  }

  get complete(): boolean {
    return this.#held.isComplete;
  }

  get dataFd(): number {
    return this.#deps.data.fd;
  }

  proofOf(piece: number): PieceProof | undefined {
    return this.#held.get(piece);
  }

  async storeVerified(piece: number, bytes: Uint8Array, proof: PieceProof): Promise<"stored" | "mismatch"> {
    assertShared(bytes);
    return await this.#store(piece, async () => {
      if (this.have.has(piece)) return "stored";
      if (!this.#held.fits(piece, bytes.length)) return "mismatch";
      const { digest, signature } = proof;
      const input = { fd: this.dataFd, offsetByte: this.#held.offsetOf(piece), bytes, digest };
      const stored = await this.#reserved(bytes.length, async () => {
        if (!(await this.#deps.runner.run("verifyAndWrite", input, this.#deps.dataPath))) return false;
        return await this.#journal(piece, { lengthBytes: bytes.length, digest: digest.slice(), signature: signature.slice() });
      });
      return stored ? "stored" : "mismatch";
    });
  }

  async storeOwn(piece: number, bytes: Uint8Array, sign: (digest: Uint8Array) => Uint8Array): Promise<PieceProof> {
    assertShared(bytes);
    return await this.#store(piece, async () => {
      const before = this.#held.get(piece);
      if (before !== undefined) return before;
      assert(this.#held.fits(piece, bytes.length), `piece ${piece} of ${bytes.length} bytes does not fit task ${this.record.taskId}`);
      const input = { fd: this.dataFd, offsetByte: this.#held.offsetOf(piece), bytes };
      await this.#reserved(bytes.length, async () => {
        const digest = await this.#deps.runner.run("digestAndWrite", input, this.#deps.dataPath);
        return await this.#journal(piece, { lengthBytes: bytes.length, digest, signature: sign(digest) });
      });
      const stored = this.#held.get(piece);
      if (stored !== undefined) return stored;
      const message = `piece ${piece} of ${bytes.length} bytes does not fit the length that task ${this.record.taskId} turned out to have`;
      throw new AppError("ORIGIN_LENGTH_WRONG", message);
    });
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    await this.#whileHeld(offset, offset + into.length, async () => {
      let done = 0;
      while (done < into.length) {
        const count = await this.#readSome(into, done, offset + done);
        if (count === 0) throw this.#gone(offset + done);
        done += count;
      }
    });
  }

  async setLength(lengthBytes: number, signature: Uint8Array): Promise<void> {
    assert(isFileLength(lengthBytes), `a file of ${lengthBytes} bytes`);
    if (this.record.lengthBytes === lengthBytes) return;
    await this.#during(async () => {
      this.#drop(this.#held.setLength(lengthBytes, signature.slice()));
      await this.#append({ kind: "length", lengthBytes, signature });
      await this.#truncate(lengthBytes);
    });
  }

  async digestOf(algorithm: DigestAlgorithm, lengthBytes: number): Promise<Digest> {
    const input = { fd: this.dataFd, algorithm, lengthBytes };
    return await this.#whileHeld(0, lengthBytes, async () => {
      const hex = await this.#deps.runner.run("fileDigest", input, this.#deps.dataPath);
      if (hex === undefined) throw this.#gone((await this.#deps.data.stat()).size);
      return `${algorithm}:${hex}` as Digest;
    });
  }

  async discard(pieces: "all" | readonly number[]): Promise<void> {
    await this.#during(async () => {
      if (pieces === "all") {
        const discarded = Promise.all([this.#discarding, this.#discardAll()]);
        const barrier = discarded.catch(() => undefined);
        this.#discarding = barrier;
        await discarded.finally(() => {
          if (this.#discarding === barrier) this.#discarding = undefined;
        });
      } else {
        await Promise.all(this.#drop(pieces).map((piece) => this.#append({ kind: "discard", piece })));
      }
      await this.#sync.now();
    });
  }

  onLost(listener: (pieces: readonly number[]) => void): () => void {
    // One of its own per call: the same function may listen twice.
    const own = (pieces: readonly number[]): void => listener(pieces);
    this.#lostListeners.add(own);
    return () => this.#lostListeners.delete(own);
  }

  release(): void {
    this.#deps.onRelease();
  }

  /** Marks the task as used now, for the order of eviction after the next start. */
  async touch(): Promise<void> {
    await this.#during(() => this.#deps.journal.touch());
  }

  /** Pieces being written have a word to say before the threads end. Never rejects. */
  async settleWrites(): Promise<void> {
    this.#isClosing = true;
    await Promise.allSettled(this.#writing.values());
  }

  /**
   * Closes the files once nothing uses them; all else fails with SHUTTING_DOWN from now on. Never rejects: what could
   * not be flushed was reported, and will be verified at the next open.
   *
   * @param flush false when the files are to be removed anyway
   */
  async shutDown(flush: boolean): Promise<void> {
    this.#isClosing = true;
    if (this.#busyCount > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
    await this.#sync.end(flush);
    await this.#deps.journal.close().catch(() => undefined);
    await this.#deps.data.close().catch(() => undefined);
  }

  /** Runs `work` when no other store of the same piece runs, and no discard of all. */
  #store<T>(piece: number, work: () => Promise<T>): Promise<T> {
    return this.#during(async () => {
      for (let other; (other = this.#discarding ?? this.#writing.get(piece)) !== undefined; ) await other.catch(() => undefined);
      this.#sync.assertHealthy();
      const running = work();
      this.#writing.set(piece, running);
      try {
        return await running;
      } finally {
        this.#writing.delete(piece);
      }
    });
  }

  /** Runs `write` with room for `bytes`, given back unless it says that they are stored. */
  async #reserved(bytes: number, write: () => Promise<boolean>): Promise<boolean> {
    await this.#deps.space.reserve(bytes);
    let isStored = false;
    try {
      isStored = await write();
    } finally {
      if (!isStored) this.#deps.space.giveBack(bytes);
    }
    return isStored;
  }

  /** @returns false when the length became known meanwhile and the piece does not fit it */
  async #journal(piece: number, stored: JournaledPiece): Promise<boolean> {
    if (!this.#held.fits(piece, stored.lengthBytes)) return false;
    await this.#append({ kind: "piece", piece, ...stored });
    if (!this.#held.fits(piece, stored.lengthBytes)) return false;
    this.#held.add(piece, stored);
    return true;
  }

  async #append(entry: Parameters<Journal["append"]>[0]): Promise<void> {
    await this.#deps.journal.append(entry);
    this.#sync.soon();
  }

  async #discardAll(): Promise<void> {
    this.#drop(this.#held.all());
    await Promise.allSettled(this.#writing.values());
    this.#drop(this.#held.all());
    await this.#append({ kind: "discard", piece: "all" });
    await this.#truncate(0);
    await this.#truncate(this.record.lengthBytes ?? 0);
  }

  /** @returns those of `pieces` that were held */
  #drop(pieces: readonly number[]): readonly number[] {
    const dropped = pieces.filter((piece) => {
      const droppedBytes = this.#held.drop(piece);
      this.#deps.space.giveBack(droppedBytes);
      return droppedBytes > 0;
    });
    if (dropped.length > 0) for (const tell of this.#lostListeners) tell(dropped);
    return dropped;
  }

  async #truncate(lengthBytes: number): Promise<void> {
    await this.#deps.data.truncate(lengthBytes).catch((error: unknown) => {
      throw diskError(error, `give ${lengthBytes} bytes to`, this.#deps.dataPath);
    });
  }

  #readSome(into: Uint8Array, at: number, offsetByte: number): Promise<number> {
    return new Promise((resolve, reject) => {
      read(this.dataFd, into, at, into.length - at, offsetByte, (error, count) => {
        if (error === null) resolve(count);
        else reject(diskError(error, "read", this.#deps.dataPath));
      });
    });
  }

  /** Reads held bytes with `readBytes`; again when a piece was discarded meanwhile, as its bytes may be others by now. */
  #whileHeld<T>(startByte: number, endByte: number, readBytes: () => Promise<T>): Promise<T> {
    return this.#during(async () => {
      for (;;) {
        this.#held.checkHeld(startByte, endByte);
        const { dropCount } = this.#held;
        const result = await readBytes();
        if (dropCount === this.#held.dropCount) return result;
      }
    });
  }

  /** The file ends at `endByte`, though pieces beyond were written and journaled: drops them. */
  #gone(endByte: number): AppError {
    const path = this.#deps.dataPath;
    const lost = this.#drop(this.#held.beyond(endByte));
    for (const piece of lost) this.#append({ kind: "discard", piece }).catch(() => undefined);
    const why = `${path} ends at byte ${endByte}, before pieces that were stored in it`;
    if (lost.length > 0) this.#deps.onDamage(lost, why);
    return new AppError("CACHE_CORRUPT", `${why}; they are fetched again`, { details: { path, pieceCount: lost.length } });
  }

  async #during<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isClosing) throw new AppError("SHUTTING_DOWN", `task ${this.record.taskId} is closed in the piece store`);
    this.#busyCount++;
    try {
      return await work();
    } finally {
      if (--this.#busyCount === 0) this.#onIdle?.();
    }
  }
}

function assertShared(bytes: Uint8Array): void {
  assert(bytes.buffer instanceof SharedArrayBuffer, "piece bytes lie outside shared memory");
}
