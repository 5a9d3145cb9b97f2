import type { ServerResponse } from "node:http";
import { AppError, toAppError } from "../../base/errors.ts";
import { fromNodeError } from "../../origin/http-failure.ts";
import type { RequestRecord } from "./access-log.ts";
import type { Caller } from "./caller.ts";
import type { RelayedAnswer, UpstreamAsker } from "./passthrough.ts";
import { BodyWriter } from "./send.ts";
import type { Upstream } from "./registries.ts";
import { isFieldValue } from "./errors.ts";

/** One question that goes to the upstream as it is: tags, referrers, the catalogue. */
export interface RelayRequest {
  readonly upstream: Upstream;
  readonly method: "GET" | "HEAD";
  /** Below the upstream's base URL, from `/v2/` on, with its query. */
  readonly pathAndQuery: string;
  readonly accept: string | undefined;
  readonly caller: Caller;
  /** How the client named the registry, so that links to further pages lead back here. */
  readonly registry: string | undefined;
  readonly registryForm: "query" | "path" | "none";
}

/**
 * Relays an upstream's answer, streamed and never kept.
 *
 * @throws AppError before anything was sent: as UpstreamAsker.relay, ORIGIN_BUSY for an upstream that answers 408 or 429
 */
export async function relay(
  asker: UpstreamAsker,
  request: RelayRequest,
  response: ServerResponse,
  record: RequestRecord,
): Promise<void> {
  const { upstream, method, caller } = request;
  const url = `${upstream.baseUrl}${request.pathAndQuery}`;
  const hangUp = new AbortController();
  const onClose = (): void => hangUp.abort(new AppError("ABORTED", "the client hung up"));
  response.once("close", onClose);
  try {
    const ask = { method, url, accept: request.accept ?? "*/*", caller };
    const answer = await asker.relay(upstream, ask, hangUp.signal);
    try {
      if (answer.status === 408 || answer.status === 429) throw busy(upstream, answer);
      if (answer.headers["content-encoding"] !== undefined) throw coded(upstream);
      setHeaders(response, answer, request);
      record.status = answer.status;
      record.firstByte();
      await send(answer, response, record);
    } finally {
      answer.body.on("error", () => {}).destroy();
    }
  } catch (thrown) {
    if (!response.headersSent) throw thrown;
    if (hangUp.signal.aborted) record.aborted = true;
    else record.error = toAppError(fromNodeError(thrown, { url: new URL(url), phase: "body", signal: hangUp.signal }));
    response.destroy();
  } finally {
    response.off("close", onClose);
  }
}

async function send(answer: RelayedAnswer, response: ServerResponse, record: RequestRecord): Promise<void> {
  const writer = new BodyWriter(response);
  try {
    let there = true;
    if (response.req.method !== "HEAD") {
      for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
        there = await writer.write(chunk);
        if (!there) break;
      }
    }
    record.aborted = !(there && (await writer.end()));
  } finally {
    record.sentBytes = writer.sentBytes;
    record.sources = { cacheBytes: 0, seedBytes: 0, peerBytes: 0, originBytes: writer.sentBytes };
  }
}

function setHeaders(response: ServerResponse, answer: RelayedAnswer, request: RelayRequest): void {
  response.statusCode = answer.status;
  for (const [name, value] of Object.entries(answer.headers)) {
    if (!RELAYED.has(name) || !isFieldValue(value)) continue;
    const text = name === "link" ? linksBackHere(value, request) : value;
    if (text !== "") response.setHeader(name, text);
  }
}

/**
 * `Link` with each target rewritten to the form in which the client asked; targets on other hosts are left out, for
 * they would lead the client past this mirror, or past where his credentials belong.
 */
function linksBackHere(value: string, request: RelayRequest): string {
  const base = new URL(`${request.upstream.baseUrl}/v2/`);
  const asked = new URL(`${request.upstream.baseUrl}${request.pathAndQuery}`);
  const links: string[] = [];
  for (const [, target = "", parameters = ""] of value.matchAll(/<([^>]*)>([^<]*)/g)) {
    const url = URL.parse(target, asked.href);
    if (url === null || url.origin !== base.origin || !url.pathname.startsWith(base.pathname)) continue;
    const host = request.registryForm === "path" ? `${request.registry}/` : "";
    if (request.registryForm === "query" && request.registry !== undefined) url.searchParams.set("ns", request.registry);
    const here = `/v2/${host}${url.pathname.slice(base.pathname.length)}${url.search}`;
    links.push(`<${here}>${parameters.replace(/[,\s]+$/, "")}`);
  }
  return links.join(", ");
}

function busy(upstream: Upstream, answer: RelayedAnswer): AppError {
  const seconds = Number(answer.headers["retry-after"]);
  const details = Number.isFinite(seconds) && seconds >= 0 ? { retryAfterMs: seconds * 1000 } : {};
  return new AppError("ORIGIN_BUSY", `${upstream.name} is busy (HTTP ${answer.status}); try again later`, { details });
}

function coded(upstream: Upstream): AppError {
  return new AppError("ORIGIN_PROTOCOL", `${upstream.name} sent a coded answer although asked for none; check the registry`);
}

const RELAYED: ReadonlySet<string> = new Set([
  "content-type", "content-length", "link", "oci-filters-applied", "www-authenticate", "retry-after",
  "docker-content-digest", "oci-subject",
]);
