import type { Logger } from "pino";
import { Counter, Gauge, Registry } from "prom-client";
import { toAppError } from "../../base/errors.ts";
import { redactUrl } from "../../origin/origin-url.ts";

/**
 * - `tunnel`: bytes through CONNECT, unread.
 * - `forward`: a request passed on as it is.
 * - `upgrade`: a connection that speaks something else than HTTP after its request.
 * - `file`: a file through the swarm.
 * - `refused`: by us, before anything was asked.
 */
export type ProxyKind = "tunnel" | "forward" | "upgrade" | "file" | "refused";

/** The proxy's own metrics. Every label has a closed set of values. */
export class ProxyMetrics {
  readonly registry: Registry = new Registry();
  readonly #requests = new Counter({
    name: "dragonfly_proxy_requests_total",
    help: "Requests to the proxy that were not the mirror's, by how they were handled and how they ended.",
    labelNames: ["kind", "result"],
    registers: [this.registry],
  });
  readonly #bytes = new Counter({
    name: "dragonfly_proxy_bytes_total",
    help: "Bytes passed on for clients of the proxy, by direction as the client sees it.",
    labelNames: ["kind", "direction"],
    registers: [this.registry],
  });
  readonly #open = new Gauge({
    name: "dragonfly_proxy_requests_in_flight",
    help: "Requests and tunnels of the proxy that are open.",
    labelNames: ["kind"],
    registers: [this.registry],
  });

  started(kind: ProxyKind): void {
    this.#open.inc({ kind });
  }

  finished(kind: ProxyKind, result: "ok" | "error", sentBytes: number, receivedBytes: number): void {
    this.#open.dec({ kind });
    this.#requests.inc({ kind, result });
    this.#bytes.inc({ kind, direction: "down" }, sentBytes);
    this.#bytes.inc({ kind, direction: "up" }, receivedBytes);
  }
}

/** What became of one request; becomes one log line and its metrics. Holds nothing secret. */
export class ProxyRecord {
  readonly #log: Logger;
  readonly #metrics: ProxyMetrics;
  readonly #kind: ProxyKind;
  readonly #what: { readonly method: string; readonly url: string };
  readonly #startedMs = performance.now();
  #isFinished = false;
  status = 0;
  /** To the client. */
  sentBytes = 0;
  /** From the client. */
  receivedBytes = 0;
  taskId: string | undefined;
  error: unknown;

  /** @param url with its query, which is not written down */
  constructor(deps: { readonly log: Logger; readonly metrics: ProxyMetrics }, kind: ProxyKind, what: { readonly method: string; readonly url: string }) {
    this.#log = deps.log;
    this.#metrics = deps.metrics;
    this.#kind = kind;
    this.#what = what;
    deps.metrics.started(kind);
  }

  /** Writes the line; of several calls the first counts. */
  finish(): void {
    if (this.#isFinished) return;
    this.#isFinished = true;
    const { status, sentBytes, receivedBytes, taskId } = this;
    const result = this.error === undefined && status < 500 ? "ok" : "error";
    this.#metrics.finished(this.#kind, result, sentBytes, receivedBytes);
    const { method, url } = this.#what;
    this.#log[this.error === undefined ? "info" : "warn"](
      {
        kind: this.#kind,
        method,
        url: redactUrl(url),
        status,
        sentBytes,
        receivedBytes,
        durationMs: Math.round(performance.now() - this.#startedMs),
        taskId,
        error: this.error === undefined ? undefined : describe(this.error),
      },
      "proxy request",
    );
  }
}

function describe(error: unknown): { readonly code: string; readonly message: string } {
  const { code, message } = toAppError(error);
  return { code, message };
}
