/** One run: a seed, a supernode, peers, a network between them, and what came of it. */
import { assemble, type RunParts } from "./assemble.ts";
import { scheduleFaults } from "./faults.ts";
import type { SimOptions } from "./options.ts";
import { explainWaiting } from "./oracles.ts";
import type { PeerModel } from "./peer-model.ts";
import { boundUsOf, reportOf, type SimReport } from "./report.ts";
import type { SupernodeModel } from "./supernode-model.ts";
import type { TaskShape } from "./task-shape.ts";
import type { World } from "./world.ts";

/** Once the faults are over, everything owed is here within this many times the bound, and a minute. */
const PATIENCE_FACTOR = 10;
const PATIENCE_US = 60e6;
/** Time for what lingers (places kept, tasks remembered) to be given up, once all tasks are closed. */
const LINGER_US = 600e6;
/** Time for what was said last to arrive. */
const SETTLE_US = 10e6;
const INSPECT_US = 500_000;

/**
 * Runs until every peer that is owed something holds it; then closes everything and looks for what was left behind.
 *
 * @throws Error when an oracle is violated, when somebody waits beyond the deadline (the message says why each of those
 *   waits), or when something is left behind
 */
export function simulate(options: SimOptions, parts: RunParts = {}): SimReport {
  const { world, network, oracles, tasks, supernode, origin, prng, seedPeer, plain, find } = assemble(options, parts);
  const begin = (peer: PeerModel): void => {
    for (const task of peer.keeper ? [] : tasks) {
      peer.want(task);
      supernode.join(peer, task);
    }
    supernode.connect(peer);
  };
  const everybody = [seedPeer, ...plain];
  supernode.connect(seedPeer);
  plain.forEach((peer, i) => world.at((options.arrivalMs * 1000 * i) / options.peerCount, () => begin(peer)));

  const honest = plain.filter((peer) => peer.lies === undefined);
  const boundUs = boundUsOf(options, tasks, plain.map(({ host }) => host));
  const horizonUs = boundUs + options.arrivalMs * 1000;
  const faulty = Object.values(options.faults).some((count) => count > 0);
  const targets = { world, network, supernode, origin, tasks, seedPeer, peers: honest, everybody, begin };
  const calmUs = scheduleFaults(targets, options, horizonUs, prng);
  const deadlineUs = calmUs + boundUs * PATIENCE_FACTOR + PATIENCE_US;
  const inspect = (): void => oracles.inspect(everybody, options.swarm, supernode.snapshot(), options.scheduler);

  /** A neighbour gives it something yet, or should. */
  const isFed = (peer: PeerModel): boolean =>
    tasks.some((task) =>
      peer.links.peerIds.some((peerId) => {
        const other = find(peerId);
        if (other === undefined || other.lies !== undefined || !peer.isJoinedWith(other, task)) return false;
        if (other.knowsLength(task) && !peer.knowsLength(task)) return true;
        return [...other.diskOf(task)].some((piece) => !peer.diskOf(task).has(piece));
      }),
    );
  /** Without a supernode nobody finds other neighbours: owed is what those there are hold. */
  const isOver = (peer: PeerModel): boolean => peer.complete || !peer.owed || (supernode.isOver && !isFed(peer));
  let over = 0;
  const isDone = (): boolean => {
    if (faulty && world.nowUs < calmUs) return false;
    // Looked at from where the last look ended: without faults, who is done stays done.
    while (over < honest.length && isOver(honest[over] as PeerModel)) over++;
    return over >= honest.length && (!faulty || honest.every(isOver));
  };
  for (let untilUs = INSPECT_US; !isDone() && untilUs < deadlineUs && world.pendingCount > 0; untilUs += INSPECT_US) {
    world.run(untilUs, isDone);
    if (faulty) inspect();
    parts.look?.(world.nowMs, plain);
  }
  const waiting = honest.filter((peer) => !isOver(peer));
  if (waiting.length > 0) {
    throw new Error(
      `${waiting.length} peers wait at ${world.nowMs} ms (faults ended at ${Math.round(calmUs / 1000)}, T* ${Math.round(boundUs / 1000)} ms)\n${explainWaiting(waiting, tasks, find)}`,
    );
  }
  const report = reportOf(options, { tasks, honest, seedPeer, world, network, oracles, supernode, boundUs });
  if (faulty) leaveNothing(world, everybody, tasks, supernode);
  return report;
}

/** Closes every task everywhere, lets what lingers run out, and looks for what is left: tasks, links, peers, timers. */
export function leaveNothing(world: World, peers: readonly PeerModel[], tasks: readonly TaskShape[], supernode: SupernodeModel): void {
  const everybody = peers.filter((peer) => !peer.gone);
  const left: string[] = [];
  const look = (peer: PeerModel): void => {
    const { tasks: open, links } = peer.snapshot();
    if (open.length > 0) left.push(`${peer.peerId} still has ${open.length} tasks`);
    if (links.length > 0) left.push(`${peer.peerId} still has ${links.length} links`);
    const dueMs = peer.nextDeadlineMs();
    if (dueMs !== undefined) left.push(`${peer.peerId} still waits for ${dueMs} ms`);
  };
  for (const peer of everybody) {
    if (peer.seed) continue;
    // Whose download has just failed does not ask for it again.
    peer.left = true;
    for (const task of tasks) {
      if (peer.isWanted(task)) supernode.leave(peer, task);
      peer.closeTask(task);
    }
  }
  world.run(world.nowUs + SETTLE_US, () => false);
  for (const peer of everybody) for (const other of peer.links.peerIds) peer.links.break(other, 0);
  world.run(world.nowUs + SETTLE_US, () => false);
  for (const peer of everybody) {
    if (peer.seed) continue;
    look(peer);
    supernode.disconnect(peer, 0);
    peer.crash(0);
  }
  if (supernode.isOver) {
    if (left.length > 0) throw new Error(`left behind: ${left.join("; ")}`);
    return;
  }
  // A seed gives a task up when the supernode forgets it.
  world.run(world.nowUs + LINGER_US, () => false);
  for (const peer of everybody) if (peer.seed) look(peer);
  const snapshot = supernode.snapshot();
  for (const task of snapshot.tasks) left.push(`the supernode still knows task ${task.taskId}, with ${task.members.map(({ peerId }) => peerId).join(" ")}`);
  for (const peer of snapshot.peers) if (!peer.seed) left.push(`the supernode still knows ${peer.peerId}`);
  if (supernode.nextDeadlineMs() !== undefined) left.push(`the supernode still waits for ${supernode.nextDeadlineMs()} ms`);
  if (world.pendingCount > 0) left.push(`${world.pendingCount} events are still due`);
  if (left.length > 0) throw new Error(`left behind: ${left.join("; ")}`);
}
