/**
 * Reads spans of a file from its origin in the seed's stead: each piece is brought to the supernode, and once it has signed
 * it, stored and offered like any other.
 */
import { AppError, toAppError } from "../base/errors.ts";
import type { Origin, OriginBody } from "../origin/origin.ts";
import { withRetries } from "../origin/retry.ts";
import type { Source } from "../protocol/control-messages.ts";
import { pieceLengthAt } from "../protocol/geometry.ts";
import type { TaskId } from "../protocol/ids.ts";
import type { PeerLog, PeerTask } from "./peer.ts";
import type { RateGate } from "./rate-gate.ts";
import type { PieceProof } from "./store/piece-store.ts";

export interface LeaseReaderDeps {
  readonly origin: Pick<Origin, "open">;
  /** This host's limit for reading origins; stays the caller's. */
  readonly limit: RateGate;
  /** Brings a piece to the supernode, and its proof back. */
  readonly bring: (lease: Lease, piece: number, bytes: Uint8Array, ticket: string, signal: AbortSignal) => Promise<PieceProof>;
  /** Tells the supernode that the span is not read to its end. */
  readonly failed: (lease: Lease) => void;
  readonly log: Pick<PeerLog, "info" | "warn">;
  readonly random: () => number;
  readonly sleep: (delayMs: number, signal: AbortSignal) => Promise<void>;
}

export interface Lease {
  readonly taskId: TaskId;
  readonly leaseId: number;
  readonly firstPiece: number;
  /** Exclusive. */
  readonly endPiece: number;
}

export class LeaseReader {
  readonly #deps: LeaseReaderDeps;
  readonly #reading = new Map<number, AbortController>();

  constructor(deps: LeaseReaderDeps) {
    this.#deps = deps;
  }

  /** Begins to read, in the background. `task` stays open while it is read. */
  read(lease: Lease, task: PeerTask, source: Source): void {
    const ending = new AbortController();
    this.#reading.set(lease.leaseId, ending);
    this.#deps.log.info({ ...lease }, "reading a part of the file from the origin, for all");
    this.#run(lease, task, source, ending.signal)
      .catch((thrown: unknown) => {
        if (ending.signal.aborted) return;
        const { code, message } = toAppError(thrown);
        this.#deps.log.warn({ ...lease, code }, `a part that was lent cannot be read: ${message}`);
        this.#deps.failed(lease);
      })
      .finally(() => {
        if (this.#reading.get(lease.leaseId) === ending) this.#reading.delete(lease.leaseId);
      });
  }

  revoke(leaseId: number): void {
    this.#reading.get(leaseId)?.abort();
    this.#reading.delete(leaseId);
  }

  close(): void {
    for (const leaseId of [...this.#reading.keys()]) this.revoke(leaseId);
  }

  async #run(lease: Lease, task: PeerTask, source: Source, signal: AbortSignal): Promise<void> {
    let piece = lease.firstPiece;
    const { random, sleep } = this.#deps;
    const { account } = task.session;
    account.readingOrigin(1);
    await withRetries(
      async () => {
        // oxlint-disable-next-line no-await-in-loop -- in order
        for await (const bytes of this.#pieces(lease, piece, task, source, signal)) {
          const proof = await this.#deps.bring(lease, piece, bytes, task.session.ticket, signal);
          await task.addProven(piece, bytes, proof);
          piece++;
        }
      },
      { attempts: ATTEMPTS, signal, random, sleep, maxDelayMs: RETRY_MS_MAX },
    ).finally(() => account.readingOrigin(-1));
  }

  /** The pieces from `firstPiece` on, in memory that the store can take: from the disk as far as they are here, then from the origin. */
  async *#pieces({ endPiece }: Lease, firstPiece: number, task: PeerTask, source: Source, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const { stored, session } = task;
    const { pieceLengthBytes } = session;
    const lengthBytes = session.lengthBytes as number;
    const flow = this.#deps.limit.flow(source.priority ?? "interactive");
    let body: OriginBody | undefined;
    try {
      let chunks: AsyncIterator<Uint8Array> | undefined;
      let rest: Uint8Array = new Uint8Array(0);
      for (let piece = firstPiece; piece < endPiece; piece++) {
        const bytes = new Uint8Array(new SharedArrayBuffer(pieceLengthAt(piece, lengthBytes, pieceLengthBytes)));
        const startByte = piece * pieceLengthBytes;
        if (chunks === undefined && stored.have.has(piece)) {
          await stored.read(startByte, bytes);
          yield bytes;
          continue;
        }
        if (chunks === undefined) {
          const range = { startByte, endByte: Math.min(endPiece * pieceLengthBytes, lengthBytes) };
          const expected = { lengthBytes, ranges: true, etag: undefined, lastModified: undefined, contentType: undefined, headers: {} };
          body = await this.#deps.origin.open({ url: source.url, headers: source.headers }, range, expected, signal);
          chunks = (body.body as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]();
        }
        for (let filled = 0; filled < bytes.length; ) {
          if (rest.length === 0) {
            const next = await chunks.next();
            if (next.done === true) throw new AppError("ORIGIN_CUT", `the origin's answer ended in piece ${piece}; try again`);
            rest = next.value;
            session.account.held(1);
            await this.#deps.limit.passed(flow, rest.length, signal).finally(() => session.account.held(-1));
          }
          const part = rest.subarray(0, bytes.length - filled);
          bytes.set(part, filled);
          filled += part.length;
          rest = rest.subarray(part.length);
        }
        yield bytes;
      }
    } finally {
      body?.body.destroy();
    }
  }
}

const ATTEMPTS = 3;
const RETRY_MS_MAX = 2_000;
