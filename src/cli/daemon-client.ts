/** This host's dfdaemon as a source of content, over its local API. */
import { randomUUID } from "node:crypto";
import { mainBound } from "../base/bounds.ts";
import { AppError } from "../base/errors.ts";
import type { LocalContentRequest } from "../dfdaemon/local/local-api.ts";
import type { Content, ContentInfo, ContentOpener, ContentPart, ContentRequest } from "../peer/content.ts";
import type { Explanation } from "../protocol/explanation.ts";
import { readExplanation } from "./daemon-messages.ts";
import { DaemonStream } from "./daemon-stream.ts";
import { mayReadStoreOf } from "./held-file.ts";

export interface DaemonReading {
  /** Where the first read will likely begin: `open` asks for the bytes from there at once. */
  readonly startByte: number;
  /** The first read will take parts in any order. */
  readonly unordered: boolean;
}

type OpenStream = (startByte: number, endByte: number | undefined, unordered: boolean, signal: AbortSignal) => Promise<DaemonStream>;
type Range = { readonly startByte: number; readonly endByte: number | undefined };

export class DaemonClient implements ContentOpener {
  readonly #socketPath: string;
  readonly #first: DaemonReading;

  constructor(socketPath: string, first: DaemonReading = { startByte: 0, unordered: false }) {
    this.#socketPath = socketPath;
    this.#first = first;
  }

  /** @throws AppError DAEMON_UNREACHABLE, and what the daemon answers */
  async open(asked: ContentRequest, signal: AbortSignal): Promise<Content> {
    const request: OpenStream = (startByte, endByte, unordered, until) => {
      const { source, backToSource, limitBytesPerSecond } = asked;
      const order = !unordered ? "ordered" : mayReadStoreOf(this.#socketPath) ? "in-place" : "unordered";
      const wanted: LocalContentRequest = { requestId: randomUUID(), source, backToSource, startByte, endByte, order, limitBytesPerSecond };
      return DaemonStream.open(this.#socketPath, wanted, until);
    };
    const { startByte, unordered } = this.#first;
    const stream = await request(startByte, undefined, unordered, signal).catch((thrown: unknown) => {
      // The file is shorter than what an earlier run left of it: another version; learn what it is from the start.
      if (startByte > 0 && thrown instanceof AppError && thrown.code === "RANGE_NOT_SATISFIABLE") return undefined;
      throw thrown;
    });
    if (stream !== undefined) return new DaemonContent(stream, this.#first, request);
    return new DaemonContent(await request(0, undefined, unordered, signal), { ...this.#first, startByte: 0 }, request);
  }

  async stat(asked: ContentRequest, signal: AbortSignal): Promise<ContentInfo> {
    const content = await this.open(asked, signal);
    content.close();
    return content.info;
  }
}

class DaemonContent implements Content {
  readonly info: ContentInfo;
  readonly #again: OpenStream;
  readonly #first: DaemonReading;
  #stream: DaemonStream;
  #fresh = true;

  constructor(stream: DaemonStream, first: DaemonReading, again: OpenStream) {
    this.#again = again;
    this.#first = first;
    this.#stream = stream;
    this.info = stream.info;
  }

  async *read(range: Range, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    // A copy: chunks are the reader's, parts are not.
    for await (const { bytes } of (await this.#streamOf(range, false, signal)).parts()) yield Uint8Array.from(bytes);
  }

  /** Parts are good until the next is asked for. */
  async *readUnordered(range: Range, signal: AbortSignal): AsyncGenerator<ContentPart> {
    yield* (await this.#streamOf(range, true, signal)).parts();
  }

  sources(): ReturnType<Content["sources"]> {
    return this.#stream.sources;
  }

  explanation(): Explanation | undefined {
    const explanation = readExplanation(this.#stream.explanation);
    // Whole milliseconds, as the daemon's.
    const tookMs = Math.round(this.#stream.tookMs ?? 0);
    if (explanation === undefined || tookMs <= explanation.tookMs) return explanation;
    // The daemon was done when everything lay in its file; that we took longer to read it, it did not see.
    const spentMs = { ...explanation.spentMs, reader: explanation.spentMs.reader + tookMs - explanation.tookMs };
    return { ...explanation, tookMs, spentMs, boundBy: mainBound(spentMs) ?? null };
  }

  close(): void {
    this.#stream.close();
  }

  async #streamOf({ startByte, endByte }: Range, unordered: boolean, signal: AbortSignal): Promise<DaemonStream> {
    const isWhatWasAsked = startByte === this.#first.startByte && endByte === undefined && unordered === this.#first.unordered;
    if (this.#fresh && isWhatWasAsked) {
      this.#fresh = false;
      return this.#stream;
    }
    this.#stream.close();
    this.#fresh = false;
    this.#stream = await this.#again(startByte, endByte, unordered, signal);
    return this.#stream;
  }
}
