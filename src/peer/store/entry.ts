/**
 * What the store knows of each task, open or not.
 */
import { PieceSet } from "../../protocol/piece-set.ts";
import type { TaskRecord } from "./piece-store.ts";
import type { StoreTask } from "./task.ts";

export interface StoreEntry {
  record: TaskRecord;
  isOnDisk: boolean;
  /** Pieces that this process verified or wrote; valid while the task is closed. */
  trusted: PieceSet;
  /** What the account holds for it while closed; an estimate before the first open. */
  heldBytes: number;
  usedAtUnixMs: number;
  refCount: number;
  task: StoreTask | undefined;
  /** Resolves to `task`; set while opening and as long as it is open. */
  opening: Promise<StoreTask | undefined> | undefined;
  closing: Promise<void>;
  /** Set while it is being removed; whoever wants it waits. */
  removing: Promise<void> | undefined;
}

/** A task that nobody has open yet. */
export function newEntry(record: TaskRecord, isOnDisk: boolean, heldBytes: number, usedAtUnixMs: number): StoreEntry {
  return {
    record,
    isOnDisk,
    trusted: new PieceSet(),
    heldBytes,
    usedAtUnixMs,
    refCount: 0,
    task: undefined,
    opening: undefined,
    closing: Promise.resolve(),
    removing: undefined,
  };
}
