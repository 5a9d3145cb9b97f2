/** The supernode process around the shipping Scheduler, and every peer's control connection to it. */
import { Prng } from "../src/base/prng.ts";
import type { PeerId, TaskId } from "../src/protocol/ids.ts";
import type { PieceSet } from "../src/protocol/piece-set.ts";
import { progressStep } from "../src/protocol/progress-steps.ts";
import type { Scheduler, SchedulerConfig, SchedulerEffect, SchedulerInput, SchedulerSnapshot } from "../src/scheduler/index.ts";
import { LeaseDeskModel } from "./lease-desk-model.ts";
import type { Host } from "./host.ts";
import type { Network } from "./network.ts";
import type { Oracles } from "./oracles.ts";
import type { OriginModel } from "./origin-model.ts";
import type { PeerModel } from "./peer-model.ts";
import { SpanReader } from "./span-reader.ts";
import type { TaskShape } from "./task-shape.ts";
import type { World } from "./world.ts";

/** A peer tries again within this after its connection ended or could not be made. As in the real control client. */
const RECONNECT_US_MIN = 50_000;
const RECONNECT_US_MAX = 2_000_000;
/** Whose download has failed asks for it again within twice this. */
const AGAIN_US_MIN = 1_000_000;

/** The brain, or one with something wrong. */
export type SchedulerBrain = Pick<Scheduler, "step" | "nextDeadlineMs" | "snapshot">;

export interface SupernodeModelDeps {
  readonly world: World;
  readonly network: Network;
  readonly oracles: Oracles;
  readonly tasks: readonly TaskShape[];
  readonly config: SchedulerConfig;
  /** The process of this id, while it runs. */
  readonly find: (peerId: PeerId) => PeerModel | undefined;
  readonly origin: OriginModel;
  readonly newScheduler: (config: SchedulerConfig, seed: number) => SchedulerBrain;
  /** What the seed, in the same process, holds. */
  readonly seedDisk: (task: TaskShape) => PieceSet;
  readonly isLengthKnown: (task: TaskShape) => boolean;
  /** Where it stands: the seed's host. */
  readonly host: Host;
  readonly record:
    | ((seed: number, input: SchedulerInput, nowMs: number, effects: readonly SchedulerEffect[]) => void)
    | undefined;
}

/** One control connection; what was said over one that has ended is lost. */
interface Session {
  readonly peer: PeerModel;
  readonly peerId: PeerId;
  readonly life: number;
  open: boolean;
  /** Tasks whose join has arrived. */
  readonly joined: Set<TaskShape>;
  /** Spans that the peer reads, by lease; what it does ends with the connection. */
  readonly reading: Map<number, SpanReader>;
}

export class SupernodeModel {
  readonly #deps: SupernodeModelDeps;
  readonly #prng: Prng;
  #scheduler: SchedulerBrain;
  readonly #desk: LeaseDeskModel;
  #seed: number;
  #up = true;
  /** Counts restarts: what was said to a former process is lost. */
  #life = 0;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #requestId = 0;
  /** Tasks that somebody has asked for: a seed takes part in these only, as the real one does. */
  readonly #wanted = new Set<TaskShape>();
  messageCount = 0;
  /** It will not come back. */
  isOver = false;
  readonly #sessions = new Map<PeerModel, Session>();
  /** How far each peer has told it is with each task. */
  readonly #toldSteps = new Map<PeerModel, number[]>();

  constructor(deps: SupernodeModelDeps, seed: number) {
    this.#deps = deps;
    this.#seed = seed;
    this.#prng = new Prng(seed);
    this.#scheduler = deps.newScheduler(deps.config, seed);
    this.#desk = new LeaseDeskModel({
      world: deps.world,
      oracles: deps.oracles,
      seedDisk: deps.seedDisk,
      push: (input) => this.#push(input),
      onNobody: (task) => this.#taskFailed(task),
    });
  }

  snapshot(): SchedulerSnapshot {
    return this.#scheduler.snapshot();
  }

  nextDeadlineMs(): number | undefined {
    return this.#scheduler.nextDeadlineMs();
  }

  /** The peer's process connects, and joins every task that it wants. */
  connect(peer: PeerModel): void {
    if (peer.gone || this.#sessions.get(peer)?.open === true) return;
    if (!this.#up || this.#deps.network.isCut(peer.host, this.#deps.host)) return this.#reconnect(peer);
    const session = { peer, peerId: peer.peerId, life: peer.life, open: true, joined: new Set<TaskShape>(), reading: new Map<number, SpanReader>() };
    this.#sessions.set(peer, session);
    const { peerId, seed } = peer;
    const { topology } = peer.host;
    this.#say(session, { type: "peerConnected", peerId, seed, keeper: peer.keeper, dialable: peer.reach !== "closed", topology });
    for (const task of this.#deps.tasks) {
      if (seed && this.#wanted.has(task)) peer.want(task);
      if (peer.isWanted(task) && !peer.isAsleep(task)) this.#join(session, task);
    }
  }

  /** One more task is wanted. */
  join(peer: PeerModel, task: TaskShape): void {
    const session = this.#sessions.get(peer);
    if (session?.open === true) this.#join(session, task);
  }

  leave(peer: PeerModel, task: TaskShape): void {
    const session = this.#sessions.get(peer);
    if (session?.open !== true) return;
    this.messageCount++;
    this.#carry(session, () => {
      session.joined.delete(task);
      this.#step({ type: "taskLeft", peerId: session.peerId, taskId: task.taskId });
    });
  }

  needNeighbours(peer: PeerModel, task: TaskShape, lost: readonly PeerId[]): void {
    this.#sayFrom(peer, { type: "neighboursLost", peerId: peer.peerId, taskId: task.taskId, lost });
  }

  accuse(peer: PeerModel, accused: PeerId, task: TaskShape, piece: number): void {
    this.#sayFrom(peer, { type: "peerAccused", accuser: peer.peerId, accused, taskId: task.taskId, piece });
  }

  /** When a quarter of the file is here, and all of it, as the control protocol has it. */
  stored(peer: PeerModel, task: TaskShape): void {
    if (!peer.knowsLength(task)) return;
    const step = progressStep(peer.diskOf(task).count, task.pieceCount);
    if ((this.#toldSteps.get(peer)?.[task.index] ?? 0) < step) this.#tellProgress(peer, task);
  }

  /** Pieces are gone: that is told at once. */
  lost(peer: PeerModel, task: TaskShape): void {
    if (peer.knowsLength(task)) this.#tellProgress(peer, task);
    if (peer.seed) this.#desk.lost(task);
  }

  #tellProgress(peer: PeerModel, task: TaskShape): void {
    const { taskId, pieceCount } = task;
    const { count } = peer.diskOf(task);
    let told = this.#toldSteps.get(peer);
    if (told === undefined) this.#toldSteps.set(peer, (told = []));
    told[task.index] = progressStep(count, pieceCount);
    this.#sayFrom(peer, { type: "taskProgressed", peerId: peer.peerId, taskId, pieceCount: count, complete: count >= pieceCount });
  }

  /** The connection ends: the supernode hears of it after `afterUs`, the peer, if it lives, at once. */
  disconnect(peer: PeerModel, afterUs: number): void {
    const session = this.#sessions.get(peer);
    if (session === undefined || !session.open) return;
    this.#end(session);
    const life = this.#life;
    this.#deps.world.after(afterUs, () => {
      // The same process may be back by now, over another connection.
      const present = this.#sessions.get(peer);
      const back = present !== undefined && present !== session && present.peerId === session.peerId;
      if (life === this.#life && !back) this.#step({ type: "peerDisconnected", peerId: session.peerId });
    });
    this.#reconnect(peer);
  }

  /** The process is gone, all soft state with it; a disk is the seed's affair. */
  crash(): void {
    this.#up = false;
    this.#life++;
    this.#timerDueMs = Number.POSITIVE_INFINITY;
    for (const session of this.#sessions.values()) {
      if (!session.open) continue;
      this.#end(session);
      this.#reconnect(session.peer);
    }
    this.#desk.crash();
    this.#sessions.clear();
    this.#wanted.clear();
  }

  revive(seed: number): void {
    this.#up = true;
    this.#seed = seed;
    this.#scheduler = this.#deps.newScheduler(this.#deps.config, seed);
  }

  #end(session: Session): void {
    session.open = false;
    for (const reader of session.reading.values()) reader.stop();
    session.reading.clear();
  }

  #reconnect(peer: PeerModel): void {
    peer.soon(RECONNECT_US_MIN + this.#prng.below(RECONNECT_US_MAX - RECONNECT_US_MIN), () => this.connect(peer));
  }

  #join(session: Session, task: TaskShape): void {
    const { peer } = session;
    this.#requestId++;
    const requestId = this.#requestId;
    const pieceCount = peer.diskOf(task).count;
    this.messageCount++;
    this.#carry(session, () => {
      session.joined.add(task);
      this.#step({ type: "taskJoined", peerId: session.peerId, taskId: task.taskId, requestId, pieceCount, totalCount: this.#totalOf(task) });
    });
  }

  #sayFrom(peer: PeerModel, input: SchedulerInput): void {
    const session = this.#sessions.get(peer);
    if (session?.open === true) this.#say(session, input);
  }

  #say(session: Session, input: SchedulerInput): void {
    this.messageCount++;
    this.#carry(session, () => this.#step(input));
  }

  #tell(peerId: PeerId, act: (peer: PeerModel) => void): void {
    const peer = this.#deps.find(peerId);
    const session = peer && this.#sessions.get(peer);
    if (peer === undefined || session?.open !== true) return;
    this.messageCount++;
    this.#carry(session, () =>
      this.#deps.network.hand(peer.host, () => {
        if (peer.life === session.life) act(peer);
      }),
    );
  }

  /** Over the connection, one way or the other; waits where the path is broken, is lost with the connection. */
  #carry(session: Session, arrive: () => void): void {
    const { world, network, host } = this.#deps;
    const go = (): void => {
      if (!session.open) return;
      if (network.isCut(session.peer.host, host)) network.hold(session.peer.host, host, go);
      else arrive();
    };
    world.after(network.options.delayUs, go);
  }

  #step(input: SchedulerInput): void {
    if (input.type === "taskJoined") this.#asked(this.#taskOf(input.taskId));
    const { nowMs } = this.#deps.world;
    const effects = this.#scheduler.step(input, nowMs);
    this.#deps.record?.(this.#seed, input, nowMs, effects);
    for (const effect of effects) this.#execute(effect);
    this.#arm();
  }

  /** Somebody asks for the task: the seed, in the supernode's own process, takes part from now on. */
  #asked(task: TaskShape): void {
    if (this.#wanted.has(task)) return;
    this.#wanted.add(task);
    for (const { open, peer, peerId, joined } of this.#sessions.values()) {
      if (!open || !peer.seed) continue;
      peer.want(task);
      joined.add(task);
      this.#requestId++;
      const pieceCount = peer.diskOf(task).count;
      this.#step({ type: "taskJoined", peerId, taskId: task.taskId, requestId: this.#requestId, pieceCount, totalCount: this.#totalOf(task) });
    }
  }

  #totalOf(task: TaskShape): number | undefined {
    return this.#deps.isLengthKnown(task) ? task.pieceCount : undefined;
  }

  #execute(effect: SchedulerEffect): void {
    const task = this.#taskOf(effect.taskId);
    switch (effect.type) {
      case "assign": {
        this.#deps.oracles.handedOut(effect.neighbours, this.#deps.find);
        const isLengthKnown = this.#deps.isLengthKnown(task);
        return this.#tell(effect.peerId, (peer) => {
          if (isLengthKnown) peer.learnLength(task);
          peer.assigned(task, effect.neighbours, effect.imports);
        });
      }
      case "assignImports":
        return this.#tell(effect.peerId, (peer) => peer.assignImports(task, effect.imports));
      case "rewire":
        this.#deps.oracles.handedOut(effect.add, this.#deps.find);
        return this.#tell(effect.peerId, (peer) => {
          peer.disconnect(task, effect.drop);
          peer.connect(task, effect.add);
        });
      case "grantLease":
        return this.#tell(effect.holder, (peer) =>
          this.#seedReads(peer, task),
        );
      case "expel":
        return this.#tell(effect.peerId, (peer) => {
          this.#deps.oracles.expelled(peer);
          peer.closeTask(task);
        });
      case "grantSpan":
        if (this.#desk.granted(task, effect.leaseId, effect.holder, effect)) this.#tell(effect.holder, (peer) => this.#lend(peer, task, effect));
        return;
      case "revokeSpan":
        this.#desk.revoked(task, effect.leaseId);
        return this.#tell(effect.holder, (peer) => {
          this.#sessions.get(peer)?.reading.get(effect.leaseId)?.stop();
          this.#sessions.get(peer)?.reading.delete(effect.leaseId);
        });
      case "nobodyReads":
        return this.#desk.nobodyReads(task);
      case "invite":
        return this.#tell(effect.peerId, (peer) => {
          if (peer.left) return;
          if (!peer.isWanted(task)) peer.want(task);
          this.join(peer, task);
        });
      case "restTask":
        this.#desk.end(task);
        // The seeds join again with the next joiner, as the supernode opens the task for each join.
        return this.#closeSeeds(task);
      case "forgetTask":
        this.#desk.end(task);
        this.#deps.oracles.forgotten(task, [...this.#sessions.values()].filter(({ open, joined }) => open && joined.has(task)).map(({ peer }) => peer));
        return this.#closeSeeds(task);
    }
  }

  /** Not within an effect of the scheduler; lost with the process. */
  #push(input: SchedulerInput): void {
    const life = this.#life;
    this.#deps.world.after(0, () => {
      if (life === this.#life && this.#up) this.#step(input);
    });
  }

  /** What it cannot read peers do; while they do, it does not. */
  #seedReads(seed: PeerModel, task: TaskShape): void {
    const { taskId } = task;
    const { peerId: holder } = seed;
    const ended = (outcome: "complete" | "failed"): void => {
      if (seed.gone || seed.peerId !== holder) return;
      // What is not known to its end is not lent.
      if (outcome === "complete") this.#tellLength(seed, task);
      else if (seed.knowsLength(task)) this.#desk.begin(task);
      else this.#taskFailed(task);
      this.#push({ type: "originRead", taskId, holder, outcome });
    };
    if (this.#desk.isActive(task)) ended("failed");
    else this.#deps.origin.read(seed, task, ended);
  }

  #lend(peer: PeerModel, task: TaskShape, { leaseId, firstPiece, endPiece }: Extract<SchedulerEffect, { type: "grantSpan" }>): void {
    const session = this.#sessions.get(peer);
    // The supernode has been restarted since, and remembers of no lease.
    if (session === undefined) return;
    const { peerId } = session;
    const { origin, oracles } = this.#deps;
    const bring = (piece: number, answer: (signed: boolean) => void): void => {
      const uploadUs = (task.lengthOf(piece) * 1e6) / peer.host.upBytesPerSecond;
      peer.soon(uploadUs, () =>
        this.#carry(session, () =>
          this.#desk.take(task, leaseId, peerId, piece, (signed) => this.#carry(session, () => peer.soon(0, () => answer(signed)))),
        ),
      );
    };
    const failed = (): void => this.#carry(session, () => this.#desk.failed(task, leaseId, peerId));
    session.reading.set(leaseId, new SpanReader({ peer, task, origin, oracles, bring, failed }, { firstPiece, endPiece }));
  }

  #tellLength(seed: PeerModel, task: TaskShape): void {
    if (seed.knowsLength(task)) return;
    seed.learnLength(task);
    for (const { open, peer, joined } of this.#sessions.values()) if (open && !peer.seed && joined.has(task)) this.#tell(peer.peerId, (told) => told.learnLength(task));
  }

  /** All who wait for it are told, give up, and try again a moment later, as people do. */
  #taskFailed(task: TaskShape): void {
    for (const { open, peer, joined } of this.#sessions.values()) {
      if (!open || peer.seed || !joined.has(task)) continue;
      this.#tell(peer.peerId, (told) => {
        if (!told.isWanted(task) || told.diskOf(task).count >= task.pieceCount) return;
        this.leave(told, task);
        told.closeTask(task);
        told.soon(AGAIN_US_MIN + this.#prng.below(AGAIN_US_MIN), () => {
          if (told.left) return;
          told.want(task);
          this.join(told, task);
        });
      });
    }
  }

  #closeSeeds(task: TaskShape): void {
    this.#wanted.delete(task);
    for (const { peer } of this.#sessions.values()) if (peer.seed) peer.closeTask(task);
  }

  #taskOf(taskId: TaskId): TaskShape {
    return this.#deps.tasks.find((task) => task.taskId === taskId) as TaskShape;
  }

  #arm(): void {
    const dueMs = this.#scheduler.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
    if (dueMs === this.#timerDueMs) return;
    this.#timerDueMs = dueMs;
    if (dueMs === Number.POSITIVE_INFINITY) return;
    const scheduler = this.#scheduler;
    this.#deps.world.at(dueMs * 1000, () => {
      if (this.#timerDueMs !== dueMs || scheduler !== this.#scheduler || !this.#up) return;
      this.#timerDueMs = Number.POSITIVE_INFINITY;
      this.#step({ type: "deadlineReached" });
    });
  }
}
