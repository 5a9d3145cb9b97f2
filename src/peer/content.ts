/**
 * The contract between those who want content (mirror, local API, dfget) and those who can get it (the peer).
 */
import type { ByteSources, Source } from "../protocol/control-messages.ts";
import type { Explanation } from "../protocol/explanation.ts";
import type { TaskId } from "../protocol/ids.ts";

export interface ContentRequest {
  readonly source: Source;
  /** May this host read the origin itself when the swarm cannot deliver? */
  readonly backToSource: boolean;
  /** The task's own limit on this host, below the host's, > 0. Of several who want the task, the one with the most counts. */
  readonly limitBytesPerSecond?: number | undefined;
  /** Where somebody will likely begin to read in order: the swarm is asked for that first. Undefined: any order will do. */
  readonly firstByte?: number | undefined;
}

/** What the content is. `headers`: end-to-end headers of the origin worth relaying, lower case. */
export interface ContentInfo {
  /** Undefined when the origin is read directly, without a swarm. */
  readonly taskId: TaskId | undefined;
  readonly lengthBytes: number | undefined;
  readonly contentType: string | undefined;
  /** Digest the bytes are checked against before the last of them leaves. */
  readonly digest: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
}

/** `bytes` belong at `startByte` of the content. */
export interface ContentPart {
  readonly startByte: number;
  readonly bytes: Uint8Array;
}

/** Bytes [startByte, endByte) of content that lie in its {@link Content.filePath}, each at its own place. */
export interface HeldRange {
  readonly startByte: number;
  readonly endByte: number;
}

/** Bytes [startByte, endByte) of content. */
export interface ReadRange {
  readonly startByte: number;
  /** Undefined: to the end. */
  readonly endByte: number | undefined;
  /** See {@link Content.read}. */
  readonly lent?: boolean;
}

/** Open content. The download goes on while it is open, and after `close` too if others need it. */
export interface Content {
  readonly info: ContentInfo;
  /**
   * Verified bytes of [startByte, endByte) in order, from the first that is there; `endByte` undefined = to the end.
   * Falls over to the origin inside the iteration when the swarm stalls. Chunks belong to the consumer; with `lent`
   * only until it asks for the next, or ends the iteration.
   * Any number of reads may run at a time; ending the iteration early harms nobody.
   * @throws AppError while iterating: what the origin or the disk said; DIGEST_MISMATCH before the last byte
   */
  read(range: ReadRange, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /**
   * As `read`, but every byte as soon as it is here, whatever its place: for who writes a file. Nobody is asked to send
   * what comes first first. Absent where the content comes in order only.
   */
  readUnordered?(range: { readonly startByte: number; readonly endByte: number | undefined }, signal: AbortSignal): AsyncIterable<ContentPart>;
  /** The file of this host in which verified bytes lie once they are here; it may go when the content is closed. Undefined: there is none. */
  readonly filePath?: string | undefined;
  /**
   * As `readUnordered`, for who has `filePath` open: says what lies there instead of reading it. What the origin had to
   * be asked for itself comes as bytes.
   */
  readInPlace?(range: { readonly startByte: number; readonly endByte: number | undefined }, signal: AbortSignal): AsyncIterable<ContentPart | HeldRange>;
  /** Bytes this host took in for the content so far, by source; `cacheBytes` were here before. */
  sources(): ByteSources & { readonly cacheBytes: number };
  /** What its time went by so far, or, once closed, at all. Undefined: not known (yet). */
  explanation(): Explanation | undefined;
  close(): void;
}

export interface ContentOpener {
  /** Resolves once length and type are known, or known to be unknown. @throws AppError as Origin.stat and control join */
  open(request: ContentRequest, signal: AbortSignal): Promise<Content>;
  /** What the content is, without downloading it. */
  stat(request: ContentRequest, signal: AbortSignal): Promise<ContentInfo>;
}

/** Ordered content, each part with its place. */
export async function* numbered(chunks: AsyncIterable<Uint8Array>, startByte: number): AsyncGenerator<ContentPart> {
  let at = startByte;
  for await (const bytes of chunks) {
    yield { startByte: at, bytes };
    at += bytes.length;
  }
}
