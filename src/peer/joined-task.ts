/** From the supernode's messages about a task to what is kept of it here. */
import { AppError, isErrorCode } from "../base/errors.ts";
import { redactUrl } from "../origin/origin-url.ts";
import type { Source } from "../protocol/control-messages.ts";
import type { JoinedMessage, TaskFailedMessage } from "./control/control-client.ts";
import type { TaskRecord } from "./store/piece-store.ts";

/** @param publicKey that signs the task's pieces and length: the supernode's */
export function recordOf({ task, lengthSignature }: JoinedMessage, source: Source, publicKey: Uint8Array): TaskRecord {
  return {
    taskId: task.taskId,
    displayUrl: redactUrl(source.url),
    lengthBytes: task.lengthBytes ?? undefined,
    lengthSignature: lengthSignature === null ? undefined : Buffer.from(lengthSignature, "base64"),
    pieceLengthBytes: task.pieceLengthBytes,
    contentType: task.contentType ?? undefined,
    digest: task.digest ?? undefined,
    headers: task.headers,
    publicKey,
  };
}

/** Why the supernode gave a task up. A code of another version is INTERNAL here. */
export function failureOf({ code, message, details }: TaskFailedMessage): AppError {
  return new AppError(isErrorCode(code) ? code : "INTERNAL", message, { details });
}
