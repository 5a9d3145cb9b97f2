/**
 * Reads a `Retry-After` value: a number of seconds, or an HTTP date.
 *
 * @param nowUnixMs wall clock in ms, against which a date is measured
 * @returns the wait in whole ms, 0 for a date gone by; `undefined` when absent or unreadable
 * Source: RFC 9110 §10.2.3.
 */
export function parseRetryAfter(value: string | undefined, nowUnixMs: number): number | undefined {
  const text = value?.trim() ?? "";
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  // Date.parse alone would take "-5" or "2" for a year: an HTTP date always opens with the day's name.
  if (!/^[A-Z][a-z]{2,8},? /.test(text)) return undefined;
  const atUnixMs = Date.parse(text);
  return Number.isNaN(atUnixMs) ? undefined : Math.max(0, Math.round(atUnixMs - nowUnixMs));
}
