/**
 * The bytes of a task's journal: "DFPJ", format version u32, then frames (frame.ts) of the kinds
 *
 *       1 header   TaskRecord as JSON, byte fields in base64; the first frame, once
 *       2 piece    index u32, length u32, digest 32 bytes, signature (the rest)
 *       3 length   file length u64, signature (the rest)
 *       4 discard  index u32, or 0xffffffff for all
 *
 * A frame that does not parse ends the journal. Integers are little-endian.
 */
import { z } from "zod";
import { AppError } from "../../base/errors.ts";
import { isFileLength } from "../../protocol/geometry.ts";
import { isTaskId, type TaskId } from "../../protocol/ids.ts";
import { encodeFrame, frameLengthOf, payloadAt } from "./frame.ts";
import type { TaskRecord } from "./piece-store.ts";

/** Raise it with any change that an older program would misread. */
export const JOURNAL_VERSION = 2;
export const PREAMBLE_LENGTH_BYTES = 8;
/** A piece's frame with a signature of its own, 64 bytes: none is shorter. */
export const PIECE_FRAME_LENGTH_BYTES: number = frameLengthOf(4 + 4 + 32 + 64);

const MAGIC = Buffer.from("DFPJ", "latin1");
const DIGEST_LENGTH_BYTES = 32;
const ALL_PIECES = 0xffffffff;
const KIND = { header: 1, piece: 2, length: 3, discard: 4 } as const;

export type JournalEntry =
  | { readonly kind: "piece"; readonly piece: number; readonly lengthBytes: number; readonly digest: Uint8Array; readonly signature: Uint8Array }
  | { readonly kind: "length"; readonly lengthBytes: number; readonly signature: Uint8Array }
  | { readonly kind: "discard"; readonly piece: number | "all" };

export type Frame = JournalEntry | { readonly kind: "header"; readonly record: TaskRecord };

/** The start of a journal: preamble and header frame. */
export function encodeHead(record: TaskRecord): Buffer {
  const preamble = Buffer.alloc(PREAMBLE_LENGTH_BYTES);
  MAGIC.copy(preamble);
  preamble.writeUInt32LE(JOURNAL_VERSION, MAGIC.length);
  const json = JSON.stringify({
    ...record,
    lengthSignature: record.lengthSignature && Buffer.from(record.lengthSignature).toString("base64"),
    publicKey: Buffer.from(record.publicKey).toString("base64"),
  });
  return Buffer.concat([preamble, encodeFrame(KIND.header, Buffer.from(json))]);
}

export function encodeEntry(entry: JournalEntry): Buffer {
  switch (entry.kind) {
    case "piece": {
      const head = Buffer.alloc(8);
      head.writeUInt32LE(entry.piece, 0);
      head.writeUInt32LE(entry.lengthBytes, 4);
      return encodeFrame(KIND.piece, head, entry.digest, entry.signature);
    }
    case "length": {
      const head = Buffer.alloc(8);
      head.writeBigUInt64LE(BigInt(entry.lengthBytes));
      return encodeFrame(KIND.length, head, entry.signature);
    }
    case "discard": {
      const head = Buffer.alloc(4);
      head.writeUInt32LE(entry.piece === "all" ? ALL_PIECES : entry.piece);
      return encodeFrame(KIND.discard, head);
    }
  }
}

/**
 * Checks the preamble.
 *
 * @throws AppError CACHE_CORRUPT when the file is no journal, or of a format this program does not read
 */
export function checkPreamble(bytes: Buffer, path: string): void {
  if (bytes.length < PREAMBLE_LENGTH_BYTES || bytes.compare(MAGIC, 0, MAGIC.length, 0, MAGIC.length) !== 0) {
    throw new AppError("CACHE_CORRUPT", `${path} is not a piece journal; the task's pieces are fetched again`, { details: { path } });
  }
  const version = bytes.readUInt32LE(MAGIC.length);
  if (version !== JOURNAL_VERSION) {
    const message = `${path} has journal format ${version}, this program reads format ${JOURNAL_VERSION}; use the program that wrote it, or delete the task's directory`;
    throw new AppError("CACHE_CORRUPT", message, { details: { path, version } });
  }
}

/**
 * The frame at `at`; undefined when it is cut, damaged, or says what cannot be. Byte fields are copies.
 */
export function decodeFrame(bytes: Buffer, at: number): Frame | undefined {
  const payload = payloadAt(bytes, at);
  if (payload === undefined) return undefined;
  const body = payload.subarray(1);
  switch (payload[0]) {
    case KIND.header:
      return decodeRecord(body);
    case KIND.piece: {
      if (body.length < 8 + DIGEST_LENGTH_BYTES) return undefined;
      // One copy for both: the journal's buffer goes, the proofs stay.
      const proof = Uint8Array.from(body.subarray(8));
      return {
        kind: "piece",
        piece: body.readUInt32LE(0),
        lengthBytes: body.readUInt32LE(4),
        digest: proof.subarray(0, DIGEST_LENGTH_BYTES),
        signature: proof.subarray(DIGEST_LENGTH_BYTES),
      };
    }
    case KIND.length: {
      if (body.length < 8) return undefined;
      const lengthBytes = Number(body.readBigUInt64LE(0));
      return isFileLength(lengthBytes) ? { kind: "length", lengthBytes, signature: Uint8Array.from(body.subarray(8)) } : undefined;
    }
    case KIND.discard: {
      if (body.length !== 4) return undefined;
      const piece = body.readUInt32LE(0);
      return { kind: "discard", piece: piece === ALL_PIECES ? "all" : piece };
    }
    default:
      return undefined;
  }
}

const base64 = z.string().transform((text): Uint8Array => Uint8Array.from(Buffer.from(text, "base64")));

const recordSchema = z.object({
  taskId: z.custom<TaskId>((value) => typeof value === "string" && isTaskId(value)),
  displayUrl: z.string(),
  lengthBytes: z.number().refine(isFileLength).optional(),
  lengthSignature: base64.optional(),
  pieceLengthBytes: z.int().positive(),
  contentType: z.string().optional(),
  digest: z.string().optional(),
  headers: z.record(z.string(), z.string()),
  publicKey: base64,
});

function decodeRecord(json: Buffer): Frame | undefined {
  let value: unknown;
  try {
    value = JSON.parse(json.toString("utf8"));
  } catch {
    return undefined;
  }
  const { success, data } = recordSchema.safeParse(value);
  if (!success) return undefined;
  const { lengthBytes, lengthSignature, contentType, digest } = data;
  return { kind: "header", record: { ...data, lengthBytes, lengthSignature, contentType, digest } };
}
