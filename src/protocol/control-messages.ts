/**
 * What a peer and the supernode say to each other, on one upgraded connection per peer: frames of [length u32][JSON],
 * after the handshake. About ten messages per peer and task, whatever the file's size.
 */
import { z } from "zod";
import { isTaskId, type PeerId, type TaskId } from "./ids.ts";
import { explanationSchema } from "./explanation.ts";
import { peerIdSchema } from "./handshake.ts";
import { BUCKET_COUNT, type Distance, topologyOf } from "./topology.ts";
import { isFileLength, isPieceLength } from "./geometry.ts";

export const CONTROL_PROTOCOL = "dragonfly-control/1";
/** The longest control message: a join with its headers, or an answer with 64 KiB inline in base64. */
export const CONTROL_LENGTH_BYTES_MAX: number = 4 * 1024 * 1024;

const taskIdSchema: z.ZodType<TaskId> = z.custom<TaskId>((value) => typeof value === "string" && isTaskId(value));
const requestId = z.number().int().nonnegative();
const base64 = z.string().regex(/^[A-Za-z0-9+/]*={0,2}$/);
const headers = z.record(z.string().max(256), z.string().max(64 * 1024));

/** What is to be fetched: enough for the supernode to read the origin in the caller's name. */
export const sourceSchema = z.object({
  url: z.string().max(16 * 1024),
  /** Lower-case names. May hold the caller's credentials: kept in memory only, never logged. */
  headers,
  /** `sha256:…` and the like: content known by digest is one task whatever its URL. */
  digest: z.string().max(160).optional(),
  /** Separates what must be separate: same URL, different meaning. */
  tag: z.string().max(256).optional(),
  application: z.string().max(256).optional(),
  /** Names of query parameters that do not belong to the file's identity. */
  filteredQueryParameters: z.array(z.string().max(256)).max(64).optional(),
  priority: z.enum(["interactive", "normal", "preheat"]).optional(),
  /** A keeper follows the supernode's `invite` to the task of the join's `taskId`: `url` is for people, and nothing is asked of it. */
  invited: z.literal(true).optional(),
});
export type Source = z.infer<typeof sourceSchema>;

const labels = z.record(z.string().max(64), z.string().max(256));

/** How a peer can be reached, and where it stands. */
export const hostInfoSchema = z.object({
  /** Empty: the supernode uses the address it sees. */
  address: z.string().max(255),
  /** Peer port; 0 = this peer cannot be dialled. */
  port: z.number().int().min(0).max(65535),
  name: z.string().max(255),
  program: z.enum(["supernode", "dfdaemon", "dfget"]),
  version: z.string().max(64),
  labels,
  /** It would join whatever it is invited to (see `invite`). */
  keeper: z.boolean().optional(),
});
export type HostInfo = z.infer<typeof hostInfoSchema>;

/** Bytes a peer took in for a task, by where they came from. */
const byteSourcesSchema = z.object({
  seedBytes: z.number().nonnegative(),
  peerBytes: z.number().nonnegative(),
  originBytes: z.number().nonnegative(),
});
export type ByteSources = z.infer<typeof byteSourcesSchema>;

const neighbourSchema = z.object({
  peerId: peerIdSchema,
  address: z.string().max(255),
  port: z.number().int().min(1).max(65535),
  seed: z.boolean(),
});
export type Neighbour = z.infer<typeof neighbourSchema>;

const buckets = z.number().int().min(-(2 ** (BUCKET_COUNT - 1))).max(2 ** (BUCKET_COUNT - 1) - 1);
/** What a peer may bring into its rack, zone, …: see `Imports`. */
const importsSchema = z
  .array(z.object({ distance: z.number().int().min(1).max(4).transform((distance) => distance as Distance), own: buckets, backup: buckets }))
  .max(4);

/** A task as the supernode knows it. */
export const taskInfoSchema = z.object({
  taskId: taskIdSchema,
  lengthBytes: z.number().refine(isFileLength).nullable(),
  pieceLengthBytes: z.number().refine(isPieceLength),
  contentType: z.string().nullable(),
  /** Digest of the whole content when known. */
  digest: z.string().nullable(),
  /** End-to-end headers of the origin's answer worth relaying (etag, last-modified, docker-content-digest, …). */
  headers,
});
export type TaskInfo = z.infer<typeof taskInfoSchema>;

export const peerToSupernodeSchema = z.discriminatedUnion("type", [
  /** First message after the handshake. */
  z.object({ type: z.literal("register"), host: hostInfoSchema }),
  /** Take part in a task. `taskId` and `have` when the peer holds pieces of it already (restart, rejoin). */
  z.object({
    type: z.literal("join"),
    requestId,
    source: sourceSchema,
    taskId: taskIdSchema.optional(),
    have: base64.optional(),
    /** False: only what the task is (HEAD); no mesh, no ticket. */
    download: z.boolean(),
  }),
  /** A quarter of the file is here, or all of it; or pieces are gone. */
  z.object({
    type: z.literal("progress"),
    taskId: taskIdSchema,
    pieceCount: z.number().int().nonnegative(),
    complete: z.boolean(),
    sources: byteSourcesSchema,
    /** Once it is complete: what its time went by. */
    explanation: explanationSchema.optional(),
  }),
  /** These neighbours are gone or useless; more, please. */
  z.object({
    type: z.literal("needNeighbours"),
    taskId: taskIdSchema,
    lost: z.array(peerIdSchema).max(256),
  }),
  /** This neighbour sent a piece with a wrong digest, or a forged signature. */
  z.object({ type: z.literal("accuse"), taskId: taskIdSchema, peerId: peerIdSchema, piece: z.number().int() }),
  /** The span lent cannot be read to its end from here. */
  z.object({ type: z.literal("leaseFailed"), taskId: taskIdSchema, leaseId: requestId }),
  /** A slice, please, of the site's budget for this origin's host: I am about to ask or read it myself. */
  z.object({ type: z.literal("originLease"), requestId, host: z.string().max(300), kind: z.enum(["requests", "bytes"]) }),
  /** No longer part of the task, and no pieces of it to give. */
  z.object({ type: z.literal("leave"), taskId: taskIdSchema }),
]);
export type PeerToSupernode = z.infer<typeof peerToSupernodeSchema>;

export const supernodeToPeerSchema = z.discriminatedUnion("type", [
  /** Answer to register. `publicKey`: Ed25519, SPKI DER in base64: signs pieces, lengths and tickets. */
  z.object({
    type: z.literal("registered"),
    publicKey: base64,
    address: z.string(),
    /** The supernode's wall clock: tickets are of its time. */
    unixMs: z.number().int(),
    /** Where the peer stands, by its labels and its address. Older supernodes do not say it: then by its labels alone. */
    place: labels.transform(topologyOf).optional(),
  }),
  z.object({
    type: z.literal("joined"),
    requestId,
    task: taskInfoSchema,
    /** Whole content when ≤ 64 KiB; then there is no mesh and no ticket. */
    inline: base64.nullable(),
    ticket: z.string().max(4096).nullable(),
    neighbours: z.array(neighbourSchema).max(256),
    imports: importsSchema,
    /** Signature of the length statement, when the length is known. */
    lengthSignature: base64.nullable(),
  }),
  z.object({
    type: z.literal("joinFailed"),
    requestId,
    code: z.string().max(64),
    message: z.string().max(4096),
    /** Values for the caller's answer, e.g. the origin's `wwwAuthenticate`, `status`, `retryAfterMs`. */
    details: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
  }),
  /** Answer to originLease, once the budget has it: so much, to be used within `forMs`. Null: nothing limits the host. */
  z.object({
    type: z.literal("originLeased"),
    requestId,
    amount: z.number().int().positive().nullable(),
    forMs: z.number().int().positive(),
  }),
  /** The mesh changed. */
  z.object({
    type: z.literal("neighbours"),
    taskId: taskIdSchema,
    add: z.array(neighbourSchema).max(256),
    drop: z.array(peerIdSchema).max(256),
  }),
  /** To a keeper: others take this file, so join it. `url` has no user info and no query values. */
  z.object({ type: z.literal("invite"), taskId: taskIdSchema, url: z.string().max(16 * 1024) }),
  /** What the peer may bring in is now this. */
  z.object({ type: z.literal("imports"), taskId: taskIdSchema, imports: importsSchema }),
  /** The length, once the origin has been read to its end. */
  z.object({
    type: z.literal("length"),
    taskId: taskIdSchema,
    lengthBytes: z.number().refine(isFileLength),
    signature: base64,
  }),
  /** Read these pieces from the origin, and bring each to `PUT /v1/tasks/{id}/leases/{lease}/pieces/{n}`. */
  z.object({
    type: z.literal("lease"),
    taskId: taskIdSchema,
    leaseId: requestId,
    firstPiece: z.number().int().nonnegative(),
    endPiece: z.number().int().positive(),
  }),
  z.object({ type: z.literal("leaseRevoked"), taskId: taskIdSchema, leaseId: requestId }),
  /** The origin cannot be read to its end; what arrived stays valid unless `discard`. */
  z.object({
    type: z.literal("taskFailed"),
    taskId: taskIdSchema,
    code: z.string().max(64),
    message: z.string().max(4096),
    details: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
    discard: z.boolean(),
  }),
]);
export type SupernodeToPeer = z.infer<typeof supernodeToPeerSchema>;

/**
 * The claims of a ticket: this peer may have this task until `expiresUnixMs`, or, where the supernode cannot be reached
 * since before then, until `outageUnixMs`. Wire: `<base64url JSON>.<base64url signature>`.
 */
export const ticketClaimsSchema = z.object({
  taskId: taskIdSchema,
  peerId: peerIdSchema,
  expiresUnixMs: z.number().int(),
  outageUnixMs: z.number().int(),
});
export type TicketClaims = {
  readonly taskId: TaskId;
  readonly peerId: PeerId;
  readonly expiresUnixMs: number;
  readonly outageUnixMs: number;
};
