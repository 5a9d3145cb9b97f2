/** Names that lead to this machine or its link: what they name is not for clients of other machines. */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { isLocalAddress } from "./clients.ts";

/** @returns all addresses of a name. @throws when it has none */
export type Resolve = (host: string) => Promise<readonly string[]>;

export class LocalNames {
  readonly #resolve: Resolve;
  readonly #nowMs: () => number;
  /** Oldest first. */
  readonly #known = new Map<string, { readonly answer: Promise<boolean>; readonly endsMs: number }>();

  /** @param nowMs monotonic */
  constructor(resolve: Resolve = resolveBySystem, nowMs: () => number = () => performance.now()) {
    this.#resolve = resolve;
    this.#nowMs = nowMs;
  }

  /** False for a name that cannot be found here: a proxy on the way may find it. Never rejects. */
  leadsHere(host: string): Promise<boolean> {
    if (isIP(host) !== 0) return Promise.resolve(isLocalAddress(host));
    const nowMs = this.#nowMs();
    const known = this.#known.get(host);
    if (known !== undefined && nowMs < known.endsMs) return known.answer;
    const answer = this.#resolve(host).then((addresses) => addresses.some(isLocalAddress), () => false);
    this.#known.delete(host);
    this.#known.set(host, { answer, endsMs: nowMs + KNOWN_MS });
    const [oldest] = this.#known.keys();
    if (this.#known.size > KNOWN_COUNT_MAX && oldest !== undefined) this.#known.delete(oldest);
    return answer;
  }
}

async function resolveBySystem(host: string): Promise<readonly string[]> {
  const found = await lookup(host, { all: true });
  return found.map(({ address }) => address);
}

/** A pull asks for dozens of blobs of one host within seconds; a name that is led elsewhere meanwhile is seen soon. */
const KNOWN_MS = 5_000;
const KNOWN_COUNT_MAX = 1024;
