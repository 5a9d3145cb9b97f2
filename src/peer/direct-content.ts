/** Content straight from its origin: no swarm, no cache; the digest is checked before the last byte leaves. */
import { AppError, toAppError } from "../base/errors.ts";
import type { Priority } from "../base/priority.ts";
import type { Origin, OriginBody, OriginInfo, OriginRequest } from "../origin/origin.ts";
import { digestAlgorithm, digestHex, parseDigest } from "../protocol/ids.ts";
import type { Explanation } from "../protocol/explanation.ts";
import type { Content, ContentInfo, ContentOpener, ContentRequest } from "./content.ts";
import { HandedOn } from "./handed-on.ts";
import { RateGate } from "./rate-gate.ts";
import { ReaderAccount } from "./reader-account.ts";

/** A body that breaks is taken up again where it broke, this often without progress. */
const RESUME_COUNT_MAX = 4;
/** Without ranges each time costs the origin all that was handed on before. */
const RESTART_COUNT_MAX = 2;

export interface DirectOpenerDeps {
  readonly origin: Origin;
  /** The host's limit for reading origins; stays the caller's. */
  readonly limit?: RateGate;
}

export class DirectOpener implements ContentOpener {
  readonly #deps: DirectOpenerDeps;

  constructor(deps: DirectOpenerDeps) {
    this.#deps = deps;
  }

  /** @param startedMs when the content was asked for, by performance.now(): the swarm may have been waited for before */
  async open({ source, limitBytesPerSecond }: ContentRequest, signal: AbortSignal, startedMs: number = performance.now()): Promise<Content> {
    const { url, headers, digest, priority } = source;
    const request = { url, headers };
    const originMs = performance.now();
    const first = await this.#deps.origin.open(request, { startByte: 0, endByte: undefined }, undefined, signal);
    const account = new ReaderAccount(startedMs, undefined, originMs);
    return new DirectContent({ ...this.#deps, account, request, digest, priority, limitBytesPerSecond }, first);
  }

  async stat({ source }: ContentRequest, signal: AbortSignal): Promise<ContentInfo> {
    const info = await this.#deps.origin.stat({ url: source.url, headers: source.headers }, signal);
    return contentInfoOf(info, source.digest);
  }
}

class DirectContent implements Content {
  readonly info: ContentInfo;
  readonly #reading: OriginReading & { readonly account: ReaderAccount };
  #first: OriginBody | undefined;
  #originBytes = 0;

  constructor(reading: Omit<OriginReading, "expected"> & { readonly account: ReaderAccount }, first: OriginBody) {
    this.#reading = { ...reading, expected: first.info };
    this.#first = first;
    this.info = contentInfoOf(first.info, reading.digest);
    first.body.on("error", () => undefined);
  }

  async *read(
    range: { readonly startByte: number; readonly endByte: number | undefined },
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    const first = range.startByte === 0 ? this.#first : undefined;
    // Not at the start: the body that was opened to learn what the file is would only cost the origin bytes.
    if (first === undefined) this.#first?.body.destroy();
    this.#first = undefined;
    for await (const chunk of readOrigin({ ...this.#reading, first }, range, signal)) {
      this.#originBytes += chunk.length;
      yield chunk;
    }
  }

  explanation(): Explanation {
    return this.#reading.account.explanation(this.sources());
  }

  sources(): { seedBytes: number; peerBytes: number; originBytes: number; cacheBytes: number } {
    return { seedBytes: 0, peerBytes: 0, originBytes: this.#originBytes, cacheBytes: 0 };
  }

  close(): void {
    this.#reading.account.end(this.sources());
    this.#first?.body.destroy();
    this.#first = undefined;
  }
}

export interface OriginReading extends DirectOpenerDeps {
  readonly request: OriginRequest;
  /** Among all who read origins at this host. Default: somebody waits. */
  readonly priority?: Priority | undefined;
  /** This reading's own limit, below the host's. */
  readonly limitBytesPerSecond?: number | undefined;
  readonly expected: OriginInfo | undefined;
  /** Checked when the range is the whole file. */
  readonly digest: string | undefined;
  /** A body already open at the range's start. */
  readonly first?: OriginBody | undefined;
  /** The reader's books. */
  readonly account?: Pick<ReaderAccount, "does" | "gives"> | undefined;
  /** The bytes before the range's start, when they are here: the digest of the whole, or a reading from the start, is held against them. */
  readonly prefix?: (() => AsyncIterable<Uint8Array>) | undefined;
}

/**
 * The bytes of a range from the origin, taken up again after a cut as long as there is progress. Where the origin has no
 * ranges it is read from its start, at most twice, and what was handed on before must come again.
 *
 * The last chunk is held back until the digest is right, where the file's beginning is known too.
 * @throws AppError as Origin.open; DIGEST_MISMATCH
 */
export async function* readOrigin(
  reading: OriginReading,
  range: { readonly startByte: number; readonly endByte: number | undefined },
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const { origin, request, prefix, account, limit = new RateGate(undefined) } = reading;
  const flow = limit.flow(reading.priority ?? "interactive");
  limit.setFlowLimit(flow, reading.limitBytesPerSecond);
  const { startByte, endByte } = range;
  let { expected, first: body } = reading;
  const digest = reading.digest === undefined ? undefined : parseDigest(reading.digest);
  const isChecked = digest !== undefined && (startByte === 0 || prefix !== undefined);
  const handedOn = new HandedOn({
    algorithm: digest === undefined ? "sha256" : digestAlgorithm(digest),
    baseByte: isChecked ? 0 : startByte,
    before: isChecked || startByte === 0 ? undefined : prefix,
  });
  if (isChecked && startByte > 0) {
    for await (const bytes of prefix?.() ?? []) handedOn.add(bytes);
  }
  let at = startByte;
  let ranges = expected?.ranges !== false;
  let restarts = 0;
  let failures = 0;
  let held: Uint8Array | undefined;
  for (;;) {
    const startedAt = at;
    try {
      const isAgain = body === undefined && at > 0 && !ranges;
      const fresh = isAgain ? handedOn.skipping() : (chunk: Uint8Array) => chunk;
      let position = isAgain ? 0 : at;
      account?.does("origin");
      body ??= await origin.open(request, { startByte: position, endByte }, expected, signal);
      expected ??= body.info;
      if (isAgain) restarts++;
      for await (const bytes of body.body as AsyncIterable<Uint8Array>) {
        if (signal.aborted) throw new AppError("ABORTED", "the reader has gone");
        const wanted = bytes.subarray(0, endByte === undefined ? bytes.length : Math.min(bytes.length, endByte - position));
        account?.does("downlink");
        for await (const chunk of limit.paced(flow, wanted, signal)) {
          position += chunk.length;
          const news = await fresh(chunk);
          if (news.length === 0) continue;
          at += news.length;
          handedOn.add(news);
          if (held !== undefined) {
            account?.gives();
            yield held;
            account?.does("downlink");
          }
          held = news;
        }
        account?.does("origin");
        if (position === endByte) break;
      }
      if (position < at) throw new AppError("ORIGIN_CHANGED", "the origin's file is now shorter than what was handed on already; start again");
      break;
    } catch (thrown) {
      const error = toAppError(thrown, "ORIGIN_CUT");
      failures = at > startedAt ? 0 : failures + 1;
      const lacksRanges = ranges && at > 0 && error.code === "ORIGIN_PROTOCOL" && error.details["ranges"] === false;
      if (lacksRanges || expected?.ranges === false) ranges = false;
      const resumable = lacksRanges || (error.retriable && error.code !== "ABORTED" && error.code !== "ORIGIN_CHANGED");
      if (!resumable || failures >= RESUME_COUNT_MAX || signal.aborted) throw error;
      if (!ranges && at > 0 && restarts >= RESTART_COUNT_MAX) throw error;
    } finally {
      body?.body.destroy();
      body = undefined;
    }
  }
  // Of a length that nobody says: to the end, or so far that the end came before.
  const whole = expected?.lengthBytes === undefined ? endByte === undefined || at < endByte : at === expected.lengthBytes;
  if (digest !== undefined && isChecked && whole && handedOn.digestHex() !== digestHex(digest)) {
    throw new AppError("DIGEST_MISMATCH", `the origin's content does not have the digest ${reading.digest}; nothing of it is to be trusted`);
  }
  account?.gives();
  if (held !== undefined) yield held;
}

function contentInfoOf(info: OriginInfo, digest: string | undefined): ContentInfo {
  const headers: Record<string, string> = { ...info.headers };
  if (info.etag !== undefined) headers["etag"] = info.etag;
  if (info.lastModified !== undefined) headers["last-modified"] = info.lastModified;
  return { taskId: undefined, lengthBytes: info.lengthBytes, contentType: info.contentType, digest, headers };
}
