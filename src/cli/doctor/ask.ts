/** One HTTP question of the doctor's: bounded in time and size, an answer or the reason why there is none. */
import { type ClientRequest, type IncomingHttpHeaders, type IncomingMessage, request } from "node:http";
import { request as requestByTls } from "node:https";
import type { SiteConnectionOptions } from "../../peer/membership/site-tls.ts";

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** A failed connection, by the system's code (`ECONNREFUSED`), or `TIMEOUT`, or `NOT_HTTP` for bytes that are no HTTP. */
export class Unanswered extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

export type Place = { readonly host: string; readonly port: number } | { readonly socketPath: string };

/**
 * @param tls undefined: in the clear
 * @throws Unanswered
 */
export function ask(place: Place, path: string, timeoutMs = TIMEOUT_MS, tls?: SiteConnectionOptions): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const signal = AbortSignal.timeout(timeoutMs);
  const fail = (thrown: unknown): void => {
    const { code = "", message } = thrown as NodeJS.ErrnoException;
    if (signal.aborted) reject(new Unanswered("TIMEOUT", `no answer within ${timeoutMs / 1000} s`));
    else reject(new Unanswered(code.startsWith("HPE_") || code === "ECONNRESET" ? "NOT_HTTP" : code, message));
  };
  const take = (response: IncomingMessage): void => {
    const chunks: Buffer[] = [];
    let lengthBytes = 0;
    response.on("error", fail).on("end", () => {
      resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) });
    });
    response.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      lengthBytes += chunk.length;
      if (lengthBytes > BODY_BYTES_MAX) response.destroy(new Error(`the answer is longer than ${BODY_BYTES_MAX} bytes`));
    });
  };
  const question = { ...place, path, agent: false, signal } as const;
  const sent: ClientRequest = tls === undefined ? request(question, take) : requestByTls({ ...question, ...tls }, take);
  sent.on("error", fail).end();
  return promise;
}

/** Runs `question`; undefined and the reason when nobody answers. */
export async function answerOrReason(question: Promise<Answer>): Promise<Answer | Unanswered> {
  try {
    return await question;
  } catch (thrown) {
    if (thrown instanceof Unanswered) return thrown;
    throw thrown;
  }
}

export function jsonOf(answer: Answer): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(answer.body.toString("utf8"));
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

const TIMEOUT_MS = 3_000;
/** Metrics and the test image are the longest. */
const BODY_BYTES_MAX = 8 * 1024 * 1024;
