/**
 * The other policy, for comparison only: the receiver asks. It chooses what it lacks and from whom, a few pieces at a
 * time; the sender serves what it was asked for in order, `uploadCount` at a time. In place of accepting an offer a
 * receiver "accepts" unasked, which the sender takes for the question; nothing is offered. Meant for worlds without faults.
 */
import { Prng } from "../src/base/prng.ts";
import type { TaskId } from "../src/protocol/ids.ts";
import type { PieceSet } from "../src/protocol/piece-set.ts";
import { type LinkId, placeShareOf, type SwarmConfig, type SwarmEffect, type SwarmInput, type SwarmSnapshot } from "../src/swarm/index.ts";
import type { Brain } from "./peer-ports.ts";

/** Pieces asked of one neighbour at a time: one being sent and one to follow, so that its uplink need not wait for us. */
const ASKED_COUNT_MAX = 2;
/** An answer that takes this long is asked of somebody else. */
const PATIENCE_MS = 5_000;

interface Asked {
  readonly linkId: LinkId;
  readonly sinceMs: number;
}

interface AskingTask {
  readonly taskId: TaskId;
  readonly pieceCount: number;
  readonly pieceLengthBytes: number;
  readonly have: PieceSet;
  readonly remotes: Map<LinkId, PieceSet>;
  readonly asked: Map<number, Asked>;
}

interface Question {
  readonly linkId: LinkId;
  readonly taskId: TaskId;
  readonly piece: number;
}

export class AskingSwarm implements Brain {
  readonly #config: SwarmConfig;
  readonly #prng: Prng;
  readonly #tasks = new Map<TaskId, AskingTask>();
  /** Questions in the order of their coming; the first `#sendingCount` are being answered. */
  readonly #questions: Question[] = [];
  #sending: Question[] = [];
  #effects: SwarmEffect[] = [];
  #dueMs: number | undefined;

  constructor(config: SwarmConfig, seed: number) {
    this.#config = config;
    this.#prng = new Prng(seed);
  }

  /** Who asks needs nobody to know. */
  wanted(): readonly number[] {
    return [];
  }

  step(input: SwarmInput, nowMs: number): readonly SwarmEffect[] {
    this.#effects = [];
    this.#apply(input, nowMs);
    for (const task of this.#tasks.values()) this.#ask(task, nowMs);
    while (this.#sendingPlaces < this.#config.uploadCount) {
      const question = this.#questions.shift();
      if (question === undefined) break;
      this.#sending.push(question);
      this.#effects.push({ type: "startSend", ...question });
    }
    const waits = [...this.#tasks.values()].some((task) => task.have.count < task.pieceCount);
    this.#dueMs = waits ? Math.max(this.#dueMs ?? 0, nowMs + 100) : undefined;
    return this.#effects;
  }

  get #sendingPlaces(): number {
    return this.#sending.reduce((sum, { taskId }) => sum + placeShareOf(this.#tasks.get(taskId)?.pieceLengthBytes ?? 0), 0);
  }

  nextDeadlineMs(): number | undefined {
    return this.#dueMs;
  }

  #apply(input: SwarmInput, nowMs: number): void {
    switch (input.type) {
      case "taskOpened": {
        const { taskId, have, pieceLengthBytes } = input;
        this.#tasks.set(taskId, { taskId, have, pieceCount: input.pieceCount ?? 0, pieceLengthBytes, remotes: new Map(), asked: new Map() });
        return;
      }
      case "taskClosed":
        this.#tasks.delete(input.taskId);
        return this.#forgetQuestions((question) => question.taskId === input.taskId);
      case "remoteJoined":
        this.#tasks.get(input.taskId)?.remotes.set(input.linkId, input.have);
        return;
      case "remoteHas":
        for (const piece of input.pieces) this.#tasks.get(input.taskId)?.remotes.get(input.linkId)?.add(piece);
        return;
      case "remoteLeft":
      case "linkClosed":
        for (const task of this.#tasks.values()) {
          if (input.type === "remoteLeft" && input.taskId !== task.taskId) continue;
          task.remotes.delete(input.linkId);
          for (const [piece, { linkId }] of task.asked) if (linkId === input.linkId) task.asked.delete(piece);
          this.#forgetQuestions((question) => question.linkId === input.linkId && question.taskId === task.taskId);
        }
        return;
      case "offerAccepted":
        this.#questions.push({ linkId: input.linkId, taskId: input.taskId, piece: input.piece });
        return;
      case "sendCancelled":
      case "sendFinished":
        return this.#forgetQuestions((question) => question.linkId === input.linkId && question.taskId === input.taskId && question.piece === input.piece);
      case "pieceStored": {
        const task = this.#tasks.get(input.taskId);
        if (task === undefined) return;
        task.asked.delete(input.piece);
        if (!task.have.add(input.piece)) return;
        for (const linkId of task.remotes.keys()) this.#effects.push({ type: "sendHave", linkId, taskId: task.taskId, pieces: [input.piece] });
        return;
      }
      case "pieceLost":
      case "pieceRejected":
        this.#tasks.get(input.taskId)?.asked.delete(input.piece);
        return;
      case "deadlineReached":
        this.#dueMs = undefined;
        for (const task of this.#tasks.values()) this.#lookForLate(task, nowMs);
        return;
      default:
    }
  }

  #lookForLate(task: AskingTask, nowMs: number): void {
    for (const [piece, { linkId, sinceMs }] of task.asked) {
      if (nowMs - sinceMs < PATIENCE_MS) continue;
      task.asked.delete(piece);
      this.#effects.push({ type: "cancelReceive", linkId, taskId: task.taskId, piece });
    }
  }

  /** Asks the neighbour with the fewest questions of ours for the rarest piece it has, while we may ask for more. */
  #ask(task: AskingTask, nowMs: number): void {
    const open = new Map<LinkId, number>();
    for (const { linkId } of task.asked.values()) open.set(linkId, (open.get(linkId) ?? 0) + 1);
    const links = this.#prng.shuffle([...task.remotes.keys()]).sort((a, b) => (open.get(a) ?? 0) - (open.get(b) ?? 0));
    for (const linkId of links) {
      if (task.asked.size * placeShareOf(task.pieceLengthBytes) >= this.#config.downloadCountMax || (open.get(linkId) ?? 0) >= ASKED_COUNT_MAX) return;
      const piece = this.#rarest(task, task.remotes.get(linkId) as PieceSet);
      if (piece === undefined) continue;
      task.asked.set(piece, { linkId, sinceMs: nowMs });
      this.#effects.push({ type: "sendAccept", linkId, taskId: task.taskId, piece });
    }
  }

  #rarest(task: AskingTask, theirs: PieceSet): number | undefined {
    let rarest: number | undefined;
    let least = Number.POSITIVE_INFINITY;
    for (const piece of theirs) {
      if (task.have.has(piece) || task.asked.has(piece)) continue;
      let copies = this.#prng.nextUint32() / 2 ** 32;
      for (const have of task.remotes.values()) if (have.has(piece)) copies++;
      if (copies >= least) continue;
      rarest = piece;
      least = copies;
    }
    return rarest;
  }

  #forgetQuestions(which: (question: Question) => boolean): void {
    this.#sending = this.#sending.filter((question) => !which(question));
    for (let at = this.#questions.length - 1; at >= 0; at--) if (which(this.#questions[at] as Question)) this.#questions.splice(at, 1);
  }

  snapshot(): SwarmSnapshot {
    const tasks = [...this.#tasks.values()].map((task) => ({
      taskId: task.taskId,
      pieceLengthBytes: task.pieceLengthBytes,
      haveCount: task.have.count,
      pieceCount: task.pieceCount,
      incoming: [],
      outgoing: [],
      offersSent: 0,
      offersDeclined: 0,
      late: 0,
      doubled: 0,
    }));
    return { links: [], tasks };
  }
}
