/**
 * The closed table of what can go wrong: code → HTTP status, exit code of the commands, whether a retry can help.
 * Exit codes: 1 general, 2 usage, 3 file or disk, 4 network or daemon unreachable, 5 TLS, 6 authentication,
 * 7 protocol, 8 the origin answered an error status, 9 digest mismatch, 10 timeout, 11 back-to-source refused
 * (wget-compatible up to 8).
 */
export const ERROR_TABLE = {
  INTERNAL: { httpStatus: 500, exitCode: 1, retriable: false },
  USAGE: { httpStatus: 400, exitCode: 2, retriable: false },
  CONFIG_INVALID: { httpStatus: 500, exitCode: 2, retriable: false },
  URL_INVALID: { httpStatus: 400, exitCode: 2, retriable: false },
  SCHEME_UNSUPPORTED: { httpStatus: 400, exitCode: 2, retriable: false },
  OUTPUT_EXISTS: { httpStatus: 409, exitCode: 3, retriable: false },
  OUTPUT_UNWRITABLE: { httpStatus: 500, exitCode: 3, retriable: false },
  DISK_FULL: { httpStatus: 507, exitCode: 3, retriable: true },
  DISK_FAILED: { httpStatus: 500, exitCode: 3, retriable: false },
  CACHE_CORRUPT: { httpStatus: 500, exitCode: 3, retriable: true },
  CACHE_QUOTA_EXCEEDED: { httpStatus: 507, exitCode: 3, retriable: false },
  LISTEN_FAILED: { httpStatus: 500, exitCode: 4, retriable: false },
  HOST_UNRESOLVABLE: { httpStatus: 502, exitCode: 4, retriable: true },
  ORIGIN_UNREACHABLE: { httpStatus: 502, exitCode: 4, retriable: true },
  ORIGIN_CUT: { httpStatus: 502, exitCode: 4, retriable: true },
  SUPERNODE_UNREACHABLE: { httpStatus: 503, exitCode: 4, retriable: true },
  DAEMON_UNREACHABLE: { httpStatus: 503, exitCode: 4, retriable: true },
  TLS_FAILED: { httpStatus: 502, exitCode: 5, retriable: false },
  TOKEN_REFUSED: { httpStatus: 401, exitCode: 6, retriable: false },
  TICKET_REFUSED: { httpStatus: 403, exitCode: 6, retriable: false },
  ORIGIN_UNAUTHORIZED: { httpStatus: 401, exitCode: 6, retriable: false },
  ORIGIN_FORBIDDEN: { httpStatus: 403, exitCode: 6, retriable: false },
  PROTOCOL_VIOLATION: { httpStatus: 400, exitCode: 7, retriable: false },
  VERSION_UNSUPPORTED: { httpStatus: 426, exitCode: 7, retriable: false },
  MESSAGE_TOO_LARGE: { httpStatus: 413, exitCode: 7, retriable: false },
  RANGE_NOT_SATISFIABLE: { httpStatus: 416, exitCode: 7, retriable: false },
  ORIGIN_NOT_FOUND: { httpStatus: 404, exitCode: 8, retriable: false },
  ORIGIN_STATUS: { httpStatus: 502, exitCode: 8, retriable: false },
  ORIGIN_BUSY: { httpStatus: 503, exitCode: 8, retriable: true },
  ORIGIN_CHANGED: { httpStatus: 502, exitCode: 8, retriable: true },
  ORIGIN_LENGTH_WRONG: { httpStatus: 502, exitCode: 8, retriable: true },
  ORIGIN_PROTOCOL: { httpStatus: 502, exitCode: 7, retriable: false },
  DIGEST_MISMATCH: { httpStatus: 502, exitCode: 9, retriable: false },
  PIECE_DIGEST_MISMATCH: { httpStatus: 502, exitCode: 9, retriable: true },
  TIMEOUT: { httpStatus: 504, exitCode: 10, retriable: true },
  BACK_SOURCE_FORBIDDEN: { httpStatus: 503, exitCode: 11, retriable: true },
  TASK_UNKNOWN: { httpStatus: 404, exitCode: 1, retriable: true },
  PIECE_UNKNOWN: { httpStatus: 404, exitCode: 1, retriable: true },
  ABORTED: { httpStatus: 499, exitCode: 1, retriable: true },
  SHUTTING_DOWN: { httpStatus: 503, exitCode: 1, retriable: true },
} as const satisfies Record<string, ErrorTraits>;

interface ErrorTraits {
  readonly httpStatus: number;
  readonly exitCode: number;
  readonly retriable: boolean;
}

export type ErrorCode = keyof typeof ERROR_TABLE;

/** Facts that travel with an error: values for the reader and for the wire. Never a secret. */
export type ErrorDetails = Readonly<Record<string, string | number | boolean>>;

/**
 * An operating error: something outside our control went wrong, and a person may have to act on it.
 *
 * The message says what happened, to what, why, and what to do; it carries no credential and no signed query.
 */
export class AppError extends Error {
  override readonly name = "AppError";
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(
    code: ErrorCode,
    message: string,
    options: { readonly cause?: unknown; readonly details?: ErrorDetails } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? {};
  }

  get httpStatus(): number {
    return ERROR_TABLE[this.code].httpStatus;
  }

  get exitCode(): number {
    return ERROR_TABLE[this.code].exitCode;
  }

  get retriable(): boolean {
    return ERROR_TABLE[this.code].retriable;
  }
}

/** True when `text` is one of our codes: how an error read from the wire is recognised. */
export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(ERROR_TABLE, text);
}

/** Any thrown value as an {@link AppError}; what is not one already becomes `fallback`, its message kept. */
export function toAppError(thrown: unknown, fallback: ErrorCode = "INTERNAL"): AppError {
  if (thrown instanceof AppError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new AppError(fallback, message, { cause: thrown });
}
