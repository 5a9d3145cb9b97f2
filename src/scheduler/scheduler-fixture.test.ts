/** A scheduler on virtual time, and short words for what the world tells it. */
import type { PeerId, TaskId } from "../protocol/ids.ts";
import { DEFAULT_SCHEDULER_CONFIG, Scheduler, type SchedulerConfig, type SchedulerEffect, type SchedulerInput, type Topology } from "./index.ts";

export const TASK = "0".repeat(64) as TaskId;
export const PIECES = 100;

/** A scheduler under test and the world's view of it: who is connected, and what the effects added up to. */
export class World {
  readonly scheduler: Scheduler;
  nowMs = 0;
  #requestId = 0;

  constructor(config: Partial<SchedulerConfig> = {}, seed = 1) {
    this.scheduler = new Scheduler({ ...DEFAULT_SCHEDULER_CONFIG, ...config }, seed);
  }

  step(input: SchedulerInput): readonly SchedulerEffect[] {
    return this.scheduler.step(input, this.nowMs);
  }

  connect(name: string, traits: { seed?: boolean; keeper?: boolean; dialable?: boolean; topology?: Topology } = {}): PeerId {
    const peerId = name as PeerId;
    const { seed = false, keeper = false, dialable = true, topology = {} } = traits;
    this.step({ type: "peerConnected", peerId, seed, keeper, dialable, topology });
    return peerId;
  }

  join(peerId: PeerId, pieceCount: number | undefined): readonly SchedulerEffect[] {
    this.#requestId++;
    return this.step({ type: "taskJoined", peerId, taskId: TASK, requestId: this.#requestId, pieceCount, totalCount: PIECES });
  }

  enter(name: string, traits: Parameters<World["connect"]>[1] = {}, pieceCount = 0): readonly SchedulerEffect[] {
    return this.join(this.connect(name, traits), pieceCount);
  }

  lost(name: string, ...lost: string[]): readonly SchedulerEffect[] {
    return this.step({ type: "neighboursLost", peerId: name as PeerId, taskId: TASK, lost: lost as PeerId[] });
  }

  accuse(accuser: string, accused: string): readonly SchedulerEffect[] {
    return this.step({ type: "peerAccused", accuser: accuser as PeerId, accused: accused as PeerId, taskId: TASK, piece: 3 });
  }

  /** Lets time pass, with every deadline kept. */
  wait(ms: number): readonly SchedulerEffect[] {
    const effects: SchedulerEffect[] = [];
    const endMs = this.nowMs + ms;
    for (;;) {
      const dueMs = this.scheduler.nextDeadlineMs();
      if (dueMs === undefined || dueMs > endMs) break;
      this.nowMs = Math.max(this.nowMs, dueMs);
      effects.push(...this.step({ type: "deadlineReached" }));
    }
    this.nowMs = endMs;
    return effects;
  }

  neighboursOf(name: string): readonly string[] {
    const task = this.scheduler.snapshot().tasks.find((candidate) => candidate.taskId === TASK);
    return task?.members.find((member) => member.peerId === name)?.neighbours ?? [];
  }

  want(...spans: (readonly [firstPiece: number, endPiece: number])[]): readonly SchedulerEffect[] {
    return this.step({ type: "readersWanted", taskId: TASK, spans: spans.map(([firstPiece, endPiece]) => ({ firstPiece, endPiece })) });
  }

  leaseHolder(): string | undefined {
    return this.scheduler.snapshot().tasks.find((candidate) => candidate.taskId === TASK)?.leaseHolder;
  }
}
