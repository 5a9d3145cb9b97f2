import { AppError, type ErrorCode, type ErrorDetails } from "../../base/errors.ts";
import type { Content } from "../../peer/content.ts";
import type { Explanation } from "../../protocol/explanation.ts";
import type { ByteSources } from "../../protocol/control-messages.ts";

/** How a request of the local API is doing: the body of `GET /v1/requests/{requestId}`. */
export interface LocalRequestStatus {
  readonly state: "opening" | "running" | "done" | "failed";
  /** Bytes handed to the client. */
  readonly sentBytes: number;
  readonly sources: ByteSources & { readonly cacheBytes: number };
  /** What its time goes by, or went by. */
  readonly explanation?: Explanation | undefined;
  /** Why it failed. */
  readonly error?: { readonly code: ErrorCode; readonly message: string; readonly details: ErrorDetails };
}

/** The requests that run, and for a minute those that have ended. */
export class LocalRequests {
  readonly #byId = new Map<string, LocalRequest>();
  readonly #expiries = new Map<LocalRequest, NodeJS.Timeout>();

  /** @throws AppError USAGE when the id is in use */
  begin(requestId: string): LocalRequest {
    if (this.#byId.has(requestId))
      throw new AppError("USAGE", `the request id ${requestId} is in use; choose a new one for each request`);
    const request: LocalRequest = new LocalRequest(() => this.#expire(requestId, request));
    this.#byId.set(requestId, request);
    return request;
  }

  find(requestId: string): LocalRequest | undefined {
    return this.#byId.get(requestId);
  }

  close(): void {
    for (const timer of this.#expiries.values()) clearTimeout(timer);
  }

  #expire(requestId: string, ended: LocalRequest): void {
    const timer = setTimeout(() => this.#forget(requestId, ended), KEPT_MS);
    this.#expiries.set(ended, timer.unref());
    // A client that asks in a loop must not fill the memory within the minute.
    for (const [id, request] of this.#byId) {
      if (this.#byId.size <= KEPT_COUNT_MAX) break;
      if (request.isEnded) this.#forget(id, request);
    }
  }

  /** Its timer, too, which holds on to it. */
  #forget(requestId: string, ended: LocalRequest): void {
    clearTimeout(this.#expiries.get(ended));
    this.#expiries.delete(ended);
    this.#byId.delete(requestId);
  }
}

/** One request, from its arrival to a minute after its end. */
export class LocalRequest {
  sentBytes = 0;
  readonly #onEnd: () => void;
  #content: Content | undefined;
  #end: { readonly sources: LocalRequestStatus["sources"]; readonly explanation: Explanation | undefined; readonly error: AppError | undefined } | undefined;

  constructor(onEnd: () => void) {
    this.#onEnd = onEnd;
  }

  get isEnded(): boolean {
    return this.#end !== undefined;
  }

  opened(content: Content): void {
    this.#content = content;
  }

  /** Keeps the final figures and lets go of the content. */
  ended(error: AppError | undefined): void {
    this.#end = { sources: this.#sources(), explanation: this.#content?.explanation(), error };
    this.#content = undefined;
    this.#onEnd();
  }

  status(): LocalRequestStatus {
    const { sentBytes } = this;
    if (this.#end === undefined)
      return { state: this.#content === undefined ? "opening" : "running", sentBytes, sources: this.#sources(), explanation: this.#content?.explanation() };
    const { sources, explanation, error } = this.#end;
    if (error === undefined) return { state: "done", sentBytes, sources, explanation };
    return {
      state: "failed",
      sentBytes,
      sources,
      explanation,
      error: { code: error.code, message: error.message, details: error.details },
    };
  }

  #sources(): LocalRequestStatus["sources"] {
    return this.#content?.sources() ?? { seedBytes: 0, peerBytes: 0, originBytes: 0, cacheBytes: 0 };
  }
}

const KEPT_MS = 60_000;
const KEPT_COUNT_MAX = 4096;
