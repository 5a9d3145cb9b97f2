import type { Logger } from "pino";
import { toAppError } from "../../base/errors.ts";
import type { TaskId } from "../../protocol/ids.ts";
import type { MirrorMetrics, MirrorResult } from "../metrics.ts";
import type { AccessVerdict } from "./access.ts";
import type { MirrorKind } from "./errors.ts";
import { NO_SOURCE_BYTES, type SourceBytes } from "./sources.ts";

/** What became of one request; becomes one log line and its metrics. Holds nothing secret. */
export class RequestRecord {
  readonly #log: Logger;
  readonly #metrics: MirrorMetrics;
  readonly #nowMs: () => number;
  readonly #startedMs: number;
  #firstByteMs: number | undefined;
  kind: MirrorKind = "other";
  method = "";
  registry: string | undefined;
  repository: string | undefined;
  /** Tag or digest. */
  reference: string | undefined;
  range: string | undefined;
  /** What the caller's right to the content stands on; undefined for what is not kept here. */
  access: AccessVerdict | undefined;
  userAgent: string | undefined;
  status = 0;
  taskId: TaskId | undefined;
  sentBytes = 0;
  sources: SourceBytes = NO_SOURCE_BYTES;
  /** The client hung up before the answer was whole. */
  aborted = false;
  /** Why it failed, ours; undefined when it did not. */
  error: unknown;

  /** @param nowMs monotonic ms */
  constructor(log: Logger, metrics: MirrorMetrics, nowMs: () => number) {
    this.#log = log;
    this.#metrics = metrics;
    this.#nowMs = nowMs;
    this.#startedMs = nowMs();
    metrics.started();
  }

  /** The first byte of the body is about to leave. */
  firstByte(): void {
    this.#firstByteMs ??= this.#nowMs();
  }

  /** Ms from the request until now, or until the first byte if that has left. */
  get ttfbMs(): number {
    return Math.round(((this.#firstByteMs ?? this.#nowMs()) - this.#startedMs) * 10) / 10;
  }

  /** The same as the value of `server-timing`. */
  get serverTiming(): string {
    return `ttfb;dur=${this.ttfbMs}`;
  }

  /** Writes the line. To be called once. */
  finish(): void {
    const result = this.#result();
    const { ttfbMs } = this;
    this.#metrics.finished(this.kind, result, ttfbMs, this.sources);
    const level = result === "error" ? "warn" : "info";
    this.#log[level](
      {
        method: this.method,
        kind: this.kind,
        registry: this.registry,
        repository: this.repository,
        reference: this.reference,
        range: this.range,
        access: this.access,
        userAgent: this.userAgent,
        status: this.status,
        result,
        sentBytes: this.sentBytes,
        ...this.sources,
        ttfbMs,
        durationMs: Math.round((this.#nowMs() - this.#startedMs) * 10) / 10,
        taskId: this.taskId,
        error: describeError(this.error),
      },
      "mirror request",
    );
  }

  #result(): MirrorResult {
    if (this.error !== undefined && (this.status >= 500 || this.status < 400)) return "error";
    if (this.aborted) return "aborted";
    if (this.status >= 400) return this.status >= 500 ? "error" : "refused";
    const { seedBytes, peerBytes, originBytes, cacheBytes } = this.sources;
    return cacheBytes > 0 && seedBytes + peerBytes + originBytes === 0 ? "hit" : "miss";
  }
}

/** Code and message only: a stack of the origin's libraries tells an operator nothing, and may quote a request. */
function describeError(error: unknown): { readonly code: string; readonly message: string } | undefined {
  if (error === undefined) return undefined;
  const { code, message } = toAppError(error);
  return { code, message };
}
