import type { Duplex } from "node:stream";
import { IDLE_MS_MAX } from "../connection-limits.ts";
import type { ProxyRecord } from "./proxy-record.ts";

/** Pairs of connections whose bytes are passed to each other unread. */
export class Tunnels {
  readonly #open = new Set<Tunnel>();
  readonly #idleMsMax: number;

  constructor(idleMsMax: number = IDLE_MS_MAX) {
    this.#idleMsMax = idleMsMax;
  }

  get isFull(): boolean {
    return this.#open.size >= TUNNELS_MAX;
  }

  get size(): number {
    return this.#open.size;
  }

  /** Joins two connections, which are owned from here on. Resolves when both are closed. */
  async join(client: Duplex, server: Duplex, record: ProxyRecord): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const tunnel: Tunnel = { lastByteMs: performance.now(), cut: () => [client, server].forEach((end) => end.destroy()) };
    this.#open.add(tunnel);
    const timer = setInterval(() => {
      if (performance.now() - tunnel.lastByteMs >= this.#idleMsMax) tunnel.cut();
    }, this.#idleMsMax / 4).unref();
    let openCount = 2;
    const pass = (from: Duplex, to: Duplex, count: (bytes: number) => void): void => {
      from.on("data", (chunk: Buffer) => {
        tunnel.lastByteMs = performance.now();
        count(chunk.length);
      });
      from.on("error", () => to.destroy());
      from.once("close", () => {
        // An end that said nothing more was broken off.
        if (!from.readableEnded) to.destroy();
        if (--openCount === 0) resolve();
      });
      from.pipe(to);
    };
    pass(client, server, (bytes) => (record.receivedBytes += bytes));
    pass(server, client, (bytes) => (record.sentBytes += bytes));
    // One that broke while the other was being opened closes nothing any more.
    if (client.destroyed) server.destroy();
    if (client.closed) openCount--;
    await promise;
    clearInterval(timer);
    this.#open.delete(tunnel);
  }

  /** Cuts those on which nothing has moved for `idleMs`; 0 = all. */
  cut(idleMs: number): void {
    const nowMs = performance.now();
    for (const tunnel of this.#open) if (nowMs - tunnel.lastByteMs >= idleMs) tunnel.cut();
  }
}

interface Tunnel {
  lastByteMs: number;
  readonly cut: () => void;
}

/** Two sockets each, and a few KiB. */
const TUNNELS_MAX = 2048;
