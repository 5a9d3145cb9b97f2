/** The books of one task at this peer: what its time goes by, and who gave what. Fed by the driver, before things change. */
import { BoundAccount, type BoundShares, boundsOf, sharesSince } from "../base/bounds.ts";
import type { PeerId } from "../protocol/ids.ts";
import type { Explanation } from "../protocol/explanation.ts";
import type { TaskIntake } from "../swarm/index.ts";

export interface TaskAccountDeps {
  readonly nowMs: () => number;
  readonly isCpuBusy: () => boolean;
  /** The interface carries what it can. */
  readonly isDownlinkFull: () => boolean;
}

/** What the brain knows of the task; undefined: nothing (any more). */
export interface TaskView {
  readonly intake: () => TaskIntake | undefined;
  readonly isStoringFull: () => boolean;
}

/** As the books stand at a moment. */
export interface TaskFigures {
  readonly spentMs: BoundShares;
  readonly pieces: Explanation["pieces"];
  readonly wastedBytes: number;
  readonly neighbours: ReadonlyMap<PeerId, { readonly seed: boolean; readonly bytes: number }>;
}

/** Looking costs a walk over what is under way and the links: every 25 ms it was 3 % of a busy host's CPU with short pieces (perf, in the lab). */
const GLANCE_MS = 100;
/** A young task is looked at more often: what is put down to the wrong cause is short beside its whole life. */
const GLANCE_SHARE = 1 / 16;

export class TaskAccount {
  readonly #deps: TaskAccountDeps;
  readonly #bounds: BoundAccount;
  #startMs: number;
  #view: TaskView | undefined;
  #completedMs: number | undefined;
  #firstPieceMs: number | undefined;
  #heldCount = 0;
  #originCount = 0;
  #storingCount = 0;
  readonly #pieces = { offered: 0, declined: 0, rejected: 0 };
  #wastedBytes = 0;
  readonly #neighbours = new Map<PeerId, { seed: boolean; bytes: number }>();

  constructor(deps: TaskAccountDeps) {
    this.#deps = deps;
    this.#startMs = deps.nowMs();
    this.#bounds = new BoundAccount(this.#startMs);
  }

  /** When all of it was here; undefined while something is missing. */
  get completedMs(): number | undefined {
    return this.#completedMs;
  }

  /** From the first question for the task to its completion, or to now. */
  get tookMs(): number {
    return (this.#completedMs ?? this.#deps.nowMs()) - this.#startMs;
  }

  /** From the first question for the task to its first piece. */
  get firstPieceMs(): number | undefined {
    return this.#firstPieceMs === undefined ? undefined : this.#firstPieceMs - this.#startMs;
  }

  opened(view: TaskView, isComplete: boolean): void {
    this.#view = view;
    if (isComplete) this.#completedMs = this.#deps.nowMs();
  }

  /** So long was waited before there was a task here. */
  preceded(waitedMs: number): void {
    this.#startMs -= waitedMs;
    this.#bounds.add("waiting", waitedMs);
  }

  /** Puts the time that has passed down to what was true till now: to be called before that changes. */
  look(): void {
    if (this.#completedMs === undefined) this.#lookAt(this.#deps.nowMs());
  }

  /** As {@link look}, before what happens many times a millisecond: time shorter than {@link GLANCE_MS} waits for the next. */
  glance(nowMs: number = this.#deps.nowMs()): void {
    if (this.#completedMs !== undefined) return;
    if (nowMs - this.#bounds.atMs >= Math.min(GLANCE_MS, (nowMs - this.#startMs) * GLANCE_SHARE)) this.#lookAt(nowMs);
  }

  #lookAt(nowMs: number): void {
    this.#bounds.charge(nowMs, () => this.#shares());
  }

  /** A limit makes a part of the task wait (+1), or no longer (−1). */
  held(delta: 1 | -1): void {
    this.look();
    this.#heldCount += delta;
  }

  /** This host begins (+1) or ends (−1) reading the origin for the task. */
  readingOrigin(delta: 1 | -1): void {
    this.look();
    this.#originCount += delta;
  }

  /** A piece is on its way to the disk (+1), or has come there or nowhere (−1). */
  storing(delta: 1 | -1): void {
    this.glance();
    this.#storingCount += delta;
  }

  /** A piece is on disk. @param isComplete it was the last that was missing */
  stored(isComplete: boolean): void {
    const nowMs = this.#deps.nowMs();
    this.#firstPieceMs ??= nowMs;
    if (!isComplete) return this.glance(nowMs);
    this.look();
    this.#completedMs ??= nowMs;
  }

  /** Pieces are gone: something is missing again. */
  lost(): void {
    this.look();
    if (this.#completedMs === undefined) return;
    this.#completedMs = undefined;
    this.#bounds.skip(this.#deps.nowMs());
  }

  offered(): void {
    this.#pieces.offered++;
  }

  declined(): void {
    this.#pieces.declined++;
  }

  rejected(): void {
    this.#pieces.rejected++;
  }

  wasted(bytes: number): void {
    this.#wastedBytes += bytes;
  }

  /** A neighbour's piece was kept. */
  kept(peerId: PeerId, seed: boolean, bytes: number): void {
    const entry = this.#neighbours.get(peerId);
    if (entry === undefined) this.#neighbours.set(peerId, { seed, bytes });
    else entry.bytes += bytes;
  }

  figures(): TaskFigures {
    this.look();
    const { late = 0, doubled = 0 } = this.#view?.intake() ?? {};
    return {
      spentMs: this.#bounds.spentMs(),
      pieces: { ...this.#pieces, late, doubled },
      wastedBytes: this.#wastedBytes,
      neighbours: new Map([...this.#neighbours].map(([peerId, entry]) => [peerId, { ...entry }])),
    };
  }

  #shares(): ReturnType<typeof boundsOf> {
    const intake = this.#view?.intake();
    return boundsOf({
      isDownlinkFull: this.#heldCount > 0 || this.#deps.isDownlinkFull(),
      isCpuBusy: this.#deps.isCpuBusy(),
      isReadingOrigin: this.#originCount > 0,
      storingCount: this.#storingCount,
      isStoringFull: this.#storingCount > 0 && this.#view?.isStoringFull() === true,
      fromSeedCount: intake?.fromSeedCount ?? 0,
      fromNeighboursCount: intake?.fromNeighboursCount ?? 0,
      seedHasMore: () => intake?.hasMore("seed") === true,
      neighboursHaveMore: () => intake?.hasMore("neighbours") === true,
      isSeedLinked: intake?.isSeedLinked === true,
      linkCount: intake?.linkCount ?? 0,
    });
  }
}

/** What came between two looks at the books. */
export function figuresSince(from: TaskFigures, to: TaskFigures): TaskFigures {
  const less = <K extends string>(a: Readonly<Record<K, number>>, b: Readonly<Record<K, number>>): Record<K, number> =>
    Object.fromEntries((Object.keys(b) as K[]).map((key) => [key, Math.max(0, b[key] - a[key])])) as Record<K, number>;
  const neighbours = new Map<PeerId, { readonly seed: boolean; readonly bytes: number }>();
  for (const [peerId, { seed, bytes }] of to.neighbours) {
    const more = bytes - (from.neighbours.get(peerId)?.bytes ?? 0);
    if (more > 0) neighbours.set(peerId, { seed, bytes: more });
  }
  return {
    spentMs: sharesSince(from.spentMs, to.spentMs),
    pieces: less(from.pieces, to.pieces),
    wastedBytes: to.wastedBytes - from.wastedBytes,
    neighbours,
  };
}
