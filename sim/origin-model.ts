/** The origin: gives the lease holder the file's pieces in order, at its own rate. */
import type { Oracles } from "./oracles.ts";
import type { PeerModel, TaskShape } from "./peer-model.ts";
import type { World } from "./world.ts";

export class OriginModel {
  readonly #world: World;
  readonly #oracles: Oracles;
  readonly #task: TaskShape;
  readonly #bytesPerSecond: number;
  #reader: PeerModel | undefined;

  constructor(world: World, oracles: Oracles, task: TaskShape, bytesPerSecond: number) {
    this.#world = world;
    this.#oracles = oracles;
    this.#task = task;
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Reads what the seed lacks, until all is there or somebody else reads. A second lease for the same seed is ignored. */
  read(seed: PeerModel, complete: () => void): void {
    if (this.#reader === seed) return;
    this.#reader = seed;
    this.#next(seed, complete);
  }

  #next(seed: PeerModel, complete: () => void): void {
    if (this.#reader !== seed) return;
    const piece = seed.have.firstMissing();
    if (piece >= this.#task.pieceCount) {
      this.#reader = undefined;
      complete();
      return;
    }
    const bytes = Math.min(this.#task.pieceLengthBytes, this.#task.lengthBytes - piece * this.#task.pieceLengthBytes);
    this.#world.after((bytes * 1e6) / this.#bytesPerSecond, () => {
      // A neighbour may have been quicker, after a restart for instance.
      if (!seed.have.has(piece)) {
        this.#oracles.originRead(piece);
        seed.store(piece);
      }
      this.#next(seed, complete);
    });
  }
}
