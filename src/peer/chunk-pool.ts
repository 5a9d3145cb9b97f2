/** Buffers that readers of content borrow: of many readers at once each would leave a megabyte of garbage every few ms. */

/** Handed on at a time by one reader among few, and among many. Source: node-dataplane study §11 (256 KiB). */
const CHUNK_BYTES_MAX = 256 * 1024;
const CHUNK_BYTES_MIN = 64 * 1024;
/** What all readers together have in their hands, about, before each gets less. */
const LENT_BYTES_WANTED = 4 * 1024 * 1024;
/** Kept for the next readers: what 200 of them have. Thrown away they would be memory until the next great collection, and holes in the heap after it. */
const FREE_BYTES_MAX = 16 * 1024 * 1024;

/** All readers of a process share one. */
export class ChunkPool {
  readonly #free = new Map<number, Buffer[]>();
  #freeBytes = 0;
  #lentCount = 0;

  /** @returns a buffer whose bytes are the borrower's until he gives it back, once */
  take(): Buffer {
    this.#lentCount += 1;
    const sizeBytes = this.#lentCount * CHUNK_BYTES_MAX <= LENT_BYTES_WANTED ? CHUNK_BYTES_MAX : CHUNK_BYTES_MIN;
    const buffer = this.#free.get(sizeBytes)?.pop();
    if (buffer === undefined) return Buffer.allocUnsafeSlow(sizeBytes);
    this.#freeBytes -= sizeBytes;
    return buffer;
  }

  give(buffer: Buffer): void {
    this.#lentCount -= 1;
    if (this.#freeBytes + buffer.length > FREE_BYTES_MAX) return;
    this.#freeBytes += buffer.length;
    const free = this.#free.get(buffer.length);
    if (free === undefined) this.#free.set(buffer.length, [buffer]);
    else free.push(buffer);
  }
}
