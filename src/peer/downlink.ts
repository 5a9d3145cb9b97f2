/** Whether this host takes in as much as its limit lets it, or as its network interface can carry, where the kernel says how much that is. */
import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";

/** Of the interface's speed: frames' headers, acknowledgements and others' traffic have the rest. Of the limit: what it lost to senders. */
const FULL_SHARE = 0.85;

/** What this host takes in over the last second, and its limit; undefined: none. */
export interface TakenRate {
  readonly recentBytesPerSecond: number;
  readonly bytesPerSecond: number | undefined;
}

export class Downlink {
  readonly #taken: TakenRate;
  readonly #speedOf: (localAddress: string) => number | undefined;
  readonly #known = new Map<string, number | undefined>();
  #bytesPerSecond: number | undefined;

  constructor(taken: TakenRate, speedOf: (localAddress: string) => number | undefined = interfaceBytesPerSecond) {
    this.#taken = taken;
    this.#speedOf = speedOf;
  }

  /** A link came up at this address of ours: of several interfaces, the fastest counts. */
  linkOpened(localAddress: string | undefined): void {
    if (localAddress === undefined || this.#known.has(localAddress)) return;
    const speed = this.#speedOf(localAddress);
    this.#known.set(localAddress, speed);
    if (speed !== undefined) this.#bytesPerSecond = Math.max(this.#bytesPerSecond ?? 0, speed);
  }

  /**
   * False where there is no limit and no interface tells its speed. A limit is full for all tasks, not only for the one whose
   * bytes wait: those of others stand behind them on the same link.
   */
  get isFull(): boolean {
    const { recentBytesPerSecond, bytesPerSecond = Number.POSITIVE_INFINITY } = this.#taken;
    return recentBytesPerSecond >= Math.min(bytesPerSecond, this.#bytesPerSecond ?? Number.POSITIVE_INFINITY) * FULL_SHARE;
  }
}

/** Speed of the interface that has this address: Linux, and not of every virtual one; else undefined. */
function interfaceBytesPerSecond(localAddress: string): number | undefined {
  const address = localAddress.replace(/^::ffff:/, "");
  const name = Object.entries(networkInterfaces()).find(([, addresses]) => addresses?.some((each) => each.address === address))?.[0];
  if (name === undefined) return undefined;
  try {
    // Mbit/s; −1 or an error where there is none.
    const speed = Number(readFileSync(`/sys/class/net/${name}/speed`, "latin1"));
    return speed > 0 ? (speed * 1e6) / 8 : undefined;
  } catch {
    return undefined;
  }
}
