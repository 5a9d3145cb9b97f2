import { assert } from "../base/assert.ts";
import { AppError } from "../base/errors.ts";
import { parseContentLength, parseContentRange } from "./content-range.ts";
import { CountedBody } from "./counted-body.ts";
import { isSameEtag, isStrongEtag, versionMismatch } from "./file-version.ts";
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
import { parseOriginUrl, redactUrl } from "./origin-url.ts";
import { BusyOrigins } from "./busy-origins.ts";
import { SignedAddresses } from "./signed-addresses.ts";

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
  /** Monotonic ms. Default `performance.now`. */
  readonly nowMs?: () => number;
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
  readonly #busy: BusyOrigins;
  readonly #addresses: SignedAddresses;

  constructor(options: HttpOriginOptions = {}) {
    this.#deps = {
      dispatcher: createDispatcher(options),
      headersTimeoutMs: options.headersTimeoutMs ?? 30_000,
      bodyTimeoutMs: options.bodyTimeoutMs ?? 30_000,
      maxRedirects: options.maxRedirects ?? 10,
    };
    this.#userAgent = options.userAgent ?? "dragonfly";
    this.#nowUnixMs = options.nowUnixMs ?? Date.now;
    const nowMs = options.nowMs ?? ((): number => performance.now());
    this.#busy = new BusyOrigins(nowMs);
    this.#addresses = new SignedAddresses(nowMs);
  }

  /** Hangs up on everyone: open bodies and exchanges fail with SHUTTING_DOWN, ORIGIN_CUT or ORIGIN_UNREACHABLE. */
  async close(): Promise<void> {
    await this.#deps.dispatcher.destroy();
  }

  /**
   * Asks by HEAD, and by a GET of one byte where HEAD is refused or leaves length or ranges in doubt.
   * A 404 is final: only 400, 403, 405 and 501 count as a refusal of the method.
   */
  async stat(request: OriginRequest, signal: AbortSignal, known?: OriginInfo): Promise<OriginInfo> {
    const conditions = revalidationOf(known);
    const head = await this.#ask("HEAD", request, conditions, signal);
    discard(head.body);
    if (head.status === 304 && known !== undefined) {
      // A 304 that names another version contradicts itself: asked again, without conditions.
      return confirms(head, known) ? known : this.stat(request, signal);
    }
    if (HEAD_REFUSALS.has(head.status) || (head.status > 200 && head.status < 300)) {
      return this.#probe(request, undefined, signal, known);
    }
    if (head.status !== 200) throw this.#statusError(head, request);
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
    else if (expected?.lastModified !== undefined) conditions["if-unmodified-since"] = expected.lastModified;

    // What goes on with a read; a first question is the registry's to answer.
    const again = expected === undefined ? undefined : await this.#askAddress(request, conditions, signal);
    const answer = again ?? (await this.#ask("GET", request, conditions, signal));
    try {
      const body = this.#bodyOf(answer, { startByte, endByte, ranged }, expected, request, signal);
      this.#addresses.remember(request, answer.url);
      return body;
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
    request: OriginRequest,
    signal: AbortSignal,
  ): OriginBody {
    if (answer.status === 412 && expected !== undefined) throw changedError(answer, "its ETag or its date is another one");
    if (answer.status !== 200 && answer.status !== 206) throw this.#openStatusError(answer, expected, request);
    if (isCoded(answer)) throw codedError(answer);
    // First the version, then the bytes: of another version other bytes may have come on purpose.
    const lengthBytes = answer.status === 206
      ? parseContentRange(answer.headers["content-range"])?.totalBytes
      : parseContentLength(answer.headers["content-length"]);
    const mismatch = expected === undefined ? undefined : versionMismatch(expected, infoOf(answer, lengthBytes, false));
    if (mismatch !== undefined) throw changedError(answer, mismatch);
    const { info, promisedBytes } = answer.status === 206
      ? partialContent(answer, asked, expected?.lengthBytes)
      : wholeContent(answer, asked);
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

  /** The rest of a blob from where its registry sent us before; undefined when that is not known, or no longer good. */
  async #askAddress(
    request: OriginRequest,
    conditions: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Answer | undefined> {
    const address = this.#addresses.of(request);
    if (address === undefined) return undefined;
    try {
      const answer = await this.#ask("GET", { url: address, headers: {} }, conditions, signal);
      if (answer.status === 200 || answer.status === 206) return answer;
      discard(answer.body);
    } catch (error) {
      if (signal.aborted) throw error;
    }
    this.#addresses.forget(request);
    return undefined;
  }

  #openStatusError(answer: Answer, expected: OriginInfo | undefined, request: OriginRequest): AppError {
    const error = this.#statusError(answer, request);
    const lengthBytes = error.code === "RANGE_NOT_SATISFIABLE" ? error.details["lengthBytes"] : undefined;
    if (lengthBytes === undefined || expected?.lengthBytes === undefined || lengthBytes === expected.lengthBytes) {
      return error;
    }
    return changedError(answer, `its length was ${expected.lengthBytes} bytes and is ${lengthBytes}`);
  }

  /** Asks for the first byte only. `head` is what HEAD said, and stands where the probe is refused. */
  async #probe(
    request: OriginRequest,
    head: OriginInfo | undefined,
    signal: AbortSignal,
    known?: OriginInfo,
  ): Promise<OriginInfo> {
    const answer = await this.#ask("GET", request, { range: "bytes=0-0", ...revalidationOf(known) }, signal);
    if (answer.status === 200) hangUp(answer.body);
    else discard(answer.body);
    if (answer.status === 304 && known !== undefined) {
      return confirms(answer, known) ? known : this.#probe(request, head, signal);
    }
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
    throw this.#statusError(answer, request);
  }

  async #ask(
    method: "HEAD" | "GET",
    { url, headers }: OriginRequest,
    conditions: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Answer> {
    await this.#busy.pass(parseOriginUrl(url), headers["authorization"], signal);
    const callerHeaders = { "user-agent": this.#userAgent, ...headers };
    const ownHeaders = { "accept-encoding": "identity", ...conditions };
    return await exchange(this.#deps, { method, url, callerHeaders, ownHeaders, signal });
  }

  #statusError(answer: Answer, { url, headers }: OriginRequest): AppError {
    const error = fromHttpStatus(answer.status, answer.headers, answer.url, this.#nowUnixMs());
    const asked = parseOriginUrl(url);
    if (asked.origin === answer.url.origin) {
      this.#busy.said(asked, headers["authorization"], error);
      return error;
    }
    if (!SIGNATURE_REFUSALS.has(answer.status) || answer.url.search === "") return error;
    // It speaks of the address that we were sent to, and not of the caller, who is to ask for another.
    return new AppError(
      "ORIGIN_BUSY",
      `${asked.host} sent us to an address at ${answer.url.host} that is refused there (HTTP ${answer.status}); ` +
        "another one is asked for, unless it goes on",
      { details: { status: answer.status, origin: answer.url.origin } },
    );
  }
}

/** The conditions of a question that 304 answers. The origin's own words go back to it: no clock of ours has a say. */
function revalidationOf(known: OriginInfo | undefined): Readonly<Record<string, string>> {
  const conditions: Record<string, string> = {};
  if (known?.etag !== undefined) conditions["if-none-match"] = known.etag;
  if (known?.lastModified !== undefined) conditions["if-modified-since"] = known.lastModified;
  return conditions;
}

/** Whether a 304 speaks of the version that was asked about. */
function confirms(answer: Answer, known: OriginInfo): boolean {
  const etag = answer.headers["etag"];
  return etag === undefined || known.etag === undefined || isSameEtag(etag, known.etag);
}

/** By which stores refuse an address whose signature is over, or wrong. */
const SIGNATURE_REFUSALS: ReadonlySet<number> = new Set([400, 401, 403]);

/** Statuses by which servers refuse the method rather than the file; 403 comes from stores whose signed URLs are for GET. */
const HEAD_REFUSALS: ReadonlySet<number> = new Set([400, 403, 405, 501]);
