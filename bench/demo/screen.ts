/** What the demo shows. Pure: figures in, text out. */
import { showBytes, showDuration } from "../../src/cli/units.ts";

/** How one host has done. */
export interface HostResult {
  readonly name: string;
  readonly seconds: number;
  readonly bytes: number;
  readonly seedBytes: number;
  readonly peerBytes: number;
  readonly originBytes: number;
  /** undefined: the download failed; the reason is `failure`. */
  readonly isRight: boolean;
  readonly failure: string | undefined;
}

export function renderHosts(
  hosts: readonly { readonly name: string; readonly doneBytes: number }[],
  lengthBytes: number,
): readonly string[] {
  return hosts.map(({ name, doneBytes }) => {
    const share = doneBytes / lengthBytes;
    const full = Math.floor(share * BAR_COLUMNS);
    return `${name} [${"=".repeat(full).padEnd(BAR_COLUMNS)}] ${String(Math.floor(share * 100)).padStart(3)}%  ${showBytes(doneBytes)}`;
  });
}

export function renderTable(results: readonly HostResult[]): string {
  const rows = [
    ["host", "time", "rate", "from seed", "from peers", "from origin", "SHA-256"],
    ...results.map(({ name, seconds, bytes, seedBytes, peerBytes, originBytes, isRight, failure }) => [
      name,
      showDuration(seconds * 1000),
      seconds > 0 ? `${showBytes(bytes / seconds)}/s` : "",
      share(seedBytes, bytes),
      share(peerBytes, bytes),
      share(originBytes, bytes),
      isRight ? "ok" : (failure ?? "WRONG"),
    ]),
  ];
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) =>
        column === 0 || column === row.length - 1
          ? cell.padEnd(widths[column] ?? 0)
          : cell.padStart(widths[column] ?? 0),
      )
      .join("  ")
      .trimEnd(),
  );
  lines.splice(1, 0, widths.map((width) => "-".repeat(width)).join("  "));
  return lines.join("\n");
}

function share(bytes: number, total: number): string {
  return total === 0 ? "-" : `${showBytes(bytes)} (${Math.round((100 * bytes) / total)}%)`;
}

const BAR_COLUMNS = 40;
