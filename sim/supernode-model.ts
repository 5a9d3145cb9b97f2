/** The supernode process around the shipping Scheduler, and every peer's control connection to it. */
import type { PeerId } from "../src/protocol/ids.ts";
import { Scheduler, type SchedulerConfig, type SchedulerEffect, type SchedulerInput } from "../src/scheduler/index.ts";
import type { OriginModel } from "./origin-model.ts";
import type { PeerModel, TaskShape } from "./peer-model.ts";
import type { World } from "./world.ts";

export interface SupernodeModelDeps {
  readonly world: World;
  readonly task: TaskShape;
  readonly config: SchedulerConfig;
  readonly peers: ReadonlyMap<string, PeerModel>;
  readonly origin: OriginModel;
  /** One way between a peer and the supernode. */
  readonly delayUs: number;
  readonly record:
    | ((seed: number, input: SchedulerInput, nowMs: number, effects: readonly SchedulerEffect[]) => void)
    | undefined;
}

export class SupernodeModel {
  readonly #deps: SupernodeModelDeps;
  #scheduler: Scheduler;
  #seed: number;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #requestId = 0;
  /** Counts restarts: what was said to or by a former life is lost. */
  #life = 0;
  messageCount = 0;
  readonly #toldQuarters = new Map<PeerId, number>();

  constructor(deps: SupernodeModelDeps, seed: number) {
    this.#deps = deps;
    this.#seed = seed;
    this.#scheduler = new Scheduler(deps.config, seed);
  }

  connect(peer: PeerModel): void {
    const { taskId, pieceCount } = this.#deps.task;
    const { peerId, seed } = peer;
    this.#say({ type: "peerConnected", peerId, seed, dialable: true, topology: {} });
    this.#requestId++;
    this.#say({
      type: "taskJoined",
      peerId,
      taskId,
      requestId: this.#requestId,
      pieceCount: peer.have.count,
      totalCount: pieceCount,
    });
  }

  disconnected(peer: PeerModel): void {
    this.#say({ type: "peerDisconnected", peerId: peer.peerId });
  }

  needNeighbours(peer: PeerModel, lost: readonly PeerId[]): void {
    this.#say({ type: "neighboursLost", peerId: peer.peerId, taskId: this.#deps.task.taskId, lost });
  }

  accuse(peer: PeerModel, accused: PeerId, piece: number): void {
    this.#say({ type: "peerAccused", accuser: peer.peerId, accused, taskId: this.#deps.task.taskId, piece });
  }

  /** At each quarter of the file, as the control protocol has it. */
  progressed(peer: PeerModel): void {
    const { taskId, pieceCount } = this.#deps.task;
    const quarter = Math.floor((peer.have.count * 4) / pieceCount);
    if ((this.#toldQuarters.get(peer.peerId) ?? 0) >= quarter) return;
    this.#toldQuarters.set(peer.peerId, quarter);
    this.#say({ type: "taskProgressed", peerId: peer.peerId, taskId, pieceCount: peer.have.count, complete: peer.complete });
  }

  /** All soft state is lost; every peer comes back after its own delay. */
  restart(seed: number, delaysUs: (peer: PeerModel) => number): void {
    this.#life++;
    this.#seed = seed;
    this.#scheduler = new Scheduler(this.#deps.config, seed);
    this.#timerDueMs = Number.POSITIVE_INFINITY;
    for (const peer of this.#deps.peers.values()) {
      if (peer.gone || peer.startedUs === undefined) continue;
      const reconnect = (): void => {
        if (peer.gone) return;
        if (peer.host.frozen) peer.host.inbox.push(reconnect);
        else this.connect(peer);
      };
      this.#deps.world.after(delaysUs(peer), reconnect);
    }
  }

  #say(input: SchedulerInput): void {
    const life = this.#life;
    this.messageCount++;
    this.#deps.world.after(this.#deps.delayUs, () => {
      if (life === this.#life) this.#step(input);
    });
  }

  #step(input: SchedulerInput): void {
    const { nowMs } = this.#deps.world;
    const effects = this.#scheduler.step(input, nowMs);
    this.#deps.record?.(this.#seed, input, nowMs, effects);
    for (const effect of effects) this.#execute(effect);
    this.#arm();
  }

  #execute(effect: SchedulerEffect): void {
    switch (effect.type) {
      case "assign":
        return this.#tell(effect.peerId, (peer) => peer.connect(this.#found(effect.neighbours)));
      case "rewire":
        return this.#tell(effect.peerId, (peer) => {
          peer.disconnect(effect.drop);
          peer.connect(this.#found(effect.add));
        });
      case "grantLease":
        return this.#tell(effect.holder, (peer) =>
          this.#deps.origin.read(peer, () =>
            this.#say({ type: "originRead", taskId: effect.taskId, holder: effect.holder, outcome: "complete" }),
          ),
        );
      case "expel":
        throw new Error(`${effect.peerId} is expelled, yet nobody lies here`);
      case "grantSpan":
      case "revokeSpan":
      case "nobodyReads":
        throw new Error("peers are asked to read, yet no seed's disk fails here");
      case "forgetTask":
        return;
    }
  }

  #tell(peerId: PeerId, act: (peer: PeerModel) => void): void {
    this.messageCount++;
    this.#deps.world.after(this.#deps.delayUs, () => {
      const peer = this.#deps.peers.get(peerId);
      if (peer === undefined || peer.gone) return;
      if (peer.host.frozen) peer.host.inbox.push(() => act(peer));
      else act(peer);
    });
  }

  #found(ids: readonly PeerId[]): PeerModel[] {
    return ids.map((id) => this.#deps.peers.get(id)).filter((peer) => peer !== undefined);
  }

  #arm(): void {
    const dueMs = this.#scheduler.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
    if (dueMs === this.#timerDueMs) return;
    this.#timerDueMs = dueMs;
    if (dueMs === Number.POSITIVE_INFINITY) return;
    const life = this.#life;
    this.#deps.world.at(dueMs * 1000, () => {
      if (this.#timerDueMs !== dueMs || life !== this.#life) return;
      this.#timerDueMs = Number.POSITIVE_INFINITY;
      this.#step({ type: "deadlineReached" });
    });
  }
}
