/** Observers outside of the brains: they know what each peer really holds. A violation ends the run. */
import type { PeerId } from "../src/protocol/ids.ts";
import type { SchedulerConfig, SchedulerSnapshot } from "../src/scheduler/index.ts";
import { brokenInvariants, type SwarmConfig } from "../src/swarm/index.ts";
import type { PeerModel } from "./peer-model.ts";
import type { TaskShape } from "./task-shape.ts";

export class Oracles {
  /** By task, then by piece. */
  readonly #originReads: number[][] = [];
  /** Reads that broke off: each is a cause to ask for one piece again. */
  #originCuts = 0;
  /** Bytes asked of the origin, and those of them that had been asked before. */
  originBytes = 0;
  #originRepeats = 0;
  /** Pieces that peers read in the seed's stead. */
  broughtCount = 0;
  #broughtRepeats = 0;
  deliveredCount = 0;
  /** Pieces verified and found to be here already: two sources finished at about the same time. */
  storedTwiceCount = 0;
  readonly declines: Record<string, number> = {};

  /** Nothing is offered or sent that is not held, verified. */
  offered(peer: PeerModel, task: TaskShape, piece: number): void {
    if (!peer.diskOf(task).has(piece)) throw new Error(`${peer.peerId} offers piece ${piece}, which it does not hold`);
  }

  sending(peer: PeerModel, task: TaskShape, piece: number): void {
    if (!peer.diskOf(task).has(piece)) throw new Error(`${peer.peerId} sends piece ${piece}, which it does not hold`);
  }

  /** Nothing unverified reaches a reader. */
  delivered(peer: PeerModel, task: TaskShape, piece: number): void {
    this.deliveredCount++;
    if (!peer.diskOf(task).has(piece)) throw new Error(`${peer.peerId} reads piece ${piece}, which is not there`);
  }

  declined(reason: string): void {
    this.declines[reason] = (this.declines[reason] ?? 0) + 1;
  }

  /**
   * The origin gives each piece once, whoever reads it, unless a read broke off or a lease was lost.
   * @param isThere somebody reads it, or a neighbour that can be reached holds it: no cause to ask again
   */
  originRead(task: TaskShape, piece: number, isThere: boolean): void {
    let reads = this.#originReads[task.index];
    if (reads === undefined) this.#originReads[task.index] = reads = [];
    const count = (reads[piece] ?? 0) + 1;
    reads[piece] = count;
    this.originBytes += task.lengthOf(piece);
    if (count > 1 && isThere && ++this.#originRepeats > this.#originCuts) {
      throw new Error(`piece ${piece} of task ${task.index} is asked of the origin ${count} times, after ${this.#originCuts} cuts`);
    }
  }

  /** Of a relief each piece is brought once: spans do not overlap, and what was taken is not lent again. */
  brought(task: TaskShape, piece: number, before: boolean): void {
    this.broughtCount++;
    if (before && ++this.#broughtRepeats > this.#originCuts) throw new Error(`piece ${piece} of task ${task.index} is brought twice under leases`);
  }

  originReadCut(): void {
    this.#originCuts++;
  }

  /** What the seed had of it is gone: it may be asked for once more. */
  originReadLost(task: TaskShape, piece: number): void {
    const reads = this.#originReads[task.index];
    if (reads !== undefined) reads[piece] = 0;
  }

  expelled(peer: PeerModel): void {
    if (peer.lies === undefined) throw new Error(`${peer.peerId} is expelled, but it is honest`);
  }

  /** S5: nobody is told to dial who cannot be. */
  handedOut(neighbours: readonly PeerId[], find: (peerId: PeerId) => PeerModel | undefined): void {
    const closed = neighbours.find((peerId) => find(peerId)?.reach === "closed");
    if (closed !== undefined) throw new Error(`S5: ${closed} cannot be dialled, and is handed out`);
  }

  /** The supernode drops all it knows of a task: nobody connected may still be at it. */
  forgotten(task: TaskShape, connected: readonly PeerModel[]): void {
    const at = connected.find((peer) => !peer.seed && peer.isWanted(task));
    if (at !== undefined) throw new Error(`task ${task.index} is forgotten, but ${at.peerId} is at it`);
  }

  /** What snapshots show; dear, so not after every event. */
  inspect(peers: Iterable<PeerModel>, swarm: SwarmConfig, snapshot: SchedulerSnapshot, scheduler: SchedulerConfig): void {
    for (const peer of peers) {
      if (peer.gone) continue;
      const broken = brokenInvariants(peer.snapshot(), swarm);
      if (broken.length > 0) throw new Error(`${peer.peerId}: ${broken.join("; ")}`);
    }
    const givers = new Set(snapshot.peers.filter(({ seed, keeper }) => seed || keeper).map(({ peerId }) => peerId));
    for (const task of snapshot.tasks) {
      const neighboursOf = new Map(task.members.map(({ peerId, neighbours }) => [peerId, new Set(neighbours)]));
      const spans = [...task.spanLeases, ...task.unreadSpans].toSorted((a, b) => a.firstPiece - b.firstPiece);
      const overlapping = spans.find(({ firstPiece }, at) => firstPiece < (spans[at - 1]?.endPiece ?? 0));
      if (overlapping !== undefined) throw new Error(`S8: spans overlap at piece ${overlapping.firstPiece}`);
      if (task.leaseHolder !== undefined && !neighboursOf.has(task.leaseHolder)) throw new Error(`S4: ${task.leaseHolder} holds a lease and is no member`);
      for (const [peerId, neighbours] of neighboursOf) {
        const most = givers.has(peerId) ? scheduler.seedNeighbourCountMax : scheduler.neighbourCountMax;
        if (neighbours.size > most) throw new Error(`S2: ${peerId} has ${neighbours.size} neighbours`);
        for (const neighbour of neighbours) {
          if (neighboursOf.get(neighbour)?.has(peerId) !== true) throw new Error(`S1: ${peerId} and ${neighbour} disagree`);
        }
      }
    }
  }
}

/** Why each of these peers is not done: what it lacks, who around it holds that, and what moves. */
export function explainWaiting(waiting: readonly PeerModel[], tasks: readonly TaskShape[], find: (peerId: PeerId) => PeerModel | undefined): string {
  const lines: string[] = [];
  for (const peer of waiting.slice(0, 10)) {
    for (const task of tasks) {
      const disk = peer.diskOf(task);
      if (disk.count >= task.pieceCount) continue;
      const seen = peer.snapshot().tasks.find(({ taskId }) => taskId === task.taskId);
      const lacks: number[] = [];
      for (let piece = disk.firstMissing(); piece < task.pieceCount; piece = disk.firstMissing(piece + 1)) lacks.push(piece);
      const piece = lacks[0] ?? -1;
      const holders = peer.links.peerIds.filter((id) => find(id)?.diskOf(task).has(piece));
      lines.push(
        [
          `${peer.peerId} holds ${disk.count} of task ${task.index}, lacks ${lacks.slice(0, 8).join(" ")}${lacks.length > 8 ? " …" : ""};`,
          `${peer.links.peerIds.length} links (${peer.links.peerIds.join(" ")}), to holders of ${piece}: ${holders.join(" ")};`,
          `incoming ${JSON.stringify(seen?.incoming)}; outgoing ${JSON.stringify(seen?.outgoing)}`,
        ].join(" "),
      );
    }
  }
  return lines.join("\n");
}
