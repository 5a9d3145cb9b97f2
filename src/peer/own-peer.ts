/** A peer for as long as one dfget runs. */
import type { OwnPeerConfig, TlsConfig } from "./config.ts";
import type { ContentOpener } from "./content.ts";
import type { SiteTls } from "./membership/site-tls.ts";
import type { PeerLog } from "./peer.ts";
import { PeerNode, type PeerNodeDeps } from "./peer-node.ts";

/** @throws AppError LISTEN_FAILED, DISK_FAILED, CONFIG_INVALID */
export async function createOwnPeer(
  config: OwnPeerConfig,
  deps: Pick<PeerNodeDeps, "origin" | "log" | "onDirect">,
): Promise<{ readonly opener: ContentOpener; close(): Promise<void> }> {
  const tls = config.tls === undefined ? undefined : await openTls(config.tls, config.joinToken, deps.log);
  try {
    const node = await PeerNode.start({ ...config, program: "dfget" }, { ...deps, tls });
    return { opener: node, close: () => node.close().finally(() => tls?.close()) };
  } catch (thrown) {
    tls?.close();
    throw thrown;
  }
}

/** Loaded only where it is used: who starts a dfget waits for it. */
async function openTls(config: TlsConfig, token: string | undefined, log: PeerLog): Promise<SiteTls> {
  const { SiteTls: Tls } = await import("./membership/site-tls.ts");
  return new Tls({ config, token, log });
}
