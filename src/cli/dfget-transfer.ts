/** Moves one file from the best way there is into its output. */
import { mainBound } from "../base/bounds.ts";
import { AppError, toAppError } from "../base/errors.ts";
import type { RateFlow } from "../base/rate-budget.ts";
import { type Content, type ContentInfo, numbered } from "../peer/content.ts";
import { RateGate } from "../peer/rate-gate.ts";
import type { Source } from "../protocol/control-messages.ts";
import type { Explanation } from "../protocol/explanation.ts";
import type { Digest } from "../protocol/ids.ts";
import type { DfgetOutput } from "./dfget-output.ts";
import { fileVersion } from "./dfget-resume.ts";
import type { Way } from "./dfget-ways.ts";
import type { SourceFigures } from "./progress.ts";

export interface TransferOptions {
  readonly source: Source;
  readonly backToSource: boolean;
  readonly output: DfgetOutput;
  readonly ways: AsyncIterable<Way>;
  readonly limitBytesPerSecond: number | undefined;
  /** Aborts the download; its reason is what `run` then throws. */
  readonly signal: AbortSignal;
  /** A way has failed, and another is tried. */
  readonly onNextWay: (error: AppError) => void;
}

/** One download: how it stands while it runs, how it went when it is over. */
export class Transfer {
  readonly #options: TransferOptions;
  /** What is cached on this host comes at once; what is not, the peer holds to the limit itself. */
  readonly #limit: RateGate;
  readonly #flow: RateFlow;
  #content: Content | undefined;
  #explanation: Explanation | undefined;
  /** Waited for our own limit, ms. */
  #limitedMs = 0;
  /** From the start to the first question for the file that was answered: for who did not answer, ms. */
  #soughtMs: number | undefined;
  readonly #startedMs = performance.now();
  #info: ContentInfo | undefined;
  #via: Way["name"] | undefined;
  #doneBytes = 0;
  #resumedBytes: number | undefined;
  #earlier: SourceFigures = { seedBytes: 0, peerBytes: 0, originBytes: 0, cacheBytes: 0 };

  constructor(options: TransferOptions) {
    this.#options = options;
    this.#limit = new RateGate(options.limitBytesPerSecond);
    this.#flow = this.#limit.flow("interactive");
  }

  get info(): ContentInfo | undefined {
    return this.#content?.info ?? this.#info;
  }

  /** The way the last bytes came. */
  get via(): Way["name"] | undefined {
    return this.#via;
  }

  /** Bytes in the output. */
  get doneBytes(): number {
    return this.#doneBytes;
  }

  /** Of `doneBytes`: there before this run. */
  get resumedBytes(): number {
    return this.#resumedBytes ?? 0;
  }

  get sources(): SourceFigures {
    const now = this.#content?.sources();
    if (now === undefined) return this.#earlier;
    return {
      seedBytes: this.#earlier.seedBytes + now.seedBytes,
      peerBytes: this.#earlier.peerBytes + now.peerBytes,
      originBytes: this.#earlier.originBytes + now.originBytes,
      cacheBytes: this.#earlier.cacheBytes + now.cacheBytes,
    };
  }

  /** What the download's time went by; undefined: not over, or not known. */
  get explanation(): Explanation | undefined {
    if (this.#explanation === undefined) return undefined;
    // The peer sees a slow reader; we know that it was told to be slow.
    const movedMs = Math.min(Math.round(this.#limitedMs), this.#explanation.spentMs.reader);
    const spentMs = { ...this.#explanation.spentMs };
    spentMs.reader -= movedMs;
    spentMs.downlink += movedMs;
    const soughtMs = Math.round(this.#soughtMs ?? 0);
    spentMs.waiting += soughtMs;
    const { tookMs, openedMs, firstByteMs } = this.#explanation;
    const times = { tookMs: tookMs + soughtMs, openedMs: openedMs + soughtMs, firstByteMs: firstByteMs === null ? null : firstByteMs + soughtMs };
    return { ...this.#explanation, ...times, spentMs, boundBy: mainBound(spentMs) ?? null };
  }

  /**
   * @returns the digests that were checked
   * @throws AppError of the way or the output; the signal's reason when it was aborted. The output is left to `abandon`
   */
  async run(): Promise<readonly Digest[]> {
    const { ways, signal, output, onNextWay } = this.#options;
    let unreachable: AppError | undefined;
    let full: AppError | undefined;
    try {
      for await (const way of ways) {
        if (unreachable !== undefined) onNextWay(full === undefined ? unreachable : NO_ROOM_FOR_TWO);
        try {
          await this.#copyBy(way);
          return await this.#outputDone(output.finish());
        } catch (thrown) {
          const error = toAppError(thrown);
          // The room that the pieces of a peer of our own take beside the file is free when the next way begins.
          full = error.code === "DISK_FULL" && way.name === "peer" && output.takesAnyOrder ? error : undefined;
          // What the daemon says of the file stands; only its absence is got round.
          if (signal.aborted || (error.code !== "DAEMON_UNREACHABLE" && full === undefined)) throw error;
          unreachable = error;
        }
      }
    } catch (thrown) {
      if (signal.aborted) throw signal.reason;
      // The origin may not be read: then the disk is what is wrong.
      throw full !== undefined && toAppError(thrown).code === "BACK_SOURCE_FORBIDDEN" ? full : thrown;
    }
    throw unreachable ?? new AppError("DAEMON_UNREACHABLE", "there is no way to the file");
  }

  async #copyBy(way: Way): Promise<void> {
    this.#via = way.name;
    const startedAt = this.#doneBytes;
    try {
      await this.#copyOnce(way);
    } catch (thrown) {
      const error = toAppError(thrown);
      const { output, signal } = this.#options;
      const isStuck =
        CANNOT_CONTINUE.has(error.code) &&
        output.likelyStartByte > 0 &&
        this.#doneBytes <= Math.max(startedAt, this.resumedBytes);
      if (!isStuck || signal.aborted) throw error;
      // An origin without ranges, or a file that became another: what is here is of no use.
      output.restart();
      this.#doneBytes = 0;
      this.#resumedBytes = undefined;
      await this.#copyOnce(way);
    }
  }

  /** A stream's reader may stand still for good; a file's write ends by itself, and nothing is to be done to it before. */
  #outputDone<T>(done: Promise<T>): Promise<T> {
    const { output, signal } = this.#options;
    return output.takesAnyOrder ? done : untilAborted(done, signal);
  }

  async #copyOnce(way: Way): Promise<void> {
    const { source, backToSource, limitBytesPerSecond, output, signal } = this.#options;
    const reading = { startByte: output.likelyStartByte, unordered: output.takesAnyOrder };
    const firstByte = reading.unordered ? undefined : reading.startByte;
    const askedMs = performance.now();
    const content = await untilAborted(way.opener(reading).open({ source, backToSource, limitBytesPerSecond, firstByte }, signal), signal);
    this.#content = content;
    this.#soughtMs ??= askedMs - this.#startedMs;
    try {
      const startByte = await output.begin(fileVersion(source, content.info), signal);
      this.#doneBytes = startByte;
      this.#resumedBytes ??= startByte;
      const range = { startByte, endByte: undefined };
      const unordered = output.takesAnyOrder ? content.readUnordered?.(range, signal) : undefined;
      const parts = (unordered ?? numbered(content.read(range, signal), startByte))[Symbol.asyncIterator]();
      try {
        for (;;) {
          const next = await untilAborted(parts.next(), signal);
          if (next.done === true) break;
          let at = next.value.startByte;
          let askedMs = performance.now();
          for await (const bytes of this.#limit.paced(this.#flow, next.value.bytes, signal)) {
            this.#limitedMs += performance.now() - askedMs;
            await this.#outputDone(output.write(bytes, at));
            at += bytes.length;
            this.#doneBytes = output.takenBytes;
            askedMs = performance.now();
          }
        }
      } finally {
        // Not waited for: a way that hangs would hold up the end.
        void parts.return?.().catch(() => undefined);
      }
      const { lengthBytes } = content.info;
      if (lengthBytes !== undefined && lengthBytes !== output.wholeBytes) {
        throw new AppError("ORIGIN_CUT", `the file has ${lengthBytes} bytes, but ${output.wholeBytes} came; try again`, {
          details: { lengthBytes },
        });
      }
    } finally {
      this.#earlier = this.sources;
      this.#explanation = content.explanation();
      this.#info = content.info;
      this.#content = undefined;
      content.close();
    }
  }
}

/** As `promise`, but rejects at once when the signal is aborted. */
async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(new AppError("ABORTED", "broken off"));
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
    aborted.catch(() => undefined);
    promise.catch(() => undefined);
  }
}

const NO_ROOM_FOR_TWO = new AppError("DISK_FULL", "there is no room for the file and, beside it, for the pieces of a peer of dfget's own");
const CANNOT_CONTINUE: ReadonlySet<string> = new Set(["ORIGIN_CHANGED", "ORIGIN_PROTOCOL", "RANGE_NOT_SATISFIABLE"]);
