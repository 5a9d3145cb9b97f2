/**
 * Whether a place holds content that is here: a few small ranges, where it could not have known, are read from it in the
 * caller's name and compared. A HEAD would not do, for any server can say 200 to a digest it has only heard of.
 */
import { constants, deflateRawSync } from "node:zlib";
import { toAppError } from "../../base/errors.ts";
import type { Origin, OriginInfo } from "../../origin/origin.ts";
import type { StoredTask } from "../../peer/store/piece-store.ts";
import type { Source } from "../../protocol/control-messages.ts";

export interface PlaceProverDeps {
  readonly origin: Pick<Origin, "open">;
  /** One request, by its outcome: `OK` or an error's code. */
  readonly onRequest: (code: string) => void;
  /** Uniform in [0, end), and not to be guessed: a place that knew the ranges beforehand would need no others. */
  readonly randomInt: (end: number) => number;
}

interface Sample {
  readonly startByte: number;
  readonly bytes: Uint8Array;
}

export class PlaceProver {
  readonly #deps: PlaceProverDeps;
  readonly #closing = new AbortController();

  constructor(deps: PlaceProverDeps) {
    this.#deps = deps;
  }

  /**
   * True when the place of `source` gave the right bytes of each sample; of up to 64 KiB, all of them. False when it gave
   * others, gave none in time, has no ranges, or the content is so uniform that samples of it would show nothing.
   *
   * @param stored complete, and open until this resolves
   * @throws AppError as StoredTask.read
   */
  async prove(stored: StoredTask, source: Source): Promise<boolean> {
    const lengthBytes = stored.record.lengthBytes as number;
    const samples = await this.#choose(stored, lengthBytes);
    if (samples === undefined) return false;
    const ending = new AbortController();
    const signal = AbortSignal.any([ending.signal, this.#closing.signal, AbortSignal.timeout(PROOF_MS)]);
    const answers = samples.map(async (sample) => {
      const isRight = await this.#isRight(source, sample, lengthBytes, signal);
      if (!isRight) ending.abort();
      return isRight;
    });
    return (await Promise.all(answers)).every(Boolean);
  }

  close(): void {
    this.#closing.abort();
  }

  /** One range in each quarter of the file; undefined when a quarter has none that is hard to guess. */
  async #choose(stored: StoredTask, lengthBytes: number): Promise<readonly Sample[] | undefined> {
    if (lengthBytes <= WHOLE_BYTES_MAX) {
      const bytes = new Uint8Array(lengthBytes);
      await stored.read(0, bytes);
      return [{ startByte: 0, bytes }];
    }
    const samples: Sample[] = [];
    for (let part = 0; part < SAMPLE_COUNT; part++) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other off the disk
      const sample = await this.#chooseIn(stored, Math.floor((part * lengthBytes) / SAMPLE_COUNT), Math.floor(((part + 1) * lengthBytes) / SAMPLE_COUNT));
      if (sample === undefined) return undefined;
      samples.push(sample);
    }
    return samples;
  }

  async #chooseIn(stored: StoredTask, startByte: number, endByte: number): Promise<Sample | undefined> {
    const length = Math.min(SAMPLE_BYTES, endByte - startByte);
    for (let draw = 0; draw < DRAW_COUNT_MAX; draw++) {
      const at = startByte + this.#deps.randomInt(endByte - startByte - length + 1);
      const bytes = new Uint8Array(length);
      // oxlint-disable-next-line no-await-in-loop -- until one is good
      await stored.read(at, bytes);
      if (isHardToGuess(bytes)) return { startByte: at, bytes };
    }
    return undefined;
  }

  async #isRight(source: Source, { startByte, bytes }: Sample, lengthBytes: number, signal: AbortSignal): Promise<boolean> {
    const { origin, onRequest } = this.#deps;
    try {
      const range = { startByte, endByte: startByte + bytes.length };
      const { body } = await origin.open({ url: source.url, headers: source.headers }, range, ofLength(lengthBytes), signal);
      onRequest("OK");
      let at = 0;
      for await (const chunk of body as AsyncIterable<Uint8Array>) {
        const wanted = bytes.subarray(at, at + chunk.length);
        if (Buffer.compare(chunk, wanted) !== 0) return false;
        at += chunk.length;
      }
      return at === bytes.length;
    } catch (error) {
      onRequest(toAppError(error).code);
      return false;
    }
  }
}

/** Whoever knows what compresses well need not have it. */
function isHardToGuess(bytes: Uint8Array): boolean {
  return deflateRawSync(bytes, { level: constants.Z_BEST_SPEED }).length > bytes.length / 2;
}

function ofLength(lengthBytes: number): OriginInfo {
  return { lengthBytes, ranges: true, etag: undefined, lastModified: undefined, contentType: undefined, headers: {} };
}

const WHOLE_BYTES_MAX = 64 * 1024;
/** Four ranges of 16 KiB: an image of ten layers costs its second registry 640 KiB. */
const SAMPLE_COUNT = 4;
const SAMPLE_BYTES = 16 * 1024;
const DRAW_COUNT_MAX = 8;
/** A join waits for it; after that the place has a read of its own. */
const PROOF_MS = 5_000;
