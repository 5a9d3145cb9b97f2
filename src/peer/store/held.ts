/**
 * Which pieces of a task are held, with their proofs and lengths; no I/O.
 */
import { AppError } from "../../base/errors.ts";
import { pieceCountOf, pieceLengthAt } from "../../protocol/geometry.ts";
import { PieceSet } from "../../protocol/piece-set.ts";
import type { JournaledPiece } from "./journal.ts";
import type { TaskRecord } from "./piece-store.ts";

export class HeldPieces {
  readonly have: PieceSet = new PieceSet();
  readonly #pieces: Map<number, JournaledPiece>;
  #heldBytes = 0;
  #dropCount = 0;
  #record: TaskRecord;

  /** @param pieces becomes this object's */
  constructor(record: TaskRecord, pieces: Map<number, JournaledPiece>) {
    this.#record = record;
    this.#pieces = pieces;
    for (const [piece, { lengthBytes }] of pieces) {
      this.have.add(piece);
      this.#heldBytes += lengthBytes;
    }
  }

  get record(): TaskRecord {
    return this.#record;
  }

  /** Bytes of the pieces held. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Changes whenever a piece is dropped. */
  get dropCount(): number {
    return this.#dropCount;
  }

  get isComplete(): boolean {
    const { lengthBytes, pieceLengthBytes } = this.#record;
    return lengthBytes !== undefined && this.have.count === pieceCountOf(lengthBytes, pieceLengthBytes);
  }

  get(piece: number): JournaledPiece | undefined {
    return this.#pieces.get(piece);
  }

  add(piece: number, stored: JournaledPiece): void {
    this.#pieces.set(piece, stored);
    this.have.add(piece);
    this.#heldBytes += stored.lengthBytes;
  }

  /** @returns bytes freed; 0 when the piece was not held */
  drop(piece: number): number {
    const held = this.#pieces.get(piece);
    if (held === undefined) return 0;
    this.#pieces.delete(piece);
    this.have.delete(piece);
    this.#heldBytes -= held.lengthBytes;
    this.#dropCount++;
    return held.lengthBytes;
  }

  all(): number[] {
    return [...this.#pieces.keys()];
  }

  /** Pieces that have a byte in [startByte, endByte). */
  within(startByte: number, endByte: number): number[] {
    const pieces: number[] = [];
    for (let piece = Math.floor(startByte / this.#record.pieceLengthBytes); this.offsetOf(piece) < endByte; piece++) pieces.push(piece);
    return pieces;
  }

  /** Pieces with a byte at or after `endByte`. */
  beyond(endByte: number): number[] {
    return this.all().filter((piece) => this.#endOf(piece) > endByte);
  }

  /** @returns the pieces that cannot be of a file so long */
  setLength(lengthBytes: number, lengthSignature: Uint8Array): number[] {
    this.#record = { ...this.#record, lengthBytes, lengthSignature };
    return [...this.#pieces].filter(([piece, held]) => !this.fits(piece, held.lengthBytes)).map(([piece]) => piece);
  }

  /** True when piece `piece` of the file may have `lengthBytes` bytes, as far as its length is known. */
  fits(piece: number, lengthBytes: number): boolean {
    const { lengthBytes: fileLengthBytes, pieceLengthBytes } = this.#record;
    if (!Number.isInteger(piece) || piece < 0) return false;
    if (fileLengthBytes === undefined) return lengthBytes > 0 && lengthBytes <= pieceLengthBytes;
    return piece < pieceCountOf(fileLengthBytes, pieceLengthBytes) && lengthBytes === pieceLengthAt(piece, fileLengthBytes, pieceLengthBytes);
  }

  offsetOf(piece: number): number {
    return piece * this.#record.pieceLengthBytes;
  }

  /** @throws AppError PIECE_UNKNOWN unless held pieces cover [startByte, endByte) */
  checkHeld(startByte: number, endByte: number): void {
    const { pieceLengthBytes, taskId } = this.#record;
    for (let at = startByte; at < endByte; ) {
      const piece = Math.floor(at / pieceLengthBytes);
      const pieceEndByte = this.#endOf(piece);
      if (pieceEndByte <= at) {
        throw new AppError("PIECE_UNKNOWN", `byte ${at} of task ${taskId} is not held (piece ${piece})`, { details: { taskId, piece } });
      }
      at = pieceEndByte;
    }
  }

  /** Where the bytes held of `piece` end; its start when it is not held. */
  #endOf(piece: number): number {
    return this.offsetOf(piece) + (this.#pieces.get(piece)?.lengthBytes ?? 0);
  }
}
