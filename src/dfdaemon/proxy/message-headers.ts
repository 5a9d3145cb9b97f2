/** Header fields on their way through a proxy, as Node's raw lists `[name, value, name, value, …]`. RFC 9110 §7.6. */

/** What a proxy adds and takes off. */
export interface HeaderRules {
  /** Our name in `Via`. */
  readonly pseudonym: string;
  /** Names (lower case) that the caller sets himself. */
  readonly replaced?: readonly string[];
}

/**
 * The fields that go on: all but those of one connection (the ones that `Connection` names among them) and those meant
 * for a proxy; `Via` with our name added.
 */
export function endToEnd(rawHeaders: readonly string[], rules: HeaderRules): string[] {
  const dropped = new Set([...ONE_HOP, ...(rules.replaced ?? []), ...connectionOptions(rawHeaders)]);
  const kept: string[] = [];
  const via: string[] = [];
  for (const [name, value] of pairs(rawHeaders)) {
    const key = name.toLowerCase();
    if (key === "via") via.push(value);
    else if (!dropped.has(key)) kept.push(name, value);
  }
  kept.push("Via", [...via, `1.1 ${rules.pseudonym}`].join(", "));
  return kept;
}

/** True when `pseudonym` is in a `Via` already: the message has been here before. */
export function isLoop(rawHeaders: readonly string[], pseudonym: string): boolean {
  for (const [name, value] of pairs(rawHeaders)) {
    if (name.toLowerCase() === "via" && value.split(",").some((entry) => entry.trim().split(/\s+/)[1] === pseudonym)) return true;
  }
  return false;
}

/** The first value of a field. @param name lower case */
export function fieldOf(rawHeaders: readonly string[], name: string): string | undefined {
  for (const [each, value] of pairs(rawHeaders)) if (each.toLowerCase() === name) return value;
  return undefined;
}

export function* pairs(rawHeaders: readonly string[]): Generator<readonly [string, string]> {
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) yield [rawHeaders[at]!, rawHeaders[at + 1]!];
}

function connectionOptions(rawHeaders: readonly string[]): string[] {
  const options: string[] = [];
  for (const [name, value] of pairs(rawHeaders)) {
    if (name.toLowerCase() === "connection") options.push(...value.toLowerCase().split(",").map((option) => option.trim()));
  }
  // A client cannot have a field taken off that its message needs to be understood.
  return options.filter((option) => !FRAMING.has(option));
}

const ONE_HOP = [
  "connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "proxy-authentication-info",
  "te", "transfer-encoding", "upgrade", "http2-settings",
] as const;

const FRAMING: ReadonlySet<string> = new Set(["content-length", "host", "content-type", "content-range", "authorization"]);
