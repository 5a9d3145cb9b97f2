/** A peer that reads a span in the seed's stead, as src/peer/lease-reader.ts does: from its disk, from neighbours, the rest from the origin. */
import type { PieceSpan } from "../src/scheduler/index.ts";
import type { Oracles } from "./oracles.ts";
import type { OriginModel } from "./origin-model.ts";
import type { PeerModel } from "./peer-model.ts";
import type { TaskShape } from "./task-shape.ts";

export interface SpanReaderDeps {
  readonly peer: PeerModel;
  readonly task: TaskShape;
  readonly origin: OriginModel;
  readonly oracles: Oracles;
  /** Brings a piece to the supernode; `answer` when it has signed it, or refused. */
  readonly bring: (piece: number, answer: (signed: boolean) => void) => void;
  readonly failed: () => void;
}

const ATTEMPTS = 3;
const RETRY_US = 500_000;
/** A neighbour's piece that has not come within this is read from the origin; how often it is looked for. */
const SWARM_US = 5_000_000;
const LOOK_US = 100_000;

export class SpanReader {
  readonly #deps: SpanReaderDeps;
  readonly #endPiece: number;
  #isOver = false;
  #isWaiting = true;
  #attempts = 0;

  constructor(deps: SpanReaderDeps, { firstPiece, endPiece }: PieceSpan) {
    this.#deps = deps;
    this.#endPiece = endPiece;
    this.#read(firstPiece);
  }

  /** The lease is over; nobody is told. */
  stop(): void {
    this.#isOver = true;
  }

  get #isRunning(): boolean {
    const { peer, task } = this.#deps;
    return !this.#isOver && peer.isWanted(task);
  }

  #read(piece: number): void {
    if (!this.#isRunning || piece >= this.#endPiece) return;
    const { peer, task } = this.#deps;
    if (peer.diskOf(task).has(piece)) this.#bring(piece);
    else if (this.#isWaiting && peer.isHeldNearby(task, piece)) this.#wait(piece, SWARM_US);
    else this.#ask(piece);
  }

  #wait(piece: number, leftUs: number): void {
    const { peer, task, oracles } = this.#deps;
    if (!this.#isRunning) return;
    if (peer.diskOf(task).has(piece) || !peer.isHeldNearby(task, piece)) return this.#read(piece);
    if (leftUs <= 0) {
      // They may all come late now: each is a cause to ask for it again.
      this.#isWaiting = false;
      for (let each = piece; each < this.#endPiece; each++) oracles.originReadCut();
      return this.#read(piece);
    }
    peer.soon(LOOK_US, () => this.#wait(piece, leftUs - LOOK_US));
  }

  #ask(piece: number): void {
    const { peer, task, origin } = this.#deps;
    origin.readPiece(peer, task, piece, (outcome) => {
      if (!this.#isRunning) return;
      if (outcome === "read") {
        this.#attempts = 0;
        return this.#bring(piece);
      }
      if (outcome === "refused" || ++this.#attempts >= ATTEMPTS) return this.#fail();
      peer.soon(RETRY_US, () => this.#read(piece));
    });
  }

  #bring(piece: number): void {
    this.#deps.bring(piece, (signed) => {
      const { peer, task } = this.#deps;
      if (!this.#isRunning) return;
      if (!signed) return this.#fail();
      if (!peer.diskOf(task).has(piece)) peer.store(task, piece);
      this.#read(piece + 1);
    });
  }

  #fail(): void {
    this.stop();
    this.#deps.failed();
  }
}
