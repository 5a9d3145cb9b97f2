/**
 * What the origin is asked about files: a thousand callers with the same question are one question, and its answer is
 * remembered for a while.
 */
import { setTimeout as sleepFor } from "node:timers/promises";
import { AppError, toAppError } from "../../base/errors.ts";
import type { Origin, OriginInfo } from "../../origin/origin.ts";
import { withRetries } from "../../origin/retry.ts";
import type { Source } from "../../protocol/control-messages.ts";
import type { TaskId } from "../../protocol/ids.ts";

export interface OriginQuestionsDeps {
  readonly origin: Pick<Origin, "stat">;
  /** Monotonic. */
  readonly nowMs: () => number;
  readonly random: () => number;
  readonly sleep?: (delayMs: number, signal: AbortSignal) => Promise<void>;
  /** One question, by its outcome: `OK`, `NOT_MODIFIED`, or an error's code. */
  readonly onStat?: (code: string) => void;
}

/** A version that is here, and what the origin said of it. */
export interface KnownVersion {
  readonly taskId: TaskId;
  readonly info: OriginInfo;
}

export interface OriginQuestion {
  /** Equal for callers who would put the very same question. */
  readonly key: string;
  readonly source: Source;
  /** Looks up the version that is here: asked is whether it is still this one. Must not reject. */
  readonly known: () => Promise<KnownVersion | undefined>;
  /** There is something to fall back on: no second attempts, and no long wait. */
  readonly quick: boolean;
  /** A good answer is not asked for again within this time. */
  readonly rememberMs: number;
}

export interface OriginAnswer {
  readonly info: OriginInfo;
  /** The version that the origin confirmed (304). */
  readonly confirmed: TaskId | undefined;
}

interface Asked {
  /** Whose version the answer was. */
  taskId: TaskId | undefined;
  readonly answer: Promise<OriginAnswer>;
  /** Remembered until then; undefined while the question is out. */
  untilMs: number | undefined;
}

export class OriginQuestions {
  readonly #deps: OriginQuestionsDeps;
  readonly #asked = new Map<string, Asked>();
  readonly #closing = new AbortController();
  #forgotMs = 0;

  constructor(deps: OriginQuestionsDeps) {
    this.#deps = deps;
  }

  /** @throws AppError as Origin.stat, after retries; SHUTTING_DOWN */
  ask(question: OriginQuestion): Promise<OriginAnswer> {
    const { nowMs, onStat } = this.#deps;
    const remembered = this.#asked.get(question.key);
    if (remembered !== undefined && (remembered.untilMs === undefined || remembered.untilMs > nowMs())) return remembered.answer;
    const asked: Asked = { taskId: undefined, answer: this.#ask(question), untilMs: undefined };
    this.#asked.set(question.key, asked);
    asked.answer.then(
      ({ confirmed }) => {
        onStat?.(confirmed === undefined ? "OK" : "NOT_MODIFIED");
        asked.untilMs = nowMs() + question.rememberMs;
        this.#forgetOld();
      },
      (error: unknown) => {
        onStat?.(toAppError(error).code);
        asked.untilMs = nowMs() + FAILURE_MS;
        this.#forgetOld();
      },
    );
    return asked.answer;
  }

  /** Says of which version the answer was, for {@link forget}. */
  answeredFor(key: string, taskId: TaskId): void {
    const asked = this.#asked.get(key);
    if (asked !== undefined) asked.taskId = taskId;
  }

  /** The origin no longer has this version: what it said of it is not repeated to the next caller. */
  forget(taskId: TaskId): void {
    for (const [key, asked] of this.#asked) {
      if (asked.taskId === taskId) this.#asked.delete(key);
    }
  }

  close(): void {
    this.#closing.abort();
  }

  async #ask({ source, quick, ...question }: OriginQuestion): Promise<OriginAnswer> {
    const { origin, random, sleep } = this.#deps;
    const known = await question.known();
    const timeout = AbortSignal.timeout(quick ? QUICK_STAT_MS : STAT_MS);
    const signal = AbortSignal.any([timeout, this.#closing.signal]);
    const request = { url: source.url, headers: source.headers };
    try {
      const info = await withRetries(() => origin.stat(request, signal, known?.info), {
        attempts: quick ? 1 : STAT_ATTEMPTS,
        signal,
        sleep: sleep ?? ((delayMs, stop) => sleepFor(delayMs, undefined, { signal: stop })),
        random,
        maxDelayMs: 10_000,
      });
      return { info, confirmed: known !== undefined && info === known.info ? known.taskId : undefined };
    } catch (error) {
      if (this.#closing.signal.aborted) throw new AppError("SHUTTING_DOWN", "the supernode is shutting down", { cause: error });
      if (timeout.aborted) throw new AppError("TIMEOUT", "the origin did not say what the file is in time", { cause: error });
      throw error;
    }
  }

  /** Drops answers that are no longer remembered; the oldest of the others when there are too many. */
  #forgetOld(): void {
    const nowMs = this.#deps.nowMs();
    if (nowMs - this.#forgotMs < FORGET_MS && this.#asked.size <= ASKED_COUNT_MAX) return;
    this.#forgotMs = nowMs;
    for (const [key, { untilMs }] of this.#asked) {
      const isOver = untilMs !== undefined && (untilMs <= nowMs || this.#asked.size > ASKED_COUNT_MAX);
      if (isOver) this.#asked.delete(key);
    }
  }
}

/** A failure is soon asked about again: it may have been a slip. */
const FAILURE_MS = 1_000;
const FORGET_MS = 1_000;
const ASKED_COUNT_MAX = 50_000;
const STAT_ATTEMPTS = 4;
const STAT_MS = 60_000;
const QUICK_STAT_MS = 5_000;
