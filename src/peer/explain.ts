/** Turns the books of a task, or of one reader of it, into what people and programs are told. */
import { type BoundShares, BOUNDS, emptyShares, mainBound } from "../base/bounds.ts";
import { EXPLAINED_NEIGHBOUR_COUNT_MAX, type Explanation } from "../protocol/explanation.ts";
import type { TaskId } from "../protocol/ids.ts";
import type { TaskFigures } from "./task-account.ts";
import type { TaskSession } from "./task-session.ts";

/** Times of one reading, in ms. */
export interface ReadingTimes {
  readonly tookMs: number;
  readonly openedMs: number;
  readonly firstByteMs: number | undefined;
  readonly spentMs: BoundShares;
}

/** @param figures undefined: no swarm took part */
export function explain(times: ReadingTimes, bytes: Explanation["bytes"], figures: TaskFigures | undefined): Explanation {
  const spentMs = emptyShares();
  for (const bound of BOUNDS) spentMs[bound] = Math.round(times.spentMs[bound] + (figures?.spentMs[bound] ?? 0));
  const neighbours = [...(figures?.neighbours ?? [])].map(([peerId, entry]) => ({ peerId, ...entry }));
  return {
    boundBy: mainBound(spentMs) ?? null,
    tookMs: Math.round(times.tookMs),
    openedMs: Math.round(times.openedMs),
    firstByteMs: times.firstByteMs === undefined ? null : Math.round(times.firstByteMs * 10) / 10,
    spentMs,
    bytes,
    neighbours: neighbours.toSorted((a, b) => b.bytes - a.bytes).slice(0, EXPLAINED_NEIGHBOUR_COUNT_MAX),
    pieces: figures?.pieces ?? { offered: 0, declined: 0, late: 0, doubled: 0, rejected: 0 },
    wastedBytes: figures?.wastedBytes ?? 0,
  };
}

/** A task this host takes part in. */
export interface TaskReport {
  readonly taskId: TaskId;
  /** Without user info and query values; null for what is kept for others only, which nobody here has shown to have a right to. */
  readonly url: string | null;
  readonly lengthBytes: number | null;
  readonly heldBytes: number;
  readonly complete: boolean;
  readonly readerCount: number;
  readonly explanation: Explanation;
}

/** A task's whole life at this peer, whoever read it. */
export function explainTask({ account }: TaskSession, bytes: Explanation["bytes"]): Explanation {
  const { tookMs, firstPieceMs } = account;
  return explain({ tookMs, openedMs: 0, firstByteMs: firstPieceMs, spentMs: emptyShares() }, bytes, account.figures());
}
