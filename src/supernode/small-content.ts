/** Content small enough to travel in the join's answer: read once, checked, and kept on disk like any other. */
import { createHash } from "node:crypto";
import { setTimeout as sleepFor } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import type { Logger } from "pino";
import { AppError, toAppError } from "../base/errors.ts";
import type { Origin } from "../origin/origin.ts";
import { withRetries } from "../origin/retry.ts";
import type { SigningKey } from "../peer/membership/credentials.ts";
import type { PieceStore } from "../peer/store/piece-store.ts";
import type { Source } from "../protocol/control-messages.ts";
import { pieceLengthAt } from "../protocol/geometry.ts";
import { digestAlgorithm, parseDigest, type TaskId } from "../protocol/ids.ts";
import type { OriginMeter } from "./cache/origin-meter.ts";
import { expectedVersion } from "./cache/seed-cache.ts";
import type { ResolvedTask } from "./tasks/task-resolver.ts";

export interface SmallContentDeps {
  readonly origin: Pick<Origin, "open">;
  readonly store: Pick<PieceStore, "find" | "open">;
  readonly key: SigningKey;
  readonly meter: OriginMeter;
  readonly log: Pick<Logger, "warn">;
  readonly random: () => number;
  readonly sleep?: (delayMs: number, signal: AbortSignal) => Promise<void>;
}

interface Reading {
  /** In whose name. */
  readonly source: Source;
  readonly content: Promise<Uint8Array>;
}

export class SmallContent {
  readonly #deps: SmallContentDeps;
  readonly #reading = new Map<TaskId, Reading>();
  /** Answers just given: the thousand joins of one moment do not open a file each. */
  readonly #recent = new Map<TaskId, Uint8Array>();
  readonly #closing = new AbortController();

  constructor(deps: SmallContentDeps) {
    this.#deps = deps;
  }

  /**
   * All of the content. Coalesced; from the disk when it is there. The bytes are shared: read-only.
   * @throws AppError as Origin.open; ORIGIN_LENGTH_WRONG, DIGEST_MISMATCH
   */
  async get(resolved: ResolvedTask): Promise<Uint8Array> {
    const { taskId, source } = resolved;
    const recent = this.#recent.get(taskId);
    if (recent !== undefined) return recent;
    const others = this.#reading.get(taskId);
    if (others === undefined) {
      const content = this.#read(resolved).finally(() => this.#reading.delete(taskId));
      this.#reading.set(taskId, { source, content });
      return await content;
    }
    try {
      return await others.content;
    } catch (error) {
      // What is refused to whoever came first, to the others it may be given.
      if (!REFUSALS.has(toAppError(error).code) || isSameAsker(others.source, source)) throw error;
      return await this.get(resolved);
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled([...this.#reading.values()].map(({ content }) => content));
  }

  async #read(resolved: ResolvedTask): Promise<Uint8Array> {
    // No task that would be forgotten one day: the meter is not to remember it.
    const content = (await this.#fromDisk(resolved)) ?? (await this.#fromOrigin(resolved).finally(() => this.#deps.meter.forget(resolved.taskId)));
    this.#recent.set(resolved.taskId, content);
    if (this.#recent.size > RECENT_COUNT_MAX) this.#recent.delete(this.#recent.keys().next().value as TaskId);
    return content;
  }

  async #fromDisk({ taskId, record }: ResolvedTask): Promise<Uint8Array | undefined> {
    if (record.lengthBytes === 0) return record.digest === undefined ? new Uint8Array(0) : undefined;
    try {
      const stored = await this.#deps.store.find(taskId);
      if (stored === undefined) return undefined;
      try {
        if (!stored.complete || stored.record.lengthBytes !== record.lengthBytes) return undefined;
        const content = new Uint8Array(record.lengthBytes as number);
        await stored.read(0, content);
        return content;
      } finally {
        stored.release();
      }
    } catch (error) {
      this.#deps.log.warn({ taskId }, `cannot read small content from the disk: ${toAppError(error).message}`);
      return undefined;
    }
  }

  async #fromOrigin(resolved: ResolvedTask): Promise<Uint8Array> {
    const content = await this.#fetch(resolved);
    const digest = resolved.record.digest === undefined ? undefined : parseDigest(resolved.record.digest);
    if (digest !== undefined) {
      const found = createHash(digestAlgorithm(digest)).update(content).digest("hex");
      if (!digest.endsWith(`:${found}`)) {
        const message = `the origin's file is not ${digest}; check the digest, the address, and the origin`;
        throw new AppError("DIGEST_MISMATCH", message);
      }
    }
    if (content.length > 0) {
      await this.#keep(resolved, content).catch((error: unknown) => {
        this.#deps.log.warn({ taskId: resolved.taskId }, `cannot keep small content: ${toAppError(error).message}`);
      });
    }
    return content;
  }

  async #fetch({ taskId, source, record, info }: ResolvedTask): Promise<Uint8Array> {
    const { origin, meter, random, sleep } = this.#deps;
    const { signal } = this.#closing;
    const lengthBytes = record.lengthBytes as number;
    const range = { startByte: 0, endByte: undefined };
    const once = async (): Promise<Uint8Array> => {
      const listening = new Listening(signal);
      try {
        return await read(listening);
      } finally {
        listening.end();
      }
    };
    const read = async (listening: Listening): Promise<Uint8Array> => {
      const request = { url: source.url, headers: source.headers };
      const { body } = await origin.open(request, range, expectedVersion(record, info), listening.signal);
      meter.asked("OK");
      const chunks: Uint8Array[] = [];
      let receivedBytes = 0;
      for await (const chunk of body as AsyncIterable<Uint8Array>) {
        await listening.pausedFor(meter.received(taskId, source.priority ?? "interactive", chunk.length, signal));
        chunks.push(chunk);
        receivedBytes += chunk.length;
        if (receivedBytes > lengthBytes) break;
      }
      if (receivedBytes === lengthBytes) return Buffer.concat(chunks);
      const message = `the origin sent ${receivedBytes > lengthBytes ? "more" : "less"} than the ${lengthBytes} bytes it promised`;
      throw new AppError("ORIGIN_LENGTH_WRONG", message);
    };
    // Asked again it would be the other version still.
    const changed = new AbortController();
    return await withRetries(
      async () => await once().catch((error: unknown) => {
        const { code } = toAppError(error);
        meter.asked(code);
        if (code === "ORIGIN_CHANGED") changed.abort();
        throw error;
      }),
      {
        attempts: 4,
        signal: AbortSignal.any([signal, changed.signal]),
        sleep: sleep ?? ((delayMs, stop) => sleepFor(delayMs, undefined, { signal: stop })),
        random,
        maxDelayMs: 10_000,
      },
    );
  }

  async #keep({ record }: ResolvedTask, content: Uint8Array): Promise<void> {
    const { store, key } = this.#deps;
    const { taskId, pieceLengthBytes } = record;
    const stored = await store.open(record);
    try {
      const shared = new Uint8Array(new SharedArrayBuffer(content.length));
      shared.set(content);
      for (let piece = 0, at = 0; at < content.length; piece++) {
        const bytes = shared.subarray(at, at + pieceLengthAt(piece, content.length, pieceLengthBytes));
        at += bytes.length;
        const sign = (digest: Uint8Array): Uint8Array => key.signPiece(taskId, piece, bytes.length, digest);
        // oxlint-disable-next-line no-await-in-loop -- it is one piece
        await stored.storeOwn(piece, bytes, sign);
      }
    } finally {
      stored.release();
    }
  }
}

function isSameAsker(left: Source, right: Source): boolean {
  return left.url === right.url && isDeepStrictEqual(left.headers, right.headers);
}

/** Calls off an exchange with an origin that says nothing for {@link SILENCE_MS} while somebody listens. */
class Listening {
  readonly signal: AbortSignal;
  readonly #silence = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  constructor(outer: AbortSignal) {
    this.signal = AbortSignal.any([outer, this.#silence.signal]);
    this.#start();
  }

  /** Waits for what is no fault of the origin's. */
  async pausedFor(wait: Promise<void>): Promise<void> {
    this.end();
    await wait;
    this.#start();
  }

  end(): void {
    clearTimeout(this.#timer);
  }

  #start(): void {
    const error = new AppError("TIMEOUT", `the origin said nothing for ${SILENCE_MS} ms; try again later`);
    this.#timer = setTimeout(() => this.#silence.abort(error), SILENCE_MS);
  }
}

/** The joins of those who want it wait meanwhile, and they are patient for 20 s: twice silence, and a third try. */
const SILENCE_MS = 6_000;

/** A registry hides what a caller may not have behind a 404, too. */
const REFUSALS: ReadonlySet<string> = new Set(["ORIGIN_UNAUTHORIZED", "ORIGIN_FORBIDDEN", "ORIGIN_NOT_FOUND"]);
/** 64 KiB each at most. */
const RECENT_COUNT_MAX = 64;
