/**
 * A peer: piece store, links, and the driver of the swarm's brain. Supernode (seed) and dfdaemon are the same peer.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { ByteSources, Neighbour } from "../protocol/control-messages.ts";
import type { TaskId } from "../protocol/ids.ts";
import type { Priority } from "../swarm/index.ts";
import type { PieceProof, StoredTask, TaskRecord } from "./piece-store.ts";

/** One task in which this peer takes part. Every `openTask` needs one `release`. */
export interface PeerTask {
  readonly stored: StoredTask;
  /** Dials neighbours (existing links are reused) and joins the task on the links, showing `ticket`. */
  connect(neighbours: readonly Neighbour[], ticket: string): void;
  disconnect(peerIds: readonly string[]): void;
  /** A piece read from the origin by this peer (seed, or lease holder): stored, then offered at once. */
  addOwn(piece: number, bytes: Uint8Array, sign: (digest: Uint8Array) => Uint8Array): Promise<PieceProof>;
  setLength(lengthBytes: number, signature: Uint8Array): Promise<void>;
  /** Withholds these pieces from other peers and readers until `unveil` (whole-file digest still to be checked). */
  sources(): ByteSources & { readonly cacheBytes: number };
  release(): void;
}

/** The seam that supernode and dfdaemon program against. */
export interface PeerService {
  openTask(record: TaskRecord, priority: Priority): Promise<PeerTask>;
  /** Serves `GET /v1/link` (upgrade). @returns false when the request is not for it */
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean;
  /** Serves `GET /v1/tasks/{id}/pieces/{n}` and `/v1/tasks/{id}/content`. @returns false when not for it */
  handleRequest(request: IncomingMessage, response: ServerResponse): boolean;
  openTasks(): readonly { readonly taskId: TaskId; readonly haveCount: number; readonly linkCount: number }[];
  /** Bytes per second; undefined = no limit. Effective at once, shared by all tasks. */
  setLimits(limits: { readonly downloadBytesPerSecond: number | undefined; readonly uploadBytesPerSecond: number | undefined }): void;
  close(): Promise<void>;
}
