/** A broken invariant: a bug of ours, never a condition of the world. It is not caught; the process restarts. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/**
 * Throws {@link AssertionError} unless `condition` holds. `message` names the invariant, with its values. It is made even
 * when nothing is wrong: what runs for every piece asks with `if` and calls {@link broken}.
 */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) broken(message);
}

export function broken(message: string): never {
  throw new AssertionError(message);
}

/** Closes an exhaustive `switch`: the compiler refuses a missing case, this refuses it at run time. */
export function assertNever(value: never): never {
  throw new AssertionError(`unexpected variant: ${JSON.stringify(value)}`);
}
