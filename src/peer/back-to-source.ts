/** Whether a host may read the origin itself where the swarm has failed it. */
import { AppError } from "../base/errors.ts";
import type { ContentRequest } from "./content.ts";

/** What the origin itself has said is final; everything else about the swarm may be got round. */
export function mayGoDirect(request: ContentRequest, error: AppError): boolean {
  if (!request.backToSource) return false;
  return !error.code.startsWith("ORIGIN_") && !FINAL_CODES.has(error.code);
}

const FINAL_CODES: ReadonlySet<string> = new Set([
  "ABORTED",
  "DIGEST_MISMATCH",
  "HOST_UNRESOLVABLE",
  "SCHEME_UNSUPPORTED",
  "TLS_FAILED",
  "URL_INVALID",
]);

/** What is said to who may not. */
export function backSourceError(request: ContentRequest, error: AppError): AppError {
  const swarmFailed = error.code === "SUPERNODE_UNREACHABLE";
  if (request.backToSource || !swarmFailed) return error;
  return new AppError("BACK_SOURCE_FORBIDDEN", `${error.message}; and reading the origin directly is not allowed`, {
    cause: error,
  });
}
