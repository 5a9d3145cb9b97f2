/** Retries of a read that makes progress: attempts count from the last whole piece, not from the start. */
import { AppError } from "../../base/errors.ts";
import { withRetries } from "../../origin/retry.ts";

export interface PersistentReadOptions {
  readonly signal: AbortSignal;
  /** Whole pieces so far; more of them after an attempt than before is progress. */
  readonly wholePieces: () => number;
  /** What the origin has cost is more than the file is worth. */
  readonly isOverBudget: () => boolean;
  /** An error that no further attempt can mend, whatever the attempt's own was. */
  readonly fatal: () => AppError | undefined;
  readonly sleep: (delayMs: number, signal: AbortSignal) => Promise<void>;
  readonly random: () => number;
}

/**
 * Calls `once` until it succeeds, an error is final, or five attempts in a row brought nothing.
 *
 * @throws what `fatal` says, else the last attempt's error; ORIGIN_CHANGED at once, though a new task may well succeed
 */
export async function readPersistently(once: () => Promise<void>, options: PersistentReadOptions): Promise<void> {
  const { signal, wholePieces, isOverBudget, fatal, sleep, random } = options;
  const attempt = async (): Promise<"done" | "progressed"> => {
    const wholeBefore = wholePieces();
    try {
      await once();
      return "done";
    } catch (error) {
      const reason = fatal();
      if (reason !== undefined) throw new Final(reason);
      if (!(error instanceof AppError) || !error.retriable || signal.aborted) throw error;
      // Asking again would bring the other version, as if it were this one.
      if (error.code === "ORIGIN_CHANGED" || isOverBudget()) throw new Final(error);
      if (wholePieces() === wholeBefore) throw error;
      return "progressed";
    }
  };
  try {
    for (let outcome = "progressed"; outcome !== "done"; ) {
      // oxlint-disable-next-line no-await-in-loop -- attempts follow each other
      outcome = await withRetries(attempt, { attempts: ATTEMPTS, signal, sleep, random, maxDelayMs: RETRY_MS_MAX });
    }
  } catch (error) {
    throw error instanceof Final ? error.error : error;
  }
}

/** An origin that promised ranges and does not keep to it: the file can still be read from its start. */
export function isNoRanges(error: unknown): boolean {
  return error instanceof AppError && error.code === "ORIGIN_PROTOCOL" && error.details["ranges"] === false;
}

/** Of an unknown length, all whole pieces were there: what remains is to see the end. */
export function isBeyondEnd(error: unknown): boolean {
  return error instanceof AppError && error.code === "RANGE_NOT_SATISFIABLE";
}

/** Carries an error past the retries. */
class Final extends Error {
  readonly error: AppError;

  constructor(error: AppError) {
    super(error.message);
    this.error = error;
  }
}

const ATTEMPTS = 5;
/** A longer Retry-After is not waited for. */
const RETRY_MS_MAX = 10_000;
