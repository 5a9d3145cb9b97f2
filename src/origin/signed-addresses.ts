import type { OriginRequest } from "./origin.ts";

/** Stores sign for some minutes; what is refused earlier is forgotten at once. */
const KEPT_MS = 10 * 60_000;
const KEPT_COUNT_MAX = 512;

/**
 * Where registries sent us for blobs: addresses in their stores, signed for a while. The rest of a blob is read from there
 * without another question to the registry, which spares its limits, and a caller's token may run out meanwhile.
 *
 * In memory only: an address opens the blob to whoever has it. Blobs named by digest only, for what else is behind an
 * address may change.
 */
export class SignedAddresses {
  readonly #nowMs: () => number;
  readonly #known = new Map<string, { readonly address: string; readonly endsMs: number }>();

  /** @param nowMs monotonic ms */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Of the same request by the same caller, if the registry gave one. */
  of(request: OriginRequest): string | undefined {
    const known = this.#known.get(keyOf(request));
    return known !== undefined && this.#nowMs() < known.endsMs ? known.address : undefined;
  }

  /** @param answered by whom, after redirects */
  remember(request: OriginRequest, answered: URL): void {
    if (!BLOB.test(request.url) || URL.parse(request.url)?.origin === answered.origin) return;
    this.forget(request);
    this.#known.set(keyOf(request), { address: answered.href, endsMs: this.#nowMs() + KEPT_MS });
    const [oldest] = this.#known.keys();
    if (this.#known.size > KEPT_COUNT_MAX && oldest !== undefined) this.#known.delete(oldest);
  }

  forget(request: OriginRequest): void {
    this.#known.delete(keyOf(request));
  }
}

function keyOf({ url, headers }: OriginRequest): string {
  return `${url} ${headers["authorization"] ?? ""}`;
}

const BLOB = /\/v2\/.+\/blobs\/[a-z0-9]+:[0-9a-f]+$/;
