/**
 * How a peer brings a piece that it read from the origin under a lease:
 *
 *     PUT /v1/tasks/{id}/leases/{lease}/pieces/{n}     Authorization: Bearer <ticket>, X-Dragonfly-Peer: <peer id>
 *
 * The body is the piece; the answer, JSON, its digest and the supernode's signature, in base64. See lease-desk.ts.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { AppError, toAppError } from "../../base/errors.ts";
import type { SigningKey } from "../../peer/membership/credentials.ts";
import { SignatureVerifier } from "../../peer/membership/credentials.ts";
import { OWN_CLOCK, type TicketClock, TicketVerifier } from "../../peer/membership/tickets.ts";
import { isPeerId, isTaskId, type PeerId, type TaskId } from "../../protocol/ids.ts";
import type { LeaseDesk } from "./lease-desk.ts";

const PATH = /^\/v1\/tasks\/([0-9a-f]{64})\/leases\/(\d{1,15})\/pieces\/(\d{1,8})$/;

export class LeaseHttp {
  readonly #desk: Pick<LeaseDesk, "expectedBytes" | "take">;
  readonly #tickets: TicketVerifier;

  constructor(desk: Pick<LeaseDesk, "expectedBytes" | "take">, key: SigningKey, clock: TicketClock = OWN_CLOCK) {
    this.#desk = desk;
    this.#tickets = new TicketVerifier(new SignatureVerifier(key.publicKey), clock);
  }

  /** @returns false when the request is not for it */
  handleRequest(request: IncomingMessage, response: ServerResponse): boolean {
    const match = PATH.exec(request.url ?? "");
    if (match === null || request.method !== "PUT") return false;
    const [, taskId = "", leaseId = "", piece = ""] = match;
    this.#take(request, taskId, Number(leaseId), Number(piece)).then(
      (answer) => sendJson(response, 200, answer),
      (thrown: unknown) => {
        const error = toAppError(thrown);
        // What is left of the body is not worth reading.
        response.shouldKeepAlive = false;
        sendJson(response, error.httpStatus, { code: error.code, message: error.message });
      },
    );
    return true;
  }

  async #take(request: IncomingMessage, taskId: string, leaseId: number, piece: number): Promise<object> {
    const peerId = this.#peerOf(request, taskId);
    const expectedBytes = this.#desk.expectedBytes(taskId as TaskId, leaseId, peerId, piece);
    const bytes = new Uint8Array(expectedBytes);
    let at = 0;
    for await (const chunk of request as AsyncIterable<Uint8Array>) {
      if (at + chunk.length > expectedBytes) throw new AppError("MESSAGE_TOO_LARGE", `piece ${piece} has ${expectedBytes} bytes, and more came`);
      bytes.set(chunk, at);
      at += chunk.length;
    }
    if (at < expectedBytes) throw new AppError("PROTOCOL_VIOLATION", `piece ${piece} has ${expectedBytes} bytes, and ${at} came`);
    const { digest, signature } = await this.#desk.take(taskId as TaskId, leaseId, peerId, piece, bytes);
    return { digest: Buffer.from(digest).toString("base64"), signature: Buffer.from(signature).toString("base64") };
  }

  #peerOf(request: IncomingMessage, taskId: string): PeerId {
    const ticket = /^Bearer (\S+)$/.exec(request.headers.authorization ?? "")?.[1];
    const peerId = request.headers["x-dragonfly-peer"];
    if (!isTaskId(taskId) || ticket === undefined || typeof peerId !== "string" || !isPeerId(peerId)) {
      throw new AppError("TICKET_REFUSED", `no valid ticket for task ${taskId}; join it at the supernode`);
    }
    this.#tickets.verify(ticket, taskId, peerId);
    return peerId;
  }
}

function sendJson(response: ServerResponse, status: number, value: object): void {
  response.writeHead(status, { "content-type": "application/json; charset=utf-8" });
  response.end(JSON.stringify(value));
}
