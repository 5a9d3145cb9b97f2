/**
 * Signs the pieces of one read several at a time (src/peer/membership/piece-signature.ts), for those who will have to check
 * that. A piece waits for others no longer than a fraction of the time that the read has run already, so the first ones are
 * given out at once; and at the read's end none waits. Source: docs/decisions.md §45.
 */
import type { TaskId } from "../../protocol/ids.ts";
import { pieceStatement } from "../../protocol/link-frames.ts";
import { SIGNED_TOGETHER_MAX, signTogether } from "../../peer/membership/piece-signature.ts";

export interface DeskClock {
  readonly nowMs: () => number;
  /** @returns what calls it off */
  readonly after: (delayMs: number, run: () => void) => () => void;
}

export interface SigningDeskDeps extends DeskClock {
  /** Ed25519: 64 bytes. */
  readonly sign: (statement: Uint8Array) => Uint8Array;
}

export const SYSTEM_CLOCK: DeskClock = {
  nowMs: () => performance.now(),
  after: (delayMs, run) => {
    const timer = setTimeout(run, delayMs);
    return () => clearTimeout(timer);
  },
};

/** Of the time since the read began: who reads along is behind by so much at most. */
const WAIT_SHARE = 1 / 16;
const WAIT_MS_MAX = 100;
/** While pieces wait, so do their buffers. Checking a signature is little beside hashing this much. */
const WAITING_BYTES_MAX = 4 * 1024 * 1024;

interface Waiting {
  readonly statement: Uint8Array;
  readonly signed: (signature: Uint8Array) => void;
  readonly failed: (error: unknown) => void;
}

export class SigningDesk {
  readonly #deps: SigningDeskDeps;
  readonly #taskId: TaskId;
  readonly #countMax: number;
  readonly #beganMs: number;
  #waiting: Waiting[] = [];
  #callOff: (() => void) | undefined;
  #isHurried = false;

  constructor(deps: SigningDeskDeps, taskId: TaskId, pieceLengthBytes: number) {
    this.#deps = deps;
    this.#taskId = taskId;
    this.#countMax = Math.max(1, Math.min(SIGNED_TOGETHER_MAX, Math.floor(WAITING_BYTES_MAX / pieceLengthBytes)));
    this.#beganMs = deps.nowMs();
  }

  /**
   * @param digest the piece's BLAKE3-256
   * @returns its signature, within {@link WAIT_MS_MAX}; rejects with what `sign` throws
   */
  sign(piece: number, lengthBytes: number, digest: Uint8Array): Promise<Uint8Array> {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    this.#waiting.push({ statement: pieceStatement(this.#taskId, piece, lengthBytes, digest), signed: resolve, failed: reject });
    if (this.#isHurried || this.#waiting.length >= this.#countMax) this.signWaiting();
    else this.#callOff ??= this.#deps.after(this.#waitMs, () => this.signWaiting());
    return promise;
  }

  /** No more are coming that would be worth waiting for: what waits is signed now, and what comes later at once. */
  hurry(): void {
    this.#isHurried = true;
    this.signWaiting();
  }

  /** Signs what waits, without waiting for more. */
  signWaiting(): void {
    this.#callOff?.();
    this.#callOff = undefined;
    const waiting = this.#waiting;
    this.#waiting = [];
    try {
      const signatures = signTogether(
        waiting.map(({ statement }) => statement),
        this.#deps.sign,
      );
      waiting.forEach(({ signed }, at) => signed(signatures[at] as Uint8Array));
    } catch (error) {
      for (const { failed } of waiting) failed(error);
    }
  }

  get #waitMs(): number {
    return Math.min(WAIT_MS_MAX, (this.#deps.nowMs() - this.#beganMs) * WAIT_SHARE);
  }
}
