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
  readonly #known = new Map<string, { readonly answer: Promise<PingAnswer>; endsMs: number }>();

  constructor(deps: PingsDeps) {
    this.#deps = deps;
  }

  /** The upstream's answer, or one of some seconds ago; without a challenge when the upstream does not answer, which is not its word for long. */
  async ask(upstream: Upstream, caller: Caller): Promise<PingAnswer> {
    const { asker, ttlMs, nowMs } = this.#deps;
    const key = `${caller.scope} ${upstream.name}`;
    const known = this.#known.get(key);
    if (known !== undefined && nowMs() < known.endsMs) return known.answer;
    this.#known.delete(key);
    const askedMs = nowMs();
    let hasAnswered = true;
    const answer = withDeadline(PING_TIMEOUT_MS, `to ping ${upstream.name}`, undefined, (signal) =>
      asker.ping(upstream, caller, signal),
    ).catch((): PingAnswer => {
      hasAnswered = false;
      return { wwwAuthenticate: undefined };
    });
    const asked = { answer, endsMs: askedMs + ttlMs };
    this.#known.set(key, asked);
    const [oldest] = this.#known.keys();
    if (this.#known.size > KNOWN_MAX && oldest !== undefined) this.#known.delete(oldest);
    const { wwwAuthenticate } = await answer;
    // Who brings credentials and is refused may be let in the next moment.
    const isLetIn = caller.authorization === NOBODY || wwwAuthenticate === undefined;
    // One that did not answer has said nothing; only where that took its time are others spared the wait, for as long again.
    if (!hasAnswered) asked.endsMs = nowMs() - askedMs < PING_TIMEOUT_MS ? askedMs : nowMs() + PING_TIMEOUT_MS;
    if (!isLetIn && this.#known.get(key) === asked) this.#known.delete(key);
    return answer;
  }
}

/** A registry that is down must not hold up a pull that this host could serve. */
const PING_TIMEOUT_MS = 3_000;

const KNOWN_MAX = 1024;
