/**
 * HTTP byte ranges, RFC 9110 §14. Outside this file ranges are half-open [startByte, endByte); the inclusive form
 * exists here only.
 */

export interface ByteRange {
  readonly startByte: number;
  /** Exclusive. */
  readonly endByte: number;
}

export type RangeRequest =
  /** No range, or one we may ignore (unknown unit, malformed): answer 200 with everything. */
  | { readonly type: "whole" }
  | { readonly type: "ranges"; readonly ranges: readonly ByteRange[] }
  /** Well formed, but nothing of it lies in the file: answer 416. */
  | { readonly type: "unsatisfiable" };

/** More ranges than this in one request are answered with the whole file (RFC 9110 §14.2 allows it). */
const RANGE_COUNT_MAX = 64;

/** Where the first range begins, as far as that can be said before the length is known. */
export function firstByteOf(header: string | undefined): number {
  const digits = /^\s*bytes\s*=\s*(\d{1,15})-/i.exec(header ?? "")?.[1];
  return Number(digits ?? 0);
}

/** Reads a `Range` header against a file of `lengthBytes`. */
export function parseRange(header: string | undefined, lengthBytes: number): RangeRequest {
  const spec = header === undefined ? null : /^bytes\s*=\s*(.+)$/i.exec(header.trim());
  if (spec === null) return { type: "whole" };
  const parts = (spec[1] as string).split(",").map((part) => part.trim());
  if (parts.length > RANGE_COUNT_MAX) return { type: "whole" };
  const ranges: ByteRange[] = [];
  for (const part of parts) {
    if (part === "") continue;
    const match = /^(\d*)-(\d*)$/.exec(part);
    if (match === null || (match[1] === "" && match[2] === "")) return { type: "whole" };
    const first = match[1] === "" ? undefined : Number(match[1]);
    const last = match[2] === "" ? undefined : Number(match[2]);
    if (first === undefined) {
      const suffixBytes = Math.min(last as number, lengthBytes);
      if (suffixBytes > 0) ranges.push({ startByte: lengthBytes - suffixBytes, endByte: lengthBytes });
    } else {
      if (last !== undefined && last < first) return { type: "whole" };
      if (first < lengthBytes) {
        ranges.push({ startByte: first, endByte: last === undefined ? lengthBytes : Math.min(last + 1, lengthBytes) });
      }
    }
  }
  return ranges.length === 0 ? { type: "unsatisfiable" } : { type: "ranges", ranges };
}

/** `Content-Range` of a part. */
export function formatContentRange(range: ByteRange, lengthBytes: number): string {
  return `bytes ${range.startByte}-${range.endByte - 1}/${lengthBytes}`;
}

/** Reads `Content-Range`; total is undefined for `*`. Undefined when malformed. */
export function parseContentRange(header: string): (ByteRange & { readonly totalBytes: number | undefined }) | undefined {
  const match = /^bytes\s+(\d+)-(\d+)\/(\d+|\*)$/i.exec(header.trim());
  if (match === null) return undefined;
  const startByte = Number(match[1]);
  const endByte = Number(match[2]) + 1;
  const totalBytes = match[3] === "*" ? undefined : Number(match[3]);
  if (endByte <= startByte || (totalBytes !== undefined && endByte > totalBytes)) return undefined;
  return { startByte, endByte, totalBytes };
}
