import { Readable } from "node:stream";
import { AppError } from "../base/errors.ts";

/** What a {@link CountedBody} is made of. */
export interface CountedBodyOptions {
  /** Owned from here on: read, and destroyed with the body. */
  readonly source: Readable;
  /** The file's address as it may be printed. */
  readonly printableUrl: string;
  /** Bytes the origin promised to send; `undefined` when it did not say. */
  readonly promisedBytes: number | undefined;
  /** Bytes after which we hang up on an origin that sends more than was asked; `undefined` = never. */
  readonly cutAfterBytes: number | undefined;
  /** Turns an error of the source into one of ours. */
  readonly classify: (thrown: unknown) => AppError;
}

/**
 * Passes an origin's body on, chunk by chunk and without copying, and holds the origin to the length it promised.
 *
 * Fails with ORIGIN_CUT when the body ends early, ORIGIN_LENGTH_WRONG when it runs longer (both retriable), or what
 * `classify` makes of the source's error. An error that comes before anyone listens does not end the process: it
 * stays in `errored`, where pipeline() and `for await` find it.
 */
export class CountedBody extends Readable {
  readonly #options: CountedBodyOptions;
  /** Where we stop: the cut, unless the origin promises no more than that anyway. */
  readonly #cutAfterBytes: number | undefined;
  #receivedBytes = 0;
  #started = false;
  #sourceDone = false;

  constructor(options: CountedBodyOptions) {
    super();
    this.#options = options;
    const { cutAfterBytes, promisedBytes, source } = options;
    const cutIsIdle = cutAfterBytes === undefined || (promisedBytes !== undefined && promisedBytes <= cutAfterBytes);
    this.#cutAfterBytes = cutIsIdle ? undefined : cutAfterBytes;
    this.on("error", ignore);
    source.on("error", (thrown) => this.#fail(options.classify(thrown)));
    source.on("close", () => this.#onSourceClose());
  }

  override _read(): void {
    if (this.#started) {
      this.#options.source.resume();
      return;
    }
    this.#started = true;
    this.#options.source.on("end", () => this.#onSourceEnd());
    this.#options.source.on("data", (chunk: Buffer) => this.#onChunk(chunk));
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#options.source.destroy();
    callback(error);
  }

  #onChunk(chunk: Buffer): void {
    if (this.#sourceDone || this.destroyed) return;
    const { source, promisedBytes } = this.#options;
    const beforeBytes = this.#receivedBytes;
    this.#receivedBytes += chunk.length;
    if (this.#cutAfterBytes !== undefined && this.#receivedBytes >= this.#cutAfterBytes) {
      this.#sourceDone = true;
      this.push(chunk.subarray(0, this.#cutAfterBytes - beforeBytes));
      this.push(null);
      source.destroy();
    } else if (promisedBytes !== undefined && this.#receivedBytes > promisedBytes) {
      this.#fail(this.#lengthWrong(promisedBytes));
    } else if (!this.push(chunk)) {
      source.pause();
    }
  }

  #onSourceEnd(): void {
    if (this.#sourceDone || this.destroyed) return;
    const { promisedBytes } = this.#options;
    if (promisedBytes !== undefined && this.#receivedBytes < promisedBytes) {
      this.#fail(this.#cutShort());
      return;
    }
    this.#sourceDone = true;
    this.push(null);
  }

  #onSourceClose(): void {
    if (!this.#sourceDone && !this.destroyed) this.#fail(this.#cutShort());
  }

  #fail(error: AppError): void {
    if (this.#sourceDone) return;
    this.#sourceDone = true;
    this.destroy(error);
  }

  #cutShort(): AppError {
    const { printableUrl, promisedBytes } = this.#options;
    const promised = promisedBytes === undefined ? "" : ` of ${promisedBytes}`;
    return new AppError(
      "ORIGIN_CUT",
      `the origin cut the body of ${printableUrl} after ${this.#receivedBytes}${promised} bytes; try again`,
      { details: { receivedBytes: this.#receivedBytes } },
    );
  }

  #lengthWrong(promisedBytes: number): AppError {
    return new AppError(
      "ORIGIN_LENGTH_WRONG",
      `the origin sent more than the ${promisedBytes} bytes it promised of ${this.#options.printableUrl}; ` +
        "the file may be changing, or a proxy on the way rewrites it: try again, and check the origin if it stays",
      { details: { promisedBytes } },
    );
  }
}

function ignore(): void {}
