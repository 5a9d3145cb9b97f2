/**
 * The bytes of the store's index: "DFPX", format version u32, then frames (frame.ts) of the kinds
 *
 *     1 task   task id 32 bytes, six f64 (bytes held, file length or -1, time of the last use, journal's length, journal's
 *              time, turn), queue u8, uses u8, then URL, content type, digest: each a length u16 and UTF-8
 *     2 gone   task id 32 bytes: it was removed
 *     3 open   a run begins
 *     4 clean  the run ended in good order
 *
 * Binary, because a start decodes 100,000 of them. Of several about one task the last counts. Integers are little-endian.
 */
import type { TaskId } from "../../protocol/ids.ts";
import type { FileFacts } from "./disk.ts";
import type { QueuePlace } from "./eviction.ts";
import { encodeFrame, frameLengthAt, payloadAt } from "./frame.ts";
import type { TaskSummary } from "./piece-store.ts";

export interface IndexEntry {
  readonly summary: TaskSummary;
  readonly heldBytes: number;
  readonly usedAtUnixMs: number;
  readonly place: QueuePlace;
  /** The journal as it was then. */
  readonly journal: FileFacts;
}

/** What whole frames say. */
export interface IndexContent {
  readonly entries: Map<TaskId, IndexEntry>;
  readonly frameCount: number;
  /** Where the last whole frame ends; 0 when it is no index, or of another version. */
  readonly endByte: number;
  /** The last frame says that the run ended in good order. */
  readonly isClean: boolean;
}

/** Raise it with any change; an index of another version is made anew. */
const VERSION = 1;
const MAGIC = "DFPX";
const PREAMBLE_LENGTH_BYTES = 8;
const KIND = { task: 1, gone: 2, open: 3, clean: 4 } as const;
const ID_LENGTH_BYTES = 32;
const FIXED_LENGTH_BYTES = ID_LENGTH_BYTES + 6 * 8 + 2;
const TEXT_LENGTH_BYTES_MAX = 0xffff;

export const INDEX_OPEN: Buffer = encodeFrame(KIND.open);
export const INDEX_CLEAN: Buffer = encodeFrame(KIND.clean);

export function encodeIndexPreamble(): Buffer {
  const bytes = Buffer.alloc(PREAMBLE_LENGTH_BYTES);
  bytes.write(MAGIC, "latin1");
  bytes.writeUInt32LE(VERSION, MAGIC.length);
  return bytes;
}

export function encodeGone(taskId: TaskId): Buffer {
  return encodeFrame(KIND.gone, Buffer.from(taskId, "hex"));
}

export function encodeIndexEntry({ summary, heldBytes, usedAtUnixMs, place, journal }: IndexEntry): Buffer {
  const fixed = Buffer.alloc(FIXED_LENGTH_BYTES);
  fixed.write(summary.taskId, "hex");
  let at = ID_LENGTH_BYTES;
  for (const value of [heldBytes, summary.lengthBytes ?? -1, usedAtUnixMs, journal.lengthBytes, journal.modifiedUnixMs, place.turn]) {
    at = fixed.writeDoubleLE(value, at);
  }
  fixed.writeUInt8(place.queue === "main" ? 1 : 0, at);
  fixed.writeUInt8(place.useCount, at + 1);
  return encodeFrame(KIND.task, fixed, ...[summary.displayUrl, summary.contentType, summary.digest].flatMap(encodeText));
}

export function decodeIndex(bytes: Buffer): IndexContent {
  const entries = new Map<TaskId, IndexEntry>();
  let frameCount = 0;
  let isClean = false;
  if (bytes.length < PREAMBLE_LENGTH_BYTES || !encodeIndexPreamble().equals(bytes.subarray(0, PREAMBLE_LENGTH_BYTES))) {
    return { entries, frameCount, endByte: 0, isClean };
  }
  const reader = new EntryReader(bytes);
  let at = PREAMBLE_LENGTH_BYTES;
  for (let payload; (payload = payloadAt(bytes, at)) !== undefined; ) {
    const end = at + (frameLengthAt(bytes, at) as number);
    const kind = payload[0];
    const body = end - payload.length + 1;
    if (kind === KIND.task) {
      const entry = reader.entry(body);
      // The last word on a task is also the last in the order of the file.
      entries.delete(entry.summary.taskId);
      entries.set(entry.summary.taskId, entry);
    } else if (kind === KIND.gone) {
      entries.delete(reader.taskId(body));
    }
    isClean = kind === KIND.clean;
    frameCount++;
    at = end;
  }
  return { entries, frameCount, endByte: at, isClean };
}

/** Reads in place: no object per field, for there may be 100,000 entries. The frames' checksums were right. */
class EntryReader {
  readonly #bytes: Buffer;
  readonly #view: DataView;
  /** There are few types, of many files: one string for each. */
  readonly #types = new Map<string, string>();
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  taskId(at: number): TaskId {
    return this.#bytes.toString("hex", at, at + ID_LENGTH_BYTES) as TaskId;
  }

  entry(body: number): IndexEntry {
    const view = this.#view;
    const numbers = body + ID_LENGTH_BYTES;
    const lengthBytes = view.getFloat64(numbers + 8, true);
    this.#at = body + FIXED_LENGTH_BYTES;
    const displayUrl = this.#text();
    const type = this.#text();
    const digest = this.#text();
    return {
      summary: {
        taskId: this.taskId(body),
        displayUrl,
        lengthBytes: lengthBytes < 0 ? undefined : lengthBytes,
        contentType: type === "" ? undefined : this.#shared(type),
        digest: digest === "" ? undefined : digest,
      },
      heldBytes: view.getFloat64(numbers, true),
      usedAtUnixMs: view.getFloat64(numbers + 16, true),
      place: {
        queue: view.getUint8(numbers + 48) === 1 ? "main" : "small",
        useCount: view.getUint8(numbers + 49),
        turn: view.getFloat64(numbers + 40, true),
      },
      journal: { lengthBytes: view.getFloat64(numbers + 24, true), modifiedUnixMs: view.getFloat64(numbers + 32, true) },
    };
  }

  #text(): string {
    const start = this.#at + 2;
    this.#at = start + this.#view.getUint16(this.#at, true);
    return this.#bytes.toString("utf8", start, this.#at);
  }

  #shared(type: string): string {
    const known = this.#types.get(type);
    if (known === undefined) this.#types.set(type, type);
    return known ?? type;
  }
}

/** None and empty are the same. Longer ones than any program reads are cut. */
function encodeText(text: string | undefined): readonly [Buffer, Buffer] {
  const bytes = Buffer.from(text ?? "").subarray(0, TEXT_LENGTH_BYTES_MAX);
  const length = Buffer.alloc(2);
  length.writeUInt16LE(bytes.length);
  return [length, bytes];
}
