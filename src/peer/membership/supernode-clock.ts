import type { TicketClock } from "./tickets.ts";

/** Clocks that tell the time now, in ms: one that never jumps, and the machine's own. */
export interface MachineClocks {
  readonly nowMs: () => number;
  readonly unixMs: () => number;
}

/** After the supernode is back, tickets that ran out meanwhile are good for this long: their peers renew them just now. */
const RENEWAL_MS = 10_000;

/**
 * The supernode's time as a peer knows it: what it said when it registered us, and the time since then. So tickets of some
 * minutes need no clocks that agree. Until the first registration it is this machine's.
 */
export class SupernodeClock implements TicketClock {
  readonly #clocks: MachineClocks;
  #offsetMs: number;
  #outageSinceMs: number | undefined;
  #backAtMs: number | undefined;
  #isKnown = false;

  constructor(clocks: MachineClocks = { nowMs: () => performance.now(), unixMs: Date.now }) {
    this.#clocks = clocks;
    this.#offsetMs = clocks.unixMs() - clocks.nowMs();
    this.#outageSinceMs = clocks.nowMs();
  }

  /** @param unixMs as the supernode said just now */
  registered(unixMs: number): void {
    const nowMs = this.#clocks.nowMs();
    this.#offsetMs = unixMs - nowMs;
    // At the first time nobody's ticket has run out on us.
    if (!this.#isKnown) this.#outageSinceMs = undefined;
    this.#isKnown = true;
    this.#backAtMs = nowMs;
  }

  disconnected(): void {
    const nowMs = this.#clocks.nowMs();
    // A supernode that came and went at once has renewed nothing.
    if (this.#isOver(nowMs)) this.#outageSinceMs = nowMs;
    this.#backAtMs = undefined;
  }

  readonly unixMs = (): number => Math.round(this.#clocks.nowMs() + this.#offsetMs);

  readonly outageSinceUnixMs = (): number | undefined => {
    if (this.#outageSinceMs === undefined) return undefined;
    if (this.#isOver(this.#clocks.nowMs())) {
      this.#outageSinceMs = undefined;
      return undefined;
    }
    return Math.round(this.#outageSinceMs + this.#offsetMs);
  };

  #isOver(nowMs: number): boolean {
    return this.#outageSinceMs === undefined || (this.#backAtMs !== undefined && nowMs - this.#backAtMs >= RENEWAL_MS);
  }
}
