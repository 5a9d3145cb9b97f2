/** Writes progress to stderr while a download runs, and its last line when it is over. */
import { renderBar, renderFinal, renderPlain, type ProgressFigures } from "./progress.ts";
import { RateMeter } from "./rate-meter.ts";

export type ProgressMode = "bar" | "plain" | "none";

/** What a terminal can do, from its environment. */
export function chooseProgress(
  wanted: "auto" | ProgressMode,
  quiet: boolean,
  terminal: { readonly isTty: boolean; readonly env: Readonly<Record<string, string | undefined>> },
): { readonly mode: ProgressMode; readonly colour: boolean } {
  const isDumb = terminal.env["TERM"] === "dumb";
  const automatic = terminal.isTty && !isDumb ? "bar" : "plain";
  const mode = quiet ? "none" : wanted === "auto" ? automatic : wanted;
  // NO_COLOR counts when set and not empty (no-color.org).
  const noColour = (terminal.env["NO_COLOR"] ?? "") !== "";
  return { mode, colour: terminal.isTty && !isDumb && !noColour };
}

export interface ProgressReporterOptions {
  readonly name: string;
  readonly mode: ProgressMode;
  readonly colour: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Asked each time a line is due. */
  readonly read: () => Pick<ProgressFigures, "doneBytes" | "resumedBytes" | "totalBytes" | "sources">;
}

export class ProgressReporter {
  readonly #options: ProgressReporterOptions;
  readonly #meter = new RateMeter();
  readonly #startedMs = performance.now();
  readonly #timer: NodeJS.Timeout | undefined;
  #isLineOpen = false;
  #nextPlainMs = PLAIN_MS;

  constructor(options: ProgressReporterOptions) {
    this.#options = options;
    const { mode } = options;
    this.#timer = mode === "none" ? undefined : setInterval(() => this.#tick(), mode === "bar" ? BAR_MS : LOOK_MS).unref();
  }

  /** Writes a line of its own, above the bar. */
  say(line: string): void {
    this.#clear();
    process.stderr.write(`${line}\n`);
  }

  /** Stops, and wipes the bar. Idempotent. */
  stop(): void {
    clearInterval(this.#timer);
    this.#clear();
  }

  /** Says it again, for the whole download. */
  finish(): void {
    this.stop();
    if (this.#options.mode !== "none") process.stderr.write(`${renderFinal(this.figures())}\n`);
  }

  figures(): ProgressFigures {
    const { name, read } = this.#options;
    return {
      name,
      ...read(),
      bytesPerSecond: this.#meter.bytesPerSecond,
      elapsedMs: performance.now() - this.#startedMs,
    };
  }

  #tick(): void {
    const { mode, colour, read, env } = this.#options;
    const { doneBytes } = read();
    const nowMs = performance.now();
    // From the first byte on: neither the wait for it nor what an earlier run left is speed.
    if (doneBytes > 0) this.#meter.add(doneBytes, nowMs);
    if (mode === "bar") {
      const columns = Number(env["COLUMNS"]) || process.stderr.columns || 80;
      process.stderr.write(`\r\u001b[K${renderBar(this.figures(), { columns, colour })}`);
      this.#isLineOpen = true;
    } else if (mode === "plain" && nowMs - this.#startedMs >= this.#nextPlainMs) {
      this.#nextPlainMs += PLAIN_MS;
      process.stderr.write(`${renderPlain(this.figures())}\n`);
    }
  }

  #clear(): void {
    if (this.#isLineOpen) process.stderr.write("\r\u001b[K");
    this.#isLineOpen = false;
  }
}

const BAR_MS = 200;
const PLAIN_MS = 3000;
/** Between two looks at the rate where only lines are written. */
const LOOK_MS = 1000;
