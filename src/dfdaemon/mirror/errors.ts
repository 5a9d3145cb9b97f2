import type { AppError, ErrorCode } from "../../base/errors.ts";
import { distributionErrorBody, type DistributionErrorCode } from "../../protocol/distribution.ts";

/** What a request was for, as far as answers, logs and metrics care. */
export type MirrorKind = "ping" | "manifest" | "blob" | "passthrough" | "other";

/** An answer with a body of the specification's error format. */
export interface ErrorAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/**
 * An error as engines understand it.
 *
 * 401, 403 and 404 only when the registry itself said so: engines go on to the next mirror at 5xx, while a 401 of our
 * own making would have them send passwords about. Never 429 or 408: containerd repeats those six times at once.
 */
export function errorAnswer(error: AppError, kind: MirrorKind): ErrorAnswer {
  const status = statusOf(error);
  const headers: Record<string, string> = {};
  const { wwwAuthenticate, retryAfterMs, lengthBytes } = error.details;
  if (status === 401 && typeof wwwAuthenticate === "string" && isFieldValue(wwwAuthenticate)) {
    headers["www-authenticate"] = wwwAuthenticate;
  }
  if (status === 503 && typeof retryAfterMs === "number") headers["retry-after"] = String(Math.ceil(retryAfterMs / 1000));
  if (status === 416 && typeof lengthBytes === "number") headers["content-range"] = `bytes */${lengthBytes}`;
  const message = error.code === "INTERNAL" ? "an error of dfdaemon's own; its log tells more" : error.message;
  return specAnswer(status, specCode(status, kind), `${message} [${error.code}]`, headers);
}

/** An answer that needs no AppError: the request itself was at fault. */
export function specAnswer(
  status: number,
  code: DistributionErrorCode,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): ErrorAnswer {
  const body = distributionErrorBody(code, message);
  return { status, headers: { "content-type": "application/json", ...headers }, body };
}

function statusOf(error: AppError): number {
  const { httpStatus } = error;
  if (httpStatus >= 500) return httpStatus;
  return CLIENT_ERRORS.has(error.code) ? httpStatus : 503;
}

function specCode(status: number, kind: MirrorKind): DistributionErrorCode {
  switch (status) {
    case 401:
      return "UNAUTHORIZED";
    case 403:
      return "DENIED";
    case 404:
      return kind === "blob" ? "BLOB_UNKNOWN" : kind === "manifest" ? "MANIFEST_UNKNOWN" : "NAME_UNKNOWN";
    case 416:
      return "RANGE_INVALID";
    case 500:
      return "UNKNOWN";
    default:
      return status < 500 ? "UNSUPPORTED" : "UNAVAILABLE";
  }
}

/** Errors below 500 that speak of the client's request; the rest are troubles between us and the supernode. */
const CLIENT_ERRORS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "ORIGIN_UNAUTHORIZED", "ORIGIN_FORBIDDEN", "ORIGIN_NOT_FOUND", "RANGE_NOT_SATISFIABLE", "URL_INVALID", "USAGE",
]);

/** True for text that may be a header's value. */
export function isFieldValue(text: string): boolean {
  return /^[\t\x20-\x7e\x80-\xff]*$/.test(text);
}
