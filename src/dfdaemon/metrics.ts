import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { AccessOutcome } from "./mirror/access.ts";
import type { MirrorKind } from "./mirror/errors.ts";
import type { SourceBytes } from "./mirror/sources.ts";

/** How a request ended: from this host's cache, from elsewhere, refused (4xx), failed (5xx, cut), or given up by the client. */
export type MirrorResult = "hit" | "miss" | "refused" | "error" | "aborted";

/** The mirror's own metrics. Every label has a closed set of values. */
export class MirrorMetrics {
  readonly registry: Registry = new Registry();
  readonly #requests = new Counter({
    name: "dragonfly_mirror_requests_total",
    help: "Requests to the registry mirror by what they were for and how they ended.",
    labelNames: ["kind", "result"],
    registers: [this.registry],
  });
  readonly #bytes = new Counter({
    name: "dragonfly_mirror_bytes_total",
    help: "Bytes sent to container engines by where this host had them from.",
    labelNames: ["source"],
    registers: [this.registry],
  });
  readonly #firstByte = new Histogram({
    name: "dragonfly_mirror_ttfb_seconds",
    help: "Time from a request to the first byte of its answer's body, or to its end when it has none.",
    labelNames: ["kind"],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    registers: [this.registry],
  });
  readonly #accessChecks = new Counter({
    name: "dragonfly_mirror_access_checks_total",
    help: "Questions whether a caller may read something, by what the answer stands on.",
    labelNames: ["result"],
    registers: [this.registry],
  });
  readonly #inFlight = new Gauge({
    name: "dragonfly_mirror_requests_in_flight",
    help: "Requests to the registry mirror that are being answered.",
    registers: [this.registry],
  });

  /** @param manifestCacheBytes read at each scrape */
  constructor(manifestCacheBytes: () => number) {
    new Gauge({
      name: "dragonfly_mirror_manifest_cache_bytes",
      help: "Bytes of the manifests kept in memory.",
      registers: [this.registry],
      collect() {
        this.set(manifestCacheBytes());
      },
    });
    for (const source of ["cache", "seed", "peer", "origin"]) this.#bytes.inc({ source }, 0);
  }

  accessChecked(outcome: AccessOutcome): void {
    this.#accessChecks.inc({ result: outcome });
  }

  started(): void {
    this.#inFlight.inc();
  }

  finished(kind: MirrorKind, result: MirrorResult, ttfbMs: number, sources: SourceBytes): void {
    this.#inFlight.dec();
    this.#requests.inc({ kind, result });
    this.#firstByte.observe({ kind }, ttfbMs / 1000);
    this.#bytes.inc({ source: "cache" }, sources.cacheBytes);
    this.#bytes.inc({ source: "seed" }, sources.seedBytes);
    this.#bytes.inc({ source: "peer" }, sources.peerBytes);
    this.#bytes.inc({ source: "origin" }, sources.originBytes);
  }
}
