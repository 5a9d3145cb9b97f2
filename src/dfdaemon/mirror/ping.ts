import { NOBODY } from "../../origin/registry-auth.ts";
import { withDeadline } from "./deadline.ts";
import type { Caller } from "./caller.ts";
import type { PingAnswer, UpstreamAsker } from "./passthrough.ts";
import type { Upstream } from "./registries.ts";

export interface PingsDeps {
  readonly asker: UpstreamAsker;
  /** For how long an upstream's answer serves the same caller again, in ms. */
  readonly ttlMs: number;
  /** Monotonic ms. */
  readonly nowMs: () => number;
}

/**
 * Whether a registry wants credentials before anything else. Docker (classic) and containers/image decide by the answer
 * to `GET /v2/` alone how they authenticate: a 401 on a later request is too late for them.
 */
export class Pings {
  readonly #deps: PingsDeps;
  readonly #known = new Map<string, { readonly answer: Promise<PingAnswer>; readonly endsMs: number }>();

  constructor(deps: PingsDeps) {
    this.#deps = deps;
  }

  /** The upstream's answer, or one of some seconds ago; without a challenge when the upstream does not answer. */
  async ask(upstream: Upstream, caller: Caller): Promise<PingAnswer> {
    const { asker, ttlMs, nowMs } = this.#deps;
    const key = `${caller.scope} ${upstream.name}`;
    const known = this.#known.get(key);
    if (known !== undefined && nowMs() < known.endsMs) return known.answer;
    this.#known.delete(key);
    const answer = withDeadline(PING_TIMEOUT_MS, `to ping ${upstream.name}`, undefined, (signal) =>
      asker.ping(upstream, caller, signal),
    ).catch((): PingAnswer => ({ wwwAuthenticate: undefined }));
    this.#known.set(key, { answer, endsMs: nowMs() + ttlMs });
    // Who brings credentials and is refused may be let in the next moment.
    const isLetIn = caller.authorization === NOBODY || (await answer).wwwAuthenticate === undefined;
    if (!isLetIn) this.#known.delete(key);
    const [oldest] = this.#known.keys();
    if (this.#known.size > KNOWN_MAX && oldest !== undefined) this.#known.delete(oldest);
    return answer;
  }
}

/** A registry that is down must not hold up a pull that this host could serve. */
const PING_TIMEOUT_MS = 3_000;

const KNOWN_MAX = 1024;
