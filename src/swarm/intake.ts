/** Where a task's pieces come from right now, and who could send more: what accounting of its time asks. */
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
  // In one pass, without lists: it is asked for many times a second of every task under way.
  const [moving, agreed, late] = [newCount(), newCount(), newCount()];
  for (const receives of task.incoming.values()) {
    for (const receive of receives) {
      if (receive.state === "verifying") continue;
      const count = receive.late ? late : receive.state === "receiving" ? moving : agreed;
      count[task.remotes.get(receive.link.linkId)?.seed === true ? "seed" : "neighbours"]++;
    }
  }
  const counted = [moving, agreed, late].find(({ seed, neighbours }) => seed + neighbours > 0) ?? moving;
  let isSeedLinked = false;
  for (const { seed } of task.remotes.values()) isSeedLinked ||= seed;
  return {
    fromSeedCount: counted.seed,
    fromNeighboursCount: counted.neighbours,
    isSeedLinked,
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

interface Count {
  seed: number;
  neighbours: number;
}

function newCount(): Count {
  return { seed: 0, neighbours: 0 };
}
