/**
 * A day of a site: hosts whose daemons come and go, files that are wanted, kept for a while and given up. It looks for
 * what slowly piles up: tasks, peers, links, timers.
 */
import { assemble } from "./assemble.ts";
import { LAB_BYTES_PER_SECOND, plainOptions } from "./options.ts";
import { explainWaiting } from "./oracles.ts";
import type { PeerModel } from "./peer-model.ts";
import { leaveNothing } from "./simulation.ts";
import type { TaskShape } from "./task-shape.ts";

const MINUTE_US = 60e6;
const HOUR_US = 60 * MINUTE_US;
/** A file that is wanted is here within this, also when the daemon's life began with a reconnect. */
const OWED_US = 5 * MINUTE_US;
/** A task without members, and a peer without a connection, are remembered for at most this (see SchedulerConfig). */
const REMEMBERED_US = 3 * MINUTE_US;
/** Pending events per process: messages on their way, one timer, what this file has planned for it. */
const EVENTS_PER_PROCESS_MAX = 40;

export interface DayReport {
  readonly wants: number;
  readonly rebirths: number;
  /** At each full hour, over all processes and the supernode. */
  readonly hours: readonly { readonly openTasks: number; readonly links: number; readonly siteTasks: number; readonly sitePeers: number; readonly events: number }[];
}

/** @throws Error when a file does not come, or when something is remembered that nobody needs */
export function simulateDay(seed: number, hourCount: number): DayReport {
  const filesPerHour = 8;
  const options = plainOptions(seed, {
    peerCount: 16,
    tasks: Array.from({ length: (hourCount + 1) * filesPerHour }, (_, i) => ({ pieceCount: 1 + ((i * 7) % 30), pieceLengthBytes: 256 * 1024, priority: "normal" as const })),
    originBytesPerSecond: LAB_BYTES_PER_SECOND,
    readers: true,
  });
  const { world, prng, tasks, supernode, seedPeer, plain, find, oracles } = assemble(options);
  const endUs = hourCount * HOUR_US;
  /** Until when each task may be known to the supernode. */
  const neededUntilUs = new Map<TaskShape, number>();
  let wants = 0;
  let rebirths = 0;

  const want = (peer: PeerModel): void => {
    // Yesterday's files are seldom wanted; the hour's are, by several.
    const newest = Math.floor(world.nowUs / HOUR_US) * filesPerHour;
    const task = tasks[Math.max(0, newest + filesPerHour - 1 - prng.below(2 * filesPerHour))] as TaskShape;
    if (peer.isWanted(task)) return;
    wants++;
    const keptUs = OWED_US + prng.below(60) * MINUTE_US;
    neededUntilUs.set(task, Math.max(neededUntilUs.get(task) ?? 0, world.nowUs + keptUs + REMEMBERED_US));
    peer.want(task);
    supernode.join(peer, task);
    peer.soon(OWED_US, () => {
      if (peer.diskOf(task).count < task.pieceCount) throw new Error(`it waits for ${OWED_US / 1e6} s\n${explainWaiting([peer], [task], find)}`);
    });
    peer.soon(keptUs, () => {
      supernode.leave(peer, task);
      peer.closeTask(task);
    });
  };
  const live = (peer: PeerModel): void => {
    supernode.connect(peer);
    const wantAgain = (): void => {
      peer.soon((1 + prng.below(30)) * MINUTE_US, () => {
        if (world.nowUs > endUs) return;
        want(peer);
        wantAgain();
      });
    };
    wantAgain();
    peer.soon((20 + prng.below(600)) * MINUTE_US, () => {
      if (world.nowUs > endUs) return;
      rebirths++;
      // Killed: the kernel tells; without power: silence.
      const noticedUs = prng.below(2) === 0 ? options.delayUs : 6e6;
      supernode.disconnect(peer, noticedUs);
      peer.crash(noticedUs);
      world.after((5 + prng.below(300)) * 1e6, () => {
        peer.revive();
        live(peer);
      });
    });
  };
  supernode.connect(seedPeer);
  for (const peer of plain) live(peer);

  const hours: DayReport["hours"][number][] = [];
  for (let hour = 1; hour <= hourCount; hour++) {
    world.run(hour * HOUR_US, () => false);
    const alive = [seedPeer, ...plain].filter((peer) => !peer.gone);
    const site = supernode.snapshot();
    oracles.inspect(alive, options.swarm, site, options.scheduler);
    for (const { taskId, members } of site.tasks) {
      const task = tasks.find((shape) => shape.taskId === taskId) as TaskShape;
      if ((neededUntilUs.get(task) ?? 0) < world.nowUs) throw new Error(`after ${hour} h the supernode still knows task ${task.index} with ${members.map(({ peerId }) => peerId).join(" ")}, which nobody wants`);
    }
    for (const peer of alive) {
      const wanted = tasks.filter((task) => peer.isWanted(task)).length;
      const open = peer.snapshot().tasks.length;
      if (open > wanted) throw new Error(`after ${hour} h ${peer.peerId} has ${open} tasks open, and wants ${wanted}`);
    }
    // Those who died within the last moments are remembered, too.
    if (site.peers.length > alive.length + 2) throw new Error(`after ${hour} h the supernode knows ${site.peers.length} peers, of ${alive.length}`);
    const events = world.pendingCount;
    if (events > alive.length * EVENTS_PER_PROCESS_MAX) throw new Error(`after ${hour} h ${events} events are due`);
    const links = alive.reduce((sum, peer) => sum + peer.snapshot().links.length, 0);
    if (links > alive.length * (alive.length - 1)) throw new Error(`after ${hour} h there are ${links} ends of links between ${alive.length}`);
    hours.push({ openTasks: alive.reduce((sum, peer) => sum + peer.snapshot().tasks.length, 0), links, siteTasks: site.tasks.length, sitePeers: site.peers.length, events });
  }
  // What was planned for later lives is not begun any more.
  world.run(endUs + 12 * HOUR_US, () => false);
  leaveNothing(world, [seedPeer, ...plain], tasks, supernode);
  return { wants, rebirths, hours };
}
