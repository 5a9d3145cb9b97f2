import type { IncomingMessage, ServerResponse } from "node:http";
import { AppError, toAppError } from "../../base/errors.ts";
import type { Content, ContentInfo, ContentOpener } from "../../peer/content.ts";
import type { Source } from "../../protocol/control-messages.ts";
import { firstByteOf, formatContentRange, parseRange, type ByteRange } from "../../protocol/range.ts";
import { withDeadline } from "../mirror/deadline.ts";
import { isFieldValue } from "../mirror/errors.ts";
import { BodyWriter } from "../mirror/send.ts";
import { endToEnd, pairs } from "./message-headers.ts";
import type { ProxyRecord } from "./proxy-record.ts";

export interface SwarmFileDeps {
  readonly opener: ContentOpener;
  /** May this host read the origin itself when the swarm cannot deliver? */
  readonly backToSource: boolean;
}

/**
 * True for a request that any copy of the file can answer: a GET without a body, and without a condition that only the
 * origin can judge.
 */
export function isForSwarm({ method, headers }: IncomingMessage): boolean {
  if (method !== "GET" || headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0) return false;
  return CONDITIONS.every((name) => headers[name] === undefined);
}

/**
 * Answers with a file that comes through the swarm: whole, or one range of it. All fields of the request that may change
 * the answer are part of what the file is (docs/decisions.md, 7), the credentials foremost.
 *
 * @returns why nothing was sent, so that the origin may be asked as it is; undefined: the answer is over
 */
export async function serveFile(
  { opener, backToSource }: SwarmFileDeps,
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
  record: ProxyRecord,
): Promise<AppError | undefined> {
  const source: Source = { url: url.href, headers: headersFor(request) };
  const hangUp = new AbortController();
  const onClose = (): void => hangUp.abort(new AppError("ABORTED", "the client hung up"));
  response.once("close", onClose);
  let content: Content | undefined;
  try {
    content = await withDeadline(OPEN_TIMEOUT_MS, "to learn of the file", hangUp.signal, (signal) =>
      opener.open({ source, backToSource, firstByte: firstByteOf(request.headers.range) }, signal),
    );
    record.taskId = content.info.taskId;
    await send(content, request, response, record, hangUp.signal);
    return undefined;
  } catch (thrown) {
    const error = toAppError(thrown);
    if (hangUp.signal.aborted || response.destroyed) {
      record.aborted = true;
      return undefined;
    }
    if (!response.headersSent) return error;
    record.error = error;
    // Never a clean end for a body that is not whole.
    response.destroy();
    return undefined;
  } finally {
    response.off("close", onClose);
    content?.close();
    hangUp.abort(new AppError("ABORTED", "the answer is over"));
  }
}

async function send(content: Content, request: IncomingMessage, response: ServerResponse, record: ProxyRecord, signal: AbortSignal): Promise<void> {
  const { info } = content;
  const range = rangeOf(request, info);
  if (range === "unsatisfiable") {
    record.status = 416;
    response.writeHead(416, { "content-range": `bytes */${info.lengthBytes}`, "content-length": 0 }).end();
    return;
  }
  const { startByte, endByte } = range ?? { startByte: 0, endByte: info.lengthBytes };
  const chunks = content.read({ startByte, endByte }, signal)[Symbol.asyncIterator]();
  // The head leaves with the first byte: until then the origin can be asked instead.
  let next = await chunks.next();
  setHead(response, info, range);
  record.status = response.statusCode;
  const writer = new BodyWriter(response);
  try {
    for (; next.done !== true; next = await chunks.next()) {
      record.aborted = !(await writer.write(next.value));
      if (record.aborted) return;
    }
    if (endByte !== undefined && writer.sentBytes !== endByte - startByte) {
      throw new AppError("ORIGIN_LENGTH_WRONG", `the content gave ${writer.sentBytes} bytes instead of ${endByte - startByte}; try again`);
    }
    record.aborted = !(await writer.end());
  } finally {
    record.sentBytes = writer.sentBytes;
    chunks.return?.(undefined).catch(() => {});
  }
}

function setHead(response: ServerResponse, info: ContentInfo, range: ByteRange | undefined): void {
  const { lengthBytes } = info;
  for (const [name, value] of Object.entries(info.headers)) if (isFieldValue(value)) response.setHeader(name, value);
  if (info.contentType !== undefined && isFieldValue(info.contentType)) response.setHeader("content-type", info.contentType);
  if (info.taskId !== undefined) response.setHeader("x-dragonfly-task-id", info.taskId);
  response.statusCode = 200;
  if (lengthBytes === undefined) return;
  response.setHeader("accept-ranges", "bytes");
  response.setHeader("content-length", range === undefined ? lengthBytes : range.endByte - range.startByte);
  if (range === undefined) return;
  response.statusCode = 206;
  response.setHeader("content-range", formatContentRange(range, lengthBytes));
}

/** Several ranges are answered with the whole file, which is always right. */
function rangeOf({ headers }: IncomingMessage, info: ContentInfo): ByteRange | "unsatisfiable" | undefined {
  const { lengthBytes } = info;
  const ifRange = headers["if-range"] as string | undefined;
  const validators = [info.headers["etag"], info.headers["last-modified"]];
  if (lengthBytes === undefined || (ifRange !== undefined && (ifRange.startsWith("W/") || !validators.includes(ifRange)))) return undefined;
  const parsed = parseRange(headers.range, lengthBytes);
  if (parsed.type === "unsatisfiable") return "unsatisfiable";
  return parsed.type === "ranges" && parsed.ranges.length === 1 ? parsed.ranges[0] : undefined;
}

function headersFor({ rawHeaders }: IncomingMessage): Record<string, string> {
  const headers: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [name, value] of pairs(endToEnd(rawHeaders, { pseudonym: "", replaced: NOT_THE_FILES }))) {
    const key = name.toLowerCase();
    if (key === "via") continue;
    const before = headers[key];
    headers[key] = before === undefined ? value : `${before}${key === "cookie" ? "; " : ", "}${value}`;
  }
  return headers;
}

const CONDITIONS = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "expect"] as const;

/** What says how the file is wanted, not which. */
const NOT_THE_FILES = ["host", "range", "if-range", "accept-encoding", "content-length", "content-type", "expect"] as const;

/** As the mirror's: below what clients wait for an answer's head. */
const OPEN_TIMEOUT_MS = 20_000;
