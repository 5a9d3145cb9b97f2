/** Memory for pieces on their way in: shared with the threads that verify and write, reused, bounded. */
import { isPieceLength } from "../../protocol/geometry.ts";

/** Pieces under way together may take this much; beyond it offers are declined as busy. Source: dataplane.md §6. */
export const RECEIVE_BYTES_MAX: number = 64 * 1024 * 1024;
const SPARE_BYTES_MAX = 16 * 1024 * 1024;

export class ReceiveBuffers {
  readonly #spares = new Map<number, SharedArrayBuffer[]>();
  #spareBytes = 0;
  #usedBytes = 0;

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** True while another piece may be taken on. */
  get hasRoom(): boolean {
    return this.#usedBytes < RECEIVE_BYTES_MAX;
  }

  /** @returns `lengthBytes` bytes of shared memory, contents undefined; give them back with {@link release} */
  take(lengthBytes: number): Uint8Array {
    this.#usedBytes += lengthBytes;
    const spare = this.#spares.get(lengthBytes)?.pop();
    if (spare !== undefined) {
      this.#spareBytes -= lengthBytes;
      return new Uint8Array(spare);
    }
    return new Uint8Array(new SharedArrayBuffer(lengthBytes));
  }

  /** `reusable` false: somebody may still write into it, so it is left to the garbage collector. */
  release(bytes: Uint8Array, reusable: boolean): void {
    this.#usedBytes -= bytes.length;
    // A last piece's length hardly comes again: kept, such buffers would fill the room and never be of use.
    const isWholePiece = isPieceLength(bytes.length);
    if (!reusable || !isWholePiece || this.#spareBytes + bytes.length > SPARE_BYTES_MAX) return;
    const spares = this.#spares.get(bytes.length) ?? [];
    spares.push(bytes.buffer as SharedArrayBuffer);
    this.#spares.set(bytes.length, spares);
    this.#spareBytes += bytes.length;
  }
}
