import { createHmac, randomBytes } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { NOBODY } from "../../origin/registry-auth.ts";
import type { RegistryCredentials } from "../../origin/origin.ts";
import type { Upstream } from "./registries.ts";

/** In whose name the upstream is asked. */
export interface Caller {
  /** Secret: goes to the upstream only. {@link NOBODY} for an anonymous caller, undefined for who brings a login, and for dfdaemon itself. */
  readonly authorization: string | undefined;
  /** Secret: what dfdaemon logs in with for this caller, where the upstream asks for that. */
  readonly login?: RegistryCredentials;
  /** Stands for the credentials in tables: equal for equal ones within this process, and tells nothing about them. */
  readonly scope: string;
}

/** @param authorization the header as it came; counts only where callers stand for themselves */
export function callerAt({ access }: Pick<Upstream, "access">, authorization: string | undefined): Caller {
  if (access === "own-credentials") return { authorization: undefined, scope: OWN };
  if (access === "public" || (authorization ?? "") === "") return { authorization: NOBODY, scope: ANONYMOUS };
  return { authorization, scope: scopeOf(authorization ?? "") };
}

/**
 * A caller who has answered {@link LOGIN_CHALLENGE}: his password is meant for whichever registry he names, so it is
 * taken to those only that the operator has named, too. A name and a password that are empty say that he has none.
 */
export function loggedInCallerAt({ access }: Pick<Upstream, "access">, isConfigured: boolean, authorization: string | undefined): Caller {
  const login = basicCredentials(authorization ?? "");
  if (login === undefined) return callerAt({ access }, authorization);
  const isNobody = login.username === "" && login.password === "";
  if (access !== "passthrough" || isNobody || !isConfigured) return callerAt({ access }, undefined);
  return { authorization: undefined, login, scope: scopeOf(authorization ?? "") };
}

/**
 * Podman, skopeo, buildah, CRI-O: they name the registry in the path, but ask `/v2/` without it how to authenticate, and
 * hold to that for all registries. All requests of their library have this header, and nobody else's. Source:
 * containers/image, docker/docker_client.go.
 */
export function decidesOnceForAll(headers: IncomingHttpHeaders): boolean {
  return headers["docker-distribution-api-version"] !== undefined;
}

/** To who {@link decidesOnceForAll}: dfdaemon does the rest, at each registry as it wants it. */
export const LOGIN_CHALLENGE = 'Basic realm="dragonfly"';

export const ANONYMOUS = "anonymous";
/** dfdaemon's credentials: everybody who may ask it stands behind them. */
const OWN = "own";

function scopeOf(authorization: string): string {
  return createHmac("sha256", SCOPE_KEY).update(authorization).digest("base64url");
}

/** Source: RFC 7617. */
function basicCredentials(authorization: string): RegistryCredentials | undefined {
  const encoded = /^basic +([A-Za-z0-9+/]+=*)$/i.exec(authorization)?.[1];
  if (encoded === undefined) return undefined;
  const text = Buffer.from(encoded, "base64").toString("utf8");
  const colon = text.indexOf(":");
  return colon < 0 ? undefined : { username: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** New with each process: a scope that leaks is worth nothing against a list of likely passwords. */
const SCOPE_KEY = randomBytes(32);
