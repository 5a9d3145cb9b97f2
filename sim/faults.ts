/** What goes wrong, when, to whom and for how long: drawn from the run's generator, spread over the time the run should take. */
import { Prng } from "../src/base/prng.ts";
import type { Network } from "./network.ts";
import type { SimOptions } from "./options.ts";
import type { OriginModel, OriginReach } from "./origin-model.ts";
import type { PeerModel } from "./peer-model.ts";
import type { SupernodeModel } from "./supernode-model.ts";
import type { TaskShape } from "./task-shape.ts";
import type { World } from "./world.ts";

export interface FaultTargets {
  readonly world: World;
  readonly network: Network;
  readonly supernode: SupernodeModel;
  readonly origin: OriginModel;
  readonly tasks: readonly TaskShape[];
  readonly seedPeer: PeerModel;
  /** Plain and honest. */
  readonly peers: readonly PeerModel[];
  readonly everybody: readonly PeerModel[];
  /** Opens the peer's tasks and connects it. */
  readonly begin: (peer: PeerModel) => void;
}

/** Silence after which a link is given up. As in the real link table. */
const SILENT_US = 6_000_000;

/** @returns when the last of it is over */
export function scheduleFaults(targets: FaultTargets, options: SimOptions, horizonUs: number, prng: Prng): number {
  const { world, network, supernode, origin, tasks, seedPeer, peers, everybody, begin } = targets;
  const { faults, delayUs } = options;
  let endUs = horizonUs;
  const someTime = (): number => prng.below(Math.max(1, Math.floor(horizonUs)));
  const somebody = (): PeerModel => peers[prng.below(peers.length)] as PeerModel;
  /** From shorter than a piece takes to longer than links live. */
  const aWhile = (): number => 1_000 * (20 + prng.below([200, 2_000, 10_000][prng.below(3)] as number));
  /** A killed process's kernel resets its connections; a host that lost its power says nothing. */
  const noticedUs = (): number => (prng.below(2) === 0 ? delayUs : SILENT_US);
  /** Runs `act` some time for each of `count`, if the peer is there then, and `undo` a while later. */
  const afflict = (count: number, act: (peer: PeerModel, lengthUs: number) => boolean, undo?: (peer: PeerModel) => void): void => {
    for (let i = 0; i < count; i++) {
      const peer = somebody();
      const atUs = someTime();
      const lengthUs = aWhile();
      endUs = Math.max(endUs, atUs + lengthUs);
      world.at(atUs, () => {
        if (peer.gone || peer.left || peer.startedUs === undefined || !act(peer, lengthUs)) return;
        peer.disturbed = true;
        if (undo !== undefined) world.after(lengthUs, () => undo(peer));
      });
    }
  };
  const kill = (peer: PeerModel, afterUs: number): boolean => {
    supernode.disconnect(peer, afterUs);
    peer.crash(afterUs);
    return true;
  };
  const leave = (peer: PeerModel): boolean => {
    for (const task of tasks) {
      supernode.leave(peer, task);
      peer.closeTask(task);
    }
    return true;
  };

  afflict(faults.crashes, (peer) => kill(peer, noticedUs()));
  afflict(
    faults.rebirths,
    (peer) => kill(peer, noticedUs()),
    (peer) => {
      peer.revive();
      begin(peer);
    },
  );
  afflict(faults.leaves, (peer) => (peer.left = leave(peer)));
  afflict(faults.returns, leave, (peer) => {
    if (!peer.gone && !peer.left) begin(peer);
  });
  afflict(
    faults.freezes,
    (peer, lengthUs) => {
      if (peer.host.frozen) return false;
      peer.host.frozen = true;
      const { life } = peer;
      if (lengthUs > SILENT_US) {
        world.after(SILENT_US, () => {
          if (peer.life !== life || !peer.host.frozen) return;
          supernode.disconnect(peer, 0);
          for (const other of peer.links.peerIds) peer.links.break(other, 0);
        });
      }
      return true;
    },
    (peer) => network.thaw(peer.host),
  );
  for (let i = 0; i < faults.resets; i++) {
    const peer = somebody();
    const choice = prng.nextUint32();
    world.at(someTime(), () => {
      const linked = peer.links.peerIds;
      if (!peer.gone && linked.length > 0) peer.links.break(linked[choice % linked.length] as PeerModel["peerId"], delayUs);
    });
  }
  afflict(
    faults.slowdowns,
    (peer) => {
      peer.host.upBytesPerSecond /= 10;
      peer.host.downBytesPerSecond /= 10;
      return true;
    },
    (peer) => {
      peer.host.upBytesPerSecond *= 10;
      peer.host.downBytesPerSecond *= 10;
    },
  );
  afflict(
    faults.fullDisks,
    (peer) => (peer.diskFull = true),
    (peer) => (peer.diskFull = false),
  );
  for (let i = 0; i < faults.partitions; i++) {
    const inside = peers.filter(() => prng.below(3) === 0);
    const atUs = someTime();
    const lengthUs = aWhile();
    endUs = Math.max(endUs, atUs + lengthUs);
    world.at(atUs, () => {
      for (const peer of inside) {
        peer.host.island = i + 1;
        peer.disturbed = true;
      }
    });
    world.at(atUs + SILENT_US, () => {
      for (const peer of inside) {
        if (peer.host.island !== i + 1) continue;
        supernode.disconnect(peer, 0);
        peer.links.breakCut();
      }
    });
    world.at(atUs + lengthUs, () => {
      const hosts = inside.map((peer) => peer.host).filter((host) => host.island === i + 1);
      network.heal(hosts, () => {
        for (const peer of everybody) peer.links.resume();
      });
    });
  }
  for (let i = 0; i < faults.restarts; i++) {
    const nextSeed = prng.nextUint32() | 0;
    const atUs = someTime();
    const downUs = 1_000 * (20 + prng.below(3_000));
    endUs = Math.max(endUs, atUs + downUs);
    world.at(atUs, () => {
      if (seedPeer.gone) return;
      supernode.crash();
      seedPeer.crash(delayUs);
      world.after(downUs, () => {
        if (supernode.isOver) return;
        supernode.revive(nextSeed);
        seedPeer.revive();
        supernode.connect(seedPeer);
      });
    });
  }
  for (let i = 0; i < faults.originCuts; i++) {
    const atUs = someTime();
    const lengthUs = aWhile();
    endUs = Math.max(endUs, atUs + lengthUs);
    if (options.originBytesPerSecond > 0) world.at(atUs, () => origin.cut(lengthUs));
  }
  for (let i = 0; i < faults.seedOutages; i++) {
    // From the start in half of the runs: what is read already nobody needs to read.
    const atUs = prng.below(2) === 0 ? 0 : someTime();
    const lengthUs = 1_000 * prng.below(30_000);
    if (options.originBytesPerSecond === 0) continue;
    endUs = Math.max(endUs, atUs + lengthUs);
    world.at(atUs, () => origin.refuseSeed(lengthUs));
  }
  for (let i = 0; i < faults.poorReaders; i++) somebody().originReach = (["slow", "stuck", "none"] as const)[prng.below(3)] as OriginReach;
  for (let i = 0; i < faults.vanishings; i++) {
    const peer = somebody();
    const choice = prng.nextUint32();
    world.at(someTime(), () => {
      if (peer.gone || peer.left || peer.host.frozen || peer.startedUs === undefined) return;
      peer.disturbed = true;
      const which = new Prng(choice);
      for (const task of tasks) {
        const share = which.below(4) + 1;
        const lost = [...peer.diskOf(task)].filter(() => which.below(4) < share);
        peer.lose(task, lost);
      }
    });
  }
  for (let i = 0; i < faults.seedVanishings; i++) {
    const choice = prng.nextUint32();
    world.at(someTime(), () => {
      if (seedPeer.gone) return;
      const which = new Prng(choice);
      for (const task of tasks) {
        const share = which.below(4) + 1;
        const lost = [...seedPeer.diskOf(task)].filter(() => which.below(4) < share);
        origin.lost(task, lost);
        seedPeer.lose(task, lost);
      }
    });
  }
  for (let i = 0; i < faults.undialables; i++) somebody().reach = "closed";
  for (let i = 0; i < faults.walled; i++) somebody().reach = "walled";
  afflict(faults.sleeps, (peer) => {
    for (const task of tasks) peer.sleep(task);
    return false;
  });
  afflict(
    faults.shortages,
    (peer) => (peer.isShort = true),
    (peer) => (peer.isShort = false),
  );
  for (let i = 0; i < faults.endings; i++) {
    world.at(someTime(), () => {
      supernode.isOver = true;
      if (seedPeer.gone) return;
      supernode.crash();
      seedPeer.crash(delayUs);
    });
  }
  return endUs;
}
