/** The supernode process around the shipping Scheduler, and every peer's control connection to it. */
import { Prng } from "../src/base/prng.ts";
import type { PeerId, TaskId } from "../src/protocol/ids.ts";
import { progressStep } from "../src/protocol/progress-steps.ts";
import { Scheduler, type SchedulerConfig, type SchedulerEffect, type SchedulerInput, type SchedulerSnapshot } from "../src/scheduler/index.ts";
import type { Host, Network } from "./network.ts";
import type { Oracles } from "./oracles.ts";
import type { OriginModel } from "./origin-model.ts";
import type { PeerModel } from "./peer-model.ts";
import type { TaskShape } from "./task-shape.ts";
import type { World } from "./world.ts";

/** A peer tries again within this after its connection ended or could not be made. As in the real control client. */
const RECONNECT_US_MIN = 50_000;
const RECONNECT_US_MAX = 2_000_000;

export interface SupernodeModelDeps {
  readonly world: World;
  readonly network: Network;
  readonly oracles: Oracles;
  readonly tasks: readonly TaskShape[];
  readonly config: SchedulerConfig;
  /** The process of this id, while it runs. */
  readonly find: (peerId: PeerId) => PeerModel | undefined;
  readonly origin: OriginModel;
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
}

export class SupernodeModel {
  readonly #deps: SupernodeModelDeps;
  readonly #prng: Prng;
  #scheduler: Scheduler;
  #seed: number;
  #up = true;
  /** Counts restarts: what was said to a former process is lost. */
  #life = 0;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #requestId = 0;
  /** Tasks that somebody has asked for: a seed takes part in these only, as the real one does. */
  readonly #wanted = new Set<TaskShape>();
  messageCount = 0;
  readonly #sessions = new Map<PeerModel, Session>();
  /** How far each peer has told it is with each task. */
  readonly #toldSteps = new Map<PeerModel, number[]>();

  constructor(deps: SupernodeModelDeps, seed: number) {
    this.#deps = deps;
    this.#seed = seed;
    this.#prng = new Prng(seed);
    this.#scheduler = new Scheduler(deps.config, seed);
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
    const session = { peer, peerId: peer.peerId, life: peer.life, open: true, joined: new Set<TaskShape>() };
    this.#sessions.set(peer, session);
    const { peerId, seed } = peer;
    const { topology } = peer.host;
    this.#say(session, { type: "peerConnected", peerId, seed, dialable: true, topology });
    for (const task of this.#deps.tasks) {
      if (seed && this.#wanted.has(task)) peer.want(task);
      if (peer.isWanted(task)) this.#join(session, task);
    }
  }

  /** One more task is wanted. */
  join(peer: PeerModel, task: TaskShape): void {
    const session = this.#sessions.get(peer);
    if (session?.open === true) this.#join(session, task);
  }

  leave(peer: PeerModel, task: TaskShape): void {
    this.#sayFrom(peer, { type: "taskLeft", peerId: peer.peerId, taskId: task.taskId });
  }

  needNeighbours(peer: PeerModel, task: TaskShape, lost: readonly PeerId[]): void {
    this.#sayFrom(peer, { type: "neighboursLost", peerId: peer.peerId, taskId: task.taskId, lost });
  }

  accuse(peer: PeerModel, accused: PeerId, task: TaskShape, piece: number): void {
    this.#sayFrom(peer, { type: "peerAccused", accuser: peer.peerId, accused, taskId: task.taskId, piece });
  }

  /** When a quarter of the file is here, and all of it, as the control protocol has it. */
  stored(peer: PeerModel, task: TaskShape): void {
    const { taskId, pieceCount } = task;
    const count = peer.diskOf(task).count;
    const step = progressStep(count, pieceCount);
    let told = this.#toldSteps.get(peer);
    if (told === undefined) this.#toldSteps.set(peer, (told = []));
    if ((told[task.index] ?? 0) >= step) return;
    told[task.index] = step;
    this.#sayFrom(peer, { type: "taskProgressed", peerId: peer.peerId, taskId, pieceCount: count, complete: count >= pieceCount });
  }

  /** The connection ends: the supernode hears of it after `afterUs`, the peer, if it lives, at once. */
  disconnect(peer: PeerModel, afterUs: number): void {
    const session = this.#sessions.get(peer);
    if (session === undefined || !session.open) return;
    session.open = false;
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
      session.open = false;
      this.#reconnect(session.peer);
    }
    this.#sessions.clear();
    this.#wanted.clear();
  }

  revive(seed: number): void {
    this.#up = true;
    this.#seed = seed;
    this.#scheduler = new Scheduler(this.#deps.config, seed);
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
      this.#step({ type: "taskJoined", peerId: session.peerId, taskId: task.taskId, requestId, pieceCount, totalCount: task.pieceCount });
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
      this.#step({ type: "taskJoined", peerId, taskId: task.taskId, requestId: this.#requestId, pieceCount, totalCount: task.pieceCount });
    }
  }

  #execute(effect: SchedulerEffect): void {
    const task = this.#taskOf(effect.taskId);
    switch (effect.type) {
      case "assign":
        return this.#tell(effect.peerId, (peer) => peer.assigned(task, effect.neighbours, effect.imports));
      case "assignImports":
        return this.#tell(effect.peerId, (peer) => peer.assignImports(task, effect.imports));
      case "rewire":
        return this.#tell(effect.peerId, (peer) => {
          peer.disconnect(task, effect.drop);
          peer.connect(task, effect.add);
        });
      case "grantLease":
        return this.#tell(effect.holder, (peer) =>
          this.#deps.origin.read(peer, task, () =>
            this.#sayFrom(peer, { type: "originRead", taskId: effect.taskId, holder: effect.holder, outcome: "complete" }),
          ),
        );
      case "expel":
        return this.#tell(effect.peerId, (peer) => {
          this.#deps.oracles.expelled(peer);
          peer.closeTask(task);
        });
      case "grantSpan":
      case "revokeSpan":
      case "nobodyReads":
        throw new Error("peers are asked to read, yet no seed gives up reading here");
      case "invite":
        throw new Error("somebody is invited, yet nobody here is a keeper");
      case "restTask":
        // The seeds join again with the next joiner, as the supernode opens the task for each join.
        return this.#closeSeeds(task);
      case "forgetTask":
        this.#deps.oracles.forgotten(task, [...this.#sessions.values()].filter(({ open, joined }) => open && joined.has(task)).map(({ peer }) => peer));
        return this.#closeSeeds(task);
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
