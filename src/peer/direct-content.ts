/** Content straight from its origin: no swarm, no cache; the digest is checked before the last byte leaves. */
import { createHash, type Hash } from "node:crypto";
import { AppError, toAppError } from "../base/errors.ts";
import type { Origin, OriginBody, OriginInfo, OriginRequest } from "../origin/origin.ts";
import { digestAlgorithm, digestHex, parseDigest } from "../protocol/ids.ts";
import type { Content, ContentInfo, ContentOpener, ContentRequest } from "./content.ts";

/** A body that breaks is taken up again where it broke, this often without progress. */
const RESUME_COUNT_MAX = 4;

export interface DirectOpenerDeps {
  readonly origin: Origin;
  /** Waits for the origin-read limit; resolves when `bytes` may be consumed. */
  readonly admit?: (bytes: number) => Promise<void>;
}

export class DirectOpener implements ContentOpener {
  readonly #deps: DirectOpenerDeps;

  constructor(deps: DirectOpenerDeps) {
    this.#deps = deps;
  }

  async open({ source }: ContentRequest, signal: AbortSignal): Promise<Content> {
    const request = { url: source.url, headers: source.headers };
    const first = await this.#deps.origin.open(request, { startByte: 0, endByte: undefined }, undefined, signal);
    return new DirectContent(this.#deps, request, first, source.digest);
  }

  async stat({ source }: ContentRequest, signal: AbortSignal): Promise<ContentInfo> {
    const info = await this.#deps.origin.stat({ url: source.url, headers: source.headers }, signal);
    return contentInfoOf(info, source.digest);
  }
}

class DirectContent implements Content {
  readonly info: ContentInfo;
  readonly #deps: DirectOpenerDeps;
  readonly #request: OriginRequest;
  readonly #expected: OriginInfo;
  #first: OriginBody | undefined;
  #originBytes = 0;

  constructor(deps: DirectOpenerDeps, request: OriginRequest, first: OriginBody, digest: string | undefined) {
    this.#deps = deps;
    this.#request = request;
    this.#first = first;
    this.#expected = first.info;
    this.info = contentInfoOf(first.info, digest);
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
    for await (const chunk of readOrigin(
      { ...this.#deps, request: this.#request, expected: this.#expected, digest: this.info.digest, first },
      range,
      signal,
    )) {
      this.#originBytes += chunk.length;
      yield chunk;
    }
  }

  sources(): { seedBytes: number; peerBytes: number; originBytes: number; cacheBytes: number } {
    return { seedBytes: 0, peerBytes: 0, originBytes: this.#originBytes, cacheBytes: 0 };
  }

  close(): void {
    this.#first?.body.destroy();
    this.#first = undefined;
  }
}

export interface OriginReading extends DirectOpenerDeps {
  readonly request: OriginRequest;
  readonly expected: OriginInfo | undefined;
  /** Checked when the range is the whole file. */
  readonly digest: string | undefined;
  /** A body already open at the range's start. */
  readonly first?: OriginBody | undefined;
  /** The bytes before the range's start, when they are here: the digest of the whole can be checked then. */
  readonly prefix?: (() => AsyncIterable<Uint8Array>) | undefined;
}

/**
 * The bytes of a range from the origin, taken up again after a cut as long as there is progress.
 *
 * The last chunk is held back until the digest is right, where the file's beginning is known too.
 * @throws AppError as Origin.open; DIGEST_MISMATCH
 */
export async function* readOrigin(
  reading: OriginReading,
  range: { readonly startByte: number; readonly endByte: number | undefined },
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  let { expected } = reading;
  let body = reading.first;
  let at = range.startByte;
  let failures = 0;
  const check = range.startByte === 0 || reading.prefix !== undefined ? hashFor(reading.digest) : undefined;
  if (check !== undefined && reading.prefix !== undefined) {
    for await (const bytes of reading.prefix()) check.hash.update(bytes);
  }
  let held: Uint8Array | undefined;
  for (;;) {
    const startedAt = at;
    try {
      body ??= await reading.origin.open(reading.request, { startByte: at, endByte: range.endByte }, expected, signal);
      expected ??= body.info;
      for await (const bytes of body.body as AsyncIterable<Uint8Array>) {
        if (signal.aborted) throw new AppError("ABORTED", "the reader has gone");
        const room = range.endByte === undefined ? bytes.length : Math.min(bytes.length, range.endByte - at);
        const chunk = bytes.subarray(0, room);
        await reading.admit?.(chunk.length);
        at += chunk.length;
        check?.hash.update(chunk);
        if (held !== undefined) yield held;
        held = chunk;
        if (at === range.endByte) break;
      }
      break;
    } catch (thrown) {
      const error = toAppError(thrown, "ORIGIN_CUT");
      failures = at > startedAt ? 0 : failures + 1;
      const resumable = error.retriable && error.code !== "ABORTED" && error.code !== "ORIGIN_CHANGED";
      if (!resumable || failures >= RESUME_COUNT_MAX || signal.aborted) throw error;
      if (at > 0 && expected?.ranges === false) throw error;
    } finally {
      body?.body.destroy();
      body = undefined;
    }
  }
  const whole = expected?.lengthBytes === undefined || at === expected.lengthBytes;
  if (check !== undefined && whole && check.hash.digest("hex") !== check.hex) {
    throw new AppError("DIGEST_MISMATCH", `the origin's content does not have the digest ${reading.digest}; nothing of it is to be trusted`);
  }
  if (held !== undefined) yield held;
}

function hashFor(digest: string | undefined): { readonly hash: Hash; readonly hex: string } | undefined {
  const parsed = digest === undefined ? undefined : parseDigest(digest);
  if (parsed === undefined) return undefined;
  return { hash: createHash(digestAlgorithm(parsed)), hex: digestHex(parsed) };
}

function contentInfoOf(info: OriginInfo, digest: string | undefined): ContentInfo {
  const headers: Record<string, string> = { ...info.headers };
  if (info.etag !== undefined) headers["etag"] = info.etag;
  if (info.lastModified !== undefined) headers["last-modified"] = info.lastModified;
  return { taskId: undefined, lengthBytes: info.lengthBytes, contentType: info.contentType, digest, headers };
}
