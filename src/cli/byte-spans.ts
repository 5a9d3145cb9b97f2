/**
 * Byte ranges, each from a start up to an end it does not hold itself: apart from each other, in order. Ranges that overlap or
 * touch are one.
 */
export class ByteSpans {
  readonly #spans: Span[] = [];
  #totalBytes = 0;

  /** No byte is counted twice. */
  get totalBytes(): number {
    return this.#totalBytes;
  }

  add(startByte: number, endByte: number): void {
    if (endByte <= startByte) return;
    const first = this.#firstEndingAtOrAfter(startByte);
    const merged = { startByte, endByte };
    let next = first;
    for (let span = this.#spans[next]; span !== undefined && span.startByte <= endByte; span = this.#spans[++next]) {
      merged.startByte = Math.min(merged.startByte, span.startByte);
      merged.endByte = Math.max(merged.endByte, span.endByte);
      this.#totalBytes -= span.endByte - span.startByte;
    }
    this.#spans.splice(first, next - first, merged);
    this.#totalBytes += merged.endByte - merged.startByte;
  }

  /**
   * Takes out what lies before a byte, and the span that goes on from there.
   *
   * @returns where that span ends; the byte itself when there is none
   */
  takeThrough(byte: number): number {
    let end = byte;
    let count = 0;
    for (let span = this.#spans[count]; span !== undefined && span.startByte <= byte; span = this.#spans[++count]) {
      end = Math.max(end, span.endByte);
      this.#totalBytes -= span.endByte - span.startByte;
    }
    this.#spans.splice(0, count);
    return end;
  }

  clear(): void {
    this.#spans.length = 0;
    this.#totalBytes = 0;
  }

  #firstEndingAtOrAfter(byte: number): number {
    let low = 0;
    let high = this.#spans.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const span = this.#spans[middle];
      if (span !== undefined && span.endByte < byte) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

interface Span {
  startByte: number;
  endByte: number;
}
