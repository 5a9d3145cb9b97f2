/** JSON Schemas of the REST API: they serialise the answers and make the OpenAPI document. */

import { BOUNDS } from "../../base/bounds.ts";

type Schema = Readonly<Record<string, unknown>>;

const text: Schema = { type: "string" };
const flag: Schema = { type: "boolean" };
const count: Schema = { type: "integer", minimum: 0 };
const nullable = (schema: Schema): Schema => ({ anyOf: [schema, { type: "null" }] });
const list = (items: Schema): Schema => ({ type: "array", items });

/** All properties are required. */
function object(properties: Readonly<Record<string, Schema>>, description?: string): Schema {
  const described = description === undefined ? {} : { description };
  return { type: "object", required: Object.keys(properties), properties, additionalProperties: false, ...described };
}

export const taskIdParams: Schema = {
  type: "object",
  required: ["id"],
  properties: { id: { type: "string", pattern: "^[0-9a-f]{64}$", description: "task id" } },
};

const limit: Schema = { type: "integer", minimum: 1, maximum: 10_000, default: 1_000, description: "most entries in the answer" };

export const pageQuery: Schema = {
  type: "object",
  properties: {
    limit,
    after: { type: "string", maxLength: 96, default: "", description: "only entries whose id sorts after this one" },
  },
};

/** Of a list whose entries have no ids. */
export const limitQuery: Schema = { type: "object", properties: { limit } };

export const errorSchema: Schema = object({ code: text, message: text }, "what went wrong; codes are stable");

export const versionSchema: Schema = object({ name: text, version: text, node: text, peerId: text });

export const healthSchema: Schema = object({ status: text });

const byteSources: Schema = object(
  { seedBytes: count, peerBytes: count, originBytes: count },
  "bytes a member took in, by where they came from",
);

const taskProperties: Readonly<Record<string, Schema>> = {
  taskId: text,
  url: { type: "string", description: "without user info and query values" },
  digest: nullable(text),
  lengthBytes: nullable(count),
  pieceLengthBytes: count,
  heldPieces: { ...count, description: "pieces the supernode holds" },
  complete: { ...flag, description: "the supernode holds all" },
  reading: { ...flag, description: "the origin is being read" },
  originBytes: { ...count, description: "bytes read from the origin since the task was opened" },
  memberCount: count,
};

const ms: Schema = { type: "number", minimum: 0 };
const explanation: Schema = object(
  {
    boundBy: nullable({ type: "string", enum: [...BOUNDS] }),
    tookMs: ms,
    openedMs: { ...ms, description: "until it was known what the file is" },
    firstByteMs: nullable(ms),
    spentMs: object(Object.fromEntries(BOUNDS.map((bound) => [bound, ms])), "tookMs by what it is put down to"),
    bytes: object({ seedBytes: count, peerBytes: count, originBytes: count, cacheBytes: count }),
    neighbours: list(object({ peerId: text, seed: flag, bytes: count })),
    pieces: object({ offered: count, declined: count, late: count, doubled: count, rejected: count }),
    wastedBytes: { ...count, description: "received and dropped" },
  },
  "what the member's time went by, from its first question to its last piece; null until then",
);

const memberSchema: Schema = object({
  peerId: text,
  pieceCount: count,
  complete: flag,
  neighbours: list(text),
  sources: nullable(byteSources),
  explanation: nullable(explanation),
});

export const tasksSchema: Schema = object({ tasks: list(object(taskProperties)) });
export const taskSchema: Schema = object({ ...taskProperties, members: list(memberSchema) });

export const peersSchema: Schema = object({
  peers: list(
    object({
      peerId: text,
      seed: flag,
      keeper: { ...flag, description: "takes and gives whatever others take" },
      connected: flag,
      name: text,
      program: text,
      version: text,
      address: text,
      port: count,
      labels: { type: "object", additionalProperties: text },
      labelSources: {
        type: "object",
        additionalProperties: text,
        description: "for region, zone, rack and switch: `host`, which says so itself, or the network of `networkLabels` that its address is in",
      },
      taskCount: count,
    }),
  ),
});

export const linksSchema: Schema = object({
  links: list(object({ taskId: text, peers: { type: "array", items: text, minItems: 2, maxItems: 2 } })),
});

const instant: Schema = { type: "string", format: "date-time" };
const byReason: Schema = object({ quota: count, "free-space": count }, "by the limit that stood in the way, since the start");

export const cacheSchema: Schema = object({
  usedBytes: count,
  quotaBytes: nullable(count),
  taskCount: count,
  evictedBytes: { ...count, description: "since the start" },
  evictedTasks: byReason,
  refusedRequests: byReason,
  damagedPieces: { ...count, description: "pieces that the disk did not give back as written, since the start" },
  scrubbedBytes: { ...count, description: "bytes read back in the background, since the start" },
  scrubbedAllAt: nullable(instant),
  tasks: list(
    object({
      taskId: text,
      url: { ...text, description: "without user info and query values" },
      digest: nullable(text),
      lengthBytes: nullable(count),
      contentType: nullable(text),
      heldBytes: { ...count, description: "bytes on disk" },
      usedAt: instant,
      pinned: { ...flag, description: "kept whatever room is needed" },
      inUse: { ...flag, description: "open right now: not evicted, not removable" },
    }),
  ),
});

export const verifiedSchema: Schema = object({
  taskId: text,
  checkedPieces: count,
  damagedPieces: { ...count, description: "dropped; fetched again when they are wanted next" },
});

const limitSchema: Schema = object({
  limitBytesPerSecond: nullable({ type: "number", exclusiveMinimum: 0 }),
  bytesPerSecond: { ...count, description: "over the last second" },
  totalBytes: count,
  waitingCount: { ...count, description: "links and readings that it makes wait right now" },
});
export const limitsSchema: Schema = object({ download: limitSchema, upload: limitSchema, origin: limitSchema });

const change: Schema = nullable({ type: "number", exclusiveMinimum: 0 });
export const limitsChange: Schema = {
  type: "object",
  properties: { downloadBytesPerSecond: change, uploadBytesPerSecond: change, originBytesPerSecond: change },
  additionalProperties: false,
};

const budgetSchema: Schema = object({
  limitPerSecond: nullable({ type: "number", exclusiveMinimum: 0 }),
  perSecond: { ...count, description: "over the last second, slices leased to peers included" },
  total: count,
  waitingCount: count,
});
export const originsSchema: Schema = object({
  origins: list(object({ host: text, pattern: text, requests: budgetSchema, bytes: budgetSchema })),
});
