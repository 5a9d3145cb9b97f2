import type { Readable } from "node:stream";
import { discard, exchange, type Answer } from "../../origin/http-exchange.ts";
import { toAppError } from "../../base/errors.ts";
import { MANIFEST_ACCEPT } from "../../protocol/distribution.ts";
import type { OriginBudget } from "../../origin/origin-budget.ts";
import type { OriginRequest } from "../../origin/origin.ts";
import { OriginClients, type OriginNetwork } from "../../origin/origin-clients.ts";
import type { Caller } from "./caller.ts";
import type { Upstream } from "./registries.ts";

/** What an upstream answers to a ping, as far as it matters: may a client go on, or is it to bring credentials? */
export interface PingAnswer {
  /** Undefined: no challenge. */
  readonly wwwAuthenticate: string | undefined;
}

/** An upstream's answer, to be relayed. `body` is the receiver's to read or destroy. */
export interface RelayedAnswer {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Readable;
}

/** One question to a registry. */
export interface DirectAsk {
  readonly method: "GET" | "HEAD";
  readonly url: string;
  readonly accept: string;
  readonly caller: Caller;
}

/** Direct questions to registries, for what does not go through the swarm. */
export interface UpstreamAsker {
  /** Resolves when `caller` may read `url`. @throws AppError as Origin.stat */
  stat(upstream: Upstream, url: string, accept: string, caller: Caller, signal: AbortSignal): Promise<unknown>;
  /**
   * What `caller` reads `url` with, as a source's `authorization`: his own, what his login or dfdaemon's is at this
   * registry, or NOBODY.
   *
   * @param refused what this said before, and the registry takes no longer
   * @returns undefined where dfdaemon speaks, or logs in, and the registry wants nothing
   * @throws AppError as Origin.stat
   */
  authorization(upstream: Upstream, url: string, caller: Caller, signal: AbortSignal, refused?: string): Promise<string | undefined>;
  /** `GET /v2/` with the caller's credentials. @throws AppError when there is no answer */
  ping(upstream: Upstream, caller: Caller, signal: AbortSignal): Promise<PingAnswer>;
  /**
   * Any GET or HEAD, redirects followed, the caller's credentials never sent to another host.
   *
   * @throws AppError as Origin, for an answer that is no answer; an error status is an answer
   */
  relay(upstream: Upstream, ask: DirectAsk, signal: AbortSignal): Promise<RelayedAnswer>;
}

/** Asks registries over HTTP. */
export class HttpUpstreamAsker implements UpstreamAsker {
  readonly #userAgent: string;
  /** Any file's origin, as this asker reaches it; closed with it. */
  readonly clients: OriginClients;
  #budget: OriginBudget | undefined;

  constructor(options: Partial<OriginNetwork> & { readonly userAgent: string }) {
    this.#userAgent = options.userAgent;
    this.clients = new OriginClients(options);
  }

  /** From now on each question counts against the site's budget for its host. What {@link clients} give does not. */
  countAgainst(budget: OriginBudget): void {
    this.#budget = budget;
  }

  async stat(upstream: Upstream, url: string, accept: string, caller: Caller, signal: AbortSignal): Promise<unknown> {
    await this.#budget?.request(url, signal);
    return this.clients.clientFor(upstream.baseUrl).origin.stat(asCaller(url, accept, caller), signal);
  }

  async authorization(upstream: Upstream, url: string, caller: Caller, signal: AbortSignal, refused?: string): Promise<string | undefined> {
    return caller.authorization ?? (await this.#danced(upstream, { url, accept: MANIFEST_ACCEPT, caller }, signal, refused));
  }

  async ping(upstream: Upstream, caller: Caller, signal: AbortSignal): Promise<PingAnswer> {
    const url = `${upstream.baseUrl}/v2/`;
    const answer = await this.#exchange(upstream, { method: "GET", url, accept: "*/*", ...caller }, signal);
    discard(answer.body);
    const wwwAuthenticate = answer.status === 401 ? answer.headers["www-authenticate"] : undefined;
    return { wwwAuthenticate: isSameOrigin(answer, url) ? wwwAuthenticate : undefined };
  }

  async relay(upstream: Upstream, ask: DirectAsk, signal: AbortSignal): Promise<RelayedAnswer> {
    // Who does not stand for himself, or leaves it to us, cannot answer a challenge either.
    const isDanced = upstream.access !== "passthrough" || ask.caller.login !== undefined;
    const authorization = isDanced ? await this.#danced(upstream, ask, signal) : ask.caller.authorization;
    let answer = await this.#exchange(upstream, { ...ask, authorization }, signal);
    if (answer.status === 401 && isDanced && authorization !== undefined && ask.caller.authorization === undefined) {
      discard(answer.body);
      const anew = await this.#danced(upstream, ask, signal, authorization);
      answer = await this.#exchange(upstream, { ...ask, authorization: anew }, signal);
    }
    const { "www-authenticate": challenge, ...headers } = answer.headers;
    // A host that the registry redirected to has no say in where the client takes its password.
    const own: Record<string, string> =
      challenge !== undefined && isSameOrigin(answer, ask.url) ? { "www-authenticate": challenge } : {};
    return { status: answer.status, headers: { ...headers, ...own }, body: answer.body };
  }

  /** Hangs up on everyone. */
  close(): Promise<void> {
    return this.clients.close();
  }

  /** The `Authorization` that the registry takes from `ask.caller`, its challenge answered here. */
  #danced(
    upstream: Upstream,
    { url, accept, caller }: Omit<DirectAsk, "method">,
    signal: AbortSignal,
    refused?: string,
  ): Promise<string | undefined> {
    const { origin } = this.clients.clientFor(upstream.baseUrl);
    return origin.authorizationFor(asCaller(url, accept, caller), signal, refused);
  }

  async #exchange(
    upstream: Upstream,
    ask: Omit<DirectAsk, "caller"> & Pick<Caller, "authorization">,
    signal: AbortSignal,
  ): Promise<Answer> {
    await this.#budget?.request(ask.url, signal);
    const { dispatcher } = this.clients.clientFor(upstream.baseUrl);
    const callerHeaders = { "user-agent": this.#userAgent, ...headersOf(ask.accept, ask.authorization || undefined) };
    return exchange(
      { dispatcher, headersTimeoutMs: HEADERS_TIMEOUT_MS, bodyTimeoutMs: BODY_TIMEOUT_MS, maxRedirects: REDIRECTS_MAX },
      { method: ask.method, url: ask.url, callerHeaders, ownHeaders: { "accept-encoding": "identity" }, signal },
    );
  }
}

function asCaller(url: string, accept: string, { authorization, login }: Caller): OriginRequest {
  const request = { url, headers: headersOf(accept, authorization) };
  return login === undefined ? request : { ...request, login };
}

function headersOf(accept: string, authorization: string | undefined): Record<string, string> {
  return authorization === undefined ? { accept } : { accept, authorization };
}

function isSameOrigin(answer: Answer, url: string): boolean {
  return answer.url.origin === URL.parse(url)?.origin;
}

/**
 * Asks with what the registry takes from `caller`; once more when it no longer takes what dfdaemon had at hand for him: rights may have
 * come meanwhile, or another key.
 *
 * @param mayRepeat false once something was sent
 */
export async function asAuthorized<T>(
  asker: UpstreamAsker,
  { upstream, url, caller }: { readonly upstream: Upstream; readonly url: string; readonly caller: Caller },
  signal: () => AbortSignal,
  ask: (authorization: string | undefined) => Promise<T>,
  mayRepeat: () => boolean = () => true,
): Promise<T> {
  const authorization = await asker.authorization(upstream, url, caller, signal());
  try {
    return await ask(authorization);
  } catch (thrown) {
    const isOurs = caller.authorization === undefined && authorization !== undefined;
    if (!isOurs || toAppError(thrown).code !== "ORIGIN_UNAUTHORIZED" || !mayRepeat()) throw thrown;
    const anew = await asker.authorization(upstream, url, caller, signal(), authorization);
    return await ask(anew);
  }
}

/** Below the 30 s after which containerd gives up on a mirror's headers. */
const HEADERS_TIMEOUT_MS = 20_000;
const BODY_TIMEOUT_MS = 30_000;
/** As many as Go's client follows. */
const REDIRECTS_MAX = 10;
