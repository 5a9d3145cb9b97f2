/**
 * One open task of the disk store: its two files and what they hold.
 */
import { assert } from "../../base/assert.ts";
import { AppError } from "../../base/errors.ts";
import { isFileLength } from "../../protocol/geometry.ts";
import type { Digest, DigestAlgorithm } from "../../protocol/ids.ts";
import { pieceStatement, SIGNATURE_BYTES } from "../../protocol/link-frames.ts";
import type { PieceSet } from "../../protocol/piece-set.ts";
import type { FileFacts, StoreDisk } from "./disk.ts";
import type { TaskFiles } from "./files.ts";
import type { Journal, JournaledPiece } from "./journal.ts";
import type { PieceProof, PieceSigner, StoredTask, StoreOutcome, TaskRecord } from "./piece-store.ts";
import { signedOf } from "../membership/piece-signature.ts";
import { diskError, errnoOf } from "./errors.ts";
import { HeldPieces } from "./held.ts";
import type { StoreRunner } from "./pool.ts";
import type { PieceOnDisk } from "./worker.ts";
import type { StoreSpace } from "./space.ts";
import { GoodSignatures } from "./good-signatures.ts";
import { TaskSync } from "./sync.ts";
import { verifyJobs } from "./verify.ts";

export interface StoreTaskDeps {
  readonly disk: StoreDisk;
  /** What the journal says; its map of pieces becomes the task's. */
  readonly files: TaskFiles;
  /** Pieces that this process wrote or verified while the task was open before; becomes the task's. */
  readonly trusted: PieceSet;
  readonly runner: StoreRunner;
  /** Jobs kept under way at a time when many pieces are to be verified. */
  readonly workerCount: number;
  readonly space: StoreSpace;
  onRelease(): void;
  /** The first of the pieces under way has begun, or the last has ended. */
  onStoring(isStoring: boolean): void;
  /** A piece of ours could not be read back. */
  onDamage(pieces: readonly number[], why: string): void;
  onVerified(tookMs: number): void;
  onSyncFailed(error: AppError): void;
}

export class StoreTask implements StoredTask {
  readonly #deps: StoreTaskDeps;
  readonly #held: HeldPieces;
  readonly #sync: TaskSync;
  /** Pieces that this process has seen right: written by it, or read back since. */
  readonly #trusted: PieceSet;
  readonly #signatures = new GoodSignatures();
  /** Checks under way, by piece; they never reject with what they find. */
  readonly #checking = new Map<number, Promise<void>>();
  readonly #writing = new Map<number, Promise<unknown>>();
  /** A discard of everything under way, which stores wait for; never rejects. */
  #discarding: Promise<unknown> | undefined;
  readonly #lostListeners = new Set<(pieces: readonly number[]) => void>();
  #busyCount = 0;
  #storingCount = 0;
  #onIdle: (() => void) | undefined;
  #isClosing = false;

  /** The bytes of the pieces held are the caller's to count in `deps.space`. */
  constructor(deps: StoreTaskDeps) {
    const { files, disk } = deps;
    this.#deps = deps;
    this.#held = new HeldPieces(files.state.record, files.state.pieces);
    this.#trusted = deps.trusted;
    this.#sync = new TaskSync({ disk, ...files }, (error) => deps.onSyncFailed(error));
  }

  get record(): TaskRecord {
    return this.#held.record;
  }

  get have(): PieceSet {
    return this.#held.have;
  }

  /** Pieces that this process has seen right. */
  get trusted(): PieceSet {
    return this.#trusted;
  }

  /** Bytes of the pieces held. */
  get heldBytes(): number {
    return this.#held.heldBytes;
  }

  get complete(): boolean {
    return this.#held.isComplete;
  }

  get dataFd(): number {
    return this.#deps.files.data.fd;
  }

  get dataPath(): string {
    return this.#deps.files.dataPath;
  }

  proofOf(piece: number): PieceProof | undefined {
    return this.#held.get(piece);
  }

  /** False after a failed flush: the page cache may lose what was written, so each look counts only for itself. */
  get isHealthy(): boolean {
    return this.#sync.isHealthy;
  }

  isVerified(piece: number): boolean {
    return this.isHealthy && this.#held.get(piece) !== undefined && this.#trusted.has(piece);
  }

  async verify(pieces: readonly number[], again = false): Promise<readonly number[]> {
    return await this.#during(() => this.#check(pieces, again));
  }

  async storeVerified(piece: number, bytes: Uint8Array, proof: PieceProof): Promise<StoreOutcome> {
    assertShared(bytes);
    return await this.#store(piece, async () => {
      if (this.have.has(piece)) return "stored";
      if (!this.#held.fits(piece, bytes.length)) return "mismatch";
      const { digest, signature } = proof;
      const { taskId, publicKey } = this.record;
      const signed = signedOf(pieceStatement(taskId, piece, bytes.length, digest), signature);
      if (signed === undefined) return "forged";
      const unchecked = this.#signatures.has(signed) ? undefined : { publicKey, ...signed };
      const input = { fd: this.dataFd, offsetByte: this.#held.offsetOf(piece), bytes, digest, signed: unchecked };
      let outcome: StoreOutcome = "mismatch";
      await this.#deps.space.withRoom(bytes.length, async (isOut) => {
        this.#deps.files.data.preallocate(input.offsetByte, bytes.length);
        const written = await this.#deps.runner.run("verifyAndWrite", input, this.#deps.files.dataPath);
        isOut();
        // One piece's own is not looked at again.
        if (written === "written" && signature.length > SIGNATURE_BYTES) this.#signatures.add(signed);
        if (written !== "written") outcome = written;
        else if (await this.#journal(piece, { lengthBytes: bytes.length, digest: digest.slice(), signature: signature.slice() })) outcome = "stored";
        return outcome === "stored";
      });
      if (this.complete) this.#signatures.forget();
      return outcome;
    });
  }

  async storeOwn(piece: number, bytes: Uint8Array, sign: PieceSigner): Promise<PieceProof> {
    assertShared(bytes);
    return await this.#store(piece, async () => {
      const before = this.#held.get(piece);
      if (before !== undefined) return before;
      assert(this.#held.fits(piece, bytes.length), `piece ${piece} of ${bytes.length} bytes does not fit task ${this.record.taskId}`);
      const input = { fd: this.dataFd, offsetByte: this.#held.offsetOf(piece), bytes };
      await this.#deps.space.withRoom(bytes.length, async (isOut) => {
        this.#deps.files.data.preallocate(input.offsetByte, bytes.length);
        const digest = await this.#deps.runner.run("digestAndWrite", input, this.#deps.files.dataPath);
        isOut();
        return await this.#journal(piece, { lengthBytes: bytes.length, digest, signature: await sign(digest) });
      });
      const stored = this.#held.get(piece);
      if (stored !== undefined) return stored;
      const message = `piece ${piece} of ${bytes.length} bytes does not fit the length that task ${this.record.taskId} turned out to have`;
      throw new AppError("ORIGIN_LENGTH_WRONG", message);
    });
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    await this.#whileHeld(offset, offset + into.length, async () => {
      const count = await this.#deps.files.data.read(into, offset).catch((error: unknown) => {
        throw this.#unreadable(error, offset, offset + into.length);
      });
      if (count < into.length) throw this.#gone(offset + count);
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
      const hex = await this.#deps.runner.run("fileDigest", input, this.#deps.files.dataPath);
      if (hex === undefined) throw this.#gone((await this.#deps.files.data.facts()).lengthBytes);
      return `${algorithm}:${hex}` as Digest;
    });
  }

  async assertRoom(): Promise<void> {
    const { lengthBytes } = this.record;
    if (lengthBytes !== undefined) await this.#during(() => this.#deps.space.assertRoom(Math.max(0, lengthBytes - this.heldBytes)));
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
   * @returns the journal's last state, where it can be had
   */
  async shutDown(flush: boolean): Promise<FileFacts | undefined> {
    this.#isClosing = true;
    if (this.#busyCount > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
    await this.#sync.end(flush);
    await Promise.allSettled(this.#checking.values());
    const facts = await this.#deps.files.journal.facts().catch(() => undefined);
    await this.#deps.files.journal.close().catch(() => undefined);
    await this.#deps.files.data.close().catch(() => undefined);
    return facts;
  }

  /** Runs `work` when no other store of the same piece runs, and no discard of all. */
  #store<T>(piece: number, work: () => Promise<T>): Promise<T> {
    return this.#during(async () => {
      if (this.#storingCount++ === 0) this.#deps.onStoring(true);
      try {
        for (let other; (other = this.#discarding ?? this.#writing.get(piece)) !== undefined; ) await other.catch(() => undefined);
        this.#sync.assertHealthy();
        const running = work();
        this.#writing.set(piece, running);
        return await running.finally(() => this.#writing.delete(piece));
      } finally {
        if (--this.#storingCount === 0) this.#deps.onStoring(false);
      }
    });
  }

  /** @returns false when the length became known meanwhile and the piece does not fit it */
  async #journal(piece: number, stored: JournaledPiece): Promise<boolean> {
    if (!this.#held.fits(piece, stored.lengthBytes)) return false;
    await this.#append({ kind: "piece", piece, ...stored });
    if (!this.#held.fits(piece, stored.lengthBytes)) return false;
    this.#held.add(piece, stored);
    this.#trusted.add(piece);
    return true;
  }

  async #append(entry: Parameters<Journal["append"]>[0]): Promise<void> {
    await this.#deps.files.journal.append(entry);
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
      this.#trusted.delete(piece);
      this.#deps.space.giveBack(droppedBytes);
      return droppedBytes > 0;
    });
    if (dropped.length > 0) for (const tell of this.#lostListeners) tell(dropped);
    return dropped;
  }

  async #truncate(lengthBytes: number): Promise<void> {
    await this.#deps.files.data.truncate(lengthBytes).catch((error: unknown) => {
      throw diskError(error, `give ${lengthBytes} bytes to`, this.#deps.files.dataPath);
    });
  }

  /**
   * Reads held bytes with `readBytes`, once the pieces they lie in are known to be right; again when a piece was
   * discarded meanwhile, as its bytes may be others by now.
   */
  #whileHeld<T>(startByte: number, endByte: number, readBytes: () => Promise<T>): Promise<T> {
    return this.#during(async () => {
      for (;;) {
        this.#held.checkHeld(startByte, endByte);
        const damaged = await this.#check(this.#held.within(startByte, endByte), false);
        if (damaged.length > 0) throw this.#damagedError(damaged);
        this.#held.checkHeld(startByte, endByte);
        const { dropCount } = this.#held;
        const result = await readBytes();
        if (dropCount === this.#held.dropCount) return result;
      }
    });
  }

  /**
   * Reads pieces back and compares them with their digests; drops those that are not right. Held ones only.
   *
   * @param again true: those that this process has seen right before, too
   * @returns the pieces dropped
   */
  async #check(pieces: readonly number[], again: boolean): Promise<readonly number[]> {
    const wanted = pieces.filter((piece) => this.#held.get(piece) !== undefined && (again || !this.isVerified(piece)));
    if (wanted.length === 0) return [];
    const damaged: number[] = [];
    const mine = wanted.filter((piece) => !this.#checking.has(piece));
    const others = wanted.flatMap((piece) => this.#checking.get(piece) ?? []);
    const beganMs = performance.now();
    const jobs = verifyJobs(mine, this.#held);
    const lane = async (): Promise<void> => {
      for (const job of jobs) damaged.push(...(await this.#checkJob(job)));
    };
    const running = Array.from({ length: this.#deps.workerCount }, lane);
    const lanes = Promise.all(running);
    // All of them, also when one has failed: until then a thread is at work on the descriptor.
    const settled = Promise.allSettled(running).then(() => undefined);
    for (const piece of mine) this.#checking.set(piece, settled);
    try {
      await lanes;
    } finally {
      await settled;
      for (const piece of mine) this.#checking.delete(piece);
      if (mine.length > 0) this.#deps.onVerified(performance.now() - beganMs);
    }
    await Promise.all(others);
    // What another caller checked is right, gone, or (its check failed) still unknown.
    const unknown = others.length === 0 ? [] : wanted.filter((piece) => this.#held.get(piece) !== undefined && !this.#trusted.has(piece));
    return unknown.length === 0 ? damaged : [...damaged, ...(await this.#check(unknown, false))];
  }

  async #checkJob(job: readonly (PieceOnDisk & { readonly stored: JournaledPiece })[]): Promise<readonly number[]> {
    const { data, dataPath } = this.#deps.files;
    const pieces = job.map(({ piece, offsetByte, lengthBytes, digest }) => ({ piece, offsetByte, lengthBytes, digest }));
    const wrong = new Set(await this.#deps.runner.run("verifyOnDisk", { fd: data.fd, pieces }, dataPath));
    // A piece that was thrown away, and perhaps stored anew, while it was read says nothing.
    const same = job.filter(({ piece, stored }) => this.#held.get(piece) === stored);
    for (const { piece } of same) if (!wrong.has(piece)) this.#trusted.add(piece);
    return this.#dropDamaged(same.flatMap(({ piece }) => (wrong.has(piece) ? [piece] : [])), `${dataPath} does not hold what was written to it`);
  }

  /** @returns those of `pieces` that were held */
  #dropDamaged(pieces: readonly number[], why: string): readonly number[] {
    const lost = this.#drop(pieces);
    // Not waited for: should it get lost, the next look finds the damage again.
    for (const piece of lost) this.#append({ kind: "discard", piece }).catch(() => undefined);
    if (lost.length > 0) this.#deps.onDamage(lost, why);
    return lost;
  }

  /** The file ends at `endByte`, though pieces beyond were written and journaled: drops them. */
  #gone(endByte: number): AppError {
    return this.#damagedError(this.#dropDamaged(this.#held.beyond(endByte), `${this.#deps.files.dataPath} ends at byte ${endByte}, before pieces that were stored in it`));
  }

  /** A sector that cannot be read takes its pieces with it; other failures leave them. */
  #unreadable(thrown: unknown, startByte: number, endByte: number): AppError {
    const error = diskError(thrown, "read", this.#deps.files.dataPath);
    if (errnoOf(thrown) !== "EIO") return error;
    return this.#damagedError(this.#dropDamaged(this.#held.within(startByte, endByte), error.message));
  }

  #damagedError(pieces: readonly number[]): AppError {
    const path = this.#deps.files.dataPath;
    const message = `${path} does not hold ${pieces.length} of the pieces that were stored in it; they are fetched again`;
    return new AppError("CACHE_CORRUPT", message, { details: { path, pieceCount: pieces.length } });
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
