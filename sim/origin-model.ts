/** The origin: gives the lease holder each file's pieces in order, at its own rate for all of them together. */
import type { Oracles } from "./oracles.ts";
import type { PeerModel } from "./peer-model.ts";
import type { TaskShape } from "./task-shape.ts";
import type { World } from "./world.ts";

interface Read {
  readonly reader: PeerModel;
  /** The reader's process; another life asks anew. */
  readonly life: number;
  readonly complete: () => void;
}

/** How long a reader waits before it asks again after a cut. */
const RETRY_US = 500_000;

export class OriginModel {
  readonly #world: World;
  readonly #oracles: Oracles;
  readonly #bytesPerSecond: number;
  readonly #reads = new Map<TaskShape, Read>();
  #freeUs = 0;
  /** Nothing is given before this. */
  #brokenUntilUs = 0;
  #cuts = 0;

  constructor(world: World, oracles: Oracles, bytesPerSecond: number) {
    this.#world = world;
    this.#oracles = oracles;
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Reads what the reader lacks, until all is there or somebody else reads. A second lease for the same life is ignored. */
  read(reader: PeerModel, task: TaskShape, complete: () => void): void {
    const former = this.#reads.get(task);
    if (former !== undefined && former.reader === reader && former.life === reader.life) return;
    // The former reader had begun a piece: that one may be asked for again.
    if (former !== undefined) this.#oracles.originReadCut();
    const read = { reader, life: reader.life, complete };
    this.#reads.set(task, read);
    this.#next(task, read);
  }

  /** All reads break off; for a while the origin gives nothing. */
  cut(forUs: number): void {
    this.#cuts++;
    this.#brokenUntilUs = Math.max(this.#brokenUntilUs, this.#world.nowUs + forUs);
    for (let i = 0; i < this.#reads.size; i++) this.#oracles.originReadCut();
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
      read.complete();
      return;
    }
    const { nowUs } = this.#world;
    if (nowUs < this.#brokenUntilUs) {
      this.#world.at(this.#brokenUntilUs + RETRY_US, () => this.#next(task, read));
      return;
    }
    const cuts = this.#cuts;
    this.#oracles.originRead(task, piece);
    this.#freeUs = Math.max(this.#freeUs, nowUs) + (task.lengthOf(piece) * 1e6) / this.#bytesPerSecond;
    this.#world.at(this.#freeUs, () => {
      const alive = this.#reads.get(task) === read && !reader.gone && reader.life === read.life;
      // A neighbour may have been quicker, after a restart for instance.
      if (alive && cuts === this.#cuts && !reader.diskOf(task).has(piece)) reader.store(task, piece);
      this.#next(task, read);
    });
  }
}
