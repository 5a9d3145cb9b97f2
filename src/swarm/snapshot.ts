/** The read-only view of a brain's state. */
import type { SwarmSnapshot } from "./contract.ts";
import { firstOf, type Sending } from "./sending.ts";
import type { Link, Task } from "./tables.ts";

export function snapshotOf(links: Iterable<Link>, tasks: Iterable<Task>, sending: Sending, nowMs: number): SwarmSnapshot {
  return {
    links: [...links].map(({ linkId, peerId }) => ({ linkId, peerId })),
    tasks: [...tasks].map((task) => ({
      taskId: task.taskId,
      pieceLengthBytes: task.pieceLengthBytes,
      haveCount: task.have.count,
      pieceCount: task.pieceCount,
      incoming: [...task.incoming.values()].flat().map(({ link, piece, state, late, sinceMs }) => ({
        linkId: link.linkId,
        piece,
        state,
        late,
        ageMs: nowMs - sinceMs,
      })),
      outgoing: sending.of(task).map((send) => ({ linkId: send.remote.link.linkId, piece: firstOf(send), state: send.state })),
      offersSent: task.offersSent,
      offersDeclined: task.offersDeclined,
      late: task.lateCount,
      doubled: task.doubledCount,
    })),
  };
}
