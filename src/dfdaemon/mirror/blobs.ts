import type { ServerResponse } from "node:http";
import { AppError } from "../../base/errors.ts";
import type { Content, ContentInfo, ContentOpener } from "../../peer/content.ts";
import type { Source } from "../../protocol/control-messages.ts";
import type { Digest } from "../../protocol/ids.ts";
import { firstByteOf } from "../../protocol/range.ts";
import type { RequestRecord } from "./access-log.ts";
import { refuseUnverified, type AccessTarget, type MirrorAccess } from "./access.ts";
import type { Caller } from "./caller.ts";
import { withDeadline } from "./deadline.ts";
import { specAnswer } from "./errors.ts";
import { asAuthorized, type UpstreamAsker } from "./passthrough.ts";
import { answerBytes, isNotModified, type BodyPart, type BytesAnswer, type BytesRequest } from "./ranges.ts";
import { BodyWriter, sendBytes, sendError } from "./send.ts";
import { describeSources, shareSources } from "./sources.ts";
import { ACCESS_TIMEOUT_MS } from "./manifests.ts";
import { repositoryAt, resourceUrl, type Upstream } from "./registries.ts";

export interface BlobRequest {
  readonly upstream: Upstream;
  readonly repository: string;
  readonly digest: Digest;
  readonly caller: Caller;
  readonly bytes: BytesRequest;
}

export interface BlobsDeps {
  readonly opener: ContentOpener;
  readonly asker: UpstreamAsker;
  readonly access: MirrorAccess;
  readonly backToSource: boolean;
  /** Time until a blob's length and type are known, in ms. */
  readonly openTimeoutMs: number;
  /** Headers leave after this time even when no byte is there yet, in ms; until then an error has its right status. */
  readonly headersWithinMs: number;
}

/**
 * Blobs through the swarm, streamed from the first byte that is there.
 *
 * Before the first byte errors are answers; after it the content falls over to the origin by itself, and if that fails
 * too the connection is cut: a body is never ended short.
 */
export class Blobs {
  readonly #deps: BlobsDeps;

  constructor(deps: BlobsDeps) {
    this.#deps = deps;
  }

  /** Answers. @throws AppError before anything was sent; what comes later is in the record */
  async serve(request: BlobRequest, response: ServerResponse, record: RequestRecord): Promise<void> {
    const { access, asker } = this.#deps;
    const { upstream, caller, digest } = request;
    const repository = repositoryAt(upstream, request.repository);
    const target: AccessTarget = { registry: upstream.name, repository, digest };
    const url = resourceUrl(upstream, repository, `blobs/${digest}`);
    const hangUp = new AbortController();
    const onClose = (): void => hangUp.abort(new AppError("ABORTED", "the client hung up"));
    response.once("close", onClose);
    try {
      const verdict = await access.check(caller, target, "blob", () =>
        asker.stat(upstream, url, "*/*", caller, AbortSignal.timeout(ACCESS_TIMEOUT_MS)),
      );
      record.access = verdict;
      if (verdict !== "unverified" && isNotModified(request.bytes, digest)) {
        await sendBytes(response, 304, { etag: `"${digest}"`, "docker-content-digest": digest }, new Uint8Array(0), record);
        return;
      }
      hangUp.signal.throwIfAborted();
      await asAuthorized(asker, { upstream, url, caller }, () => AbortSignal.timeout(ACCESS_TIMEOUT_MS), async (authorization) => {
        const source: Source = { url, headers: authorization === undefined ? {} : { authorization }, digest };
        if (request.bytes.method === "HEAD") await this.#serveHead(request, source, response, record, hangUp.signal);
        else await this.#serveGet(request, source, verdict === "unverified" ? target : undefined, response, record, hangUp);
      }, () => !response.headersSent && !hangUp.signal.aborted);
    } finally {
      response.off("close", onClose);
      hangUp.abort(new AppError("ABORTED", "the answer is over"));
    }
  }

  async #serveHead(
    request: BlobRequest,
    source: Source,
    response: ServerResponse,
    record: RequestRecord,
    signal: AbortSignal,
  ): Promise<void> {
    const { opener, openTimeoutMs, backToSource } = this.#deps;
    const info = await withDeadline(openTimeoutMs, `to learn of ${source.digest}`, signal, (bounded) =>
      opener.stat({ source, backToSource }, bounded),
    );
    const answer = answerOf(request, info);
    setHeaders(response, answer, request.digest, info);
    record.status = answer.status;
    record.taskId = info.taskId;
    await new BodyWriter(response).end();
  }

  async #serveGet(
    request: BlobRequest,
    source: Source,
    /** Set when nobody vouches for the caller: then nothing that this host holds may leave. */
    unverified: AccessTarget | undefined,
    response: ServerResponse,
    record: RequestRecord,
    hangUp: AbortController,
  ): Promise<void> {
    const { opener, openTimeoutMs, backToSource } = this.#deps;
    const content = await withDeadline(openTimeoutMs, `to open ${source.digest}`, hangUp.signal, (signal) =>
      opener.open({ source, backToSource, firstByte: firstByteOf(request.bytes.range) }, signal),
    );
    const before = content.sources();
    record.taskId = content.info.taskId;
    try {
      if (unverified !== undefined && before.cacheBytes > 0) refuseUnverified(unverified);
      const answer = answerOf(request, content.info);
      if (answer.status === 416) {
        const refusal = specAnswer(416, "RANGE_INVALID", "no byte of this range is in the blob", answer.headers);
        await sendError(response, refusal, record);
        return;
      }
      setHeaders(response, answer, request.digest, content.info);
      response.setHeader("x-dragonfly-sources", describeSources(before));
      await this.#send(content, answer, response, record, hangUp.signal);
    } finally {
      record.sources = shareSources(content.sources(), record.sentBytes);
      content.close();
    }
  }

  async #send(
    content: Content,
    answer: BytesAnswer,
    response: ServerResponse,
    record: RequestRecord,
    signal: AbortSignal,
  ): Promise<void> {
    const writer = new BodyWriter(response);
    const chunks = bodyOf(content, answer.parts, signal);
    const first = chunks.next();
    if (!(await settlesWithin(first, this.#deps.headersWithinMs))) {
      response.statusCode = answer.status;
      response.flushHeaders();
    }
    try {
      let next = await first;
      record.status = answer.status;
      response.statusCode = answer.status;
      record.firstByte();
      if (!response.headersSent) response.setHeader("server-timing", record.serverTiming);
      while (next.done !== true && (await writer.write(next.value))) next = await chunks.next();
      record.aborted = !(next.done === true && (await writer.end()));
    } catch (error) {
      if (!response.headersSent) throw error;
      record.status = answer.status;
      if (signal.aborted) record.aborted = true;
      else record.error = error;
      // Never a clean end for a body that is not whole.
      response.destroy();
    } finally {
      record.sentBytes = writer.sentBytes;
      // Not awaited: a read that waits for a byte returns only when it is told that nobody waits any more.
      chunks.return(undefined).catch(() => {});
    }
  }
}

/** The body's bytes in order. @throws AppError what the content throws; ORIGIN_LENGTH_WRONG when it gives too few or too many */
async function* bodyOf(
  content: Content,
  parts: readonly BodyPart[],
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, undefined> {
  for (const part of parts) {
    if (part.type === "text") {
      yield Buffer.from(part.text);
      continue;
    }
    let leftBytes = part.endByte === undefined ? undefined : part.endByte - part.startByte;
    for await (const chunk of content.read({ startByte: part.startByte, endByte: part.endByte, lent: true }, signal)) {
      if (leftBytes !== undefined) leftBytes -= chunk.length;
      if (leftBytes !== undefined && leftBytes < 0) throw lengthWrong("more");
      yield chunk;
    }
    if (leftBytes !== undefined && leftBytes > 0) throw lengthWrong("fewer");
  }
  return undefined;
}

function lengthWrong(how: string): AppError {
  return new AppError("ORIGIN_LENGTH_WRONG", `the content gave ${how} bytes than its length; try again`);
}

function answerOf(request: BlobRequest, info: ContentInfo): BytesAnswer {
  const contentType = info.contentType ?? "application/octet-stream";
  return answerBytes(request.bytes, { lengthBytes: info.lengthBytes, contentType, etag: request.digest });
}

function setHeaders(response: ServerResponse, answer: BytesAnswer, digest: Digest, info: ContentInfo): void {
  response.statusCode = answer.status;
  for (const [name, value] of Object.entries(answer.headers)) response.setHeader(name, value);
  if (answer.bodyBytes !== undefined && answer.status !== 304) response.setHeader("content-length", answer.bodyBytes);
  response.setHeader("docker-content-digest", digest);
  if (info.taskId !== undefined) response.setHeader("x-dragonfly-task-id", info.taskId);
}

/** @returns true as soon as `promise` settles, either way; false after `timeoutMs` */
async function settlesWithin(promise: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  const settled = promise.then(
    () => true,
    () => true,
  );
  try {
    return await Promise.race([settled, late]);
  } finally {
    clearTimeout(timer);
  }
}
