/** The origin: gives the seed each file's pieces in order, and peers those of their spans, at its own rate for all of them together. */
import type { Oracles } from "./oracles.ts";
import type { PeerModel } from "./peer-model.ts";
import type { TaskShape } from "./task-shape.ts";
import type { World } from "./world.ts";

interface Read {
  readonly reader: PeerModel;
  /** The reader's process; another life asks anew. */
  readonly life: number;
  readonly ended: (outcome: "complete" | "failed") => void;
}

/** Slow: a fifth of the origin's rate. Stuck: it is kept waiting, until its client gives up. */
export type OriginReach = "good" | "slow" | "stuck" | "none";

const SLOW_FACTOR = 5;
/** Longer than a lease lasts without progress. */
const STUCK_US = 30_000_000;

/** Told apart by what another attempt may bring. */
export type PieceOutcome = "read" | "cut" | "refused";

/** How long a reader waits before it asks again after a cut. */
const RETRY_US = 500_000;
/** Until an origin that cannot be reached has said so. */
const REFUSED_US = 50_000;

/** By a peer that was lent the piece. */
interface PieceRead {
  readonly piece: number;
  readonly reader: PeerModel;
  readonly life: number;
}

export class OriginModel {
  readonly #world: World;
  readonly #oracles: Oracles;
  readonly #bytesPerSecond: number;
  readonly #reads = new Map<TaskShape, Read>();
  #freeUs = 0;
  /** Nothing is given before this. */
  #brokenUntilUs = 0;
  #cuts = 0;
  /** Until then the seed cannot read, though others can. */
  #seedlessUntilUs = 0;
  /** Pieces that peers are reading now: each once, whoever reads it. */
  readonly #underWay = new Map<TaskShape, PieceRead[]>();
  /** What peers have read, by task; the seed does not know of it. */
  readonly #readByPeers = new Map<TaskShape, Set<number>>();

  constructor(world: World, oracles: Oracles, bytesPerSecond: number) {
    this.#world = world;
    this.#oracles = oracles;
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Reads what the reader lacks, until all is there or somebody else reads. A second lease for the same life is ignored. */
  read(reader: PeerModel, task: TaskShape, ended: (outcome: "complete" | "failed") => void): void {
    const former = this.#reads.get(task);
    if (former !== undefined && former.reader === reader && former.life === reader.life) return;
    // The former reader had begun a piece: that one may be asked for again.
    if (former !== undefined) this.#oracles.originReadCut();
    const read = { reader, life: reader.life, ended };
    this.#reads.set(task, read);
    this.#next(task, read);
  }

  /** All reads break off; for a while the origin gives nothing. */
  cut(forUs: number): void {
    this.#cuts++;
    this.#brokenUntilUs = Math.max(this.#brokenUntilUs, this.#world.nowUs + forUs);
    let readCount = this.#reads.size;
    for (const pieces of this.#underWay.values()) readCount += pieces.length;
    for (let i = 0; i < readCount; i++) this.#oracles.originReadCut();
  }

  /** The seed holds these no longer, whoever read them for it. */
  lost(task: TaskShape, pieces: readonly number[]): void {
    for (const piece of pieces) this.#oracles.originReadLost(task, piece);
  }

  /** For a while only others than the seed can read: its disk is full, its proxy refuses. */
  refuseSeed(forUs: number): void {
    this.#seedlessUntilUs = Math.max(this.#seedlessUntilUs, this.#world.nowUs + forUs);
  }

  /** One piece for a peer that was lent it; `ended` in its process, if that is still there. */
  readPiece(reader: PeerModel, task: TaskShape, piece: number, ended: (outcome: PieceOutcome) => void): void {
    const { nowUs } = this.#world;
    const { originReach } = reader;
    if (originReach === "none") return reader.soon(REFUSED_US, () => ended("refused"));
    if (nowUs < this.#brokenUntilUs) return reader.soon(REFUSED_US, () => ended("cut"));
    const cuts = this.#cuts;
    const underWay = this.#underWay.get(task) ?? [];
    this.#underWay.set(task, underWay);
    // What a process read that is dead by now comes to nobody.
    const isComing = underWay.some((other) => other.piece === piece && other.reader.life === other.life);
    this.#oracles.originRead(task, piece, isComing || reader.isHeldNearby(task, piece));
    const own: PieceRead = { piece, reader, life: reader.life };
    underWay.push(own);
    const read = this.#readByPeers.get(task) ?? new Set();
    this.#readByPeers.set(task, read.add(piece));
    const bytesUs = (task.lengthOf(piece) * 1e6) / this.#bytesPerSecond;
    this.#freeUs = Math.max(this.#freeUs, nowUs) + bytesUs;
    const endUs = originReach === "stuck" ? nowUs + STUCK_US : Math.max(this.#freeUs, nowUs + bytesUs * (originReach === "slow" ? SLOW_FACTOR : 1));
    this.#world.at(endUs, () => {
      underWay.splice(underWay.indexOf(own), 1);
      if (originReach === "stuck") this.#oracles.originReadCut();
      reader.soon(0, () => ended(cuts === this.#cuts && originReach !== "stuck" ? "read" : "cut"));
    });
  }

  #next(task: TaskShape, read: Read): void {
    const { reader } = read;
    if (this.#reads.get(task) !== read) return;
    if (reader.gone || reader.life !== read.life) {
      // The piece begun is lost with the process.
      this.#oracles.originReadCut();
      this.#reads.delete(task);
      return;
    }
    const piece = reader.diskOf(task).firstMissing();
    if (piece >= task.pieceCount) {
      this.#reads.delete(task);
      read.ended("complete");
      return;
    }
    const { nowUs } = this.#world;
    if (nowUs < this.#seedlessUntilUs) {
      this.#reads.delete(task);
      read.ended("failed");
      return;
    }
    if (nowUs < this.#brokenUntilUs) {
      this.#world.at(this.#brokenUntilUs + RETRY_US, () => this.#next(task, read));
      return;
    }
    const cuts = this.#cuts;
    // What it lacks it reads, whoever read that in its stead.
    this.#oracles.originRead(task, piece, this.#readByPeers.get(task)?.has(piece) !== true);
    this.#freeUs = Math.max(this.#freeUs, nowUs) + (task.lengthOf(piece) * 1e6) / this.#bytesPerSecond;
    this.#world.at(this.#freeUs, () => {
      const alive = this.#reads.get(task) === read && !reader.gone && reader.life === read.life;
      // A neighbour may have been quicker, after a restart for instance.
      if (alive && cuts === this.#cuts && !reader.diskOf(task).has(piece)) reader.store(task, piece);
      this.#next(task, read);
    });
  }
}
