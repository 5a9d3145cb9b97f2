/** Brings a piece that was read under a lease to the supernode. */
import { type ClientRequest, request } from "node:http";
import { request as requestByTls } from "node:https";
import { z } from "zod";
import { AppError, isErrorCode } from "../../base/errors.ts";
import type { PeerId } from "../../protocol/ids.ts";
import type { SiteTls } from "../membership/site-tls.ts";
import type { Lease } from "../lease-reader.ts";
import type { PieceProof } from "../store/piece-store.ts";

export interface LeaseClientOptions {
  readonly supernode: { readonly host: string; readonly port: number };
  readonly tls: SiteTls | undefined;
  readonly peerId: PeerId;
  /** For the task, of this peer. */
  readonly ticket: string;
  readonly lease: Lease;
  readonly piece: number;
  readonly bytes: Uint8Array;
  readonly signal: AbortSignal;
}

const proofSchema = z.object({ digest: z.base64(), signature: z.base64() });
const failureSchema = z.object({ code: z.string(), message: z.string() });

/**
 * Resolves with the supernode's proof; the last piece's may take until the whole file is known to be right.
 * @throws AppError SUPERNODE_UNREACHABLE (retriable), ABORTED, PROTOCOL_VIOLATION, or what the supernode says
 */
export async function bringPiece({ supernode, tls, peerId, ticket, lease, piece, bytes, signal }: LeaseClientOptions): Promise<PieceProof> {
  const { status, body } = await new Promise<{ status: number; body: string }>((resolve, reject) => {
    const question = {
      host: supernode.host,
      port: supernode.port,
      method: "PUT",
      path: `/v1/tasks/${lease.taskId}/leases/${lease.leaseId}/pieces/${piece}`,
      headers: {
        authorization: `Bearer ${ticket}`,
        "x-dragonfly-peer": peerId,
        "content-type": "application/octet-stream",
        "content-length": bytes.length,
      },
      signal,
    };
    const asked: ClientRequest = tls === undefined ? request(question) : requestByTls({ ...question, ...tls.toSupernode(supernode.host) });
    asked.on("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
      response.on("error", reject);
    });
    asked.on("error", reject);
    asked.end(Buffer.from(bytes));
  }).catch((error: unknown) => {
    if (signal.aborted) throw new AppError("ABORTED", "the lease is over", { cause: error });
    throw new AppError("SUPERNODE_UNREACHABLE", `a piece cannot be brought to the supernode: ${String(error)}`, { cause: error });
  });
  const answer: unknown = JSON.parse(body);
  if (status !== 200) {
    const failure = failureSchema.safeParse(answer);
    const code = failure.data !== undefined && isErrorCode(failure.data.code) ? failure.data.code : "PROTOCOL_VIOLATION";
    throw new AppError(code, failure.data?.message ?? `the supernode answered ${status} to a piece`);
  }
  const proof = proofSchema.safeParse(answer);
  if (!proof.success) throw new AppError("PROTOCOL_VIOLATION", "the supernode's proof of a piece cannot be read");
  return { digest: Buffer.from(proof.data.digest, "base64"), signature: Buffer.from(proof.data.signature, "base64") };
}
