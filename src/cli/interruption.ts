import { AppError } from "../base/errors.ts";
import { showDuration } from "./units.ts";

/** What can end a download before its time: a signal from outside, or the clock. */
export class Interruption {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #listeners: readonly (readonly [NodeJS.Signals, () => void])[];
  #exitCode: number | undefined;

  /** @param timeoutMs undefined = no limit */
  constructor(timeoutMs: number | undefined) {
    this.#listeners = (
      [
        ["SIGINT", 2],
        ["SIGTERM", 15],
        ["SIGHUP", 1],
      ] as const
    ).map(([signal, number]) => [signal, () => this.#signalled(signal, 128 + number)] as const);
    for (const [signal, listener] of this.#listeners) process.on(signal, listener);
    if (timeoutMs === undefined) return;
    const error = new AppError("TIMEOUT", `not done after ${showDuration(timeoutMs)}; give it longer with --timeout`);
    // Timers hold 31 bits; nobody waits 24 days for one file.
    this.#timer = setTimeout(() => this.#controller.abort(error), Math.min(timeoutMs, 2 ** 31 - 1));
  }

  /** Aborted with an AppError for its reason. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** 128 + the number of the signal that came; undefined when none did. */
  get exitCode(): number | undefined {
    return this.#exitCode;
  }

  close(): void {
    clearTimeout(this.#timer);
    for (const [signal, listener] of this.#listeners) process.off(signal, listener);
  }

  #signalled(signal: NodeJS.Signals, exitCode: number): void {
    // The second time somebody is in earnest.
    if (this.#exitCode !== undefined) process.exit(exitCode);
    this.#exitCode = exitCode;
    this.#controller.abort(new AppError("ABORTED", `interrupted by ${signal}`));
  }
}
