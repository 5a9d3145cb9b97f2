/** Pieces on their way to the disk: as many at a time as there are buffers, the first failure ends them all. */
import { type AppError, toAppError } from "../../base/errors.ts";
import type { CutPiece } from "./piece-cutter.ts";

export interface PieceSinkDeps {
  /** Stores a piece and offers it; its buffer is the store's until the promise settles. */
  readonly store: (cut: CutPiece) => Promise<void>;
  /** A piece is stored. What it rejects with is a failure of the disk too. */
  readonly onStored: () => Promise<void> | undefined;
  /** Called once, at the first failure. */
  readonly onFailed: () => void;
}

export class PieceSink {
  readonly #deps: PieceSinkDeps;
  readonly #storing = new Set<Promise<void>>();
  #error: AppError | undefined;

  constructor(deps: PieceSinkDeps) {
    this.#deps = deps;
  }

  /** The first failure. */
  get error(): AppError | undefined {
    return this.#error;
  }

  /** Takes a piece over, buffer included. */
  put(cut: CutPiece): void {
    const storing = this.#deps.store(cut).then(
      // Not awaited: hashing what is on disk must not keep the buffer.
      () => void this.#deps.onStored()?.catch((error: unknown) => this.#fail(error)),
      (error: unknown) => this.#fail(error),
    );
    const settled = storing.finally(() => {
      cut.buffer.release();
      this.#storing.delete(settled);
    });
    this.#storing.add(settled);
  }

  /** Resolves when nothing is under way. @throws the first failure */
  async settle(): Promise<void> {
    await this.idle();
    if (this.#error !== undefined) throw this.#error;
  }

  /** As `settle`, whatever happened. */
  async idle(): Promise<void> {
    await Promise.all(this.#storing);
  }

  #fail(error: unknown): void {
    if (this.#error !== undefined) return;
    this.#error = toAppError(error);
    this.#deps.onFailed();
  }
}
