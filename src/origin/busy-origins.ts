import { setTimeout as sleep } from "node:timers/promises";
import { AppError } from "../base/errors.ts";

/** A longer wish is heard, but asked about again after this: an origin may say an hour and mean it for one file. */
const PAUSE_MS_MAX = 60_000;
const ORIGINS_MAX = 1024;
/** A shorter pause is waited out: a direct pull would have got its answer by then, and a failed one is asked again anyway. */
const WAIT_MS_MAX = 2_000;

/**
 * Origins that limit how often they are asked (429 with Retry-After): until then no question of the same caller goes out.
 * Asking on would lengthen the limit for everybody behind the same address or account.
 */
export class BusyOrigins {
  readonly #nowMs: () => number;
  /** Origin and caller → when to ask again. */
  readonly #untilMs = new Map<string, number>();

  /** @param nowMs monotonic ms */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /**
   * Resolves when the origin may be asked.
   *
   * @throws AppError ORIGIN_BUSY with what is left of a longer pause as `retryAfterMs`
   */
  async pass(url: URL, authorization: string | undefined, signal: AbortSignal): Promise<void> {
    const key = keyOf(url, authorization);
    const leftMs = Math.ceil((this.#untilMs.get(key) ?? 0) - this.#nowMs());
    if (leftMs <= 0) return void this.#untilMs.delete(key);
    // Who hangs up is told so by the exchange that follows.
    if (leftMs <= WAIT_MS_MAX) return await sleep(leftMs, undefined, { signal }).catch(() => undefined);
    throw new AppError(
      "ORIGIN_BUSY",
      `${url.host} limits how often it is asked (HTTP 429), and wants to be left alone for ${Math.ceil(leftMs / 1000)} s; try again then`,
      { details: { status: 429, origin: url.origin, retryAfterMs: leftMs } },
    );
  }

  /** The origin answered with this error. */
  said(url: URL, authorization: string | undefined, { details }: AppError): void {
    const { status, retryAfterMs } = details;
    if (status !== 429 || typeof retryAfterMs !== "number" || retryAfterMs <= 0) return;
    this.#untilMs.set(keyOf(url, authorization), this.#nowMs() + Math.min(retryAfterMs, PAUSE_MS_MAX));
    const [oldest] = this.#untilMs.keys();
    if (this.#untilMs.size > ORIGINS_MAX && oldest !== undefined) this.#untilMs.delete(oldest);
  }
}

function keyOf({ origin }: URL, authorization: string | undefined): string {
  return `${origin} ${authorization ?? ""}`;
}
