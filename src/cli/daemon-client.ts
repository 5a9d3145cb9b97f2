/** This host's dfdaemon as a source of content, over its local API. */
import { randomUUID } from "node:crypto";
import { Agent, request, type IncomingMessage } from "node:http";
import { z } from "zod";
import { AppError, isErrorCode, type ErrorDetails } from "../base/errors.ts";
import type { LocalContentRequest } from "../dfdaemon/local/local-api.ts";
import type { Content, ContentInfo, ContentOpener, ContentRequest } from "../peer/content.ts";
import { isTaskId } from "../protocol/ids.ts";

type Sources = ReturnType<Content["sources"]>;

const errorSchema = z.object({
  code: z.string(),
  message: z.string(),
  details: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).default({}),
});
const statusSchema = z.object({
  sources: z.object({ seedBytes: z.number(), peerBytes: z.number(), originBytes: z.number(), cacheBytes: z.number() }),
  error: errorSchema.optional(),
});
const infoSchema = z.object({
  lengthBytes: z.number().nullable(),
  contentType: z.string().nullable(),
  headers: z.record(z.string(), z.string()),
});

export class DaemonClient implements ContentOpener {
  readonly #socketPath: string;
  readonly #firstStartByte: number;

  /** @param firstStartByte where the first read will likely begin: `open` asks for the bytes from there at once */
  constructor(socketPath: string, firstStartByte = 0) {
    this.#socketPath = socketPath;
    this.#firstStartByte = firstStartByte;
  }

  /** @throws AppError DAEMON_UNREACHABLE, and what the daemon answers */
  async open(asked: ContentRequest, signal: AbortSignal): Promise<Content> {
    const stream = await this.#request(asked, this.#firstStartByte, undefined, signal).catch((thrown: unknown) => {
      // The file is shorter than what an earlier run left of it: another version; learn what it is from the start.
      if (this.#firstStartByte > 0 && thrown instanceof AppError && thrown.code === "RANGE_NOT_SATISFIABLE") {
        return this.#request(asked, 0, undefined, signal);
      }
      throw thrown;
    });
    return new DaemonContent(stream, (startByte, endByte, again) => this.#request(asked, startByte, endByte, again));
  }

  async stat(asked: ContentRequest, signal: AbortSignal): Promise<ContentInfo> {
    const content = await this.open(asked, signal);
    content.close();
    return content.info;
  }

  async #request(
    asked: ContentRequest,
    startByte: number,
    endByte: number | undefined,
    signal: AbortSignal,
  ): Promise<Stream> {
    const requestId = randomUUID();
    const body: LocalContentRequest = {
      requestId,
      source: asked.source,
      backToSource: asked.backToSource,
      startByte,
      ...(endByte === undefined ? {} : { endByte }),
      ...(asked.limitBytesPerSecond === undefined ? {} : { limitBytesPerSecond: asked.limitBytesPerSecond }),
    };
    const response = await call(this.#socketPath, "POST", "/v1/content", JSON.stringify(body), signal);
    if (response.statusCode !== 200) throw await answeredError(response);
    return { requestId, socketPath: this.#socketPath, startByte, response };
  }
}

/** One answer of the daemon, its body not yet read. */
interface Stream {
  readonly requestId: string;
  readonly socketPath: string;
  readonly startByte: number;
  readonly response: IncomingMessage;
}

class DaemonContent implements Content {
  readonly info: ContentInfo;
  readonly #again: (startByte: number, endByte: number | undefined, signal: AbortSignal) => Promise<Stream>;
  #fresh: Stream | undefined;
  #sources: Sources = { seedBytes: 0, peerBytes: 0, originBytes: 0, cacheBytes: 0 };

  constructor(
    stream: Stream,
    again: (startByte: number, endByte: number | undefined, signal: AbortSignal) => Promise<Stream>,
  ) {
    this.#again = again;
    this.#fresh = stream;
    this.info = infoOf(stream.response);
    // Read or not, a cut is told by the iteration.
    stream.response.on("error", () => undefined);
  }

  async *read(
    range: { readonly startByte: number; readonly endByte: number | undefined },
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    let stream = this.#fresh;
    this.#fresh = undefined;
    if (stream === undefined || stream.startByte !== range.startByte || range.endByte !== undefined) {
      stream?.response.destroy();
      stream = await this.#again(range.startByte, range.endByte, signal);
    }
    const { requestId, socketPath, response } = stream;
    const polling = setInterval(() => void this.#poll(socketPath, requestId), POLL_MS);
    try {
      for await (const chunk of response as AsyncIterable<Buffer>) yield chunk;
      if (!response.complete) throw new Error("the answer was cut");
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const status = await this.#poll(socketPath, requestId);
      if (status?.error !== undefined) throw namedError(status.error);
      throw new AppError("DAEMON_UNREACHABLE", `dfdaemon at ${socketPath} went away in mid-download`, {
        cause: thrown,
      });
    } finally {
      clearInterval(polling);
      response.destroy();
    }
    await this.#poll(socketPath, requestId);
  }

  sources(): Sources {
    return this.#sources;
  }

  close(): void {
    this.#fresh?.response.destroy();
    this.#fresh = undefined;
  }

  async #poll(socketPath: string, requestId: string): Promise<z.infer<typeof statusSchema> | undefined> {
    try {
      const response = await call(
        socketPath,
        "GET",
        `/v1/requests/${requestId}`,
        undefined,
        AbortSignal.timeout(POLL_MS_MAX),
      );
      const parsed = statusSchema.safeParse(JSON.parse(await readText(response)));
      if (!parsed.success) return undefined;
      this.#sources = parsed.data.sources;
      return parsed.data;
    } catch {
      // Figures for the reader's eyes: a later poll brings them.
      return undefined;
    }
  }
}

/** @throws AppError DAEMON_UNREACHABLE */
function call(
  socketPath: string,
  method: string,
  path: string,
  body: string | undefined,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const sent = request({
    socketPath,
    method,
    path,
    agent: NO_POOL,
    signal,
    headers: { host: "dfdaemon", "content-type": "application/json" },
  });
  sent.on("response", resolve);
  sent.on("error", (error: NodeJS.ErrnoException) => {
    if (signal.aborted) reject(new AppError("ABORTED", "broken off", { cause: error }));
    else reject(new AppError("DAEMON_UNREACHABLE", unreachable(socketPath, error), { cause: error }));
  });
  sent.end(body);
  return promise;
}

function unreachable(socketPath: string, error: NodeJS.ErrnoException): string {
  const reasons: Readonly<Record<string, string>> = {
    ENOENT: "there is no such socket",
    ECONNREFUSED: "nobody listens",
    EACCES: "no permission: ask for membership in the socket's group",
  };
  return `no dfdaemon at ${socketPath}: ${reasons[error.code ?? ""] ?? error.message}`;
}

function infoOf(response: IncomingMessage): ContentInfo {
  const { headers } = response;
  const parsed = infoSchema.safeParse(jsonOrUndefined(String(headers["dragonfly-info"])));
  if (!parsed.success)
    throw new AppError(
      "PROTOCOL_VIOLATION",
      "dfdaemon answered without saying what the content is; are dfget and dfdaemon of one version?",
    );
  const taskId = headers["dragonfly-task-id"];
  const digest = headers["dragonfly-digest"];
  return {
    taskId: typeof taskId === "string" && isTaskId(taskId) ? taskId : undefined,
    lengthBytes: parsed.data.lengthBytes ?? undefined,
    contentType: parsed.data.contentType ?? undefined,
    digest: typeof digest === "string" ? digest : undefined,
    headers: parsed.data.headers,
  };
}

async function answeredError(response: IncomingMessage): Promise<AppError> {
  const parsed = errorSchema.safeParse(jsonOrUndefined(await readText(response).catch(() => "")));
  if (parsed.success) return namedError(parsed.data);
  return new AppError(
    "PROTOCOL_VIOLATION",
    `dfdaemon answered ${response.statusCode ?? 0} in no form we know; are dfget and dfdaemon of one version?`,
  );
}

function namedError({
  code,
  message,
  details,
}: {
  readonly code: string;
  readonly message: string;
  readonly details: ErrorDetails;
}): AppError {
  return new AppError(isErrorCode(code) ? code : "INTERNAL", message, { details });
}

function jsonOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}

/** A connection per call: a stream must not hold up the questions about it. */
const NO_POOL = new Agent({ keepAlive: false });
const POLL_MS = 500;
const POLL_MS_MAX = 2000;
