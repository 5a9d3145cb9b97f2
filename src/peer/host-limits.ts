/** The three limits of a host as one thing: to read and change while it runs, and for its metrics. */
import { Counter, Gauge, type Registry } from "prom-client";
import { z } from "zod";
import type { RateLimits } from "./config.ts";
import type { RateGate } from "./rate-gate.ts";

export type LimitName = "download" | "upload" | "origin";

/** One limit: what is set, and what is reached. */
export interface LimitView {
  /** Null = no limit. */
  readonly limitBytesPerSecond: number | null;
  /** Over the last second. */
  readonly bytesPerSecond: number;
  readonly totalBytes: number;
  /** Links and readings that it makes wait right now. */
  readonly waitingCount: number;
}

export type LimitsView = Readonly<Record<LimitName, LimitView>>;

const change = z.number().positive().nullable().optional();
/** What is to change; null = no limit from now on, absent = as it is. */
export const limitsChangeSchema = z.strictObject({
  downloadBytesPerSecond: change,
  uploadBytesPerSecond: change,
  originBytesPerSecond: change,
} satisfies Record<keyof RateLimits, z.ZodType>);
export type LimitsChange = z.infer<typeof limitsChangeSchema>;

export class HostLimits {
  readonly #gates: Readonly<Record<LimitName, RateGate>>;

  /** The gates stay the caller's. */
  constructor(gates: Readonly<Record<LimitName, RateGate>>) {
    this.#gates = gates;
  }

  set(limits: RateLimits): void {
    this.change({
      downloadBytesPerSecond: limits.downloadBytesPerSecond ?? null,
      uploadBytesPerSecond: limits.uploadBytesPerSecond ?? null,
      originBytesPerSecond: limits.originBytesPerSecond ?? null,
    });
  }

  /** Effective at once, until the next change or reload. */
  change(change: LimitsChange): void {
    for (const name of LIMIT_NAMES) {
      const rate = change[`${name}BytesPerSecond`];
      if (rate !== undefined) this.#gates[name].setRate(rate ?? undefined);
    }
  }

  view(): LimitsView {
    const viewOf = (name: LimitName): LimitView => {
      const gate = this.#gates[name];
      return {
        limitBytesPerSecond: gate.bytesPerSecond ?? null,
        bytesPerSecond: Math.round(gate.recentBytesPerSecond),
        totalBytes: gate.passedBytes,
        waitingCount: gate.waitingCount,
      };
    };
    return { download: viewOf("download"), upload: viewOf("upload"), origin: viewOf("origin") };
  }

  /** Adds the limits to a registry, read at each scrape. Once per registry. */
  observe(registry: Registry): void {
    const registers = [registry];
    const labelNames = ["limit"] as const;
    const gauge = (name: string, help: string, read: (view: LimitView) => number): void => {
      const view = (): LimitsView => this.view();
      new Gauge({ name, help, labelNames, registers, collect() {
        for (const [limit, each] of Object.entries(view())) this.set({ limit }, read(each));
      } });
    };
    gauge("dragonfly_limit_bytes_per_second", "Limit that is set; +Inf = none", (view) => view.limitBytesPerSecond ?? Number.POSITIVE_INFINITY);
    gauge("dragonfly_limit_reached_bytes_per_second", "What moved in the last second", (view) => view.bytesPerSecond);
    gauge("dragonfly_limit_waiting", "Links and readings that the limit makes wait", (view) => view.waitingCount);
    const told: Record<string, number> = {};
    const view = (): LimitsView => this.view();
    new Counter({ name: "dragonfly_limit_passed_bytes_total", help: "All that moved, limited or not", labelNames, registers, collect() {
      for (const [limit, { totalBytes }] of Object.entries(view())) {
        this.inc({ limit }, totalBytes - (told[limit] ?? 0));
        told[limit] = totalBytes;
      }
    } });
  }
}

const LIMIT_NAMES: readonly LimitName[] = ["download", "upload", "origin"];
