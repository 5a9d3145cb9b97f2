import type { SigningKey } from "../../peer/membership/credentials.ts";
import type { TaskId } from "../../protocol/ids.ts";

interface SignedLength {
  readonly lengthBytes: number;
  readonly signature: Uint8Array;
}

/**
 * Signatures of lengths, of the files last asked for: everybody who joins a task is told the same one, and to sign costs as
 * much as the rest of a join.
 */
export class LengthSignatures {
  readonly #key: Pick<SigningKey, "signLength">;
  /** The latest last. */
  readonly #signed = new Map<TaskId, SignedLength>();

  constructor(key: Pick<SigningKey, "signLength">) {
    this.#key = key;
  }

  of(taskId: TaskId, lengthBytes: number): Uint8Array {
    const known = this.#signed.get(taskId);
    if (known?.lengthBytes === lengthBytes) return known.signature;
    const signature = this.#key.signLength(taskId, lengthBytes);
    this.#signed.delete(taskId);
    this.#signed.set(taskId, { lengthBytes, signature });
    if (this.#signed.size > COUNT_MAX) this.#signed.delete(this.#signed.keys().next().value as TaskId);
    return signature;
  }
}

/** About 300 KiB. */
const COUNT_MAX = 1024;
