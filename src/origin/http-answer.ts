import { AppError } from "../base/errors.ts";
import { parseContentLength, parseContentRange } from "./content-range.ts";
import type { Answer } from "./http-exchange.ts";
import type { OriginInfo } from "./origin.ts";
import { redactUrl } from "./origin-url.ts";

/** The range asked of the origin, half-open. */
export interface AskedRange {
  readonly startByte: number;
  readonly endByte: number | undefined;
  /** We sent a Range header. */
  readonly ranged: boolean;
}

/** What an answer commits the origin to. */
export interface Promised {
  readonly info: OriginInfo;
  /** Bytes the body must have; `undefined` when the origin does not say. */
  readonly promisedBytes: number | undefined;
}

/**
 * Holds a 206 against what was asked: start, end, and the length of the body.
 *
 * @param expectedBytes the file's length as known before, for a Content-Range that does not tell it
 * @throws AppError ORIGIN_PROTOCOL (details `ranges: false`, not retriable)
 */
export function partialContent(
  answer: Answer,
  asked: AskedRange,
  expectedBytes: number | undefined,
): Promised {
  const field = answer.headers["content-range"];
  const range = parseContentRange(field);
  if (!asked.ranged || range?.startByte !== asked.startByte || range.endByte === undefined) {
    throw wrongRangeError(answer, asked, field ?? "no Content-Range");
  }
  const { totalBytes } = range;
  const fileEndByte = totalBytes ?? expectedBytes;
  const askedEndByte = Math.min(asked.endByte ?? Number.POSITIVE_INFINITY, fileEndByte ?? Number.POSITIVE_INFINITY);
  // With the total unknown the file may end before the range does; otherwise less, or more, than asked is wrong.
  const endIsRight = fileEndByte === undefined ? range.endByte <= askedEndByte : range.endByte === askedEndByte;
  const promisedBytes = range.endByte - range.startByte;
  const lengthBytes = parseContentLength(answer.headers["content-length"]);
  if (!endIsRight) throw wrongRangeError(answer, asked, String(field));
  if (lengthBytes !== undefined && lengthBytes !== promisedBytes) {
    throw wrongRangeError(answer, asked, `${field} with a Content-Length of ${lengthBytes}`);
  }
  return { info: infoOf(answer, totalBytes, true), promisedBytes };
}

/**
 * Holds a 200 against what was asked: the whole file serves a range only from its start.
 *
 * @throws AppError ORIGIN_PROTOCOL (details `ranges: false`, not retriable)
 */
export function wholeContent(answer: Answer, asked: AskedRange): Promised {
  if (asked.startByte > 0) {
    throw new AppError(
      "ORIGIN_PROTOCOL",
      `the origin ignores ranges: it sent all of ${redactUrl(answer.url)} when asked from byte ${asked.startByte} on; ` +
        "read the file from its start",
      { details: { ranges: false, origin: answer.url.origin } },
    );
  }
  const lengthBytes = parseContentLength(answer.headers["content-length"]);
  return { info: infoOf(answer, lengthBytes, !asked.ranged && promisesRanges(answer)), promisedBytes: lengthBytes };
}

function wrongRangeError(answer: Answer, asked: AskedRange, said: string): AppError {
  const wanted = asked.ranged ? `bytes [${asked.startByte}, ${asked.endByte ?? "end"})` : "the whole file";
  return new AppError(
    "ORIGIN_PROTOCOL",
    `the origin answered for other bytes than asked of ${redactUrl(answer.url)}: wanted ${wanted}, got "${said}"; ` +
      "check the origin and any proxy before it",
    { details: { ranges: false, origin: answer.url.origin } },
  );
}

/** ORIGIN_CHANGED; `how` continues a sentence: "its length was …". */
export function changedError(answer: Answer, how: string): AppError {
  return new AppError(
    "ORIGIN_CHANGED",
    `the file at ${redactUrl(answer.url)} changed while it was fetched: ${how}; start again with the new version`,
  );
}

/** True when the bytes are not the file's own, but gzip or the like of them. */
export function isCoded(answer: Answer): boolean {
  const coding = answer.headers["content-encoding"]?.trim().toLowerCase() ?? "";
  return coding !== "" && coding !== "identity";
}

/** ORIGIN_PROTOCOL for an answer that {@link isCoded}. */
export function codedError(answer: Answer): AppError {
  const coding = answer.headers["content-encoding"] ?? "";
  return new AppError(
    "ORIGIN_PROTOCOL",
    `the origin sends ${redactUrl(answer.url)} coded as "${coding}" although asked for the bytes as they are; ` +
      "turn off compression for this file at the origin, or at the proxy before it",
    { details: { ranges: false, contentEncoding: coding, origin: answer.url.origin } },
  );
}

/** True for `Accept-Ranges: bytes`. */
export function promisesRanges(answer: Answer): boolean {
  return (answer.headers["accept-ranges"] ?? "").toLowerCase().split(/\s*,\s*/).includes("bytes");
}

/** HEAD without a length, or with the 0 that some frameworks send for every HEAD; or a large file, ranges unsaid. */
export function isInDoubt(head: Answer, info: OriginInfo): boolean {
  if (info.lengthBytes === undefined || info.lengthBytes === 0) return true;
  return head.headers["accept-ranges"] === undefined && info.lengthBytes > RANGES_WORTH_ASKING_BYTES;
}

/** The answer's headers as an OriginInfo; bounded by what the parser takes, 16 KiB of headers. */
export function infoOf(answer: Answer, lengthBytes: number | undefined, ranges: boolean): OriginInfo {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(answer.headers)) {
    if (!NOT_RELAYED.test(name)) headers[name] = value;
  }
  return {
    lengthBytes,
    ranges,
    etag: answer.headers["etag"],
    lastModified: answer.headers["last-modified"],
    contentType: answer.headers["content-type"],
    headers,
  };
}

/** Below this a file is read in one go, and a round trip to learn of ranges is wasted. */
const RANGES_WORTH_ASKING_BYTES = 1024 * 1024;

/** Has a field of its own, is of one connection, speaks of the answering host alone, or may be a secret. */
const NOT_RELAYED = new RegExp(
  "^(?:content-(?:length|range|encoding|type)|accept-ranges|etag|last-modified|age|date|server|via|location|alt-svc|" +
    "connection|keep-alive|te|trailer|transfer-encoding|upgrade|www-authenticate|proxy-.*|set-cookie2?|" +
    "authentication-info|strict-transport-security|report-to|nel|public-key-pins)$",
);
