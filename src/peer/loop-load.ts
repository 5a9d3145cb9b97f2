/** How busy this process's event loop is, and how late it comes to what is due. */
import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import { Gauge, type Registry } from "prom-client";

/** Long enough to mean something, short enough to tell phases of a download apart. */
const WINDOW_MS = 50;
/** Above this the loop has no time left: what comes in waits for it. */
const BUSY_SHARE = 0.95;
/** The timer that measures wakes an idle process so often, and a percentile of ten looks a second says as much: one of 1 ms cost the lab 24.9 CPU s/GB instead of 18.5. */
const RESOLUTION_MS = 100;

export class LoopLoad {
  readonly #resolutionMs: number;
  readonly #delay: ReturnType<typeof monitorEventLoopDelay>;
  #sample = performance.eventLoopUtilization();
  #sampledMs = performance.now();
  #isBusy = false;

  /** @param resolutionMs between two looks at the delay; shorter for a measurement of seconds */
  constructor(resolutionMs = RESOLUTION_MS) {
    this.#resolutionMs = resolutionMs;
    this.#delay = monitorEventLoopDelay({ resolution: resolutionMs });
    this.#delay.enable();
  }

  /** Over the last window that has ended; looked at when asked. */
  isBusy(): boolean {
    const nowMs = performance.now();
    if (nowMs - this.#sampledMs >= WINDOW_MS) {
      const sample = performance.eventLoopUtilization();
      this.#isBusy = performance.eventLoopUtilization(sample, this.#sample).utilization >= BUSY_SHARE;
      this.#sample = sample;
      this.#sampledMs = nowMs;
    }
    return this.#isBusy;
  }

  /** Seconds that the timer came late, at most, in `percentile` of cases since the last scrape. */
  delaySeconds(percentile: number): number {
    return Math.max(0, this.#delay.percentile(percentile) / 1e9 - this.#resolutionMs / 1000);
  }

  /** Tells the delay of the time since the last scrape. */
  observe(registry: Registry): void {
    const read = (): number => {
      const seconds = this.delaySeconds(99);
      this.#delay.reset();
      return seconds;
    };
    new Gauge({
      name: "dragonfly_event_loop_delay_p99_seconds",
      help: "How late the event loop came to what was due, 99th percentile since the last scrape",
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  }

  close(): void {
    this.#delay.disable();
  }
}
