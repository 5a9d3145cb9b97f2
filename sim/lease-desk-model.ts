/** The supernode's side of reading in the seed's stead, as src/supernode/leases/lease-desk.ts has it; digests are always right. */
import type { PeerId, TaskId } from "../src/protocol/ids.ts";
import { PieceSet } from "../src/protocol/piece-set.ts";
import type { PieceSpan, SchedulerInput } from "../src/scheduler/index.ts";
import type { Oracles } from "./oracles.ts";
import type { TaskShape } from "./task-shape.ts";
import type { World } from "./world.ts";

/** Lent to one peer at a time, and ahead of the digest, per task; a sign of life of who waits for it. As in the real desk. */
const SPAN_BYTES_MAX = 16 * 1024 * 1024;
const WAITING_BYTES_MAX = 64 * 1024 * 1024;
const ALIVE_US = 5_000_000;

export interface LeaseDeskModelDeps {
  readonly world: World;
  readonly oracles: Oracles;
  /** What the seed holds. */
  readonly seedDisk: (task: TaskShape) => PieceSet;
  /** Not within an effect of the scheduler. */
  readonly push: (input: SchedulerInput) => void;
  /** Nobody is left who could read. */
  readonly onNobody: (task: TaskShape) => void;
}

interface Lease {
  readonly holder: PeerId;
  nextPiece: number;
  readonly endPiece: number;
}

/** A piece that was brought, and is not signed yet. */
interface Brought {
  readonly leaseId: number;
  readonly piece: number;
  readonly answer: (signed: boolean) => void;
  isProgressTold: boolean;
}

interface Relief {
  readonly task: TaskShape;
  /** Of peers; the rest is on the seed's disk. */
  readonly asked: PieceSet;
  readonly brought: PieceSet;
  /** Pieces [0, hashed) are in the file's digest. */
  hashed: number;
  /** Signed last. */
  readonly withheld: number;
  readonly leases: Map<number, Lease>;
  readonly waiting: Set<Brought>;
}

export class LeaseDeskModel {
  readonly #deps: LeaseDeskModelDeps;
  readonly #reliefs = new Map<TaskId, Relief>();

  constructor(deps: LeaseDeskModelDeps) {
    this.#deps = deps;
  }

  isActive(task: TaskShape): boolean {
    return this.#reliefs.has(task.taskId);
  }

  /** Asks for peers to read what the seed lacks. */
  begin(task: TaskShape): void {
    const have = this.#deps.seedDisk(task);
    if (have.count >= task.pieceCount || this.isActive(task)) return;
    const spans = missingSpans(have, task);
    const withheld = (spans.at(-1) as PieceSpan).endPiece - 1;
    const asked = new PieceSet(task.pieceCount);
    for (const { firstPiece, endPiece } of spans) for (let piece = firstPiece; piece < endPiece; piece++) asked.add(piece);
    this.#reliefs.set(task.taskId, { task, asked, brought: new PieceSet(task.pieceCount), hashed: 0, withheld, leases: new Map(), waiting: new Set() });
    this.#deps.push({ type: "readersWanted", taskId: task.taskId, spans });
  }

  /** @returns false when nothing is read any more */
  granted(task: TaskShape, leaseId: number, holder: PeerId, { firstPiece, endPiece }: PieceSpan): boolean {
    const relief = this.#reliefs.get(task.taskId);
    relief?.leases.set(leaseId, { holder, nextPiece: firstPiece, endPiece });
    return relief !== undefined;
  }

  revoked(task: TaskShape, leaseId: number): void {
    // What its holder had asked of the origin is asked again by another.
    if (this.#reliefs.get(task.taskId)?.leases.delete(leaseId) === true) this.#deps.oracles.originReadCut();
  }

  failed(task: TaskShape, leaseId: number, holder: PeerId): void {
    if (this.#reliefs.get(task.taskId)?.leases.get(leaseId)?.holder !== holder) return;
    this.#deps.push({ type: "spanFailed", taskId: task.taskId, leaseId });
  }

  nobodyReads(task: TaskShape): void {
    if (!this.isActive(task)) return;
    this.end(task);
    this.#deps.onNobody(task);
  }

  /** Pieces are gone from the seed's disk, which nobody would bring: all begins anew. */
  lost(task: TaskShape): void {
    const relief = this.#reliefs.get(task.taskId);
    if (relief === undefined) return;
    const have = this.#deps.seedDisk(task);
    let piece = have.firstMissing(relief.hashed);
    while (piece < task.pieceCount && relief.asked.has(piece)) piece = have.firstMissing(piece + 1);
    if (piece >= task.pieceCount) return;
    for (let i = 0; i < relief.leases.size; i++) this.#deps.oracles.originReadCut();
    this.end(task);
    this.begin(task);
  }

  /** Nothing more of this task is taken. */
  end(task: TaskShape): void {
    const relief = this.#reliefs.get(task.taskId);
    this.#reliefs.delete(task.taskId);
    for (const { answer } of relief?.waiting ?? []) answer(false);
  }

  /** The process is gone: nobody is answered. */
  crash(): void {
    for (const { leases } of this.#reliefs.values()) for (let i = 0; i < leases.size; i++) this.#deps.oracles.originReadCut();
    this.#reliefs.clear();
  }

  /** A piece has come from `holder`; `answer` once it is signed, or refused. */
  take(task: TaskShape, leaseId: number, holder: PeerId, piece: number, answer: (signed: boolean) => void): void {
    const relief = this.#reliefs.get(task.taskId);
    const lease = relief?.leases.get(leaseId);
    if (relief === undefined || lease?.holder !== holder || piece !== lease.nextPiece || piece >= lease.endPiece) return answer(false);
    lease.nextPiece = piece + 1;
    this.#deps.oracles.brought(task, piece, relief.brought.has(piece));
    relief.brought.add(piece);
    const have = this.#deps.seedDisk(task);
    while (relief.hashed < task.pieceCount && (relief.brought.has(relief.hashed) || have.has(relief.hashed))) relief.hashed++;
    const brought: Brought = { leaseId, piece, answer, isProgressTold: false };
    relief.waiting.add(brought);
    this.#settle(relief);
    this.#keepAlive(relief, brought);
  }

  /** Signs what may be signed now. */
  #settle(relief: Relief): void {
    const { task, waiting, withheld, hashed } = relief;
    const isWhole = hashed >= task.pieceCount;
    const window = Math.max(1, Math.floor(WAITING_BYTES_MAX / task.pieceLengthBytes));
    for (const brought of waiting) {
      const { leaseId, piece, answer } = brought;
      if (piece !== withheld && piece - hashed >= window) continue;
      if (!brought.isProgressTold) this.#progressed(relief, leaseId, piece + 1);
      brought.isProgressTold = true;
      if (piece === withheld && !isWhole) continue;
      waiting.delete(brought);
      answer(true);
    }
    if (!isWhole) return;
    this.#reliefs.delete(task.taskId);
    this.#deps.push({ type: "readersWanted", taskId: task.taskId, spans: [] });
  }

  /** It is not the holder who is slow. */
  #keepAlive(relief: Relief, brought: Brought): void {
    this.#deps.world.after(ALIVE_US, () => {
      const { task, waiting } = relief;
      if (!waiting.has(brought) || this.#reliefs.get(task.taskId) !== relief) return;
      if (!brought.isProgressTold) this.#progressed(relief, brought.leaseId, brought.piece);
      this.#keepAlive(relief, brought);
    });
  }

  #progressed({ task, leases }: Relief, leaseId: number, nextPiece: number): void {
    const lease = leases.get(leaseId);
    if (lease === undefined) return;
    // Read to its end: no more is lost with it.
    if (nextPiece >= lease.endPiece) leases.delete(leaseId);
    this.#deps.push({ type: "spanProgressed", taskId: task.taskId, leaseId, nextPiece });
  }
}

function missingSpans(have: PieceSet, { pieceCount, pieceLengthBytes }: TaskShape): PieceSpan[] {
  const most = Math.max(1, Math.floor(SPAN_BYTES_MAX / pieceLengthBytes));
  const spans: PieceSpan[] = [];
  for (let piece = have.firstMissing(); piece < pieceCount; piece = have.firstMissing(piece)) {
    const firstPiece = piece;
    while (piece < pieceCount && !have.has(piece) && piece - firstPiece < most) piece++;
    spans.push({ firstPiece, endPiece: piece });
  }
  return spans;
}
