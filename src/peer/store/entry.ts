/**
 * What the store knows of each task, open or not. There may be 100,000 of them: what only open tasks need is absent.
 */
import type { PieceSet } from "../../protocol/piece-set.ts";
import type { FileFacts } from "./disk.ts";
import type { TaskSummary } from "./piece-store.ts";
import type { StoreTask } from "./task.ts";

export interface StoreEntry {
  summary: TaskSummary;
  isOnDisk: boolean;
  /** Only the index says that it is there, and what it holds: nothing was compared with the disk since the start. */
  isUnseen: boolean;
  /** What the account holds for it while closed; an estimate before the first open. */
  heldBytes: number;
  usedAtUnixMs: number;
  /** Wall clock of the last use that the eviction queue was told of. */
  countedUseAtUnixMs: number;
  refCount: number;
  /** A piece is on its way into it, whoever has it open: it makes no room, for that may be what the piece waits for. */
  isStoring: boolean;
  /** Changes of its pin that are being written: till then, too, it makes no room. */
  pinWriteCount: number;
  /** The journal when it was last closed, or read. */
  journal: FileFacts | undefined;
  /** Pieces that this process verified or wrote; valid while the task is closed. */
  trusted: PieceSet | undefined;
  task: StoreTask | undefined;
  /** Resolves to `task`; set while opening and as long as it is open. */
  opening: Promise<StoreTask | undefined> | undefined;
  /** Its files are being closed. */
  closing: Promise<void> | undefined;
  /** Set while it is being removed; whoever wants it waits. */
  removing: Promise<void> | undefined;
}

/** A task that nobody has open yet. */
export function newEntry(summary: TaskSummary, facts: Pick<StoreEntry, "isOnDisk" | "isUnseen" | "heldBytes" | "usedAtUnixMs" | "journal">): StoreEntry {
  const { isOnDisk, isUnseen, heldBytes, usedAtUnixMs, journal } = facts;
  return {
    summary,
    isOnDisk,
    isUnseen,
    heldBytes,
    usedAtUnixMs,
    journal,
    countedUseAtUnixMs: facts.usedAtUnixMs,
    refCount: 0,
    isStoring: false,
    pinWriteCount: 0,
    trusted: undefined,
    task: undefined,
    opening: undefined,
    closing: undefined,
    removing: undefined,
  };
}

/** Only what is needed of closed tasks. */
export function summaryOf({ taskId, displayUrl, lengthBytes, contentType, digest }: TaskSummary): TaskSummary {
  return { taskId, displayUrl, lengthBytes, contentType, digest };
}
