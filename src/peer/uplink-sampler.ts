/** Asks the kernel now and then what it has to send. The swarm's brain makes of it how slow the uplink is. */
import type { LinkQueue, SwarmInput } from "../swarm/index.ts";

/** Asking all sockets costs system calls. */
const SAMPLE_MS = 50;

export interface UplinkSamplerDeps {
  /** `queue` is undefined where the kernel does not say. */
  readonly links: Iterable<{ readonly writer: { readonly queue: LinkQueue | undefined } }>;
  /** Payload handed to the kernel since the start. */
  readonly handedBytes: () => number;
  readonly feed: (input: SwarmInput) => void;
  /** Monotonic. */
  readonly nowMs: () => number;
}

export class UplinkSampler {
  readonly #deps: UplinkSamplerDeps;
  #sampledMs = Number.NEGATIVE_INFINITY;
  #hasTold = false;

  constructor(deps: UplinkSamplerDeps) {
    this.#deps = deps;
  }

  /** Tells the brain, unless it has been told a moment ago, or no kernel has ever said anything. */
  look(): void {
    const { links, handedBytes, feed, nowMs } = this.#deps;
    if (nowMs() - this.#sampledMs < SAMPLE_MS) return;
    this.#sampledMs = nowMs();
    const known = [...links].map(({ writer }) => writer.queue).filter((queue) => queue !== undefined);
    if (known.length === 0 && !this.#hasTold) return;
    this.#hasTold = true;
    feed({ type: "uplinkSampled", handedBytes: handedBytes(), links: known.filter(({ heldBytes }) => heldBytes > 0) });
  }
}
