/** Whom this peer gives pieces: neighbours that have shown a ticket, for as long as it is good. */
import { coarseDelayMs } from "../base/coarse-delay.ts";
import type { TicketClaims } from "../protocol/control-messages.ts";
import type { TaskId } from "../protocol/ids.ts";

interface Admission {
  readonly claims: TicketClaims;
  timer: NodeJS.Timeout;
}

/** One admission per link and task, each ended by a timer. */
export class Admissions {
  readonly #onOver: (linkId: number, taskId: TaskId) => void;
  /** By link, then by task. */
  readonly #links = new Map<number, Map<TaskId, Admission>>();

  /** @param onOver the ticket has run out: no more pieces */
  constructor(onOver: (linkId: number, taskId: TaskId) => void) {
    this.#onOver = onOver;
  }

  /**
   * Replaces the former one.
   *
   * @param remainingMs how long a ticket is still good; asked anew whenever that time is over, 0 ends the admission
   */
  admit(linkId: number, taskId: TaskId, claims: TicketClaims, remainingMs: (claims: TicketClaims) => number): void {
    this.end(linkId, taskId);
    const tasks = this.#links.get(linkId) ?? new Map<TaskId, Admission>();
    this.#links.set(linkId, tasks);
    const look = (): void => {
      const leftMs = remainingMs(claims);
      if (leftMs > 0) {
        admission.timer = setTimeout(look, coarseDelayMs(leftMs)).unref();
        return;
      }
      this.end(linkId, taskId);
      this.#onOver(linkId, taskId);
    };
    const admission: Admission = { claims, timer: setTimeout(look, coarseDelayMs(remainingMs(claims))).unref() };
    tasks.set(taskId, admission);
  }

  /** Without a word: the neighbour left, or nobody gives it anything any more. */
  end(linkId: number, taskId: TaskId): void {
    const tasks = this.#links.get(linkId);
    clearTimeout(tasks?.get(taskId)?.timer);
    tasks?.delete(taskId);
    if (tasks?.size === 0) this.#links.delete(linkId);
  }

  endLink(linkId: number): void {
    for (const { timer } of this.#links.get(linkId)?.values() ?? []) clearTimeout(timer);
    this.#links.delete(linkId);
  }

  close(): void {
    for (const linkId of [...this.#links.keys()]) this.endLink(linkId);
  }
}
