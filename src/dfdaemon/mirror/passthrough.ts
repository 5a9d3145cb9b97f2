import { readFileSync } from "node:fs";
import type { Readable } from "node:stream";
import type { Dispatcher } from "undici";
import { AppError } from "../../base/errors.ts";
import { createDispatcher } from "../../origin/http-dispatcher.ts";
import { discard, exchange, type Answer } from "../../origin/http-exchange.ts";
import { HttpOrigin } from "../../origin/http-origin.ts";
import type { Origin } from "../../origin/origin.ts";
import { RegistryOrigin } from "../../origin/registry-auth.ts";
import type { Caller } from "./access.ts";
import type { Registries, Upstream } from "./registries.ts";

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

/** Direct questions to registries, for what does not go through the swarm. */
export interface UpstreamAsker {
  /** Resolves when `caller` may read `url`. @throws AppError as Origin.stat */
  stat(upstream: Upstream, url: string, accept: string, caller: Caller, signal: AbortSignal): Promise<unknown>;
  /** `GET /v2/` with the caller's credentials. @throws AppError when there is no answer */
  ping(upstream: Upstream, caller: Caller, signal: AbortSignal): Promise<PingAnswer>;
  /**
   * Any GET or HEAD, redirects followed, the caller's credentials never sent to another host.
   *
   * @throws AppError as Origin, for an answer that is no answer; an error status is an answer
   */
  relay(
    upstream: Upstream,
    ask: { readonly method: "GET" | "HEAD"; readonly url: string; readonly accept: string; readonly caller: Caller },
    signal: AbortSignal,
  ): Promise<RelayedAnswer>;
}

/** Asks registries over HTTP, each with the authorities configured for it. */
export class HttpUpstreamAsker implements UpstreamAsker {
  readonly #userAgent: string;
  readonly #clients = new Map<string, Client>();

  constructor(options: { readonly userAgent: string }) {
    this.#userAgent = options.userAgent;
  }

  async stat(upstream: Upstream, url: string, accept: string, caller: Caller, signal: AbortSignal): Promise<unknown> {
    return this.#client(upstream).origin.stat({ url, headers: headersOf(accept, caller) }, signal);
  }

  async ping(upstream: Upstream, caller: Caller, signal: AbortSignal): Promise<PingAnswer> {
    const url = `${upstream.baseUrl}/v2/`;
    const answer = await this.#exchange(upstream, { method: "GET", url, accept: "*/*", caller }, signal);
    discard(answer.body);
    const wwwAuthenticate = answer.status === 401 ? answer.headers["www-authenticate"] : undefined;
    return { wwwAuthenticate: isSameOrigin(answer, url) ? wwwAuthenticate : undefined };
  }

  async relay(
    upstream: Upstream,
    ask: { readonly method: "GET" | "HEAD"; readonly url: string; readonly accept: string; readonly caller: Caller },
    signal: AbortSignal,
  ): Promise<RelayedAnswer> {
    const answer = await this.#exchange(upstream, ask, signal);
    const { "www-authenticate": challenge, ...headers } = answer.headers;
    // A host that the registry redirected to has no say in where the client takes its password.
    const own: Record<string, string> =
      challenge !== undefined && isSameOrigin(answer, ask.url) ? { "www-authenticate": challenge } : {};
    return { status: answer.status, headers: { ...headers, ...own }, body: answer.body };
  }

  /**
   * Any file's origin, with the token dance of registries, each configured registry with its own authorities.
   *
   * @returns closed with this asker
   */
  originFor(registries: Registries): Origin {
    const byOrigin = new Map(registries.configured().map((upstream) => [new URL(upstream.baseUrl).origin, upstream]));
    const pick = (url: string): Origin => this.#client(byOrigin.get(URL.parse(url)?.origin ?? "")).origin;
    return {
      stat: (request, signal) => pick(request.url).stat(request, signal),
      open: (request, range, expected, signal) => pick(request.url).open(request, range, expected, signal),
    };
  }

  /** Hangs up on everyone. */
  async close(): Promise<void> {
    const clients = [...this.#clients.values()];
    this.#clients.clear();
    await Promise.all(clients.flatMap(({ http, dispatcher }) => [http.close(), dispatcher.destroy()]));
  }

  #exchange(
    upstream: Upstream,
    ask: { readonly method: "GET" | "HEAD"; readonly url: string; readonly accept: string; readonly caller: Caller },
    signal: AbortSignal,
  ): Promise<Answer> {
    const { dispatcher } = this.#client(upstream);
    const callerHeaders = { "user-agent": this.#userAgent, ...headersOf(ask.accept, ask.caller) };
    return exchange(
      { dispatcher, headersTimeoutMs: HEADERS_TIMEOUT_MS, bodyTimeoutMs: BODY_TIMEOUT_MS, maxRedirects: REDIRECTS_MAX },
      { method: ask.method, url: ask.url, callerHeaders, ownHeaders: { "accept-encoding": "identity" }, signal },
    );
  }

  /** @param upstream undefined: any other server */
  #client(upstream: Upstream | undefined): Client {
    const key = upstream?.caFile ?? "";
    let client = this.#clients.get(key);
    if (client === undefined) {
      const caCertificates = upstream?.caFile === undefined ? [] : [readCertificates(upstream.caFile, upstream.name)];
      const http = new HttpOrigin({ userAgent: this.#userAgent, caCertificates });
      client = { http, origin: new RegistryOrigin(http), dispatcher: createDispatcher({ caCertificates }) };
      this.#clients.set(key, client);
    }
    return client;
  }
}

interface Client {
  readonly http: HttpOrigin;
  readonly origin: Origin;
  readonly dispatcher: Dispatcher;
}

function readCertificates(file: string, registry: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw new AppError("CONFIG_INVALID", `cannot read the caFile ${file} of the registry ${registry}`, { cause });
  }
}

function headersOf(accept: string, caller: Caller): Record<string, string> {
  return caller.authorization === undefined ? { accept } : { accept, authorization: caller.authorization };
}

function isSameOrigin(answer: Answer, url: string): boolean {
  return answer.url.origin === URL.parse(url)?.origin;
}

/** Below the 30 s after which containerd gives up on a mirror's headers. */
const HEADERS_TIMEOUT_MS = 20_000;
const BODY_TIMEOUT_MS = 30_000;
/** As many as Go's client follows. */
const REDIRECTS_MAX = 10;
