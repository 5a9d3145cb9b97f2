import type { Readable } from "node:stream";

/** What a registry knows us by. */
export interface RegistryCredentials {
  readonly username: string;
  readonly password: string;
}

/** What a caller asks of an origin. Header names are lower case. Holds credentials: never logged, never stored. */
export interface OriginRequest {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** What to log in with where the origin asks for that, in place of what is configured for it; not with an `authorization`. */
  readonly login?: RegistryCredentials;
}

/** What the origin said about one version of a file. */
export interface OriginInfo {
  /** Length in bytes; `undefined` when the origin does not say (chunked). */
  readonly lengthBytes: number | undefined;
  /** The origin answered 206 to a range, or promised `Accept-Ranges: bytes`. */
  readonly ranges: boolean;
  readonly etag: string | undefined;
  readonly lastModified: string | undefined;
  readonly contentType: string | undefined;
  /** Other end-to-end headers worth relaying (`docker-content-digest`, …), lower case, no `set-cookie`. */
  readonly headers: Readonly<Record<string, string>>;
}

/** An open body. `body` yields raw (identity-coded) bytes; destroy it to hang up. */
export interface OriginBody {
  readonly info: OriginInfo;
  /** Offset in the file of the first byte that `body` yields. */
  readonly startByte: number;
  readonly body: Readable;
}

/**
 * A place files come from. Two verbs; both throw AppError: URL_INVALID, SCHEME_UNSUPPORTED, HOST_UNRESOLVABLE,
 * ORIGIN_UNREACHABLE, TLS_FAILED, ORIGIN_UNAUTHORIZED (details `wwwAuthenticate`), ORIGIN_FORBIDDEN, ORIGIN_NOT_FOUND,
 * ORIGIN_STATUS, ORIGIN_BUSY (429, 500, 502, 503, 504; details `retryAfterMs`), ORIGIN_CHANGED, ORIGIN_PROTOCOL, TIMEOUT, ABORTED.
 */
export interface Origin {
  /**
   * Length, validators and range support, without reading the content.
   *
   * Given `known`, asks whether the file is still that version (`If-None-Match`, `If-Modified-Since`); where the origin
   * says so (304), `known` itself is the answer.
   */
  stat(request: OriginRequest, signal: AbortSignal, known?: OriginInfo): Promise<OriginInfo>;
  /**
   * Opens [startByte, endByte) of the file; `endByte` undefined = to its end.
   * Given `expected`, a different version (ETag, Last-Modified or total length) throws ORIGIN_CHANGED.
   */
  open(
    request: OriginRequest,
    range: { readonly startByte: number; readonly endByte: number | undefined },
    expected: OriginInfo | undefined,
    signal: AbortSignal,
  ): Promise<OriginBody>;
}
