/** Stand-ins for the seed's tests: an origin with faults, a store in memory, and what the seed told its owner. */
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { AppError } from "../../base/errors.ts";
import type { Origin, OriginBody, OriginInfo, OriginRequest } from "../../origin/origin.ts";
import { SigningKey } from "../../peer/membership/credentials.ts";
import type { PieceProof, PieceSigner, StoredTask, StoreOutcome, TaskRecord } from "../../peer/store/piece-store.ts";
import { pieceCountOf, pieceLengthFor } from "../../protocol/geometry.ts";
import type { Digest, TaskId } from "../../protocol/ids.ts";
import { PieceSet } from "../../protocol/piece-set.ts";
import { BufferPool } from "./buffer-pool.ts";
import { RateGate } from "../../peer/rate-gate.ts";
import { ExtraStreams } from "./extra-streams.ts";
import { OriginMeter } from "./origin-meter.ts";
import { SeedCache } from "./seed-cache.ts";
import type { ResolvedTask } from "../tasks/task-resolver.ts";

export const KIB = 1024;
export const MIB = 1024 * KIB;

/** What goes wrong with one `open`. */
export interface Fault {
  /** Thrown instead of an answer. */
  readonly error?: AppError;
  /** The body breaks off after so many bytes. */
  readonly cutAfterBytes?: number;
}

/** A file with faults. `intervals` are the bytes that really left it. */
export class FakeOrigin implements Origin {
  content: Buffer;
  etag: string | undefined = '"v1"';
  lastModified: string | undefined;
  ranges = true;
  tellsLength = true;
  statCount = 0;
  statErrors: AppError[] = [];
  /** What each `stat` asked to be confirmed. */
  readonly asked: (OriginInfo | undefined)[] = [];
  readonly intervals: [startByte: number, endByte: number][] = [];
  readonly requests: OriginRequest[] = [];
  /** What each `open` was to be a part of. */
  readonly expected: (OriginInfo | undefined)[] = [];
  fault: (n: number, startByte: number) => Fault | undefined = () => undefined;
  chunkBytes: number = 64 * KIB;

  constructor(content: Buffer) {
    this.content = content;
  }

  get info(): OriginInfo {
    return {
      lengthBytes: this.tellsLength ? this.content.length : undefined,
      ranges: this.ranges,
      etag: this.etag,
      lastModified: this.lastModified,
      contentType: "application/x-test",
      headers: { "x-relayed": "1" },
    };
  }

  get bytesRead(): number {
    return this.intervals.reduce((sum, [start, end]) => sum + end - start, 0);
  }

  async stat(_request: OriginRequest, _signal: AbortSignal, known?: OriginInfo): Promise<OriginInfo> {
    this.statCount++;
    this.asked.push(known);
    await new Promise((resolve) => setImmediate(resolve));
    const error = this.statErrors.shift();
    if (error !== undefined) throw error;
    return known?.etag !== undefined && known.etag === this.etag ? known : this.info;
  }

  async open(
    request: OriginRequest,
    { startByte, endByte }: { startByte: number; endByte: number | undefined },
    expected: OriginInfo | undefined,
  ): Promise<OriginBody> {
    this.requests.push(request);
    this.expected.push(expected);
    const fault = this.fault(this.requests.length, startByte);
    await new Promise((resolve) => setImmediate(resolve));
    if (fault?.error !== undefined) throw fault.error;
    if (!this.ranges && startByte > 0) throw new AppError("ORIGIN_PROTOCOL", "no ranges", { details: { ranges: false } });
    const { info } = this;
    const differs = (left: unknown, right: unknown): boolean => left !== undefined && right !== undefined && left !== right;
    if (expected !== undefined && (differs(expected.etag, info.etag) || differs(expected.lengthBytes, info.lengthBytes))) {
      throw new AppError("ORIGIN_CHANGED", "another version");
    }
    return { info, startByte, body: Readable.from(this.#body(startByte, endByte ?? this.content.length, fault?.cutAfterBytes)) };
  }

  async *#body(startByte: number, endByte: number, cutAfterBytes = Number.POSITIVE_INFINITY): AsyncGenerator<Buffer> {
    const interval: [number, number] = [startByte, startByte];
    this.intervals.push(interval);
    const { content } = this;
    for (let at = startByte; at < endByte; ) {
      const leftBytes = cutAfterBytes - (at - startByte);
      if (leftBytes <= 0) throw new AppError("ORIGIN_CUT", "cut");
      const chunk = content.subarray(at, Math.min(at + this.chunkBytes, endByte, at + leftBytes));
      at += chunk.length;
      interval[1] = at;
      yield chunk;
      // oxlint-disable-next-line no-await-in-loop -- streams interleave
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

/** A task in memory. Outlives its releases, as files do. */
export class FakeStored implements StoredTask {
  record: TaskRecord;
  readonly have = new PieceSet();
  readonly pieces = new Map<number, Buffer>();
  readonly storedOrder: number[] = [];
  storeError: AppError | undefined;
  roomError: AppError | undefined;
  onStored: (piece: number) => void = () => {};
  releases = 0;
  readonly dataFd = -1;
  readonly dataPath = undefined;

  constructor(record: TaskRecord) {
    this.record = record;
  }

  get complete(): boolean {
    const { lengthBytes, pieceLengthBytes } = this.record;
    return lengthBytes !== undefined && this.have.count === pieceCountOf(lengthBytes, pieceLengthBytes);
  }

  get content(): Buffer {
    return Buffer.concat([...this.pieces].sort(([left], [right]) => left - right).map(([, bytes]) => bytes));
  }

  proofOf(): PieceProof | undefined {
    return undefined;
  }

  isVerified(piece: number): boolean {
    return this.have.has(piece);
  }

  verify(): Promise<readonly number[]> {
    return Promise.resolve([]);
  }

  assertRoom(): Promise<void> {
    return this.roomError === undefined ? Promise.resolve() : Promise.reject(this.roomError);
  }

  storeVerified(): Promise<StoreOutcome> {
    return Promise.resolve("mismatch");
  }

  async storeOwn(piece: number, bytes: Uint8Array, sign: PieceSigner): Promise<PieceProof> {
    await new Promise((resolve) => setImmediate(resolve));
    if (this.storeError !== undefined) throw this.storeError;
    if (!(bytes.buffer instanceof SharedArrayBuffer)) throw new Error("not in shared memory");
    if (this.have.has(piece)) throw new Error(`piece ${piece} stored twice`);
    const digest = createHash("sha256").update(bytes).digest();
    const proof = { digest, signature: await sign(digest) };
    this.pieces.set(piece, Buffer.from(bytes));
    this.have.add(piece);
    this.storedOrder.push(piece);
    this.onStored(piece);
    return proof;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    const { pieceLengthBytes } = this.record;
    for (let at = 0; at < into.length; ) {
      const piece = Math.floor((offset + at) / pieceLengthBytes);
      const bytes = this.pieces.get(piece);
      if (bytes === undefined) throw new AppError("PIECE_UNKNOWN", `piece ${piece} is not held`);
      const part = bytes.subarray(offset + at - piece * pieceLengthBytes).subarray(0, into.length - at);
      into.set(part, at);
      at += part.length;
    }
  }

  setLength(lengthBytes: number, signature: Uint8Array): Promise<void> {
    this.record = { ...this.record, lengthBytes, lengthSignature: signature };
    return Promise.resolve();
  }

  digestOf(): Promise<Digest> {
    return Promise.reject(new Error("not used"));
  }

  discard(): Promise<void> {
    for (const piece of this.pieces.keys()) this.have.delete(piece);
    this.pieces.clear();
    return Promise.resolve();
  }

  onLost(): () => void {
    return () => {};
  }

  /** As a damaged disk does. */
  lose(piece: number): void {
    this.have.delete(piece);
    this.pieces.delete(piece);
  }

  release(): void {
    this.releases++;
  }
}

/** The piece store, as far as the seed looks. */
export class FakeStore {
  readonly tasks = new Map<TaskId, FakeStored>();
  /** Files cannot be made. */
  openError: AppError | undefined;
  /** Files cannot be read. */
  findError: AppError | undefined;

  async find(taskId: TaskId): Promise<FakeStored | undefined> {
    await new Promise((resolve) => setImmediate(resolve));
    if (this.findError !== undefined) throw this.findError;
    return this.tasks.get(taskId);
  }

  async open(record: TaskRecord): Promise<FakeStored> {
    if (this.openError !== undefined) throw this.openError;
    const stored = (await this.find(record.taskId)) ?? new FakeStored(record);
    this.tasks.set(record.taskId, stored);
    return stored;
  }

  used(): void {
    // Nothing goes here.
  }

  remove(taskId: TaskId): Promise<boolean> {
    this.tasks.delete(taskId);
    return Promise.resolve(true);
  }
}

export const silentLog = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** A seed cache on the stand-ins, with a record of all that it told. */
export function seedLab(origin: FakeOrigin, store: FakeStore = new FakeStore(), key: SigningKey = SigningKey.generate()) {
  const told: { event: string; code?: string; discard?: boolean; lengthBytes?: number }[] = [];
  const slept: number[] = [];
  const lent = new Set<TaskId>();
  let settle: (outcome: string) => void = () => {};
  const sleep = async (delayMs: number): Promise<void> => {
    slept.push(delayMs);
    await new Promise((resolve) => setImmediate(resolve));
  };
  const meter = new OriginMeter({ limit: new RateGate(undefined), onBytes: () => {}, onRequest: () => {} });
  const pool = new BufferPool(4 * MIB);
  const seeds = new SeedCache({
    origin,
    store,
    isLent: (taskId) => lent.has(taskId),
    mayBeLent: ({ digest }) => digest !== undefined,
    peer: {
      openTask: async (record) => {
        const stored = await store.open(record);
        return {
          stored,
          connect: () => {},
          disconnect: () => {},
          addOwn: (piece, bytes, sign) => stored.storeOwn(piece, bytes, sign),
          setLength: (lengthBytes, signature) => stored.setLength(lengthBytes, signature),
          release: () => stored.release(),
        };
      },
    },
    key,
    log: silentLog,
    meter,
    extraStreams: new ExtraStreams(),
    pool,
    random: () => 0,
    sleep,
    events: {
      onOpened: () => told.push({ event: "opened" }),
      onRead: (_taskId, outcome) => {
        told.push({ event: outcome });
        settle(outcome);
      },
      onLength: (_taskId, lengthBytes) => told.push({ event: "length", lengthBytes }),
      onFailed: (_taskId, { code }, discard) => told.push({ event: "failure", code, discard }),
      onPiece: () => {},
      onSlow: () => told.push({ event: "slow" }),
      onLetGo: () => told.push({ event: "let go" }),
    },
  });
  /** Opens the task and reads it under a lease, to its end. */
  const read = async (resolved: ResolvedTask): Promise<FakeStored> => {
    const { task } = await seeds.open(resolved);
    const settled = new Promise<string>((resolve) => (settle = resolve));
    seeds.grantLease(resolved.taskId);
    await settled;
    return task.stored as FakeStored;
  };
  return { seeds, store, told, slept, lent, meter, pool, key, read };
}

export function resolvedTask(origin: FakeOrigin, key: SigningKey, digest?: string): ResolvedTask {
  const taskId = "c".repeat(64) as TaskId;
  const { info } = origin;
  const record: TaskRecord = {
    taskId,
    displayUrl: "http://origin/file",
    lengthBytes: info.lengthBytes,
    lengthSignature: undefined,
    pieceLengthBytes: pieceLengthFor(info.lengthBytes),
    contentType: info.contentType,
    digest,
    headers: info.etag === undefined ? {} : { etag: info.etag },
    publicKey: key.publicKey,
  };
  return { taskId, source: { url: "http://origin/file", headers: {} }, record, info, staleMs: undefined };
}
