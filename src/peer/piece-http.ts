/**
 * The stateless way to a task's bytes, for tools and small readers: a ticket and a GET.
 *
 *     GET /v1/tasks/{id}/pieces/{n}    one piece          Authorization: Bearer <ticket>, X-Dragonfly-Peer: <peer id>
 *     GET /v1/tasks/{id}/content       by Range, as far as the pieces are here
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { AppError, toAppError } from "../base/errors.ts";
import { isPeerId, isTaskId, type TaskId } from "../protocol/ids.ts";
import { formatContentRange, parseRange } from "../protocol/range.ts";
import type { RateGate } from "./rate-gate.ts";
import type { TaskSession } from "./task-session.ts";

const PATH = /^\/v1\/tasks\/([0-9a-f]{64})\/(?:pieces\/(\d{1,8})|(content))$/;
const CHUNK_BYTES = 256 * 1024;

export interface PieceHttpDeps {
  readonly find: (taskId: TaskId) => Promise<TaskSession | undefined>;
  /** The host's upload limit. */
  readonly limit: RateGate;
}

/** @returns false when the request is for none of the two paths */
export function servePieces(request: IncomingMessage, response: ServerResponse, deps: PieceHttpDeps): boolean {
  const match = PATH.exec((request.url ?? "").split("?")[0] as string);
  if (match === null) return false;
  const taskId = match[1] as string;
  serve(request, response, taskId, match[2] === undefined ? undefined : Number(match[2]), deps).catch(
    (thrown: unknown) => {
      const error = toAppError(thrown);
      if (response.headersSent) return response.destroy();
      response.writeHead(error.httpStatus, { "content-type": "application/json" });
      return response.end(JSON.stringify({ code: error.code, message: error.message }));
    },
  );
  return true;
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  taskId: string,
  piece: number | undefined,
  { find, limit }: PieceHttpDeps,
): Promise<void> {
  if (request.method !== "GET" && request.method !== "HEAD") {
    throw new AppError("USAGE", `${request.method} is not for pieces; use GET`);
  }
  const ticket = /^Bearer (\S+)$/.exec(request.headers.authorization ?? "")?.[1];
  const peerId = request.headers["x-dragonfly-peer"];
  // The same answer for "no such task" and "no ticket": a stranger learns nothing.
  const refused = new AppError("TICKET_REFUSED", `no valid ticket for task ${taskId}; join it at the supernode`);
  if (!isTaskId(taskId) || ticket === undefined || typeof peerId !== "string" || !isPeerId(peerId)) throw refused;
  const session = await find(taskId);
  if (session === undefined) throw refused;
  const mayHave = (): void => void session.tickets.verify(ticket, taskId, peerId);
  try {
    mayHave();
  } catch {
    throw refused;
  }
  const { lengthBytes, pieceLengthBytes } = session;
  if (piece !== undefined) {
    if (!session.stored.have.has(piece)) throw new AppError("PIECE_UNKNOWN", `piece ${piece} is not here (yet)`);
    const startByte = piece * pieceLengthBytes;
    const endByte = Math.min(startByte + pieceLengthBytes, lengthBytes ?? Number.POSITIVE_INFINITY);
    const proof = session.stored.proofOf(piece);
    response.writeHead(200, {
      "content-type": "application/octet-stream",
      "content-length": endByte - startByte,
      ...(proof === undefined
        ? {}
        : {
            "x-dragonfly-piece-digest": `blake3:${Buffer.from(proof.digest).toString("hex")}`,
            "x-dragonfly-piece-signature": Buffer.from(proof.signature).toString("base64url"),
          }),
    });
    return send(request, response, session, limit, { startByte, endByte }, mayHave);
  }
  if (lengthBytes === undefined) throw new AppError("PIECE_UNKNOWN", "the length of this task is not known yet");
  const asked = parseRange(request.headers.range, lengthBytes);
  if (asked.type === "unsatisfiable") {
    response.writeHead(416, { "content-range": `bytes */${lengthBytes}` }).end();
    return;
  }
  const range =
    asked.type === "ranges" && asked.ranges.length === 1 && asked.ranges[0] !== undefined
      ? asked.ranges[0]
      : { startByte: 0, endByte: lengthBytes };
  for (let at = Math.floor(range.startByte / pieceLengthBytes); at * pieceLengthBytes < range.endByte; at++) {
    if (!session.stored.have.has(at)) throw new AppError("PIECE_UNKNOWN", `piece ${at} is not here (yet)`);
  }
  const partial = range.endByte - range.startByte < lengthBytes;
  response.writeHead(partial ? 206 : 200, {
    "content-type": "application/octet-stream",
    "accept-ranges": "bytes",
    "content-length": range.endByte - range.startByte,
    ...(partial ? { "content-range": formatContentRange(range, lengthBytes) } : {}),
  });
  return send(request, response, session, limit, range, mayHave);
}

async function send(
  request: IncomingMessage,
  response: ServerResponse,
  session: TaskSession,
  limit: RateGate,
  { startByte, endByte }: { readonly startByte: number; readonly endByte: number },
  /** Throws once the ticket has run out: a long answer ends with it. */
  mayHave: () => void,
): Promise<void> {
  if (request.method === "HEAD") {
    response.end();
    return;
  }
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  if (response.destroyed) gone.abort();
  for (let at = startByte; at < endByte && !response.destroyed; ) {
    mayHave();
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, endByte - at));
    await session.stored.read(at, chunk);
    at += chunk.length;
    for await (const bytes of limit.paced(session.uploadFlow, chunk, gone.signal)) {
      if (!response.write(bytes)) await drained(response);
    }
  }
  response.end();
}

/** Resolves when there is room again, or nobody is there to read. */
function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off("drain", done).off("close", done);
      resolve();
    };
    response.on("drain", done).on("close", done);
    if (response.destroyed) done();
  });
}
