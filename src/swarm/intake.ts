/** Where a task's pieces come from right now, and who could send more: what accounting of its time asks. */
import type { LinkId } from "./contract.ts";
import { holdsMissing, type Task } from "./tables.ts";

export interface TaskIntake {
  /** Pieces on their way, by what the sender is; where there are none, those agreed; where there are none, late ones. */
  readonly fromSeedCount: number;
  readonly fromNeighboursCount: number;
  readonly isSeedLinked: boolean;
  readonly linkCount: number;
  /** Of the task since it was opened. */
  readonly late: number;
  readonly doubled: number;
  /** Whether the seed, or any other neighbour, holds a piece that is missing here. */
  hasMore(from: "seed" | "neighbours"): boolean;
  /** Whether anybody linked, the seed or another, holds this piece. */
  isHeldNearby(piece: number): boolean;
}

export function intakeOf(task: Task): TaskIntake {
  const seeds = new Set<LinkId>();
  for (const [linkId, remote] of task.remotes) if (remote.seed) seeds.add(linkId);
  const under = [...task.incoming.values()].flat().filter(({ state }) => state !== "verifying");
  const timely = under.filter(({ late }) => !late);
  const moving = timely.filter(({ state }) => state === "receiving");
  const counted = [moving, timely, under].find(({ length }) => length > 0) ?? [];
  const fromSeedCount = counted.filter(({ link }) => seeds.has(link.linkId)).length;
  const fromNeighboursCount = counted.length - fromSeedCount;
  return {
    fromSeedCount,
    fromNeighboursCount,
    isSeedLinked: seeds.size > 0,
    linkCount: task.remotes.size,
    late: task.lateCount,
    doubled: task.doubledCount,
    hasMore: (from) => {
      for (const remote of task.remotes.values()) {
        if (remote.seed === (from === "seed") && !remote.isolated && holdsMissing(remote.have.words, task.have.words)) return true;
      }
      return false;
    },
    isHeldNearby: (piece) => {
      for (const remote of task.remotes.values()) if (!remote.isolated && remote.have.has(piece)) return true;
      return false;
    },
  };
}
