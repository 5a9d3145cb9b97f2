import type { Dispatcher } from "undici";
import type { Readable } from "node:stream";
import { AppError } from "../base/errors.ts";
import { fromNodeError } from "./http-failure.ts";
import type { AnswerHeaders } from "./http-failure.ts";
import { parseOriginUrl, redactUrl, takeUserinfo } from "./origin-url.ts";

/** One question to an origin. */
export interface Ask {
  readonly method: "HEAD" | "GET";
  readonly url: string;
  /** The caller's headers; those that are the exchange's own business (ranges, conditions, codings, hops) are left out. */
  readonly callerHeaders: Readonly<Record<string, string>>;
  /** Our own headers, sent on every hop. */
  readonly ownHeaders: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/** The answer after all redirects. Whoever gets it must read, {@link discard} or destroy `body`. */
export interface Answer {
  readonly status: number;
  readonly headers: AnswerHeaders;
  readonly body: Readable;
  /** Who answered, without userinfo. */
  readonly url: URL;
}

/** What an exchange goes over. */
export interface ExchangeDeps {
  readonly dispatcher: Dispatcher;
  readonly headersTimeoutMs: number;
  readonly bodyTimeoutMs: number;
  readonly maxRedirects: number;
}

/**
 * Asks an origin, following redirects (301, 302, 303, 307, 308) itself.
 *
 * A redirect to another scheme, host or port loses the caller's credentials for good: `authorization`, `cookie`, and
 * every header named like a secret. Userinfo in a URL becomes Basic credentials for that URL's host alone.
 *
 * @returns the first answer that is no redirect, whatever its status
 * @throws AppError URL_INVALID, SCHEME_UNSUPPORTED, ORIGIN_PROTOCOL (redirect without end, or to nowhere we go), and
 *   those of `fromNodeError`
 */
export async function exchange(deps: ExchangeDeps, ask: Ask): Promise<Answer> {
  let url = parseOriginUrl(ask.url);
  let headers = outgoingHeaders(ask.callerHeaders);
  for (let hops = 0; ; hops += 1) {
    const basic = takeUserinfo(url);
    if (basic !== undefined) headers["authorization"] ??= basic;
    const answer = await send(deps, ask, url, { ...headers, ...ask.ownHeaders });
    if (!REDIRECT_STATUSES.has(answer.status)) return answer;
    discard(answer.body);
    if (hops === deps.maxRedirects) {
      throw new AppError(
        "ORIGIN_PROTOCOL",
        `gave up on ${redactUrl(ask.url)} after ${hops} redirects, the last one to ${redactUrl(url)}; ` +
          "check the origin for a loop of redirects",
      );
    }
    const next = redirectTarget(answer);
    if (next.origin !== url.origin) headers = withoutCredentials(headers);
    url = next;
  }
}

/** Drops a body nobody wants: reads a short one to its end to keep the connection, hangs up on a long one. */
export function discard(body: Readable): void {
  let leftBytes = DISCARD_BYTES_MAX;
  body.on("error", () => {});
  body.on("data", (chunk: Buffer) => {
    leftBytes -= chunk.length;
    if (leftBytes < 0) body.destroy();
  });
}

/** Hangs up: for a body that may be long. */
export function hangUp(body: Readable): void {
  body.on("error", () => {});
  body.destroy();
}

async function send(deps: ExchangeDeps, ask: Ask, url: URL, headers: Record<string, string>): Promise<Answer> {
  try {
    const { statusCode, headers: fields, body } = await deps.dispatcher.request({
      origin: url.origin,
      path: `${url.pathname}${url.search}`,
      method: ask.method,
      headers,
      signal: ask.signal,
      headersTimeout: deps.headersTimeoutMs,
      bodyTimeout: deps.bodyTimeoutMs,
      // undici would hang up after each HEAD, for fear of servers that send a body with it; it survives those anyway.
      reset: false,
    });
    return { status: statusCode, headers: joined(fields), body, url };
  } catch (thrown) {
    throw fromNodeError(thrown, { url, phase: "headers", signal: ask.signal });
  }
}

function joined(fields: Readonly<Record<string, string | string[] | undefined>>): AnswerHeaders {
  const headers: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined) headers[name.toLowerCase()] = Array.isArray(value) ? value.join(", ") : value;
  }
  return headers;
}

function redirectTarget(answer: Answer): URL {
  const location = answer.headers["location"];
  const from = `${redactUrl(answer.url)} redirects (HTTP ${answer.status})`;
  if (location === undefined) {
    throw new AppError("ORIGIN_PROTOCOL", `${from} without saying where; check the origin`);
  }
  const target = URL.parse(location, answer.url.href);
  if (target === null) {
    throw new AppError("ORIGIN_PROTOCOL", `${from} to "${redactUrl(location)}", which is no URL; check the origin`);
  }
  if (target.protocol !== "http:" && target.protocol !== "https:") {
    throw new AppError(
      "ORIGIN_PROTOCOL",
      `${from} to ${redactUrl(target)}, but only http and https are followed; check the origin`,
    );
  }
  target.hash = "";
  return target;
}

function outgoingHeaders(callerHeaders: Readonly<Record<string, string>>): Record<string, string> {
  const headers: Record<string, string> = Object.create(null) as Record<string, string>;
  headers["accept"] = "*/*";
  const named = (callerHeaders["connection"] ?? "").toLowerCase().split(/\s*,\s*/);
  for (const [name, value] of Object.entries(callerHeaders)) {
    const key = name.toLowerCase();
    if (!OUR_BUSINESS.has(key) && !named.includes(key)) headers[key] = value;
  }
  return headers;
}

function withoutCredentials(headers: Record<string, string>): Record<string, string> {
  const kept: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [name, value] of Object.entries(headers)) {
    if (!isCredentialHeader(name)) kept[name] = value;
  }
  return kept;
}

/** True for a header named like a secret; it goes to no other host than the one it was meant for. */
export function isCredentialHeader(name: string): boolean {
  return CREDENTIAL_NAME.test(name);
}

const REDIRECT_STATUSES: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** Of no use to the next host, and dangerous in its hands: `x-amz-security-token`, `private-token`, `x-api-key`, … */
const CREDENTIAL_NAME = /auth|cookie|token|secret|passw|credential|signature|session|jwt|(?:^|-)(?:api-?)?key(?:-|$)/i;

/**
 * Headers of the caller that never pass: those of one connection (RFC 9110 §7.6.1), and those that would change which
 * bytes come back, which is decided here.
 */
const OUR_BUSINESS: ReadonlySet<string> = new Set([
  "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
  "transfer-encoding", "upgrade", "host", "content-length", "content-type", "expect",
  "accept-encoding", "range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since",
]);

/** About what is in flight anyway on a connection of 10 ms at 50 Mbit/s: cheaper to read than a new handshake. */
const DISCARD_BYTES_MAX = 64 * 1024;
