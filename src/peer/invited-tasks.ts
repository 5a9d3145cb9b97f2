/** A keeper's part: it joins what others take, for nobody here, until it has all of it; its store decides how long it stays. */
import { toAppError } from "../base/errors.ts";
import type { Source } from "../protocol/control-messages.ts";
import type { TaskId } from "../protocol/ids.ts";
import type { KeptTask } from "./kept-tasks.ts";
import type { PeerLog } from "./peer.ts";

export interface InvitedTasksDeps {
  /** Tells the supernode what is held of a task that is open here. @returns whether it is */
  readonly announce: (taskId: TaskId) => boolean;
  /** Joins and opens the task, one reader counted. */
  readonly hold: (taskId: TaskId, source: Source) => Promise<KeptTask>;
  /** One reader less. */
  readonly leave: (kept: KeptTask) => void;
  readonly log: PeerLog;
  /** The host stops. */
  readonly signal: AbortSignal;
}

export class InvitedTasks {
  readonly #deps: InvitedTasksDeps;
  readonly #under = new Set<TaskId>();

  constructor(deps: InvitedTasksDeps) {
    this.#deps = deps;
  }

  /** @param url for people, without what is secret in it */
  invited(taskId: TaskId, url: string): void {
    if (this.#deps.announce(taskId) || this.#under.has(taskId) || this.#under.size >= AT_A_TIME_MAX) return;
    this.#under.add(taskId);
    this.#take(taskId, { url, headers: {}, priority: "normal", invited: true })
      // No room, the task is over, no supernode: whoever takes it gets it from others.
      .catch((thrown: unknown) => this.#deps.log.info({ taskId, code: toAppError(thrown).code }, `a task is not kept here: ${toAppError(thrown).message}`))
      .finally(() => this.#under.delete(taskId));
  }

  async #take(taskId: TaskId, source: Source): Promise<void> {
    const { hold, leave, signal } = this.#deps;
    const kept = await hold(taskId, source);
    const { session, stored } = kept.task;
    const isOver = (): boolean => stored.complete || session.failure !== undefined || kept.isWorthless;
    for (let before = -1; !isOver() && !signal.aborted && stored.have.count > before; ) {
      before = stored.have.count;
      // oxlint-disable-next-line no-await-in-loop -- until it is over, or nothing comes
      await session.changed(PATIENCE_MS, signal, isOver);
    }
    leave(kept);
  }
}

/** Downloads for nobody at a time: more only share the same downlink, and each has its files open. */
const AT_A_TIME_MAX = 64;
/** Nothing has come for so long: those who had it are gone. */
const PATIENCE_MS = 120_000;
