/** The links from this host to a supernode: network, clock, token. */
import { hostname } from "node:os";
import { AppError, toAppError } from "../../base/errors.ts";
import type { SupernodeAddress } from "../../peer/config.ts";
import { openControlSession } from "../../peer/control/control-session.ts";
import { generatePeerId } from "../../peer/membership/credentials.ts";
import { isPlainRefusal } from "../../peer/membership/plain-refusal.ts";
import type { SiteTls } from "../../peer/membership/site-tls.ts";
import { plainRefused, tlsFailure } from "../../peer/membership/tls-connection.ts";
import { printAddress } from "../addresses.ts";
import { answerOrReason, ask, Unanswered } from "./ask.ts";
import { broken, type Finding, ok, skipped } from "./finding.ts";

export interface SupernodeQuestion {
  readonly supernode: SupernodeAddress;
  readonly version: string;
  /** The token that this host would prove, or why there is none. */
  readonly token: { readonly value: string | undefined } | { readonly problem: string };
  /** What this host's TLS stands on; undefined: none; or why that cannot be. */
  readonly tls?: SiteTls | { readonly problem: string } | undefined;
  readonly unixMs: () => number;
}

/** The findings `supernode`, `clock` and `token`, in this order. */
export async function checkSupernode({ supernode, version, token, tls, unixMs }: SupernodeQuestion): Promise<readonly Finding[]> {
  const at = printAddress(supernode);
  if (tls !== undefined && "problem" in tls) {
    const unasked = "TLS with it is not possible";
    return [broken("supernode", `this host's TLS cannot be used: ${tls.problem}`, "see tls, tlsCa, tlsCert and tlsKey"), skipped("clock", unasked), skipped("token", unasked)];
  }
  const answer = await answerOrReason(ask(supernode, "/readyz", undefined, tls?.toSupernode(supernode.host)));
  const reached = reachedOf(answer, at, tls);
  if (answer instanceof Unanswered || reached.status !== "ok") {
    return [reached, skipped("clock", `${at} did not say what time it is`), skipped("token", `${at} did not ask for it`)];
  }
  return [reached, clockOf(answer.headers.date, unixMs(), at), await checkToken(supernode, version, token, tls)];
}

function reachedOf(answer: Awaited<ReturnType<typeof answerOrReason>>, at: string, tls: SiteTls | undefined): Finding {
  const link = "supernode";
  if (answer instanceof Unanswered) {
    const failure = tlsFailure(answer, `the supernode ${at}`);
    if (failure !== undefined) return broken(link, failure.message, TLS_ADVICE);
    const advice = REACH_ADVICE[answer.code] ?? "check --supernode and the network";
    return broken(link, `the supernode ${at} cannot be reached: ${REACH_REASONS[answer.code] ?? answer.message}`, advice);
  }
  if (isPlainRefusal(answer.status, answer.headers.upgrade)) return broken(link, plainRefused(`the supernode ${at}`).message, TLS_ADVICE);
  if (answer.status === 200 && answer.body.includes('"ready"')) return ok(link, `the supernode ${at} is ready${tls === undefined ? "" : `, over TLS; this host's certificate holds until ${tls.validUntil.toISOString()}`}`);
  if (answer.status === 503) return broken(link, `the supernode ${at} is starting or shutting down`, "try again in a moment, and see its log");
  return broken(link, `what answers on ${at} is no supernode`, "check --supernode, and what listens there");
}

function clockOf(date: string | undefined, nowMs: number, at: string): Finding {
  const theirsMs = Date.parse(date ?? "");
  if (Number.isNaN(theirsMs)) return skipped("clock", `${at} did not say what time it is`);
  const aheadSeconds = Math.round((nowMs - theirsMs) / 1000);
  const said = `this host's clock is ${Math.abs(aheadSeconds)} s ${aheadSeconds < 0 ? "behind" : "ahead of"} ${at}`;
  if (Math.abs(aheadSeconds) <= CLOCK_SKEW_SECONDS_MAX) return ok("clock", said);
  return broken("clock", `${said}: tickets, tokens and certificates expire too soon or too late`, "set both clocks, and keep them by NTP");
}

async function checkToken(supernode: SupernodeAddress, version: string, token: SupernodeQuestion["token"], tls: SiteTls | undefined): Promise<Finding> {
  const link = "token";
  if ("problem" in token) return broken(link, token.problem, "give --join-token-file FILE or DRAGONFLY_JOIN_TOKEN");
  const at = printAddress(supernode);
  try {
    await openControlSession({
      supernode,
      token: token.value,
      tls,
      peerId: generatePeerId(`doctor-${hostname()}`),
      // As one that cannot be dialled and takes part in nothing.
      host: { address: "", port: 0, name: hostname().slice(0, 255), program: "dfget", version, labels: {} },
      reachMs: SESSION_TIMEOUT_MS,
      answerMs: SESSION_TIMEOUT_MS,
      signal: new AbortController().signal,
      onOpen: (session) => session.close(),
      onMessage: () => undefined,
      onEnd: () => undefined,
    });
  } catch (thrown) {
    const error = toAppError(thrown);
    const refused = token.value === undefined ? "this host has no join token, and the supernode wants one" : `the supernode ${at} refuses this host's join token`;
    if (error.code === "TOKEN_REFUSED") return broken(link, refused, "copy the file join-token from the supernode's data folder here, and name it with --join-token-file");
    if (error.code === "VERSION_UNSUPPORTED") return broken(link, `${at}: ${error.message}`, "install the same version on both");
    return broken(link, error.message, adviceFor(error));
  }
  return ok(link, token.value === undefined ? `${at} takes peers without a join token` : `${at} takes this host's join token`);
}

function adviceFor(error: AppError): string {
  if (error.code === "TLS_FAILED") return TLS_ADVICE;
  return error.code === "PROTOCOL_VIOLATION" ? "check what listens there, and that both are of one version" : "see the supernode's log";
}

const REACH_REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nobody listens there",
  ENOTFOUND: "there is no such host",
  EAI_AGAIN: "its name cannot be looked up",
  EHOSTUNREACH: "there is no route to it",
  ENETUNREACH: "there is no route to it",
  NOT_HTTP: "what listens there does not speak HTTP",
};
const REACH_ADVICE: Readonly<Record<string, string>> = {
  ECONNREFUSED: "start the supernode, or check --supernode",
  ENOTFOUND: "check --supernode and DNS",
  EAI_AGAIN: "check DNS",
  TIMEOUT: "check the network and firewalls between the two",
};

const TLS_ADVICE = "all programs of a site need the same tls setting, and the same join token or authority";
/** As most token and signature checks allow (Kerberos' default clock skew). */
const CLOCK_SKEW_SECONDS_MAX = 300;
const SESSION_TIMEOUT_MS = 5_000;
