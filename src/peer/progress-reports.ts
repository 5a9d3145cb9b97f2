/** What the supernode hears of how far a task has come here: at a few steps, when pieces are gone, and once it is whole, with the books. */
import type { Logger } from "pino";
import type { PeerToSupernode } from "../protocol/control-messages.ts";
import type { TaskId } from "../protocol/ids.ts";
import { progressStep } from "../protocol/progress-steps.ts";
import { explainTask } from "./explain.ts";
import type { KeptTask } from "./kept-tasks.ts";

export interface ProgressReportsDeps {
  readonly kept: (taskId: TaskId) => KeptTask | undefined;
  readonly send: (message: Extract<PeerToSupernode, { type: "progress" }>) => void;
  readonly log: Pick<Logger, "info">;
}

export class ProgressReports {
  readonly #deps: ProgressReportsDeps;

  constructor(deps: ProgressReportsDeps) {
    this.#deps = deps;
  }

  /** A piece has come, or it is known how many there are. */
  gained(taskId: TaskId): void {
    const kept = this.#deps.kept(taskId);
    if (kept === undefined) return;
    const { session, stored } = kept.task;
    if (session.pieceCount === undefined) return;
    const step = progressStep(stored.have.count, session.pieceCount);
    if (step <= kept.toldStep) return;
    kept.toldStep = step;
    if (!stored.complete) return this.#tell(kept);
    // Pieces that came to the disk together are counted one after the other, in this turn: then it is known who gave the last of them.
    setImmediate(() => {
      if (this.#deps.kept(taskId) === kept && stored.complete) this.#finished(kept);
    });
  }

  /** Pieces are gone: that is told at once. */
  lost(taskId: TaskId): void {
    const kept = this.#deps.kept(taskId);
    const pieceCount = kept?.task.session.pieceCount;
    if (kept === undefined || pieceCount === undefined) return;
    kept.toldStep = progressStep(kept.task.stored.have.count, pieceCount);
    this.#tell(kept);
  }

  #finished(kept: KeptTask): void {
    const { session, stored } = kept.task;
    const explanation = explainTask(session, session.sources());
    this.#deps.log.info({ taskId: session.taskId, url: stored.record.displayUrl, ...explanation }, "a task is complete");
    this.#tell(kept, explanation);
  }

  #tell({ task: { session, stored } }: KeptTask, explanation?: ReturnType<typeof explainTask>): void {
    const { seedBytes, peerBytes, originBytes } = session.sources();
    this.#deps.send({
      type: "progress",
      taskId: session.taskId,
      pieceCount: stored.have.count,
      complete: stored.complete,
      sources: { seedBytes, peerBytes, originBytes },
      ...(explanation === undefined ? {} : { explanation }),
    });
  }
}
