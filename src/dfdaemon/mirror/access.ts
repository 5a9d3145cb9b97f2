import { AppError, toAppError } from "../../base/errors.ts";
import { LOGIN_TOKEN_KEPT_MS } from "../../origin/registry-tokens.ts";
import type { Digest } from "../../protocol/ids.ts";
import { ANONYMOUS, type Caller } from "./caller.ts";

/** One repository of one registry. */
export interface Place {
  readonly registry: string;
  readonly repository: string;
}

/** One thing in one repository. */
export interface AccessTarget extends Place {
  readonly digest: Digest;
}

/** As what something is asked for: a registry that has no manifest of a digest may well have a blob of it. */
export type AskedAs = "blob" | "manifest";

/**
 * - `granted`: the upstream said yes a short while ago.
 * - `asked`: the upstream said yes just now.
 * - `unverified`: the upstream cannot be asked now, and nothing is known. Fit for what comes from elsewhere under its
 *   own checks; what this host already holds must not be given.
 */
export type AccessVerdict = "granted" | "asked" | "unverified";

/** How a question about access ended; see `dragonfly_mirror_access_checks_total`. */
export type AccessOutcome = AccessVerdict | "refused" | "failed";

/** How access is remembered. */
export interface MirrorAccessOptions {
  /** How long the upstream's word holds, in ms from when it was asked. */
  readonly grantMs: number;
  /** How much longer it holds while the upstream cannot be asked, in ms. */
  readonly outageGrantMs: number;
  /** How long a caller is told again that something is not there, in ms. */
  readonly absenceMs: number;
  /** Most grants, and most things known to be somewhere; the oldest are forgotten first, and asked for again. */
  readonly entriesMax: number;
  /** Monotonic ms. */
  readonly nowMs: () => number;
  readonly onOutcome?: (outcome: AccessOutcome) => void;
}

/**
 * Who may read what out of this host's caches.
 *
 * A *grant* says that the upstream let these credentials read in this repository a short while ago; it opens what that
 * repository is known to hold: what the upstream gave or confirmed there, and what its manifests name. For anything else
 * the upstream is asked, once for all who ask the same at that moment. Only the upstream's own word makes or renews a
 * grant, never an answer out of a cache. What anybody may read, everybody may.
 */
export class MirrorAccess {
  readonly #options: MirrorAccessOptions;
  /** Caller and place → when the grant ends. Oldest first. */
  readonly #grants = new Map<string, number>();
  /** Place and digest: the place holds it. Oldest use first. */
  readonly #held = new Set<string>();
  /** Caller, target and what it was asked for as → the upstream's 404. */
  readonly #absent = new Map<string, { readonly error: AppError; readonly endsMs: number }>();
  readonly #asking = new Map<string, Promise<AccessVerdict>>();

  constructor(options: MirrorAccessOptions) {
    this.#options = options;
  }

  /** @param askedMs when the upstream was asked: its word is no younger than that */
  grant(caller: Caller, place: Place, askedMs: number): void {
    const key = grantKey(caller.scope, place);
    // A token may say what was true when it was made, and this caller's is used again.
    const wordMs = caller.login === undefined ? askedMs : askedMs - LOGIN_TOKEN_KEPT_MS;
    this.#grants.delete(key);
    this.#grants.set(key, wordMs + this.#options.grantMs);
    trim(this.#grants, this.#options.entriesMax);
  }

  /** The upstream refused this caller here: what it said before is over. */
  revoke(caller: Caller, place: Place): void {
    this.#grants.delete(grantKey(caller.scope, place));
  }

  /** The place has these: it gave them, or a manifest that names them. Says nothing of who may read there. */
  holds(place: Place, digests: readonly Digest[]): void {
    for (const digest of digests) {
      const key = heldKey({ ...place, digest });
      this.#held.delete(key);
      this.#held.add(key);
    }
    trim(this.#held, this.#options.entriesMax);
  }

  /** @param inOutage the upstream cannot be asked now */
  hasGrant(caller: Caller, place: Place, inOutage: boolean): boolean {
    const extraMs = inOutage ? this.#options.outageGrantMs : 0;
    const nowMs = this.#options.nowMs();
    return [caller.scope, ANONYMOUS].some((scope) => {
      const endsMs = this.#grants.get(grantKey(scope, place));
      return endsMs !== undefined && nowMs < endsMs + extraMs;
    });
  }

  /**
   * @param ask asks the upstream with the caller's own credentials; resolves when it lets him read the target
   * @throws AppError what the upstream said to him; its outage too, unless the caller is anonymous
   */
  async check(caller: Caller, target: AccessTarget, as: AskedAs, ask: () => Promise<unknown>): Promise<AccessVerdict> {
    if (this.#opens(caller, target, false)) return this.#said("granted");
    const key = `${caller.scope} ${as} ${heldKey(target)}`;
    const absent = this.#absent.get(key);
    if (absent !== undefined && this.#options.nowMs() < absent.endsMs) {
      this.#said("refused");
      throw absent.error;
    }
    let asking = this.#asking.get(key);
    if (asking === undefined) {
      asking = this.#ask(caller, target, key, ask).finally(() => this.#asking.delete(key));
      this.#asking.set(key, asking);
    }
    return asking;
  }

  async #ask(caller: Caller, target: AccessTarget, key: string, ask: () => Promise<unknown>): Promise<AccessVerdict> {
    const askedMs = this.#options.nowMs();
    try {
      await ask();
    } catch (thrown) {
      const error = toAppError(thrown);
      if (isOutage(error)) return this.#inOutage(caller, target, error);
      if (isRefusal(error)) this.revoke(caller, target);
      if (error.code === "ORIGIN_NOT_FOUND") this.#rememberAbsence(key, error);
      this.#said("refused");
      throw error;
    }
    this.grant(caller, target, askedMs);
    this.holds(target, [target.digest]);
    return this.#said("asked");
  }

  #inOutage(caller: Caller, target: AccessTarget, error: AppError): AccessVerdict {
    if (this.#opens(caller, target, true)) return this.#said("granted");
    if (caller.scope === ANONYMOUS) return this.#said("unverified");
    this.#said("failed");
    throw error;
  }

  #opens(caller: Caller, target: AccessTarget, inOutage: boolean): boolean {
    return this.#held.has(heldKey(target)) && this.hasGrant(caller, target, inOutage);
  }

  #rememberAbsence(key: string, error: AppError): void {
    this.#absent.delete(key);
    this.#absent.set(key, { error, endsMs: this.#options.nowMs() + this.#options.absenceMs });
    trim(this.#absent, ABSENT_MAX);
  }

  #said<T extends AccessOutcome>(outcome: T): T {
    this.#options.onOutcome?.(outcome);
    return outcome;
  }
}

/** @throws the upstream's refusal to give what is here, as it would be had from the upstream itself */
export function refuseUnverified(target: AccessTarget): never {
  throw new AppError(
    "ORIGIN_UNREACHABLE",
    `${target.registry} cannot be asked whether you may read ${target.digest} of ${target.repository}; ` +
      "it is not given out of the cache without that: try again when the registry is back",
  );
}

/** The upstream gave no answer that says anything of the caller. */
export function isOutage(error: AppError): boolean {
  const { status } = error.details;
  return error.retriable || (error.code === "ORIGIN_STATUS" && typeof status === "number" && status >= 500);
}

/** The upstream does not let this caller read. */
export function isRefusal(error: AppError): boolean {
  return error.code === "ORIGIN_UNAUTHORIZED" || error.code === "ORIGIN_FORBIDDEN";
}

function grantKey(scope: string, { registry, repository }: Place): string {
  return `${scope} ${registry} ${repository}`;
}

function heldKey({ registry, repository, digest }: AccessTarget): string {
  return `${registry} ${repository} ${digest}`;
}

function trim(table: Map<string, unknown> | Set<string>, sizeMax: number): void {
  for (const oldest of table.keys()) {
    if (table.size <= sizeMax) return;
    table.delete(oldest);
  }
}

const ABSENT_MAX = 4096;
