import { randomUUID } from "node:crypto";
import { formatContentRange, parseRange, type ByteRange } from "../../protocol/range.ts";

/** One stretch of an answer's body: text of our own, or bytes of the content. */
export type BodyPart =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "content"; readonly startByte: number; readonly endByte: number | undefined };

/** Status, headers and body of the answer to a request for bytes. */
export interface BytesAnswer {
  readonly status: 200 | 206 | 304 | 416;
  readonly headers: Readonly<Record<string, string>>;
  /** In order: the body. */
  readonly parts: readonly BodyPart[];
  /** Length of the body in bytes; undefined when nobody knows. */
  readonly bodyBytes: number | undefined;
}

export interface BytesRequest {
  readonly method: "GET" | "HEAD";
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
  readonly ifNoneMatch: string | undefined;
}

/** What is asked for, by digest. */
export interface BytesOf {
  readonly lengthBytes: number | undefined;
  readonly contentType: string;
  /** Without quotes: the digest. */
  readonly etag: string;
}

/**
 * What to answer to a request for bytes: whole, one range, several as multipart/byteranges, none as 304 or 416.
 * Ranges that together are larger than the file are answered with the file.
 *
 * Source: RFC 9110 §13.1, §14, §15.3.7.
 */
export function answerBytes(request: BytesRequest, of: BytesOf): BytesAnswer {
  const etag = quoted(of.etag);
  const shared = { etag, "accept-ranges": of.lengthBytes === undefined ? "none" : "bytes" };
  if (isNotModified(request, of.etag)) {
    return { status: 304, headers: shared, parts: [], bodyBytes: 0 };
  }
  const { lengthBytes } = of;
  const whole = { status: 200, headers: { ...shared, "content-type": of.contentType }, bodyBytes: lengthBytes } as const;
  const wholeParts: readonly BodyPart[] = lengthBytes === 0 ? [] : [{ type: "content", startByte: 0, endByte: lengthBytes }];
  const asksWhole = request.method === "HEAD" || lengthBytes === undefined || (request.ifRange ?? etag) !== etag;
  const range = asksWhole ? { type: "whole" as const } : parseRange(request.range, lengthBytes);
  if (range.type === "whole" || lengthBytes === undefined || lengthBytes === 0) return { ...whole, parts: wholeParts };
  if (range.type === "unsatisfiable") {
    return { status: 416, headers: { ...shared, "content-range": `bytes */${lengthBytes}` }, parts: [], bodyBytes: 0 };
  }
  const [only] = range.ranges;
  if (only !== undefined && range.ranges.length === 1) {
    const headers = { ...whole.headers, "content-range": formatContentRange(only, lengthBytes) };
    return { status: 206, headers, parts: [{ type: "content", ...only }], bodyBytes: only.endByte - only.startByte };
  }
  const askedBytes = range.ranges.reduce((sum, { startByte, endByte }) => sum + endByte - startByte, 0);
  if (askedBytes > lengthBytes) return { ...whole, parts: wholeParts };
  return multipart(range.ranges, lengthBytes, of.contentType, shared);
}

function multipart(
  ranges: readonly ByteRange[],
  lengthBytes: number,
  contentType: string,
  shared: Readonly<Record<string, string>>,
): BytesAnswer {
  const boundary = `dragonfly-${randomUUID()}`;
  const parts: BodyPart[] = [];
  for (const [index, range] of ranges.entries()) {
    const contentRange = formatContentRange(range, lengthBytes);
    const start = index === 0 ? "" : "\r\n";
    const text = `${start}--${boundary}\r\nContent-Type: ${contentType}\r\nContent-Range: ${contentRange}\r\n\r\n`;
    parts.push({ type: "text", text }, { type: "content", ...range });
  }
  parts.push({ type: "text", text: `\r\n--${boundary}--\r\n` });
  const bodyBytes = parts.reduce((sum, part) => sum + partBytes(part), 0);
  const headers = { ...shared, "content-type": `multipart/byteranges; boundary=${boundary}` };
  return { status: 206, headers, parts, bodyBytes };
}

function partBytes(part: BodyPart): number {
  return part.type === "text" ? Buffer.byteLength(part.text) : (part.endByte ?? 0) - part.startByte;
}

/** True when the client has what bears this ETag already. */
export function isNotModified({ ifNoneMatch }: BytesRequest, etag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  if (ifNoneMatch.trim() === "*") return true;
  return ifNoneMatch.split(",").some((candidate) => candidate.trim().replace(/^W\//, "") === quoted(etag));
}

function quoted(etag: string): string {
  return `"${etag}"`;
}
