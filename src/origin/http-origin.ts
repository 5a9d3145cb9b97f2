import { assert } from "../base/assert.ts";
import { AppError } from "../base/errors.ts";
import { parseContentLength, parseContentRange } from "./content-range.ts";
import { CountedBody } from "./counted-body.ts";
import { isStrongEtag, versionMismatch } from "./file-version.ts";
import {
  changedError, codedError, infoOf, isCoded, isInDoubt, partialContent, promisesRanges, wholeContent,
} from "./http-answer.ts";
import type { AskedRange } from "./http-answer.ts";
import { createDispatcher } from "./http-dispatcher.ts";
import type { DispatcherOptions } from "./http-dispatcher.ts";
import { discard, exchange, hangUp } from "./http-exchange.ts";
import type { Answer, ExchangeDeps } from "./http-exchange.ts";
import { fromHttpStatus, fromNodeError } from "./http-failure.ts";
import type { Origin, OriginBody, OriginInfo, OriginRequest } from "./origin.ts";
import { redactUrl } from "./origin-url.ts";

/** What an {@link HttpOrigin} may be told. Nothing is read from the environment. */
export interface HttpOriginOptions extends DispatcherOptions {
  /** Sent when the caller names none. Default `dragonfly`. */
  readonly userAgent?: string;
  /** From the request to the end of the answer's headers, per redirect. Default 30,000; 0 = for ever. */
  readonly headersTimeoutMs?: number;
  /** Between two chunks of a body, while we are reading. Default 30,000; 0 = for ever. */
  readonly bodyTimeoutMs?: number;
  /** 0 = follow none. Default 10. */
  readonly maxRedirects?: number;
  /** Wall clock in ms, for a Retry-After that is a date. Default `Date.now`. */
  readonly nowUnixMs?: () => number;
}

/**
 * Files on HTTP and HTTPS servers, over pooled keep-alive connections of its own.
 *
 * Always asks for the bytes as they are (`Accept-Encoding: identity`); an answer that is content-coded all the same is
 * refused as ORIGIN_PROTOCOL, for ranges and lengths of it would mean other bytes. Errors as {@link Origin} says, and
 * RANGE_NOT_SATISFIABLE (details `lengthBytes`); USAGE for a header that cannot be sent.
 */
export class HttpOrigin implements Origin {
  readonly #deps: ExchangeDeps;
  readonly #userAgent: string;
  readonly #nowUnixMs: () => number;

  constructor(options: HttpOriginOptions = {}) {
    this.#deps = {
      dispatcher: createDispatcher(options),
      headersTimeoutMs: options.headersTimeoutMs ?? 30_000,
      bodyTimeoutMs: options.bodyTimeoutMs ?? 30_000,
      maxRedirects: options.maxRedirects ?? 10,
    };
    this.#userAgent = options.userAgent ?? "dragonfly";
    this.#nowUnixMs = options.nowUnixMs ?? Date.now;
  }

  /** Hangs up on everyone: open bodies and exchanges fail with SHUTTING_DOWN, ORIGIN_CUT or ORIGIN_UNREACHABLE. */
  async close(): Promise<void> {
    await this.#deps.dispatcher.destroy();
  }

  /**
   * Asks by HEAD, and by a GET of one byte where HEAD is refused or leaves length or ranges in doubt.
   * A 404 is final: only 400, 403, 405 and 501 count as a refusal of the method.
   */
  async stat(request: OriginRequest, signal: AbortSignal): Promise<OriginInfo> {
    const head = await this.#ask("HEAD", request, {}, signal);
    discard(head.body);
    if (HEAD_REFUSALS.has(head.status) || (head.status > 200 && head.status < 300)) {
      return this.#probe(request, undefined, signal);
    }
    if (head.status !== 200) throw this.#statusError(head);
    if (isCoded(head)) throw codedError(head);
    const info = infoOf(head, parseContentLength(head.headers["content-length"]), promisesRanges(head));
    return isInDoubt(head, info) ? this.#probe(request, info, signal) : info;
  }

  async open(
    request: OriginRequest,
    range: { readonly startByte: number; readonly endByte: number | undefined },
    expected: OriginInfo | undefined,
    signal: AbortSignal,
  ): Promise<OriginBody> {
    const { startByte, endByte } = range;
    assert(Number.isSafeInteger(startByte) && startByte >= 0, `startByte ${startByte} is not a byte offset`);
    assert(endByte === undefined || endByte > startByte, `the range [${startByte}, ${endByte}) is empty`);
    const conditions: Record<string, string> = {};
    const ranged = startByte > 0 || endByte !== undefined;
    if (ranged) conditions["range"] = `bytes=${startByte}-${endByte === undefined ? "" : endByte - 1}`;
    if (expected?.etag !== undefined && isStrongEtag(expected.etag)) conditions["if-match"] = expected.etag;

    const answer = await this.#ask("GET", request, conditions, signal);
    try {
      return this.#bodyOf(answer, { startByte, endByte, ranged }, expected, signal);
    } catch (error) {
      if (answer.status === 200 || answer.status === 206) hangUp(answer.body);
      else discard(answer.body);
      throw error;
    }
  }

  #bodyOf(
    answer: Answer,
    asked: AskedRange,
    expected: OriginInfo | undefined,
    signal: AbortSignal,
  ): OriginBody {
    if (answer.status === 412 && expected !== undefined) throw changedError(answer, "its ETag is another one");
    if (answer.status !== 200 && answer.status !== 206) throw this.#openStatusError(answer, expected);
    if (isCoded(answer)) throw codedError(answer);
    const { info, promisedBytes } = answer.status === 206
      ? partialContent(answer, asked, expected?.lengthBytes)
      : wholeContent(answer, asked);
    const mismatch = expected === undefined ? undefined : versionMismatch(expected, info);
    if (mismatch !== undefined) throw changedError(answer, mismatch);
    const wantedBytes = asked.endByte === undefined ? undefined : asked.endByte - asked.startByte;
    const expectedBytes = info.lengthBytes ?? expected?.lengthBytes;
    const body = new CountedBody({
      source: answer.body,
      printableUrl: redactUrl(answer.url),
      promisedBytes: promisedBytes ?? (expectedBytes === undefined ? undefined : expectedBytes - asked.startByte),
      cutAfterBytes: wantedBytes,
      classify: (thrown) => fromNodeError(thrown, { url: answer.url, phase: "body", signal }),
    });
    return { info, startByte: asked.startByte, body };
  }

  #openStatusError(answer: Answer, expected: OriginInfo | undefined): AppError {
    const error = this.#statusError(answer);
    const lengthBytes = error.code === "RANGE_NOT_SATISFIABLE" ? error.details["lengthBytes"] : undefined;
    if (lengthBytes === undefined || expected?.lengthBytes === undefined || lengthBytes === expected.lengthBytes) {
      return error;
    }
    return changedError(answer, `its length was ${expected.lengthBytes} bytes and is ${lengthBytes}`);
  }

  /** Asks for the first byte only. `head` is what HEAD said, and stands where the probe is refused. */
  async #probe(request: OriginRequest, head: OriginInfo | undefined, signal: AbortSignal): Promise<OriginInfo> {
    const answer = await this.#ask("GET", request, { range: "bytes=0-0" }, signal);
    if (answer.status === 200) hangUp(answer.body);
    else discard(answer.body);
    const coded = isCoded(answer);
    const range = parseContentRange(answer.headers["content-range"]);
    if (answer.status === 416 && range?.totalBytes === 0) return infoOf(answer, 0, false);
    if (answer.status === 206 && !coded) {
      const honest = range?.startByte === 0 && range.endByte === 1;
      return infoOf(answer, honest ? (range.totalBytes ?? head?.lengthBytes) : head?.lengthBytes, honest);
    }
    if (answer.status === 200 && !coded) {
      return infoOf(answer, parseContentLength(answer.headers["content-length"]) ?? head?.lengthBytes, false);
    }
    if (head?.lengthBytes !== undefined && head.lengthBytes > 0) return { ...head, ranges: false };
    if (coded && (answer.status === 200 || answer.status === 206)) throw codedError(answer);
    throw this.#statusError(answer);
  }

  #ask(
    method: "HEAD" | "GET",
    { url, headers }: OriginRequest,
    conditions: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Answer> {
    const callerHeaders = { "user-agent": this.#userAgent, ...headers };
    const ownHeaders = { "accept-encoding": "identity", ...conditions };
    return exchange(this.#deps, { method, url, callerHeaders, ownHeaders, signal });
  }

  #statusError(answer: Answer): AppError {
    return fromHttpStatus(answer.status, answer.headers, answer.url, this.#nowUnixMs());
  }
}

/** Statuses by which servers refuse the method rather than the file; 403 comes from stores whose signed URLs are for GET. */
const HEAD_REFUSALS: ReadonlySet<number> = new Set([400, 403, 405, 501]);
