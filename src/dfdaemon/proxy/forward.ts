import type { ClientRequest, IncomingMessage, ServerResponse } from "node:http";
import { AppError } from "../../base/errors.ts";
import { fromNodeError } from "../../origin/http-failure.ts";
import { endToEnd, fieldOf, pairs } from "./message-headers.ts";
import type { ProxyRecord } from "./proxy-record.ts";
import { originOf, type Target, type Upstreams } from "./upstreams.ts";

/** One request to be passed on. */
export interface Forwarded {
  readonly target: Target;
  /** With the query. */
  readonly path: string;
  /** What the client is to be told to be `Host`; undefined: as he sent it. */
  readonly host: string | undefined;
}

export interface ForwardDeps {
  readonly upstreams: Upstreams;
  /** Our name in `Via`. */
  readonly pseudonym: string;
}

/**
 * Passes a request on as it is, and the answer back: method, fields, body, trailers, `100 Continue`, each as it comes
 * and never kept. Resolves when the answer is over; what fails is answered (502, 504, 403) or, once an answer has begun,
 * cuts the connection. Never rejects.
 */
export async function forward(
  deps: ForwardDeps,
  request: IncomingMessage,
  response: ServerResponse,
  forwarded: Forwarded,
  record: ProxyRecord,
): Promise<void> {
  const isBare = fieldOf(request.rawHeaders, "content-length") === undefined && request.headers["transfer-encoding"] === undefined;
  const onBytes = (chunk: Buffer): void => void (record.receivedBytes += chunk.length);
  request.on("data", onBytes).pause();
  try {
    for (let attempt = 1; ; attempt++) {
      const upstream = begin(deps, request, forwarded);
      try {
        await answered(deps, upstream, request, response, { isBare, target: forwarded.target }, record);
        return;
      } catch (thrown) {
        // A kept connection that the server closed at this very moment: nothing was lost, and it is asked again.
        const mayRepeat = isBare && SAFE.has(request.method ?? "") && !response.headersSent && attempt < ATTEMPTS_MAX;
        if (!mayRepeat || !isStale(upstream, thrown)) throw thrown;
      }
    }
  } catch (thrown) {
    if (response.destroyed) {
      record.aborted = true;
      return;
    }
    const error = failureOf(thrown, forwarded.target);
    record.error = error;
    if (response.headersSent) response.destroy();
    else refuse(response, error.httpStatus, error.message, record);
  } finally {
    request.off("data", onBytes);
  }
}

/** Answers with a text of our own; nothing may have been sent before. */
export function refuse(
  response: ServerResponse,
  status: number,
  message: string,
  record: ProxyRecord | undefined,
  headers: Readonly<Record<string, string>> = {},
): void {
  const body = `dfdaemon: ${message}\n`;
  if (record !== undefined) record.status = status;
  // What is left of a body that nobody reads ends with the connection.
  response.shouldKeepAlive = false;
  response.writeHead(status, { "content-type": "text/plain; charset=utf-8", "content-length": Buffer.byteLength(body), ...headers });
  response.end(body);
}

/** What broke the way to `target`, in our words. */
export function failureOf(thrown: unknown, target: Target): AppError {
  return fromNodeError(thrown, { url: new URL(originOf(target)), phase: "headers", signal: NEVER });
}

function begin({ upstreams, pseudonym }: ForwardDeps, request: IncomingMessage, { target, path, host }: Forwarded): ClientRequest {
  const { rawHeaders, method = "GET" } = request;
  const headers = endToEnd(rawHeaders, { pseudonym, replaced: host === undefined ? [] : ["host"] });
  if (host !== undefined) headers.unshift("Host", host);
  if (request.headers["transfer-encoding"] !== undefined) headers.push("Transfer-Encoding", "chunked");
  else if (fieldOf(rawHeaders, "content-length") === undefined && BODIED.has(method)) headers.push("Content-Length", "0");
  return upstreams.request(target, method, path, headers);
}

/** Resolves when the answer is over. @throws what Node throws */
async function answered(
  { upstreams, pseudonym }: ForwardDeps,
  upstream: ClientRequest,
  request: IncomingMessage,
  response: ServerResponse,
  { isBare, target }: { readonly isBare: boolean; readonly target: Target },
  record: ProxyRecord,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onClientGone = (): void => {
    if (response.writableFinished) return resolve();
    upstream.destroy();
    reject(new Error("the client hung up"));
  };
  let hasContinued = false;
  upstream.once("error", reject);
  upstream.once("upgrade", (_answer, socket) => {
    socket.destroy();
    reject(new AppError("ORIGIN_PROTOCOL", `${originOf(target)} changes to another protocol, which nobody asked it for`));
  });
  upstream.on("timeout", () => upstream.destroy(new Error("nothing came for ten minutes")));
  upstream.once("continue", () => {
    hasContinued = true;
    // By HTTP/1.0 there is one answer, and no word before it.
    if (request.httpVersion !== "1.0") response.writeContinue();
  });
  upstream.once("response", (answer) => {
    const proxy = answer.statusCode === 407 ? upstreams.plainProxyFor(target) : undefined;
    if (proxy !== undefined) {
      answer.on("error", () => {}).destroy();
      // No business of the client's, who has no part in what we log in with there.
      return reject(new AppError("ORIGIN_UNREACHABLE", `the proxy ${proxy.host} wants credentials; write them into its URL`));
    }
    // Whoever asked before sending a body, and was answered at once, may send it or not: nobody can tell what follows.
    if (request.headers.expect !== undefined && !hasContinued) response.shouldKeepAlive = false;
    giveBack(answer, response, pseudonym, record).then(resolve, reject);
  });
  response.once("close", onClientGone);
  if (isBare) upstream.end();
  else passBody(request, upstream);
  try {
    await promise;
  } finally {
    response.off("close", onClientGone);
    upstream.on("error", () => {});
    if (!isBare) passRest(request, upstream);
  }
}

/** What is left of a body whose answer is over goes on as long as the server takes it: cut here, it would end like a whole one. */
function passRest(request: IncomingMessage, upstream: ClientRequest): void {
  const client = request.socket;
  const server = upstream.socket;
  // Behind the answer Node tells neither message any more that its client is gone, or that its server has room again.
  const onClientGone = (): void => void upstream.destroy();
  // Needed room, and has had none since.
  let isStill = false;
  const onRoom = (): void => {
    isStill = false;
    upstream.emit("drain");
  };
  // Who has answered and reads no more is not waited for, nor let his client wait.
  const watch = setInterval(() => {
    if (isStill) upstream.destroy();
    else isStill = server?.writableNeedDrain === true;
  }, STILL_MS).unref();
  const letGo = (): void => {
    clearInterval(watch);
    client.off("close", onClientGone);
    server?.off("drain", onRoom);
    request.unpipe(upstream);
    // Who sends all before he reads what was answered early would stand still.
    request.resume();
  };
  if (upstream.closed || server === null) return letGo();
  client.once("close", onClientGone);
  server.on("drain", onRoom);
  upstream.once("close", letGo);
  // Room there may have been while nobody listened.
  if (!server.writableNeedDrain) onRoom();
}

function passBody(request: IncomingMessage, upstream: ClientRequest): void {
  request.pipe(upstream, { end: false });
  request.once("end", () => {
    const trailers = trailersOf(request);
    if (trailers.length > 0) upstream.addTrailers(trailers);
    upstream.end();
  });
  // A body that the client breaks off must not look whole.
  request.once("close", () => {
    if (!request.complete) upstream.destroy();
  });
}

async function giveBack(answer: IncomingMessage, response: ServerResponse, pseudonym: string, record: ProxyRecord): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  record.status = answer.statusCode ?? 502;
  response.sendDate = false;
  // Node fails an answer that announces trailers and is not in chunks.
  const isInChunks = answer.headers["transfer-encoding"] !== undefined && response.useChunkedEncodingByDefault && hasBody(response.req.method, record.status);
  const fields = endToEnd(answer.rawHeaders, { pseudonym, replaced: isInChunks ? [] : ["trailer"] });
  response.writeHead(record.status, answer.statusMessage, fields);
  // An answer without a body has no chunk that would take its head along. By itself Node writes a head as UTF-8: one with other bytes has to wait for a chunk.
  if (isAscii(fields) && isAscii([answer.statusMessage ?? ""])) response.flushHeaders();
  answer.on("data", (chunk: Buffer) => void (record.sentBytes += chunk.length));
  answer.pipe(response, { end: false });
  answer.once("error", reject);
  answer.once("close", () => {
    if (!answer.complete) reject(new Error("the answer was cut"));
  });
  answer.once("end", () => {
    const trailers = trailersOf(answer);
    if (trailers.length > 0) response.addTrailers(trailers);
    response.end(resolve);
  });
  return promise;
}

function hasBody(method: string | undefined, status: number): boolean {
  return method !== "HEAD" && status !== 204 && status !== 304;
}

function isAscii(texts: readonly string[]): boolean {
  return !texts.some((text) => /[\x80-\xff]/.test(text));
}

function trailersOf({ rawTrailers }: IncomingMessage): readonly [string, string][] {
  return [...pairs(rawTrailers)].map(([name, value]) => [name, value]);
}

function isStale(upstream: ClientRequest, thrown: unknown): boolean {
  return upstream.reusedSocket && thrown instanceof Error && "code" in thrown && (thrown.code === "ECONNRESET" || thrown.code === "EPIPE");
}

const NEVER = new AbortController().signal;
const ATTEMPTS_MAX = 3;
/** A server that takes nothing for so long, once or twice, of a body whose answer is over. */
const STILL_MS = 4_000;
const SAFE: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);
/** Where no length means that one is missing. */
const BODIED: ReadonlySet<string> = new Set(["POST", "PUT", "PATCH"]);
