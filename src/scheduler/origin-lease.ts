/**
 * Which seed may read a task's origin: at most one at a time (S4), and none while the whole file is already here.
 */
import type { SchedulerEffect } from "./contract.ts";
import type { Member, Task } from "./state.ts";

/**
 * Grants the lease when the task needs a reader and has none: to the first seed by age that is connected, incomplete
 * and has not failed since somebody last joined.
 *
 * @param starved somebody who needs pieces cannot get them: complete members that are no seeds no longer count
 */
export function grantLeaseIfNeeded(task: Task, starved: boolean, effects: SchedulerEffect[]): void {
  if (task.leaseHolder !== undefined) return;
  for (const member of task.complete) {
    if (member.peer.seed || !starved) return;
  }
  const holder = task.seeds.find((seed) => seed.peer.connected && !task.failedSeeds.has(seed.peer.id));
  if (holder === undefined) return;
  task.leaseHolder = holder;
  effects.push({ type: "grantLease", taskId: task.id, holder: holder.peer.id });
}

/** Takes the lease back without a verdict: its holder is gone. @returns whether `member` held it */
export function releaseLease(member: Member): boolean {
  if (member.task.leaseHolder !== member) return false;
  member.task.leaseHolder = undefined;
  return true;
}
