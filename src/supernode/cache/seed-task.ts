import type { PeerTask } from "../../peer/peer.ts";

/** What the cache needs of a peer's task. */
export type SeedPeerTask = Pick<PeerTask, "stored" | "connect" | "disconnect" | "addOwn" | "setLength" | "release">;
