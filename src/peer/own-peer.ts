/** A peer for as long as one dfget runs. */
import type { Origin } from "../origin/origin.ts";
import type { OwnPeerConfig } from "./config.ts";
import type { ContentOpener } from "./content.ts";
import type { PeerLog } from "./peer.ts";
import { PeerNode } from "./peer-node.ts";

/** @throws AppError LISTEN_FAILED, DISK_FAILED */
export async function createOwnPeer(
  config: OwnPeerConfig,
  deps: { readonly origin: Origin; readonly log: PeerLog },
): Promise<{ readonly opener: ContentOpener; close(): Promise<void> }> {
  const node = await PeerNode.start({ ...config, program: "dfget" }, deps);
  return { opener: node, close: () => node.close() };
}
