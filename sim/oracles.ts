/** Observers outside of the brains: they know what each peer really holds. A violation ends the run. */
import type { PeerModel } from "./peer-model.ts";

export class Oracles {
  readonly #originReads = new Map<number, number>();
  offerCount = 0;
  /** Pieces verified and found to be here already: two sources finished at about the same time. */
  storedTwiceCount = 0;
  readonly declines: Record<string, number> = {};

  /** Nothing is offered or sent that is not held, verified. */
  offered(peer: PeerModel, piece: number): void {
    this.offerCount++;
    if (!peer.have.has(piece)) throw new Error(`${peer.peerId} offers piece ${piece}, which it does not hold`);
  }

  sending(peer: PeerModel, piece: number): void {
    if (!peer.have.has(piece)) throw new Error(`${peer.peerId} sends piece ${piece}, which it does not hold`);
  }

  declined(reason: string): void {
    this.declines[reason] = (this.declines[reason] ?? 0) + 1;
  }

  stored(_peer: PeerModel, _piece: number, again: boolean): void {
    if (again) this.storedTwiceCount++;
  }

  /** The origin gives each piece once, whoever reads it. */
  originRead(piece: number): void {
    const reads = (this.#originReads.get(piece) ?? 0) + 1;
    this.#originReads.set(piece, reads);
    if (reads > 1) throw new Error(`piece ${piece} is read from the origin ${reads} times`);
  }
}

/** Why each of these peers is not done: what it lacks, who around it holds that, and what moves. */
export function explainWaiting(waiting: readonly PeerModel[], everybody: ReadonlyMap<string, PeerModel>): string {
  return waiting
    .slice(0, 10)
    .map((peer) => {
      const task = peer.snapshot().tasks[0];
      const lacks: number[] = [];
      for (let piece = peer.have.firstMissing(); piece < (task?.pieceCount ?? 0); piece = peer.have.firstMissing(piece + 1)) {
        lacks.push(piece);
      }
      const piece = lacks[0] ?? -1;
      const holders = peer.linkedPeers.filter((id) => everybody.get(id)?.have.has(piece));
      return [
        `${peer.peerId} holds ${peer.have.count}, lacks ${lacks.slice(0, 8).join(" ")}${lacks.length > 8 ? " …" : ""};`,
        `${peer.linkedPeers.length} links, ${holders.length} to holders of ${piece} (${holders.slice(0, 4).join(" ")});`,
        `incoming ${JSON.stringify(task?.incoming)}; outgoing ${JSON.stringify(task?.outgoing)}`,
      ].join(" ");
    })
    .join("\n");
}
