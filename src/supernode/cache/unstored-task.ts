/**
 * A task of a seed that cannot make its files. It takes part with nothing to give, so that peers can be lent what it would
 * have read; whoever wants it to store something hears why it cannot.
 */
import { AppError } from "../../base/errors.ts";
import type { PieceProof, StoredTask, StoreOutcome, TaskRecord } from "../../peer/store/piece-store.ts";
import type { Digest } from "../../protocol/ids.ts";
import { PieceSet } from "../../protocol/piece-set.ts";
import type { SeedPeerTask } from "./seed-task.ts";

export class UnstoredTask implements SeedPeerTask {
  readonly stored: StoredTask;
  readonly #failure: AppError;

  /** @param failure of the disk */
  constructor(record: TaskRecord, failure: AppError) {
    this.stored = new NothingStored(record, failure);
    this.#failure = failure;
  }

  connect(): void {}

  disconnect(): void {}

  addOwn(): Promise<PieceProof> {
    return Promise.reject(this.#failure);
  }

  setLength(): Promise<void> {
    return Promise.reject(this.#failure);
  }

  release(): void {}
}

class NothingStored implements StoredTask {
  readonly record: TaskRecord;
  readonly have: PieceSet = new PieceSet();
  readonly complete = false;
  readonly dataFd = -1;
  readonly dataPath = undefined;
  readonly #failure: AppError;

  constructor(record: TaskRecord, failure: AppError) {
    this.record = record;
    this.#failure = failure;
  }

  proofOf(): undefined {
    return undefined;
  }

  storeVerified(): Promise<StoreOutcome> {
    return Promise.reject(this.#failure);
  }

  storeOwn(): Promise<PieceProof> {
    return Promise.reject(this.#failure);
  }

  isVerified(): boolean {
    return false;
  }

  verify(): Promise<readonly number[]> {
    return Promise.resolve([]);
  }

  read(): Promise<void> {
    return Promise.reject(new AppError("PIECE_UNKNOWN", `nothing of task ${this.record.taskId} is stored`));
  }

  assertRoom(): Promise<void> {
    return Promise.reject(this.#failure);
  }

  setLength(): Promise<void> {
    return Promise.reject(this.#failure);
  }

  digestOf(): Promise<Digest> {
    return Promise.reject(new AppError("PIECE_UNKNOWN", `nothing of task ${this.record.taskId} is stored`));
  }

  discard(): Promise<void> {
    return Promise.resolve();
  }

  onLost(): () => void {
    return () => undefined;
  }

  release(): void {}
}
