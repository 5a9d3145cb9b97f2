import type { OriginBody, OriginInfo, Origin, OriginRequest, RegistryCredentials } from "./origin.ts";
import { AppError } from "../base/errors.ts";
import { basicAuthorization, parseOriginUrl, redactUrl } from "./origin-url.ts";
import { LOGIN_TOKEN_KEPT_MS, RegistryTokens } from "./registry-tokens.ts";
import type { TokenScope } from "./registry-tokens.ts";
import { parseWwwAuthenticate } from "./www-authenticate.ts";

/**
 * An `authorization` by which a caller says that he is nobody: no credentials configured here are for him. It is not sent.
 * Without any `authorization` the configured ones are used.
 */
export const NOBODY = "";

/** What a {@link RegistryOrigin} may be told. */
export interface RegistryOriginOptions {
  /** By the registry's `URL.origin`: what is meant for https never leaves over plain http. */
  readonly credentials?: ReadonlyMap<string, RegistryCredentials>;
  /** Monotonic ms, for the age of tokens. Default `performance.now`. */
  readonly nowMs?: () => number;
}

/**
 * Another origin, with the token dance of OCI registries around it.
 *
 * When the registry answers 401 to a caller who sent no credentials, fetches a token as the challenge says
 * (anonymously, with the request's login, or with the credentials configured for that registry), and asks once more. Tokens are kept until shortly
 * before they expire, and used at once for the next file of the same repository. A caller who sends `authorization`, or
 * userinfo in the URL, stands for himself: what the registry tells him is relayed as it is, and never goes to the realm.
 *
 * Throws what the wrapped origin throws; ORIGIN_UNAUTHORIZED too when no token is to be had, with the registry's own
 * `wwwAuthenticate`; ORIGIN_PROTOCOL for a challenge that may not be followed or a token service that makes no sense.
 * Source: https://distribution.github.io/distribution/spec/auth/token/.
 */
export class RegistryOrigin implements Origin {
  readonly #inner: Origin;
  readonly #tokens: RegistryTokens;
  readonly #credentials: ReadonlyMap<string, RegistryCredentials>;
  /** Repository and whether we spoke in our own name → how its registry last wanted to be asked. */
  readonly #known = new Map<string, Access | Open>();
  readonly #nowMs: () => number;

  /** `inner` stays the caller's; the token service is asked through it as well. */
  constructor(inner: Origin, options: RegistryOriginOptions = {}) {
    this.#inner = inner;
    this.#nowMs = options.nowMs ?? ((): number => performance.now());
    this.#tokens = new RegistryTokens(inner, this.#nowMs);
    this.#credentials = options.credentials ?? new Map();
  }

  stat(request: OriginRequest, signal: AbortSignal, known?: OriginInfo): Promise<OriginInfo> {
    return this.#authorized(request, signal, (asked) => this.#inner.stat(asked, signal, known));
  }

  open(
    request: OriginRequest,
    range: { readonly startByte: number; readonly endByte: number | undefined },
    expected: OriginInfo | undefined,
    signal: AbortSignal,
  ): Promise<OriginBody> {
    return this.#authorized(request, signal, (asked) => this.#inner.open(asked, range, expected, signal));
  }

  /**
   * The `Authorization` that the registry takes from us for `request`: for who cannot do the dance himself.
   *
   * @param refused what this said before, and the registry takes no longer: it is learnt anew
   * @returns undefined where none is wanted
   * @throws AppError as `stat`
   */
  async authorizationFor(request: OriginRequest, signal: AbortSignal, refused?: string): Promise<string | undefined> {
    const url = parseOriginUrl(request.url);
    const key = accessKeyOf(request, url);
    if (key === undefined) return undefined;
    const before = this.#known.get(key);
    if (refused !== undefined && before !== undefined && this.#atHand(before) === refused) {
      if (before.kind === "token") this.#tokens.forget(before.scope, refused);
      this.#known.delete(key);
    }
    if (before?.kind === "open" && this.#nowMs() >= before.endsMs) this.#known.delete(key);
    if (!this.#known.has(key)) {
      await this.stat(request, signal);
      if (!this.#known.has(key)) this.#remember(key, { kind: "open", endsMs: this.#nowMs() + OPEN_MS });
    }
    const known = this.#known.get(key);
    return known === undefined || known.kind === "open" ? undefined : this.#authorizationFor(known, url, undefined, signal);
  }

  async #authorized<T>(
    asked: OriginRequest,
    signal: AbortSignal,
    ask: (request: OriginRequest) => Promise<T>,
  ): Promise<T> {
    const url = parseOriginUrl(asked.url);
    if (bringsCredentials(asked, url)) return ask(asked);
    const key = accessKeyOf(asked, url);
    const request = isNobody(asked) ? withoutAuthorization(asked) : asked;
    const known = key === undefined ? undefined : this.#known.get(key);
    const early = known === undefined ? undefined : this.#atHand(known);
    try {
      return await ask(early === undefined ? request : withAuthorization(request, early));
    } catch (error) {
      const credentials = asked.login ?? (isNobody(asked) ? undefined : this.#credentials.get(url.origin));
      const access = this.#accessFor(error, url, credentials, asked.login === undefined ? undefined : LOGIN_TOKEN_KEPT_MS);
      if (access === undefined) throw error;
      if (early !== undefined && access.kind === "token") this.#tokens.forget(access.scope, early);
      const authorization = await this.#authorizationFor(access, url, error, signal);
      if (key !== undefined) this.#remember(key, access);
      return ask(withAuthorization(request, authorization));
    }
  }

  /** How to get past a 401; `undefined` when there is no way, or none for us. */
  #accessFor(error: unknown, url: URL, credentials: RegistryCredentials | undefined, keptMs: number | undefined): Access | undefined {
    if (!(error instanceof AppError) || error.code !== "ORIGIN_UNAUTHORIZED") return undefined;
    // A host the registry redirected to has no say: its challenge could send our password anywhere.
    if (error.details["origin"] !== undefined && error.details["origin"] !== url.origin) return undefined;
    const field = error.details["wwwAuthenticate"];
    const challenges = typeof field === "string" ? parseWwwAuthenticate(field) : [];
    const bearer = challenges.find(({ scheme, params }) => scheme === "bearer" && params["realm"] !== undefined);
    if (bearer !== undefined) {
      const { realm = "", service, scope } = bearer.params;
      // Anywhere but at a registry a realm is a name for people (RFC 6750 §3): the caller has to bring the token.
      if (repositoryOf(url) === undefined && URL.parse(realm) === null) return undefined;
      const asked = { realm: safeRealm(realm, url), service, scope, credentials };
      return { kind: "token", scope: keptMs === undefined ? asked : { ...asked, keptMs } };
    }
    if (credentials === undefined || !challenges.some(({ scheme }) => scheme === "basic")) return undefined;
    return { kind: "basic", authorization: basicAuthorization(credentials.username, credentials.password) };
  }

  async #authorizationFor(access: Access, url: URL, challenge: unknown, signal: AbortSignal): Promise<string> {
    if (access.kind === "basic") return access.authorization;
    try {
      return await this.#tokens.get(access.scope, signal);
    } catch (error) {
      if (!(error instanceof AppError) || !REFUSALS.has(error.code)) throw error;
      throw new AppError(
        "ORIGIN_UNAUTHORIZED",
        `the registry wants a token for ${redactUrl(url)}, and its token service refused one: ${error.message}; ` +
          "log in, or configure credentials for this registry",
        { cause: error, details: challenge instanceof AppError ? challenge.details : {} },
      );
    }
  }

  #atHand(known: Access | Open): string | undefined {
    if (known.kind === "open") return undefined;
    return known.kind === "basic" ? known.authorization : this.#tokens.peek(known.scope);
  }

  #remember(key: string, access: Access | Open): void {
    this.#known.delete(key);
    this.#known.set(key, access);
    const oldest = this.#known.keys().next().value;
    if (this.#known.size > REPOSITORIES_MAX && oldest !== undefined) this.#known.delete(oldest);
  }
}

type Access =
  | { readonly kind: "token"; readonly scope: TokenScope }
  | { readonly kind: "basic"; readonly authorization: string };

/** The registry asked for nothing, and may ask for something later. */
interface Open {
  readonly kind: "open";
  readonly endsMs: number;
}

function bringsCredentials(request: OriginRequest, url: URL): boolean {
  if (url.username !== "" || url.password !== "") return true;
  return Object.keys(request.headers).some((name) => name.toLowerCase() === "authorization") && !isNobody(request);
}

function isNobody(request: OriginRequest): boolean {
  return request.headers["authorization"] === NOBODY;
}

function withoutAuthorization({ url, headers }: OriginRequest): OriginRequest {
  return { url, headers: Object.fromEntries(Object.entries(headers).filter(([name]) => name !== "authorization")) };
}

/** What is learnt of a repository serves who asks it in the same name. */
function accessKeyOf(request: OriginRequest, url: URL): string | undefined {
  const repository = repositoryOf(url);
  if (repository === undefined) return undefined;
  const { login } = request;
  const name = login === undefined ? [isNobody(request) ? "nobody" : "us"] : [login.username, login.password];
  return JSON.stringify([repository, ...name]);
}

function withAuthorization(request: OriginRequest, authorization: string): OriginRequest {
  return { url: request.url, headers: { ...request.headers, authorization } };
}

/** Requests that one token serves; reading only, as an origin does. `undefined` when not of the registry API. */
function repositoryOf(url: URL): string | undefined {
  const match = /^(.*\/v2\/.+)\/(?:manifests|blobs|tags|referrers)\/[^/]+$/.exec(url.pathname);
  return match === null ? undefined : `${url.origin}${match[1]}`;
}

/** The realm's URL, if a registry at `url` may send us there. */
function safeRealm(realm: string, url: URL): string {
  const parsed = URL.parse(realm);
  const why =
    parsed === null ? "is no URL"
    : parsed.protocol !== "https:" && parsed.protocol !== "http:" ? "is neither http nor https"
    : parsed.username !== "" || parsed.password !== "" ? "carries credentials of its own"
    : parsed.protocol === "http:" && url.protocol === "https:" ? "would send them unencrypted, unlike the registry"
    : undefined;
  if (parsed !== null && why === undefined) return parsed.href;
  throw new AppError(
    "ORIGIN_PROTOCOL",
    `the registry of ${redactUrl(url)} wants tokens from "${redactUrl(realm)}", which ${why ?? "is wrong"}; ` +
      "check the registry's configuration of its token service",
    { details: { origin: url.origin } },
  );
}

const REFUSALS: ReadonlySet<string> = new Set(["ORIGIN_UNAUTHORIZED", "ORIGIN_FORBIDDEN", "ORIGIN_NOT_FOUND"]);

/** As short as a minute without a pull is: what it costs is a HEAD. */
const OPEN_MS = 60_000;

/** Some 300 bytes each. */
const REPOSITORIES_MAX = 4096;
