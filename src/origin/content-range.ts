/** What `Content-Range: bytes …` says, half-open; `endByte` and `startByte` undefined in an answer 416. */
export interface ContentRange {
  readonly startByte: number | undefined;
  readonly endByte: number | undefined;
  /** Length of the whole file; `undefined` for `*`. */
  readonly totalBytes: number | undefined;
}

/**
 * Reads a `Content-Range` value of the unit `bytes`.
 *
 * @returns `undefined` when absent, malformed, of another unit, or at odds with itself (end beyond the total)
 * Source: RFC 9110 §14.4.
 */
export function parseContentRange(value: string | undefined): ContentRange | undefined {
  const match = /^bytes\s+(?:(\d{1,16})-(\d{1,16})|\*)\/(\d{1,16}|\*)$/i.exec(value?.trim() ?? "");
  if (match === null) return undefined;
  const [, first, last, total] = match;
  const totalBytes = total === undefined || total === "*" ? undefined : Number(total);
  if (first === undefined || last === undefined) {
    return totalBytes === undefined ? undefined : { startByte: undefined, endByte: undefined, totalBytes };
  }
  const startByte = Number(first);
  const endByte = Number(last) + 1;
  if (startByte >= endByte || (totalBytes !== undefined && endByte > totalBytes)) return undefined;
  if (!Number.isSafeInteger(endByte)) return undefined;
  return { startByte, endByte, totalBytes };
}

/** Reads a `Content-Length` value; `undefined` when absent or not a whole number of bytes. */
export function parseContentLength(value: string | undefined): number | undefined {
  if (value === undefined || !/^\d{1,16}$/.test(value.trim())) return undefined;
  const lengthBytes = Number(value);
  return Number.isSafeInteger(lengthBytes) ? lengthBytes : undefined;
}
