import { AppError } from "../base/errors.ts";
import type { ErrorCode, ErrorDetails } from "../base/errors.ts";
import { redactUrl } from "./origin-url.ts";
import { parseContentRange } from "./content-range.ts";
import { parseRetryAfter } from "./retry-after.ts";

/** An answer's headers: lower-case names; several fields of one name joined by ", ". */
export type AnswerHeaders = Readonly<Record<string, string>>;

/**
 * An error status of an origin as an AppError.
 *
 * @param nowUnixMs wall clock in ms, for a Retry-After that is a date
 * @returns ORIGIN_UNAUTHORIZED, ORIGIN_FORBIDDEN, ORIGIN_NOT_FOUND, RANGE_NOT_SATISFIABLE, ORIGIN_BUSY (retriable) or
 *   ORIGIN_STATUS; details `status`, `origin` (scheme, host, port of who answered, after redirects), and as they apply
 *   `wwwAuthenticate`, `retryAfterMs`, `lengthBytes`
 */
export function fromHttpStatus(status: number, headers: AnswerHeaders, url: URL, nowUnixMs: number): AppError {
  const fail = (code: ErrorCode, sentence: string, more: ErrorDetails = {}): AppError =>
    new AppError(code, `${sentence} (HTTP ${status} from ${redactUrl(url)})`, {
      details: { status, origin: url.origin, ...more },
    });
  switch (status) {
    case 401: {
      const wwwAuthenticate = headers["www-authenticate"];
      const sentence = "the origin asks for credentials it was not given, or refused those given; check them";
      return fail("ORIGIN_UNAUTHORIZED", sentence, wwwAuthenticate === undefined ? {} : { wwwAuthenticate });
    }
    case 403:
      return fail("ORIGIN_FORBIDDEN", "the origin forbids this file; check the credentials, or the URL's signature");
    case 404:
    case 410:
      return fail("ORIGIN_NOT_FOUND", "the origin has no such file; check the URL");
    case 416: {
      const lengthBytes = parseContentRange(headers["content-range"])?.totalBytes;
      const known = lengthBytes === undefined ? "" : `, which has ${lengthBytes} bytes`;
      const more: ErrorDetails = lengthBytes === undefined ? {} : { lengthBytes };
      return fail("RANGE_NOT_SATISFIABLE", `the range asked for is outside the file${known}; ask for less`, more);
    }
    // A failure that a gateway or a crash made is over as a rule before a file has to fail for it.
    case 500:
    case 502:
    case 504:
      return fail("ORIGIN_BUSY", "the origin, or what stands before it, failed over this file; try again later, and see its logs");
    case 429:
    case 503: {
      const retryAfterMs = parseRetryAfter(headers["retry-after"], nowUnixMs);
      const when = retryAfterMs === undefined ? "later" : `in ${Math.ceil(retryAfterMs / 1000)} s`;
      const more: ErrorDetails = retryAfterMs === undefined ? {} : { retryAfterMs };
      return fail("ORIGIN_BUSY", `the origin is busy or limits its callers; try again ${when}`, more);
    }
    default:
      return fail("ORIGIN_STATUS", "the origin gave an answer that is not the file; check the URL and the origin's logs");
  }
}

/** Where in an exchange an error struck. */
export interface FailureContext {
  readonly url: URL;
  readonly phase: "headers" | "body";
  readonly signal: AbortSignal;
}

/**
 * An error thrown by undici or Node below it as an AppError, the `cause` chain walked.
 *
 * @returns ABORTED, or the signal's own reason when that is an AppError; HOST_UNRESOLVABLE, ORIGIN_UNREACHABLE,
 *   ORIGIN_CUT (in the phase `body`), TIMEOUT (these retriable); TLS_FAILED, ORIGIN_PROTOCOL, USAGE, SHUTTING_DOWN
 */
export function fromNodeError(thrown: unknown, context: FailureContext): AppError {
  if (thrown instanceof AppError) return thrown;
  if (context.signal.aborted) return fromAbort(context, thrown);
  const chain = causes(thrown);
  const described = chain.map((error) => error.message).filter((message) => message !== "");
  const reason = described.at(-1) ?? String(thrown);
  const where = redactUrl(context.url);
  const fail = (code: ErrorCode, sentence: string): AppError => new AppError(code, sentence, { cause: thrown });
  // undici has no code for it.
  if (reason.includes("(407)")) {
    return fail("ORIGIN_UNREACHABLE", `the proxy on the way to ${where} wants credentials; write them into the proxy's URL`);
  }
  for (const { code, message } of chain) {
    switch (kindOf(code)) {
      case "dns":
        return fail(
          "HOST_UNRESOLVABLE",
          `cannot find the host of ${where}: ${reason}; check its name, and this machine's DNS`,
        );
      case "tls":
        return fail(
          "TLS_FAILED",
          `cannot trust or talk TLS with the host of ${where}: ${message} (${code}); ` +
            "if its certificate is signed by an authority of your own, configure that authority's certificate",
        );
      case "timeout":
        return fail("TIMEOUT", `the origin took too long over ${where}: ${message} (${code}); try again later`);
      case "protocol":
        // Within a body it is how a connection looks that broke, or ran into what followed it.
        if (context.phase === "body") continue;
        return fail(
          "ORIGIN_PROTOCOL",
          `the answer for ${where} is not HTTP as we know it: ${message}; check scheme and port of the URL`,
        );
      case "usage":
        return fail("USAGE", `the request for ${where} cannot be sent: ${message}; check its headers`);
      case "closed":
        return fail("SHUTTING_DOWN", `the exchange with ${where} ended because this process is stopping`);
      default:
    }
  }
  return context.phase === "body"
    ? fail("ORIGIN_CUT", `the connection broke in the middle of ${where}: ${reason}; try again`)
    : fail("ORIGIN_UNREACHABLE", `cannot reach the host of ${where}: ${reason}; check that it is up, and any proxy`);
}

function fromAbort(context: FailureContext, cause: unknown): AppError {
  const reason: unknown = context.signal.reason;
  if (reason instanceof AppError) return reason;
  const where = redactUrl(context.url);
  if (reason instanceof Error && reason.name === "TimeoutError") {
    return new AppError("TIMEOUT", `the time given for ${where} ran out; try again later`, { cause });
  }
  return new AppError("ABORTED", `the exchange with ${where} was called off by its caller`, { cause });
}

interface CodedError {
  readonly code: string;
  readonly message: string;
}

/** The error and what caused it, outermost first; of several addresses tried, each one's error. */
function causes(thrown: unknown): CodedError[] {
  const found: CodedError[] = [];
  let queue: unknown[] = [thrown];
  while (queue.length > 0 && found.length < CAUSES_MAX) {
    const error = queue.shift();
    if (!(error instanceof Error)) continue;
    const unnamed = error.name === "HTTPParserError" ? "HPE_" : "";
    const code = "code" in error && typeof error.code === "string" ? error.code : unnamed;
    found.push({ code, message: error.message });
    if (error instanceof AggregateError) queue = [...queue, ...(error.errors as unknown[])];
    queue.push(error.cause);
  }
  return found;
}

type Kind = "dns" | "tls" | "timeout" | "protocol" | "usage" | "closed";

function kindOf(code: string): Kind | undefined {
  return KINDS[code] ?? KIND_PATTERNS.find(([pattern]) => pattern.test(code))?.[1];
}

const KINDS: Readonly<Record<string, Kind>> = {
  __proto__: null as never,
  ENOTFOUND: "dns",
  ENODATA: "dns",
  ETIMEDOUT: "timeout",
  UND_ERR_CONNECT_TIMEOUT: "timeout",
  UND_ERR_HEADERS_TIMEOUT: "timeout",
  UND_ERR_BODY_TIMEOUT: "timeout",
  UND_ERR_PRX_TLS: "tls",
  EPROTO: "tls",
  DEPTH_ZERO_SELF_SIGNED_CERT: "tls",
  SELF_SIGNED_CERT_IN_CHAIN: "tls",
  HOSTNAME_MISMATCH: "tls",
  UND_ERR_HEADERS_OVERFLOW: "protocol",
  UND_ERR_INVALID_ARG: "usage",
  ERR_INVALID_CHAR: "usage",
  UND_ERR_DESTROYED: "closed",
  UND_ERR_CLOSED: "closed",
};

/** OpenSSL's verification results carry no prefix of their own: see Node's documentation, "X509 certificate error codes". */
const KIND_PATTERNS: readonly (readonly [RegExp, Kind])[] = [
  [/^EAI_/, "dns"],
  [/^(?:ERR_TLS_|ERR_SSL_|CERT_|CRL_|UNABLE_TO_|INVALID_CA$|INVALID_PURPOSE$|PATH_LENGTH_EXCEEDED$)/, "tls"],
  [/^HPE_/, "protocol"],
];

/** A bound against a chain that bites its own tail. */
const CAUSES_MAX = 16;
