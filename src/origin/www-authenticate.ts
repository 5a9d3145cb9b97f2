/** One challenge of a `WWW-Authenticate` field. */
export interface Challenge {
  /** Lower case: `bearer`, `basic`, … */
  readonly scheme: string;
  /** Names in lower case, values unquoted. */
  readonly params: Readonly<Record<string, string>>;
}

/**
 * Reads the challenges of a `WWW-Authenticate` value, several fields joined by commas included.
 *
 * Commas inside quoted strings belong to the string. A malformed tail is left out; what stood before it is kept.
 * Source: RFC 9110 §11.6.1.
 */
export function parseWwwAuthenticate(value: string): Challenge[] {
  const challenges: { scheme: string; params: Record<string, string> }[] = [];
  let at = 0;
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const match = pattern.exec(value);
    if (match !== null) at = pattern.lastIndex;
    return match;
  };
  for (;;) {
    take(SEPARATORS);
    const param = take(PARAM);
    const current = challenges.at(-1);
    if (param !== null) {
      if (current === undefined) return challenges;
      const text = param[3] ?? (param[2] ?? "").replaceAll(/\\(.)/gs, "$1");
      // The first of two wins, so that a repeated parameter cannot replace one that was already read.
      current.params[(param[1] ?? "").toLowerCase()] ??= text;
      continue;
    }
    const scheme = take(SCHEME);
    if (scheme === null) return challenges;
    // No prototype: a parameter called "constructor" is a parameter.
    challenges.push({ scheme: (scheme[1] ?? "").toLowerCase(), params: Object.create(null) as Record<string, string> });
    if (take(SCHEME_ENDS) === null) take(TOKEN68);
  }
}

const SEPARATORS = /[\s,]*/y;
const PARAM = /([\w!#$%&'*+.^`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"=]+)(?=\s*(?:,|$)))/sy;
const SCHEME = /([\w!#$%&'*+.^`|~-]+)(?=[\s,]|$)/y;
const SCHEME_ENDS = /\s+(?=[\w!#$%&'*+.^`|~-]+\s*=\s*["\w!#$%&'*+.^`|~/:-])|\s*(?=,|$)/y;
const TOKEN68 = /\s+[\w.~+/-]+=*(?=\s*(?:,|$))/y;
