/** What the supernode tells Prometheus. Labels are bounded: codes come from the error table, nothing from the wire. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

const PREFIX = "dragonfly_supernode_";

/** Read at each scrape. */
export interface MetricSources {
  readonly taskCount: () => number;
  readonly peerCount: () => number;
  readonly linkCount: () => number;
  readonly cache: () => {
    readonly usedBytes: number;
    readonly taskCount: number;
    readonly evictedBytes: number;
    readonly evictedTasks: Readonly<Record<string, number>>;
    readonly refusedRequests: Readonly<Record<string, number>>;
    readonly damagedPieces: number;
    readonly scrubbedBytes: number;
    readonly scrubbedAllAtUnixMs: number | undefined;
  };
}

export class SupernodeMetrics {
  readonly registry: Registry = new Registry();
  readonly originBytes: Counter;
  readonly originRequests: Counter<"code">;
  readonly joins: Counter<"result">;
  readonly joinSeconds: Histogram;
  readonly pieces: Counter;
  readonly originReads: Counter<"outcome">;

  constructor(version: string) {
    const registers = [this.registry];
    const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []): Counter<L> =>
      new Counter({ name: PREFIX + name, help, labelNames: [...labelNames], registers });
    collectDefaultMetrics({ register: this.registry });
    this.originBytes = counter("origin_bytes_total", "Bytes received from origins.");
    this.originRequests = counter("origin_requests_total", "Requests to origins, by outcome.", ["code"]);
    this.originReads = counter("origin_reads_total", "Leases to read an origin, by how they ended.", ["outcome"]);
    this.joins = counter("joins_total", "Joins answered, by result.", ["result"]);
    this.pieces = counter("pieces_total", "Pieces read from origins, digested and stored.");
    this.joinSeconds = new Histogram({
      name: `${PREFIX}join_duration_seconds`,
      help: "From a join to its answer, the origin's own answer included.",
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
      registers,
    });
    const info = new Gauge({ name: `${PREFIX}build_info`, help: "Always 1.", labelNames: ["version", "node"], registers });
    info.set({ version, node: process.versions.node }, 1);
  }

  /** Adds the gauges whose values others keep. Once. */
  observe(sources: MetricSources): void {
    const registers = [this.registry];
    const gauge = (name: string, help: string, read: () => number): void => {
      const made: Gauge = new Gauge({ name: PREFIX + name, help, registers, collect: () => made.set(read()) });
    };
    gauge("tasks", "Tasks with members.", sources.taskCount);
    gauge("peers", "Peers with a control connection.", sources.peerCount);
    gauge("links", "Links of the seed.", sources.linkCount);
    gauge("cache_bytes", "Bytes of pieces on disk.", () => sources.cache().usedBytes);
    gauge("cache_tasks", "Tasks on disk.", () => sources.cache().taskCount);
    gauge("cache_evicted_bytes", "Bytes evicted since the start.", () => sources.cache().evictedBytes);
    const byReason = (name: string, help: string, read: () => Readonly<Record<string, number>>): void => {
      const made: Gauge<"reason"> = new Gauge({
        name: PREFIX + name,
        help,
        labelNames: ["reason"],
        registers,
        collect() {
          for (const [reason, count] of Object.entries(read())) made.set({ reason }, count);
        },
      });
    };
    byReason("cache_evicted_tasks", "Tasks evicted since the start, by the limit that made it necessary.", () => sources.cache().evictedTasks);
    byReason("cache_refused_requests", "Requests for room turned down since the start, by limit.", () => sources.cache().refusedRequests);
    gauge("cache_damaged_pieces", "Pieces dropped since the start because the disk gave back other bytes.", () => sources.cache().damagedPieces);
    gauge("cache_scrubbed_bytes", "Bytes read back in the background since the start.", () => sources.cache().scrubbedBytes);
    gauge("cache_scrubbed_all_seconds", "Unix time at which all that is stored had been read back; 0: not yet.", () => (sources.cache().scrubbedAllAtUnixMs ?? 0) / 1000);
  }
}
