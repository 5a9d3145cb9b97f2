import { createHmac, randomBytes } from "node:crypto";
import { AppError, toAppError } from "../../base/errors.ts";
import type { Digest } from "../../protocol/ids.ts";

/** Who asks. */
export interface Caller {
  /** Secret: goes to the upstream only. Undefined for an anonymous caller. */
  readonly authorization: string | undefined;
  /** Stands for the credentials in tables: equal for equal ones within this process, and tells nothing about them. */
  readonly scope: string;
}

/** One thing in one repository of one registry. */
export interface AccessTarget {
  readonly registry: string;
  readonly repository: string;
  readonly digest: Digest;
}

/**
 * - `allowed`: the upstream lets this caller read it.
 * - `unverified`: the upstream cannot be asked now, and nothing is known. Fit for what comes from elsewhere under its
 *   own checks; what this host already holds must not be given.
 */
export type AccessVerdict = "allowed" | "unverified";

/** How access is remembered. */
export interface MirrorAccessOptions {
  /** How long the upstream's word holds, in ms. */
  readonly ttlMs: number;
  /** Most targets remembered; the oldest are forgotten first, and asked for again. */
  readonly entriesMax: number;
  /** Monotonic ms. */
  readonly nowMs: () => number;
}

/**
 * Who may read what out of this host's caches.
 *
 * A caller may read what the upstream gave to the same credentials in the same repository a short while ago, what a
 * manifest that he got there refers to, and whatever an anonymous caller may. For anything else the upstream is asked,
 * once for all who ask the same at that moment.
 */
export class MirrorAccess {
  readonly #options: MirrorAccessOptions;
  /** Key of caller and target → when it ends. Oldest first. */
  readonly #grants = new Map<string, number>();
  readonly #asking = new Map<string, Promise<AccessVerdict>>();

  constructor(options: MirrorAccessOptions) {
    this.#options = options;
  }

  /** The upstream gave this caller these, or a manifest that names them. */
  allow(caller: Caller, registry: string, repository: string, digests: readonly Digest[]): void {
    const endsMs = this.#options.nowMs() + this.#options.ttlMs;
    for (const digest of digests) {
      const key = keyOf(caller.scope, { registry, repository, digest });
      this.#grants.delete(key);
      this.#grants.set(key, endsMs);
    }
    for (const oldest of this.#grants.keys()) {
      if (this.#grants.size <= this.#options.entriesMax) break;
      this.#grants.delete(oldest);
    }
  }

  isAllowed(caller: Caller, target: AccessTarget): boolean {
    return this.#holds(keyOf(caller.scope, target)) || this.#holds(keyOf(ANONYMOUS, target));
  }

  /**
   * @param ask asks the upstream with the caller's own credentials; resolves when it lets him read the target
   * @throws AppError what the upstream said to him; its outage too, unless the caller is anonymous
   */
  async check(caller: Caller, target: AccessTarget, ask: () => Promise<unknown>): Promise<AccessVerdict> {
    if (this.isAllowed(caller, target)) return "allowed";
    const key = keyOf(caller.scope, target);
    let asking = this.#asking.get(key);
    if (asking === undefined) {
      asking = this.#ask(caller, target, ask).finally(() => this.#asking.delete(key));
      this.#asking.set(key, asking);
    }
    return asking;
  }

  async #ask(caller: Caller, target: AccessTarget, ask: () => Promise<unknown>): Promise<AccessVerdict> {
    try {
      await ask();
    } catch (thrown) {
      const error = toAppError(thrown);
      if (caller.scope === ANONYMOUS && isOutage(error)) return "unverified";
      throw error;
    }
    this.allow(caller, target.registry, target.repository, [target.digest]);
    return "allowed";
  }

  #holds(key: string): boolean {
    const endsMs = this.#grants.get(key);
    return endsMs !== undefined && this.#options.nowMs() < endsMs;
  }
}

/** @param authorization the header as it came */
export function callerOf(authorization: string | undefined): Caller {
  if (authorization === undefined) return { authorization, scope: ANONYMOUS };
  return { authorization, scope: createHmac("sha256", SCOPE_KEY).update(authorization).digest("base64url") };
}

/** @throws the upstream's refusal to give what is here, as it would be had from the upstream itself */
export function refuseUnverified(target: AccessTarget): never {
  throw new AppError(
    "ORIGIN_UNREACHABLE",
    `${target.registry} cannot be asked whether you may read ${target.digest} of ${target.repository}; ` +
      "it is not given out of the cache without that: try again when the registry is back",
  );
}

function isOutage(error: AppError): boolean {
  const { status } = error.details;
  return error.retriable || (error.code === "ORIGIN_STATUS" && typeof status === "number" && status >= 500);
}

function keyOf(scope: string, { registry, repository, digest }: AccessTarget): string {
  return `${scope} ${registry} ${repository} ${digest}`;
}

const ANONYMOUS = "anonymous";

/** New with each process: a scope that leaks is worth nothing against a list of likely passwords. */
const SCOPE_KEY = randomBytes(32);
