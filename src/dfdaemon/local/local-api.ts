/**
 * The local API of dfdaemon: HTTP over a unix socket, for dfget and other programs of this host.
 *
 * `GET /v1/version`; `GET /v1/content` with an upgrade gives a file in frames, as dfget takes it; `POST /v1/content`
 * streams it as a plain body, and `GET /v1/requests/{requestId}` tells how that is doing, and, once it has broken, why;
 * `GET /v1/tasks` tells what this host takes part in and what each task's time goes by;
 * `GET` and `PUT /v1/limits` tell and change the host's limits. Whoever may open the socket may use the daemon: access
 * is the socket's mode (0660).
 */
import { chmod } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { z } from "zod";
import { AppError, toAppError } from "../../base/errors.ts";
import { refuse } from "../../peer/refuse-upgrade.ts";
import type { Content, ContentInfo, ContentOpener } from "../../peer/content.ts";
import { sourceSchema } from "../../protocol/control-messages.ts";
import { LOCAL_CONTENT_PROTOCOL } from "../../protocol/local-frames.ts";
import { type HostLimits, type LimitsChange, limitsChangeSchema } from "../../peer/host-limits.ts";
import { type ContentStreamAnswer, serveContentStream } from "./content-stream.ts";
import type { TaskReport } from "../../peer/explain.ts";
import { LocalRequests, type LocalRequest } from "./local-requests.ts";
import { claimSocketPath } from "./local-socket.ts";

export interface LocalApiOptions {
  readonly opener: ContentOpener;
  readonly limits: Pick<HostLimits, "change" | "view">;
  readonly tasks: () => readonly TaskReport[];
  /** Absolute; its folder is made when missing. */
  readonly socketPath: string;
  readonly version: string;
  readonly log: LocalApiLog;
  /** False: no caller can make this host read an origin. Default true. */
  readonly backToSource?: boolean;
}

export interface LocalApiLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** The protocol that dfget speaks; a daemon that answers another one is passed by. */
export const LOCAL_PROTOCOL = "dragonfly-local/1";

const contentRequestSchema = z
  .strictObject({
    requestId: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
    source: sourceSchema.strict(),
    backToSource: z.boolean(),
    limitBytesPerSecond: z.number().positive().optional(),
    startByte: z.number().int().nonnegative().optional(),
    endByte: z.number().int().nonnegative().optional(),
    /** In frames only: parts may come in any order, or need not come where the caller reads the content's file itself. */
    order: z.enum(["ordered", "unordered", "in-place"]).optional(),
  })
  .refine(({ startByte = 0, endByte = startByte }) => startByte <= endByte, {
    error: "startByte is larger than endByte",
  });
export type LocalContentRequest = z.input<typeof contentRequestSchema>;

export class LocalApi {
  readonly #options: LocalApiOptions;
  readonly #server: Server;
  readonly #requests = new LocalRequests();
  /** Upgraded connections, which the server no longer knows. */
  readonly #streams = new Map<Socket, Promise<void>>();

  private constructor(options: LocalApiOptions) {
    this.#options = options;
    this.#server = createServer((request, response) => void this.#answer(request, response));
    this.#server.on("upgrade", (request, socket, head) => this.#upgrade(request, socket as Socket, head));
  }

  /**
   * Serves from now on. A socket file that nobody listens on is taken over.
   *
   * @throws AppError LISTEN_FAILED when somebody listens on it, it is no socket, or it cannot be made
   */
  static async listen(options: LocalApiOptions): Promise<LocalApi> {
    await claimSocketPath(options.socketPath);
    const api = new LocalApi(options);
    await api.#bind();
    options.log.info({ socket: options.socketPath }, "local API is up");
    return api;
  }

  /** Lets streams that run end, {@link DRAIN_MS} at most; removes the socket file. Once. */
  async close(): Promise<void> {
    const timer = setTimeout(() => {
      this.#server.closeAllConnections();
      for (const socket of this.#streams.keys()) socket.destroy();
    }, DRAIN_MS);
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    await Promise.all([closed, ...this.#streams.values()]);
    clearTimeout(timer);
    this.#requests.close();
  }

  async #bind(): Promise<void> {
    const { socketPath } = this.#options;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.once("error", reject);
    // The mode is right from the first moment on: bind() happens inside listen().
    const umask = process.umask(0o117);
    try {
      this.#server.listen(socketPath, resolve);
    } finally {
      process.umask(umask);
    }
    try {
      await promise;
      await chmod(socketPath, SOCKET_MODE);
    } catch (thrown) {
      this.#server.close();
      const reason = (thrown as Error).message;
      throw new AppError(
        "LISTEN_FAILED",
        `cannot listen on the socket ${socketPath}: ${reason}; choose another with --socket`,
        { cause: thrown },
      );
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const path = request.url ?? "";
      const requestId = /^\/v1\/requests\/([A-Za-z0-9_-]{1,64})$/.exec(path)?.[1];
      if (request.method === "GET" && path === "/v1/version") {
        sendJson(response, 200, { version: this.#options.version, protocol: LOCAL_PROTOCOL });
      } else if (request.method === "GET" && requestId !== undefined) {
        this.#sendRequest(response, requestId);
      } else if (request.method === "GET" && path === "/v1/tasks") {
        sendJson(response, 200, { tasks: this.#options.tasks() });
      } else if (path === "/v1/limits" && (request.method === "GET" || request.method === "PUT")) {
        if (request.method === "PUT") this.#changeLimits(parseBody(limitsChangeSchema, await readBody(request)));
        sendJson(response, 200, this.#options.limits.view());
      } else if (request.method === "POST" && path === "/v1/content") {
        await this.#stream(request, response);
      } else {
        throw new AppError("USAGE", `the local API has no ${request.method ?? ""} ${path.slice(0, 80)}`);
      }
    } catch (thrown) {
      sendError(response, toAppError(thrown));
    }
  }

  /** Content in frames: what dfget takes. */
  #upgrade(request: IncomingMessage, socket: Socket, head: Uint8Array): void {
    if (request.method !== "GET" || request.url !== "/v1/content" || request.headers.upgrade !== LOCAL_CONTENT_PROTOCOL) {
      refuse(socket, `HTTP/1.1 426 Upgrade Required\r\nUpgrade: ${LOCAL_CONTENT_PROTOCOL}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    const served = serveContentStream(socket, head, { open: (body, signal) => this.#open(body, signal), log: this.#options.log });
    this.#streams.set(socket, served);
    // A caller that has its answer may keep the connection: it is ours to cut as long as it is there.
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    void Promise.allSettled([served, closed]).then(() => this.#streams.delete(socket));
  }

  async #open(body: string, signal: AbortSignal): Promise<ContentStreamAnswer> {
    const { source, backToSource, limitBytesPerSecond, startByte = 0, endByte, order = "ordered" } = parseBody(contentRequestSchema, body);
    const mayGoBack = backToSource && this.#options.backToSource !== false;
    const firstByte = order === "ordered" ? startByte : undefined;
    const content = await this.#options.opener.open({ source, backToSource: mayGoBack, limitBytesPerSecond, firstByte }, signal);
    try {
      requireInside(content.info, startByte);
    } catch (thrown) {
      content.close();
      throw thrown;
    }
    return { content, startByte, endByte, order };
  }

  #changeLimits(change: LimitsChange): void {
    this.#options.log.info({ ...change }, "limits changed over the local API");
    this.#options.limits.change(change);
  }

  #sendRequest(response: ServerResponse, requestId: string): void {
    const known = this.#requests.find(requestId);
    if (known === undefined) {
      sendJson(response, 404, {
        code: "TASK_UNKNOWN",
        message: `no request ${requestId}: it ended over a minute ago, or never was`,
        details: {},
      });
      return;
    }
    sendJson(response, 200, known.status());
  }

  async #stream(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const wanted = parseBody(contentRequestSchema, await readBody(request));
    const { requestId, startByte = 0, endByte } = wanted;
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    const known = this.#requests.begin(requestId);
    let content: Content | undefined;
    try {
      const backToSource = wanted.backToSource && this.#options.backToSource !== false;
      const { source, limitBytesPerSecond } = wanted;
      content = await this.#options.opener.open({ source, backToSource, limitBytesPerSecond, firstByte: startByte }, gone.signal);
      known.opened(content);
      writeHead(response, content.info, startByte, endByte);
      const isWhole = await copy(content.read({ startByte, endByte }, gone.signal), response, known, gone.signal);
      known.ended(isWhole ? undefined : new AppError("ABORTED", "the client hung up"));
      response.end();
    } catch (thrown) {
      const error = gone.signal.aborted
        ? new AppError("ABORTED", "the client hung up", { cause: thrown })
        : toAppError(thrown);
      known.ended(error);
      if (error.code === "ABORTED") return;
      this.#options.log.warn(
        { requestId, code: error.code, error: error.message, sentBytes: known.sentBytes },
        "a stream broke",
      );
      if (!response.headersSent) throw error;
      // Too late for a status: the client sees a cut and asks /v1/requests for the reason.
      response.destroy();
    } finally {
      content?.close();
    }
  }
}

/** @returns false when the client has hung up */
async function copy(
  chunks: AsyncIterable<Uint8Array>,
  response: ServerResponse,
  known: LocalRequest,
  gone: AbortSignal,
): Promise<boolean> {
  for await (const chunk of chunks) {
    if (gone.aborted) return false;
    known.sentBytes += chunk.length;
    if (!response.write(chunk)) await drained(response);
  }
  return !gone.aborted;
}

function drained(response: ServerResponse): Promise<void> {
  if (response.closed || response.destroyed) return Promise.resolve();
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = (): void => {
    response.off("drain", done).off("close", done);
    resolve();
  };
  response.on("drain", done).on("close", done);
  return promise;
}

function writeHead(response: ServerResponse, info: ContentInfo, startByte: number, endByte: number | undefined): void {
  const { lengthBytes, taskId, digest, contentType } = info;
  requireInside(info, startByte);
  const end = lengthBytes === undefined ? undefined : Math.min(endByte ?? lengthBytes, lengthBytes);
  const headers: Record<string, string> = { "content-type": fieldValue(contentType) ?? "application/octet-stream" };
  if (end !== undefined) headers["content-length"] = String(Math.max(0, end - startByte));
  if (taskId !== undefined) headers["dragonfly-task-id"] = taskId;
  if (digest !== undefined) headers["dragonfly-digest"] = digest;
  // ASCII whatever the origin sent: everything else escaped.
  headers["dragonfly-info"] = JSON.stringify({
    lengthBytes: lengthBytes ?? null,
    contentType: contentType ?? null,
    headers: info.headers,
  }).replaceAll(/[^\x20-\x7e]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
  response.writeHead(200, headers);
  response.flushHeaders();
}

/** @throws AppError RANGE_NOT_SATISFIABLE */
function requireInside({ lengthBytes }: ContentInfo, startByte: number): void {
  if (lengthBytes === undefined || startByte <= lengthBytes) return;
  const message = `cannot read from byte ${startByte}: the file has ${lengthBytes} bytes`;
  throw new AppError("RANGE_NOT_SATISFIABLE", message, { details: { lengthBytes } });
}

function fieldValue(text: string | undefined): string | undefined {
  return text !== undefined && /^[\x20-\x7e]+$/.test(text) ? text : undefined;
}

function parseBody<T>(schema: z.ZodType<T>, body: string): T {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch (thrown) {
    throw new AppError("USAGE", "the body is not JSON", { cause: thrown });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new AppError(
    "USAGE",
    `the body does not say what is wanted: ${issue?.path.join(".") ?? ""} ${issue?.message ?? ""}`,
  );
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let lengthBytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    lengthBytes += chunk.length;
    if (lengthBytes > BODY_BYTES_MAX)
      throw new AppError("MESSAGE_TOO_LARGE", `the body is larger than ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function sendError(response: ServerResponse, error: AppError): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  sendJson(response, error.httpStatus, { code: error.code, message: error.message, details: error.details });
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const body = JSON.stringify(value);
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
  response.end(body);
}

/** As much as a join at the supernode may be (control-messages.ts). */
const BODY_BYTES_MAX = 4 * 1024 * 1024;
const SOCKET_MODE = 0o660;
/** As the mirror's: within the 25 s that the command gives the whole drain. */
const DRAIN_MS = 10_000;
