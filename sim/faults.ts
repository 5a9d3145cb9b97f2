/** What goes wrong, and when: drawn from the run's generator, spread over the time the run should take. */
import type { Prng } from "../src/base/prng.ts";
import type { SimOptions } from "./options.ts";
import type { PeerModel } from "./peer-model.ts";
import type { SupernodeModel } from "./supernode-model.ts";
import type { World } from "./world.ts";

export interface FaultTargets {
  readonly world: World;
  readonly supernode: SupernodeModel;
  readonly peers: readonly PeerModel[];
  readonly thaw: (peer: PeerModel) => void;
}

/** Silence after which a link is given up. As in the real link table. */
const SILENT_US = 6_000_000;

export function scheduleFaults(targets: FaultTargets, options: SimOptions, horizonUs: number, prng: Prng): void {
  const { world, supernode, peers, thaw } = targets;
  const someTime = (): number => prng.below(Math.max(1, Math.floor(horizonUs)));
  const somebody = (): PeerModel => peers[prng.below(peers.length)] as PeerModel;

  for (let i = 0; i < options.crashCount; i++) {
    const peer = somebody();
    // A killed process's kernel resets its connections; a host that lost its power says nothing.
    const afterUs = prng.below(2) === 0 ? options.delayUs : SILENT_US;
    world.at(someTime(), () => {
      if (peer.gone) return;
      peer.crash(afterUs);
      world.after(afterUs, () => supernode.disconnected(peer));
    });
  }
  for (let i = 0; i < options.freezeCount; i++) {
    const peer = somebody();
    // Shorter than a piece to longer than links live.
    const lengthUs = 1_000 * (20 + prng.below([200, 2_000, 10_000][prng.below(3)] as number));
    world.at(someTime(), () => {
      if (peer.gone || peer.host.frozen) return;
      peer.host.frozen = true;
      peer.wasFrozen = true;
      world.after(lengthUs, () => {
        if (!peer.gone) thaw(peer);
      });
      if (lengthUs <= SILENT_US) return;
      world.after(SILENT_US, () => {
        for (const other of peer.linkedPeers) peer.breakLink(other, 0);
      });
    });
  }
  for (let i = 0; i < options.resetCount; i++) {
    const peer = somebody();
    const choice = prng.nextUint32();
    world.at(someTime(), () => {
      const linked = peer.linkedPeers;
      if (peer.gone || linked.length === 0) return;
      peer.breakLink(linked[choice % linked.length] as PeerModel["peerId"], options.delayUs);
    });
  }
  for (let i = 0; i < options.restartCount; i++) {
    const seed = prng.nextUint32() | 0;
    const delays = new Map(peers.map((peer) => [peer, prng.below(1_000_000)]));
    world.at(someTime(), () => supernode.restart(seed, (peer) => delays.get(peer) ?? 0));
  }
}
