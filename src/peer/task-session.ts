/** One task open at this peer: its files, its place in the mesh, and those who wait for its pieces. */
import { AppError } from "../base/errors.ts";
import type { RateFlow } from "../base/rate-budget.ts";
import type { ByteSources, Neighbour } from "../protocol/control-messages.ts";
import { pieceCountOf, pieceLengthAt } from "../protocol/geometry.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import type { TaskAccount } from "./task-account.ts";
import { SignatureVerifier } from "./membership/credentials.ts";
import { type TicketClock, TicketVerifier } from "./membership/tickets.ts";
import type { StoredTask } from "./store/piece-store.ts";

/** Among the readers of a task, the one who is on his way. */
export const EXPECTED_READER_ID = 0;

export class TaskSession {
  readonly stored: StoredTask;
  readonly verifier: SignatureVerifier;
  readonly tickets: TicketVerifier;
  /** What its time goes by, and who gives what. */
  readonly account: TaskAccount;
  /** Its places at the host's limits. */
  readonly uploadFlow: RateFlow;
  readonly downloadFlow: RateFlow;
  /** Peers the supernode gave us for this task. */
  readonly neighbours = new Map<PeerId, Neighbour>();
  /** Ours, shown to neighbours; may have run out. */
  ticket = "";
  /** Why the task cannot be completed through the swarm; readers get it once they need what is missing. */
  failure: AppError | undefined;
  /** Where a reader who is on his way will begin. */
  expectedPiece: number | undefined;
  holders = 1;
  /** The disk has just refused a piece: until then no other is taken in. */
  refusesUntilMs = 0;
  readonly #bytes = { seedBytes: 0, peerBytes: 0, originBytes: 0 };
  readonly #cacheBytes: number;
  readonly #waiters = new Set<() => void>();
  readonly #takers = new Map<number, Set<(bytes: Uint8Array) => void>>();
  #nextReaderId = EXPECTED_READER_ID + 1;
  #pins = 0;
  #released = false;
  readonly #stopListening: () => void;

  /** @param onLost told of pieces that are gone from the disk, until {@link release} */
  constructor(
    stored: StoredTask,
    flows: { readonly upload: RateFlow; readonly download: RateFlow },
    clock: TicketClock,
    account: TaskAccount,
    onLost: (pieces: readonly number[]) => void,
  ) {
    this.stored = stored;
    this.account = account;
    this.uploadFlow = flows.upload;
    this.downloadFlow = flows.download;
    this.#stopListening = stored.onLost(onLost);
    this.verifier = new SignatureVerifier(stored.record.publicKey);
    this.tickets = new TicketVerifier(this.verifier, clock);
    this.#cacheBytes = this.heldBytes;
  }

  /** A transfer reads from the data file: it stays open until {@link unpin}, even after {@link release}. */
  pin(): void {
    this.#pins++;
  }

  unpin(): void {
    this.#pins--;
    if (this.#released && this.#pins === 0) this.stored.release();
  }

  /** Gives the files back, once nothing reads from them any more. */
  release(): void {
    this.#released = true;
    this.#stopListening();
    if (this.#pins === 0) this.stored.release();
  }

  get taskId(): TaskId {
    return this.stored.record.taskId;
  }

  get lengthBytes(): number | undefined {
    return this.stored.record.lengthBytes;
  }

  get pieceLengthBytes(): number {
    return this.stored.record.pieceLengthBytes;
  }

  get pieceCount(): number | undefined {
    const { lengthBytes } = this;
    return lengthBytes === undefined ? undefined : pieceCountOf(lengthBytes, this.pieceLengthBytes);
  }

  get heldBytes(): number {
    const { have } = this.stored;
    const { pieceCount, lengthBytes } = this;
    const whole = have.count * this.pieceLengthBytes;
    if (lengthBytes === undefined || pieceCount === undefined || pieceCount === 0 || !have.has(pieceCount - 1)) return whole;
    return whole - this.pieceLengthBytes + pieceLengthAt(pieceCount - 1, lengthBytes, this.pieceLengthBytes);
  }

  /** @returns whether a piece of `lengthBytes` may stand at `piece` in this file, as far as is known */
  fits(piece: number, lengthBytes: number): boolean {
    if (this.lengthBytes === undefined) return lengthBytes >= 1 && lengthBytes <= this.pieceLengthBytes;
    if (piece >= (this.pieceCount as number)) return false;
    return lengthBytes === pieceLengthAt(piece, this.lengthBytes, this.pieceLengthBytes);
  }

  /** Length of a held piece; undefined for a last piece of a file whose length is not known. */
  lengthOf(piece: number): number | undefined {
    const { lengthBytes, pieceLengthBytes } = this;
    if (lengthBytes === undefined) return pieceLengthBytes;
    const startByte = piece * pieceLengthBytes;
    return startByte >= lengthBytes ? undefined : Math.min(pieceLengthBytes, lengthBytes - startByte);
  }

  count(source: "seedBytes" | "peerBytes" | "originBytes", bytes: number): void {
    this.#bytes[source] += bytes;
  }

  sources(): ByteSources & { readonly cacheBytes: number } {
    return { ...this.#bytes, cacheBytes: this.#cacheBytes };
  }

  newReaderId(): number {
    return this.#nextReaderId++;
  }

  /**
   * Calls `take` with the bytes of a piece from a neighbour once it is stored, while they are in memory still: they are good until
   * it returns. Readers are woken after that.
   *
   * @returns ends that
   */
  onStored(piece: number, take: (bytes: Uint8Array) => void): () => void {
    const takers = this.#takers.get(piece) ?? new Set();
    this.#takers.set(piece, takers.add(take));
    return () => {
      if (takers.delete(take) && takers.size === 0) this.#takers.delete(piece);
    };
  }

  /** A piece from a neighbour is verified and on disk; these are its bytes. */
  handOn(piece: number, bytes: Uint8Array): void {
    for (const take of this.#takers.get(piece) ?? []) take(bytes);
  }

  /** Wakes everybody who waits for a piece, the length, or the end. */
  wake(): void {
    for (const waiter of [...this.#waiters]) waiter();
  }

  /**
   * Resolves at the next {@link wake} at which `isEnough`, after `limitMs`, or when `signal` aborts; look again what is
   * true then.
   */
  changed(limitMs: number, signal: AbortSignal, isEnough: () => boolean = always): Promise<void> {
    return new Promise((resolve) => {
      const woken = (): void => {
        if (isEnough()) done();
      };
      const done = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(woken);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, limitMs);
      this.#waiters.add(woken);
      signal.addEventListener("abort", done);
      if (signal.aborted) done();
    });
  }
}

function always(): true {
  return true;
}
