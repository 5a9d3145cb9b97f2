/** What a server under test's eye really gave away: one entry per request, with the bytes of the body it sent. */
export interface ServedRequest {
  /** Milliseconds since the log began. */
  readonly atMs: number;
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly query: string;
  /** The request's own Range header, for messages only; `start` says what was really sent. */
  readonly rangeHeader: string | undefined;
  readonly from: string;
  readonly userAgent: string;
  readonly authorization: string | undefined;
  /** 0 until the answer's head was sent. */
  status: number;
  /** First byte of the representation that the body begins with. */
  start: number;
  /** Bytes of the body handed to the socket so far. */
  bytes: number;
}

interface Interval {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

/** Every request a server answered, in the order of arrival, and the sums over them that the tests assert. */
export class RequestLog {
  readonly entries: ServedRequest[] = [];
  readonly #beganMs = performance.now();

  open(
    request: Pick<ServedRequest, "method" | "path" | "query" | "rangeHeader" | "from" | "userAgent" | "authorization">,
  ): ServedRequest {
    const entry: ServedRequest = {
      ...request,
      atMs: Math.round(performance.now() - this.#beganMs),
      status: 0,
      start: 0,
      bytes: 0,
    };
    this.entries.push(entry);
    return entry;
  }

  clear(): void {
    this.entries.length = 0;
  }

  of(path: string, method = "GET"): ServedRequest[] {
    return this.entries.filter((entry) => entry.path === path && entry.method === method);
  }

  /** Body bytes sent for `path`, over all requests that were answered with the representation. */
  bytes(path: string): number {
    return this.intervals(path).reduce((sum, { start, end }) => sum + end - start, 0);
  }

  /** What was sent of `path`, as intervals, a copy that later requests do not change. */
  intervals(path: string): Interval[] {
    return this.of(path)
      .filter((entry) => (entry.status === 200 || entry.status === 206) && entry.bytes > 0)
      .map((entry) => ({ start: entry.start, end: entry.start + entry.bytes }));
  }

  /** The log as text, one request per line: what a failed assertion prints. */
  toString(): string {
    return this.entries
      .map(
        (e) =>
          `${String(e.atMs).padStart(7)} ms ${e.from} ${e.method} ${e.path}${e.query} range=${e.rangeHeader ?? "-"}` +
          ` -> ${e.status} from ${e.start}: ${e.bytes} bytes (${e.userAgent || "no user agent"})`,
      )
      .join("\n");
  }
}

/** Bytes that lie in more than one of the intervals, each counted as often as it was sent again. */
export function bytesSentTwice(intervals: readonly Interval[]): number {
  let twice = 0;
  let coveredTo = 0;
  for (const { start, end } of intervals.toSorted((a, b) => a.start - b.start)) {
    twice += Math.max(0, Math.min(end, coveredTo) - start);
    coveredTo = Math.max(coveredTo, end);
  }
  return twice;
}
