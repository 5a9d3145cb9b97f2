import type { SchedulerSnapshot } from "./contract.ts";
import type { Tables } from "./state.ts";

/** All tables as plain data, sorted by id: the same state gives the same bytes. */
export function snapshotOf(tables: Tables): SchedulerSnapshot {
  const peers = [...tables.peers.values()].map((peer) => ({
    peerId: peer.id,
    seed: peer.seed,
    keeper: peer.keeper,
    connected: peer.connected,
    topology: peer.topology,
    taskCount: peer.memberships.size,
  }));
  const tasks = [...tables.tasks.values()].map((task) => {
    const members = [...task.members.values()].map((member) => ({
      peerId: member.peer.id,
      pieceCount: member.pieceCount,
      complete: member.complete,
      neighbours: [...member.neighbours].map((neighbour) => neighbour.peer.id).sort(compare),
    }));
    return {
      taskId: task.id,
      leaseHolder: task.leaseHolder?.peer.id,
      spanLeases: [...task.spanLeases.values()].map(({ id, holder, nextPiece, endPiece }) => ({
        leaseId: id,
        holder: holder.peer.id,
        firstPiece: nextPiece,
        endPiece,
      })),
      unreadSpans: [...task.unreadSpans],
      members: members.sort((a, b) => compare(a.peerId, b.peerId)),
    };
  });
  return {
    peers: peers.sort((a, b) => compare(a.peerId, b.peerId)),
    tasks: tasks.sort((a, b) => compare(a.taskId, b.taskId)),
  };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
