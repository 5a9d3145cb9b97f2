/** Whether this host takes in as much as its network interface can carry, where the kernel says how much that is. */
import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";

/** Of the interface's speed: frames' headers, acknowledgements and others' traffic have the rest. */
const FULL_SHARE = 0.85;

export class Downlink {
  readonly #recentBytesPerSecond: () => number;
  readonly #speedOf: (localAddress: string) => number | undefined;
  readonly #known = new Map<string, number | undefined>();
  #bytesPerSecond: number | undefined;

  constructor(recentBytesPerSecond: () => number, speedOf: (localAddress: string) => number | undefined = interfaceBytesPerSecond) {
    this.#recentBytesPerSecond = recentBytesPerSecond;
    this.#speedOf = speedOf;
  }

  /** A link came up at this address of ours: of several interfaces, the fastest counts. */
  linkOpened(localAddress: string | undefined): void {
    if (localAddress === undefined || this.#known.has(localAddress)) return;
    const speed = this.#speedOf(localAddress);
    this.#known.set(localAddress, speed);
    if (speed !== undefined) this.#bytesPerSecond = Math.max(this.#bytesPerSecond ?? 0, speed);
  }

  /** False where no interface tells its speed. */
  get isFull(): boolean {
    return this.#bytesPerSecond !== undefined && this.#recentBytesPerSecond() >= this.#bytesPerSecond * FULL_SHARE;
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
