/** Why uplinks are idle: what each plain peer's uplink is at, looked at twice a second of virtual time. */
import type { PeerModel } from "./peer-model.ts";

const KINDS = ["on the wire", "sending, held up", "agreed", "offered", "nothing to offer", "nothing here"] as const;
type Kind = (typeof KINDS)[number];

/** @returns a line for a person: the share of the peers in each state */
export function describeUplinks(nowMs: number, peers: readonly PeerModel[]): string {
  const counts = new Map<Kind, number>();
  for (const peer of peers) {
    const kind = stateOf(peer);
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  const shares = KINDS.map((kind) => `${kind} ${Math.round(((counts.get(kind) ?? 0) * 100) / peers.length)} %`);
  return `${nowMs} ms: ${shares.join(", ")}`;
}

/** Held up: by windows, which are full because the receivers' downlinks are. */
function stateOf(peer: PeerModel): Kind {
  if (peer.host.transmitting) return "on the wire";
  const { tasks } = peer.snapshot();
  const states = new Set(tasks.flatMap(({ outgoing }) => outgoing.map(({ state }) => state)));
  if (states.has("sending")) return "sending, held up";
  if (states.has("agreed")) return "agreed";
  if (states.has("offered")) return "offered";
  return tasks.some(({ haveCount }) => haveCount > 0) ? "nothing to offer" : "nothing here";
}
