/** How a download's progress is written. Pure: figures in, text out. */
import { createColors } from "picocolors";
import { showBytes, showDuration } from "./units.ts";

/** Where a download stands. */
export interface ProgressFigures {
  readonly name: string;
  readonly doneBytes: number;
  /** Of `doneBytes`: taken over from an earlier run. */
  readonly resumedBytes: number;
  readonly totalBytes: number | undefined;
  readonly bytesPerSecond: number | undefined;
  readonly elapsedMs: number;
  readonly sources: SourceFigures;
}

export interface SourceFigures {
  readonly seedBytes: number;
  readonly peerBytes: number;
  readonly originBytes: number;
  readonly cacheBytes: number;
}

export interface ProgressStyle {
  /** Columns of the terminal; the line is one shorter at most. */
  readonly columns: number;
  readonly colour: boolean;
}

/**
 * One line for a terminal: percent, bar, bytes, rate, time left, where the bytes come from. Parts that do not fit are
 * left out, the least important first; the bytes always stay.
 */
export function renderBar(figures: ProgressFigures, { columns, colour }: ProgressStyle): string {
  const room = Math.max(10, columns - 1);
  const total = figures.totalBytes === undefined ? "" : ` / ${showBytes(figures.totalBytes)}`;
  const bytes = `${showBytes(figures.doneBytes)}${total}`;
  const rate = rateText(figures);
  const left = leftText(figures);
  const sources = sourcesText(figures.sources, "brief");
  const percent = percentText(figures);
  const name = `${clip(figures.name, NAME_COLUMNS)} `;
  const layouts: readonly (readonly [before: string, hasBar: boolean, after: readonly string[]])[] = [
    [name, true, [bytes, rate, left, sources]],
    ["", true, [bytes, rate, left, sources]],
    ["", false, [bytes, rate, left, sources]],
    ["", false, [bytes, rate, sources]],
    ["", true, [bytes, rate]],
    ["", false, [bytes, rate]],
  ];
  for (const [before, hasBar, parts] of layouts) {
    const after = parts.filter((text) => text !== "").join("  ");
    const barRoom = room - before.length - percent.length - after.length - " [] ".length;
    if (!hasBar || percent === "") {
      const line = [percent, after].filter((text) => text !== "").join(" ");
      if (before.length + line.length <= room) return `${before}${line}`;
    } else if (barRoom >= BAR_COLUMNS_MIN) {
      const colours = createColors(colour);
      const bar = barText(figures, Math.min(BAR_COLUMNS_MAX, barRoom));
      return `${before}${colours.bold(percent)} [${colours.cyan(bar)}] ${after}`;
    }
  }
  return clip(bytes, room);
}

/** One line for a log. */
export function renderPlain(figures: ProgressFigures): string {
  const total =
    figures.totalBytes === undefined ? "" : ` of ${showBytes(figures.totalBytes)} (${percentText(figures).trim()})`;
  const parts = [
    `${showBytes(figures.doneBytes)}${total}`,
    rateText(figures),
    leftText(figures),
    sourcesText(figures.sources),
  ];
  return `${figures.name}: ${parts.filter((text) => text !== "").join(", ")}`;
}

/** The last line: what came, how fast on average, where from. */
export function renderFinal(figures: ProgressFigures): string {
  const { doneBytes, resumedBytes, elapsedMs, sources } = figures;
  const newBytes = doneBytes - resumedBytes;
  const resumed = resumedBytes > 0 ? ` (${showBytes(resumedBytes)} were here)` : "";
  const rate = elapsedMs > 0 ? `${showBytes((newBytes * 1000) / elapsedMs)}/s` : "";
  const parts = [`${showBytes(doneBytes)}${resumed} in ${showDuration(elapsedMs)}`, rate, sourcesText(sources)];
  return `${figures.name}: ${parts.filter((text) => text !== "").join(", ")}`;
}

/**
 * `seed 12% peers 80% origin 8%`; empty while nothing has come.
 *
 * @param style brief leaves out what gave nothing
 */
export function sourcesText(
  { seedBytes, peerBytes, originBytes, cacheBytes }: SourceFigures,
  style: "full" | "brief" = "full",
): string {
  const total = seedBytes + peerBytes + originBytes + cacheBytes;
  if (total === 0) return "";
  const named = [
    ["seed", seedBytes],
    ["peers", peerBytes],
    ["origin", originBytes],
    ["cache", cacheBytes],
  ] as const;
  return named
    .filter(([name, bytes]) => bytes > 0 || (style === "full" && name !== "cache"))
    .map(([name, bytes]) => `${name} ${Math.round((100 * bytes) / total)}%`)
    .join(" ");
}

function percentText({ doneBytes, totalBytes }: ProgressFigures): string {
  if (totalBytes === undefined) return "";
  const percent = totalBytes === 0 ? 100 : Math.floor((100 * doneBytes) / totalBytes);
  return `${String(Math.min(100, percent)).padStart(3)}%`;
}

function barText({ doneBytes, totalBytes }: ProgressFigures, columns: number): string {
  const share = totalBytes === undefined || totalBytes === 0 ? 1 : Math.min(1, doneBytes / totalBytes);
  const full = Math.floor(share * columns);
  const head = full > 0 && full < columns ? ">" : "";
  return "="
    .repeat(full - head.length)
    .concat(head)
    .padEnd(columns);
}

function rateText({ bytesPerSecond }: ProgressFigures): string {
  return bytesPerSecond === undefined ? "" : `${showBytes(bytesPerSecond)}/s`;
}

function leftText({ doneBytes, totalBytes, bytesPerSecond }: ProgressFigures): string {
  if (totalBytes === undefined || bytesPerSecond === undefined) return "";
  if (doneBytes >= totalBytes) return "";
  if (bytesPerSecond < 1) return "stalled";
  return `${showDuration(((totalBytes - doneBytes) * 1000) / bytesPerSecond)} left`;
}

function clip(text: string, columns: number): string {
  return text.length <= columns ? text : `${text.slice(0, columns - 1)}…`;
}

const BAR_COLUMNS_MIN = 8;
const BAR_COLUMNS_MAX = 40;
const NAME_COLUMNS = 24;
