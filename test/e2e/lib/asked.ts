/** One question that an origin got, and its answer. */
export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly status: number;
  readonly range: string | undefined;
  readonly ifNoneMatch: string | undefined;
  readonly ifModifiedSince: string | undefined;
}

/**
 * In one line, for tables: `HEAD 200`; `HEAD if 304` with a condition that 304 answers; `GET 206 @0` with the first byte
 * asked for, `@n` when that is another than 0; `GET one 206` for a question of one byte.
 */
export function inWords({ method, status, range, ifNoneMatch, ifModifiedSince }: Asked): string {
  const words = [method];
  if (range === "bytes=0-0") words.push("one");
  if (ifNoneMatch !== undefined || ifModifiedSince !== undefined) words.push("if");
  words.push(String(status));
  if (range !== undefined && range !== "bytes=0-0") words.push(range.startsWith("bytes=0-") ? "@0" : "@n");
  return words.join(" ");
}
