import type { Readable } from "node:stream";
import { AppError } from "../base/errors.ts";
import type { Origin, RegistryCredentials } from "./origin.ts";
import { basicAuthorization, redactUrl } from "./origin-url.ts";

/** What a token is for, as the registry's challenge puts it. */
export interface TokenScope {
  /** Validated URL of the token service. */
  readonly realm: string;
  readonly service: string | undefined;
  /** Space-separated, as in the challenge. */
  readonly scope: string | undefined;
  /** `undefined` = anonymous. */
  readonly credentials: RegistryCredentials | undefined;
  /** How long a token is used again at most, ms, though it be good for longer. */
  readonly keptMs?: number;
}

/**
 * Tokens of registries' token services, one fetch for all who ask at once, kept until 10 s before they expire.
 *
 * Tokens of different credentials never mix. A failed fetch is not remembered.
 */
export class RegistryTokens {
  readonly #origin: Origin;
  readonly #nowMs: () => number;
  readonly #tokens = new Map<string, Token>();
  readonly #fetches = new Map<string, Promise<Token>>();

  /** @param nowMs monotonic ms */
  constructor(origin: Origin, nowMs: () => number) {
    this.#origin = origin;
    this.#nowMs = nowMs;
  }

  /** The `Authorization` value for `scope` if one is at hand, else `undefined`. Sends nothing. */
  peek(scope: TokenScope): string | undefined {
    const key = keyOf(scope);
    const token = this.#tokens.get(key);
    if (token === undefined) return undefined;
    if (this.#nowMs() < token.refreshAtMs) return token.authorization;
    this.#tokens.delete(key);
    return undefined;
  }

  /** Drops `authorization`, which the registry refused; a newer token of the scope stays. */
  forget(scope: TokenScope, authorization: string): void {
    const key = keyOf(scope);
    if (this.#tokens.get(key)?.authorization === authorization) this.#tokens.delete(key);
  }

  /**
   * The `Authorization` value for `scope`, fetched unless one is at hand.
   *
   * @param signal lets go of the wait only: the fetch goes on for the others, 30 s at most
   * @throws AppError what the origin throws for the token service's URL, ORIGIN_PROTOCOL for an answer without a
   *   token, ABORTED
   */
  async get(scope: TokenScope, signal: AbortSignal): Promise<string> {
    const atHand = this.peek(scope);
    if (atHand !== undefined) return atHand;
    const key = keyOf(scope);
    let fetch = this.#fetches.get(key);
    if (fetch === undefined) {
      fetch = this.#fetch(key, scope).finally(() => this.#fetches.delete(key));
      this.#fetches.set(key, fetch);
    }
    const token = await orAborted(fetch, signal, scope.realm);
    return token.authorization;
  }

  async #fetch(key: string, scope: TokenScope): Promise<Token> {
    const signal = AbortSignal.timeout(FETCH_TIMEOUT_MS);
    const { credentials } = scope;
    const headers: Record<string, string> = { accept: "application/json" };
    if (credentials !== undefined) {
      headers["authorization"] = basicAuthorization(credentials.username, credentials.password);
    }
    const request = { url: tokenUrl(scope), headers };
    const { body } = await this.#origin.open(request, { startByte: 0, endByte: undefined }, undefined, signal);
    const { text, lifetimeMs } = parseToken(await textOf(body, scope.realm), scope.realm);
    const refreshAtMs = this.#nowMs() + Math.min(scope.keptMs ?? Infinity, Math.max(0, lifetimeMs - REFRESH_EARLY_MS));
    const token = { authorization: `Bearer ${text}`, refreshAtMs };
    this.#tokens.delete(key);
    this.#tokens.set(key, token);
    const oldest = this.#tokens.keys().next().value;
    if (this.#tokens.size > TOKENS_MAX && oldest !== undefined) this.#tokens.delete(oldest);
    return token;
  }
}

interface Token {
  readonly authorization: string;
  readonly refreshAtMs: number;
}

function keyOf({ realm, service, scope, credentials, keptMs }: TokenScope): string {
  return JSON.stringify([realm, service, scope, credentials?.username, credentials?.password, keptMs]);
}

function tokenUrl({ realm, service, scope, credentials }: TokenScope): string {
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set("service", service);
  for (const one of scope?.split(" ") ?? []) {
    if (one !== "") url.searchParams.append("scope", one);
  }
  if (credentials !== undefined) url.searchParams.set("account", credentials.username);
  return url.href;
}

function parseToken(json: string, realm: string): { readonly text: string; readonly lifetimeMs: number } {
  const answer = parseObject(json);
  const text = answer["token"] ?? answer["access_token"];
  // Printable ASCII only: what goes into a header must not be able to end it.
  if (typeof text !== "string" || !/^[\x21-\x7e]+$/.test(text)) {
    throw nonsense(realm, "holds no token");
  }
  const seconds = answer["expires_in"];
  const lifetimeS = typeof seconds === "number" && seconds > 0 ? seconds : LIFETIME_DEFAULT_S;
  return { text, lifetimeMs: lifetimeS * 1000 };
}

function parseObject(json: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

async function textOf(body: Readable, realm: string): Promise<string> {
  const chunks: Buffer[] = [];
  let lengthBytes = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    lengthBytes += chunk.length;
    if (lengthBytes > ANSWER_BYTES_MAX) throw nonsense(realm, `is longer than ${ANSWER_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function nonsense(realm: string, how: string): AppError {
  return new AppError(
    "ORIGIN_PROTOCOL",
    `the answer of the token service ${redactUrl(realm)} ${how}; check the registry's token service`,
  );
}

function orAborted<T>(promise: Promise<T>, signal: AbortSignal, realm: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      const reason: unknown = signal.reason;
      const where = `the wait for a token of ${redactUrl(realm)}`;
      reject(reason instanceof AppError ? reason : new AppError("ABORTED", `${where} was called off by its caller`));
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** The default of the token specification. */
const LIFETIME_DEFAULT_S = 60;

/** A token must outlive the request it goes with, and clocks that differ a little. */
const REFRESH_EARLY_MS = 10_000;

const FETCH_TIMEOUT_MS = 30_000;

/** Of a caller's token: rights that were taken away end with it, whatever the token says. */
export const LOGIN_TOKEN_KEPT_MS = 30_000;

/** Tokens are of some KiB; the bound keeps a wrong realm from filling our memory. */
const ANSWER_BYTES_MAX = 256 * 1024;

const TOKENS_MAX = 1024;
