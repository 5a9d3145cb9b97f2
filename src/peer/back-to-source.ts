/** A host reads the origin itself where the swarm has failed it, and may. */
import { AppError, toAppError } from "../base/errors.ts";
import { redactUrl } from "../origin/origin-url.ts";
import type { Content, ContentInfo, ContentRequest } from "./content.ts";
import type { DirectOpener } from "./direct-content.ts";
import type { PeerLog } from "./peer.ts";

export interface BackToSourceDeps {
  readonly direct: Pick<DirectOpener, "open" | "stat">;
  readonly log: PeerLog;
  /** The swarm cannot be used, for this reason, and the origin is read instead. */
  readonly onDirect?: ((why: AppError) => void) | undefined;
}

export class BackToSource {
  readonly #deps: BackToSourceDeps;

  constructor(deps: BackToSourceDeps) {
    this.#deps = deps;
  }

  /**
   * @param thrown what the swarm said
   * @param startedMs when it was asked, by performance.now()
   * @throws AppError that, BACK_SOURCE_FORBIDDEN, and as DirectOpener
   */
  async open(request: ContentRequest, thrown: unknown, startedMs: number, signal: AbortSignal): Promise<Content> {
    const { direct, log, onDirect } = this.#deps;
    const why = toAppError(thrown);
    assertAllowed(request, why);
    log.warn({ url: redactUrl(request.source.url), why: why.message }, "reading the origin directly");
    onDirect?.(why);
    return await direct.open(request, signal, startedMs);
  }

  /** As {@link open}, for who wants to know what the content is. */
  async stat(request: ContentRequest, thrown: unknown, signal: AbortSignal): Promise<ContentInfo> {
    assertAllowed(request, toAppError(thrown));
    return await this.#deps.direct.stat(request, signal);
  }
}

/** What the origin itself has said is final; everything else about the swarm may be got round. */
function assertAllowed({ backToSource }: ContentRequest, why: AppError): void {
  const isFinal = why.code.startsWith("ORIGIN_") || FINAL_CODES.has(why.code);
  if (backToSource && !isFinal) return;
  if (backToSource || why.code !== "SUPERNODE_UNREACHABLE") throw why;
  throw new AppError("BACK_SOURCE_FORBIDDEN", `${why.message}; and reading the origin directly is not allowed`, { cause: why });
}

const FINAL_CODES: ReadonlySet<string> = new Set([
  "ABORTED",
  "DIGEST_MISMATCH",
  "HOST_UNRESOLVABLE",
  "SCHEME_UNSUPPORTED",
  "TLS_FAILED",
  "URL_INVALID",
]);
