/** An origin that is asked only as often, and read only as fast, as a budget for its host allows. */
import { Readable } from "node:stream";
import type { Origin, OriginBody, OriginInfo, OriginRequest } from "./origin.ts";

/** Who says what an origin's host may be burdened with; one budget for all who share it. */
export interface OriginBudget {
  /** Resolves when one more request may go to the host of `url`. @throws AppError ABORTED */
  request(url: string, signal: AbortSignal): Promise<void>;
  /** A reading from the host of `url`: called with what has come, resolves when more may. Undefined: nothing limits it. */
  reading(url: string): ((bytes: number, signal: AbortSignal) => Promise<void>) | undefined;
}

/** Redirects count as the request that led to them, and what they lead to as the host that was asked. */
export class BudgetedOrigin implements Origin {
  readonly #inner: Origin;
  readonly #budget: OriginBudget;

  /** `inner` stays the caller's. */
  constructor(inner: Origin, budget: OriginBudget) {
    this.#inner = inner;
    this.#budget = budget;
  }

  async stat(request: OriginRequest, signal: AbortSignal, known?: OriginInfo): Promise<OriginInfo> {
    await this.#budget.request(request.url, signal);
    return this.#inner.stat(request, signal, known);
  }

  async open(
    request: OriginRequest,
    range: { readonly startByte: number; readonly endByte: number | undefined },
    expected: OriginInfo | undefined,
    signal: AbortSignal,
  ): Promise<OriginBody> {
    await this.#budget.request(request.url, signal);
    const opened = await this.#inner.open(request, range, expected, signal);
    const pay = this.#budget.reading(request.url);
    if (pay === undefined) return opened;
    const { body } = opened;
    const paidBody = Readable.from(paid(body, pay, signal), { objectMode: false, highWaterMark: 1 });
    // Given up before its first byte was asked for: nobody else would hang up, or hear of its failure.
    body.on("error", () => undefined);
    paidBody.once("close", () => body.destroy());
    return { ...opened, body: paidBody };
  }
}

/** Leaving it early hangs up on the origin. */
async function* paid(
  body: Readable,
  pay: (bytes: number, signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of body as AsyncIterable<Uint8Array>) {
    await pay(chunk.length, signal);
    yield chunk;
  }
}
