/**
 * How far a peer is with a task, as far as the supernode is told: it has begun (a quarter is here, so that it may be given
 * more neighbours), it is complete. Each step is a message per peer and task, of ten at most (swarm.md §5).
 */
export type ProgressStep = 0 | 1 | 2;

const BEGUN_SHARE = 1 / 4;

/** @param totalCount pieces of the task, at least 1 */
export function progressStep(heldCount: number, totalCount: number): ProgressStep {
  if (heldCount >= totalCount) return 2;
  return heldCount >= totalCount * BEGUN_SHARE ? 1 : 0;
}
